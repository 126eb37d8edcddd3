"""The files of an APFS container, told by libfsapfs, in a process of its own.

A container has volumes: each is a folder of the root here, by its name.
"""

from __future__ import annotations

import stat
from functools import partial
from typing import TYPE_CHECKING, Any

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.filesystems.attributes import check_length
from imprint.filesystems.contents import OnDemand, Run, extents_of, held, mapped, told_pairs
from imprint.filesystems.isolated import Isolated
from imprint.filesystems.tree import (
    TYPES_BY_MODE,
    Entry,
    Notes,
    Times,
    Type,
    collected,
    note_of,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Attribute


class ApfsTree:
    """See :class:`~imprint.filesystems.tree.FileTree`.

    Attributes:
        notes: what could not be followed.
        process: the library.
    """

    def __init__(self, volume: Source) -> None:
        """The container that is all of ``volume``.

        Raises:
            UnsupportedFeatureError: if the library is missing.
            CorruptImageError: if it makes nothing of the volume.
            ReadError: if that cannot be read.
        """
        self.notes: list[str] = Notes()
        self._volume = volume
        self.process = Isolated(volume, "apfs.library", library="pyfsapfs")
        self.close = self.process.close
        """Ends the process, which ends by itself when nobody needs this any more."""
        try:
            self._volumes = self._asked_volumes()
        except (CorruptImageError, ReadError) as failure:
            self.close()
            raise type(failure)(
                f"its files cannot be listed: {failure.args[0]}", name=volume.name
            ) from failure

    def _asked_volumes(self) -> list[Entry]:
        found: dict[str, Entry] = {}
        for index, (name, row, why) in enumerate(self.process.ask("volumes")):
            path = "/" + (_part(name).strip(".") or f"volume {index}")
            path = f"{path} {index}" if path in found else path
            if row is None:
                self.notes.append(f"{path}: {why}")
                continue
            found[path] = _entry(path, index + 1, row)._replace(type=Type.DIRECTORY)
        return list(found.values())

    def root(self) -> Entry:
        """The folder of all volumes."""
        return Entry("/", 0, Type.DIRECTORY, 0)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder; deleted names are not told."""
        if folder.subvolume == 0:
            yield from self._volumes
            return
        told, is_all = 0, False
        while not is_all:
            try:
                answer = self.process.ask("folder", folder.subvolume - 1, folder.inode, told)
            except (FormatError, ReadError) as failure:
                self.notes.append(note_of(folder.path, failure.args[0]))
                return
            unread = self.process.failure  # the next is that of whoever takes what is yielded
            rows, count, is_all, notes = answer
            told += count
            for row in rows:
                yield _entry(f"{folder.path}/{_part(row[0])}", folder.subvolume, row)
            for name, why, is_unread in notes:
                self.notes.append(note_of(f"{folder.path}/{name}", (is_unread and unread) or why))

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file; see :class:`~imprint.filesystems.tree.FileTree`."""
        path = entry.path if stream is None else f"{entry.path}:{stream}"
        name = f"{self._volume.name}: {shown(path)}"
        if entry.subvolume == 0:
            raise CorruptImageError("expected a file, found a container", name=name)
        if stream is None and entry.is_plain:
            return mapped(self._volume, extents_of(entry), entry.size, name=name)
        if stream is None and entry.type is Type.LINK:
            return held(name, (entry.target or "").encode())
        where = (entry.subvolume - 1, entry.inode, stream)
        size, flat = self.process.ask("content", *where)
        if flat is None:
            return OnDemand(name, size, partial(self._read, *where))
        numbers = iter(flat)
        runs = (Run(*told) for told in zip(numbers, numbers, numbers, strict=True))
        return mapped(self._volume, runs, size, name=name)

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        """Extended attributes; see :class:`~imprint.filesystems.tree.FileTree`."""
        return collected(self._attributes(entry), entry.path, self.notes)

    def _attributes(self, entry: Entry) -> Iterator[Attribute]:
        if entry.subvolume == 0:
            return
        where = (entry.subvolume - 1, entry.inode)
        for name, length, number in self.process.ask("attributes", *where):
            yield f"user.{name}", partial(self._value, *where, number, length)

    def _value(self, volume: int, inode: int, number: int, length: int) -> bytes:
        check_length(length)
        found: bytes = b""
        if length:
            found = self.process.ask("attribute", volume, inode, number, length)
        return found

    def _read(self, volume: int, inode: int, stream: str | None, offset: int, length: int) -> bytes:
        found: bytes = self.process.ask("read", volume, inode, stream, offset, length)
        return found


def _part(name: str) -> str:
    """A name as a part of a path."""
    return name.replace("/", "\\x2f").replace("\0", "")


def _entry(path: str, subvolume: int, row: Any) -> Entry:  # noqa: ANN401 - parsed JSON
    _, inode, mode, size, *times, facts, is_plain, target, streams, places = row
    owner, group, links = facts
    return Entry(
        path,
        inode,
        TYPES_BY_MODE.get(stat.S_IFMT(mode), Type.OTHER),
        len(target.encode()) if target is not None else size,
        Times(*times),
        stat.S_IMODE(mode),
        owner,
        group,
        links,
        told_pairs(places),
        target,
        tuple(streams),
        is_plain=is_plain,
        subvolume=subvolume,
    )


def open_tree(volume: Source, _kind: str) -> ApfsTree:
    """The files of a container; see :func:`imprint.filesystems.trees.tree`."""
    return ApfsTree(volume)
