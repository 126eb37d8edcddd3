"""Which files differ between two states of a disk, when it is known which of its ranges differ.

Both states are walked at once, folder by folder. What is told of a file by its folder and its inode
decides; only of a file that seems to be the same, and lies on a range that differs, is
content read, and only there.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError, UnsupportedFeatureError
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.core.limits import SPAN_BYTES
from imprint.endpoints.files_on import from_disk, names_of, tell_notes, touched
from imprint.endpoints.survey import describe
from imprint.endpoints.used import VolumeTree
from imprint.filesystems.tree import Type, shown
from imprint.filesystems.walking import paired

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Passphrase, Source
    from imprint.core.runs import Runs
    from imprint.endpoints.used import Volume
    from imprint.filesystems.tree import Entry, FileTree


class Change(enum.Enum):
    """What happened to a file."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    MOVED = "moved"
    """It looks the same, and lies elsewhere on the disk; its content was not compared."""


@dataclass(frozen=True)
class ChangedFile:
    """A file that differs.

    Attributes:
        where: its volume, as :class:`~imprint.endpoints.used.Volume` calls it.
        change: what happened to it.
        path: of it; ``None``: something in the volume differs, and files cannot be named.
        entry: what is known of it: of the newer state, unless it was removed.
        why: what differs: ``type``, ``size``, ``mtime``, ``mode``, ``owner``, ``inode``,
            ``content``.
    """

    where: str
    change: Change
    path: str | None
    entry: Entry | None = None
    why: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """For scripts."""
        entry = self.entry
        return {
            "change": self.change.value,
            "where": self.where,
            "path": self.path,
            "type": None if entry is None else entry.type.value,
            "inode": None if entry is None else entry.inode,
            "size": None if entry is None else entry.size,
            "why": list(self.why),
        }


_REFUSALS: Final = (FormatError, ReadError)


def changed_files(
    old: Source,
    new: Source,
    ranges: Runs,
    passphrase: Passphrase,
    *,
    on_event: OnEvent = ignore,
) -> Iterator[ChangedFile]:
    """Files that differ, volume by volume, folders before what is in them.

    Of folders, it is told that they were added or removed, or have another owner or mode: that
    something was added to them is told of what was added. Tables that a file system calls files are
    left out. Volumes are the same if they have the same name: partition, or logical volume.

    Args:
        old: the disk as it was.
        new: as it is.
        ranges: at least all that differs, in bytes of the disk.
        passphrase: asks for secrets of encrypted volumes; if it refuses, they have no names.
        on_event: told of what could not be followed.

    Raises:
        UnsupportedFeatureError: if a module that tells names is missing.
    """
    before, after = (
        {item.where: item for item in VolumeTree(disk, describe(disk), passphrase, tell).volumes()}
        for disk, tell in ((old, ignore), (new, on_event))
    )
    for where in {**before, **after}:
        pair = before.get(where), after.get(where)
        if any(item is not None and from_disk(item, ranges) for item in pair):
            yield from _in_volume(where, *pair, ranges, on_event)


def _in_volume(
    where: str, old: Volume | None, new: Volume | None, ranges: Runs, on_event: OnEvent
) -> Iterator[ChangedFile]:
    first, second = (_files(item, on_event) for item in (old, new))
    if (old is not None and first is None) or (new is not None and second is None):
        if old is None or new is None:
            change = Change.ADDED if old is None else Change.REMOVED
        else:
            change = Change.CHANGED
        yield ChangedFile(where, change, None)
        return
    compared = _Contents(old, new, ranges)
    for before, after in paired(first, second):
        found = _judged(where, before, after, compared)
        if found is not None:
            yield found
    for volume, files in ((old, first), (new, second)):
        if volume is not None and files is not None:
            tell_notes(volume, files, on_event)


def _files(volume: Volume | None, on_event: OnEvent) -> FileTree | None:
    if volume is None:
        return None
    try:
        return names_of(volume)
    except UnsupportedFeatureError:
        raise
    except _REFUSALS as failure:
        on_event(Finding(Severity.WARNING, volume.where, str(failure.args[0])))
        return None


def _judged(
    where: str, before: Entry | None, after: Entry | None, contents: _Contents
) -> ChangedFile | None:
    entry = after or before
    assert entry is not None
    if entry.type is Type.SYSTEM:
        return None
    if before is None or after is None:
        change = Change.ADDED if before is None else Change.REMOVED
        return ChangedFile(where, change, shown(entry.path), entry)
    why = _differences(before, after)
    if not why and before.extents == after.extents and contents.differ(after):
        why.append("content")
    if why:
        return ChangedFile(where, Change.CHANGED, shown(entry.path), entry, tuple(why))
    if before.extents != after.extents and after.type is not Type.DIRECTORY:
        return ChangedFile(where, Change.MOVED, shown(entry.path), entry)
    return None


def _differences(before: Entry, after: Entry) -> list[str]:
    """What is told of both and differs."""
    why = []
    if before.type is not after.type:
        why.append("type")
    elif after.type is not Type.DIRECTORY:
        why += [name for name in ("size", "inode") if getattr(before, name) != getattr(after, name)]
        if before.times.modified != after.times.modified:
            why.append("mtime")
    if before.mode != after.mode:
        why.append("mode")
    if (before.owner, before.group) != (after.owner, after.group):
        why.append("owner")
    return why


class _Contents:
    """Compares the bytes of files that seem to be the same, where the disks differ at all."""

    def __init__(self, old: Volume | None, new: Volume | None, ranges: Runs) -> None:
        self._old = old
        self._new = new
        self._ranges = None if new is None else from_disk(new, ranges)

    def differ(self, entry: Entry) -> bool:
        """Whether some of its bytes differ; it has the same extents on both disks."""
        if self._old is None or self._new is None or entry.type is Type.DIRECTORY:
            return False
        assert self._ranges is not None
        runs = touched(entry, self._ranges)
        if runs is None:
            return False
        return any(
            self._bytes(self._old, at, count) != self._bytes(self._new, at, count)
            for start, length in runs
            for at in range(start, start + length, SPAN_BYTES)
            for count in (min(SPAN_BYTES, start + length - at),)
        )

    @staticmethod
    def _bytes(volume: Volume, offset: int, length: int) -> bytearray:
        """Of a volume; what is behind its end is left out."""
        buffer = bytearray(max(0, min(length, volume.source.size - offset)))
        if buffer:
            volume.source.readinto(memoryview(buffer), offset)
        return buffer
