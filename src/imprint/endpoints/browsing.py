"""The volumes of an opened disk and the files in them; nothing is mounted, nothing is written."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from imprint.core.errors import (
    ImagingError,
    NotFoundError,
    ReadError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import OnEvent, ignore
from imprint.endpoints.inside import leaves
from imprint.endpoints.location import Location, parse
from imprint.endpoints.open import Access, open_source
from imprint.endpoints.survey import describe
from imprint.filesystems.journals import replayed
from imprint.filesystems.tree import Type, shown
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path
from imprint.filters.content import ContentStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Passphrase, Source, Storage
    from imprint.endpoints.inside import Leaf
    from imprint.filesystems.tree import Entry, FileTree

_NAMED_MAX: Final = 16
_WITH_BYTES: Final = frozenset({Type.FILE, Type.SYSTEM, Type.OTHER})


@dataclass(frozen=True)
class BrowsedVolume:
    """A volume of a disk: a file system, or what could hold one.

    Attributes:
        name: what stands behind the ``#`` of its address: ``p1``, ``p3#luks``, ``lvm/vg/root``;
            empty for a disk that is one volume.
        kind: of its file system, or what else it is; ``None``: not known.
        label: that its file system bears.
        source: its content.
        where: it is, for people: ``disk``, ``partition 1``, ``volume lvm/vg/root``.
        problem: why it could not be opened, if it is a container; ``None``: it is none.
    """

    name: str
    kind: str | None
    label: str | None
    source: Source
    where: str
    problem: str | None = None

    def address(self, disk: str) -> str:
        """How a file system in it is named, by the address of the disk."""
        return f"{disk}#{self.name}" if self.name else disk

    @property
    def folder(self) -> str:
        """What its files are in where all volumes are folders: of ``p1#luks``, ``p1-luks``."""
        return self.name.replace("#", "-").replace("/", "-") or "files"


class Browser:
    """The volumes of a disk and their trees; it owns the disk. Safe to use from many threads.

    A tree, though, is for one thread at a time: :meth:`lock` gives what its users share.
    """

    def __init__(
        self,
        source: Source,
        passphrase: Passphrase,
        on_event: OnEvent = ignore,
        *,
        replays: bool = False,
    ) -> None:
        """Nothing is read before it is asked for.

        Args:
            source: the disk, or a part of it.
            passphrase: asks for the secrets of encrypted volumes; if it refuses, these are
                volumes with a problem.
            on_event: told of what is noteworthy, in the thread that asks.
            replays: journals are replayed in memory before files are told.
        """
        self._source = source
        self._passphrase = passphrase
        self._on_event = on_event
        self._lock = threading.RLock()
        self._volumes: list[BrowsedVolume] | None = None
        self._trees: dict[str, FileTree] = {}
        self._told: dict[str, BrowsedVolume] = {}
        self._locks: dict[str, threading.RLock] = {}
        self.replays = replays

    @property
    def source(self) -> Source:
        """The disk."""
        return self._source

    def volumes(self) -> list[BrowsedVolume]:
        """All volumes, by their place on the disk; those in containers behind the others."""
        with self._lock:
            if self._volumes is None:
                survey = describe(self._source)
                found, findings = leaves(self._source, survey, self._passphrase)
                for finding in (*survey.doubts, *findings):
                    self._on_event(finding)
                self._volumes = [browsed(leaf) for leaf in found]
            return list(self._volumes)

    def volume(self, name: str = "") -> BrowsedVolume:
        """The volume of that name.

        Raises:
            UsageError: if there is none.
        """
        volumes = self.volumes()
        for volume in volumes:
            if volume.name == name:
                return volume
        shown = [f"#{volume.name}" for volume in volumes if volume.name][:_NAMED_MAX]
        known = ", ".join(shown) or "none"
        if name:
            raise UsageError(f"has no volume {name}; it has: {known}", name=self._source.name)
        raise UsageError(
            f"is no file system; it has volumes: {known}",
            name=self._source.name,
            advice="imprint ls IMAGE shows them; #p1:/PATH looks into one",
        )

    def tree(self, volume: BrowsedVolume) -> FileTree:
        """The files of a volume; opened once, and closed with the browser.

        Raises:
            UnsupportedFeatureError: if nothing knows such a file system, or a module is missing.
            CorruptImageError: if nothing can be made of it.
            ReadError: if it cannot be read.
        """
        with self.lock(volume):
            found = self._trees.get(volume.name)
            if found is None:
                if volume.problem is not None:
                    raise ReadError(volume.problem, name=volume.source.name)
                if volume.kind is None:
                    raise UnsupportedFeatureError(
                        "holds no file system that is known", name=volume.source.name
                    )
                told, found = opened_tree(volume, replays=self.replays)
                self._told[volume.name], self._trees[volume.name] = told, found
            return found

    def told(self, volume: BrowsedVolume) -> BrowsedVolume:
        """A volume as its tree tells it: with its journal replayed, if that is wanted.

        Raises:
            ImagingError: as :meth:`tree` does.
        """
        with self.lock(volume):
            self.tree(volume)
            return self._told.get(volume.name, volume)

    def lock(self, volume: BrowsedVolume) -> threading.RLock:
        """What has to be held while a volume's tree is asked; its contents need no lock."""
        with self._lock:
            return self._locks.setdefault(volume.name, threading.RLock())

    def close(self) -> None:
        """Close the trees, and the disk. Calling again changes nothing."""
        with self._lock:
            trees, self._trees = list(self._trees.values()), {}
            for item in trees:
                with suppress(ImagingError):
                    item.close()
            self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def opened_tree(volume: BrowsedVolume, *, replays: bool) -> tuple[BrowsedVolume, FileTree]:
    """The files of a volume with a known file system, and the volume as they tell it.

    Args:
        volume: that they are on; its source has to outlive them.
        replays: its journal is replayed in memory before.

    Raises:
        ImagingError: as :func:`~imprint.filesystems.trees.tree` does, and
            :func:`~imprint.filesystems.journals.replayed`.
    """
    assert volume.kind is not None
    if not replays:
        return volume, tree(volume.kind, volume.source)
    source, remarks = replayed(volume.kind, volume.source)
    files = tree(volume.kind, source)
    files.notes += remarks
    return replace(volume, source=source), files


def browsed(leaf: Leaf) -> BrowsedVolume:
    """A volume as it is browsed."""
    return BrowsedVolume(
        leaf.name,
        None if leaf.filesystem is None else leaf.filesystem.kind,
        None if leaf.filesystem is None else leaf.filesystem.label,
        leaf.source,
        _in_words(leaf.name),
        leaf.problem,
    )


def open_browser(
    address: str | Location,
    access: Access | None = None,
    *,
    over: Callable[[Source], Source] | None = None,
) -> Browser:
    """The volumes of what an address names: a disk, a partition, a volume; without its path.

    Args:
        address: of it.
        access: how it may be opened.
        over: gives what is to be browsed in place of the disk, which that owns then.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    access = access or Access()
    location = parse(address) if isinstance(address, str) else address
    disk = location.base if location.inside is not None else location.text
    source = open_source(disk, replace(access, partial=True))
    try:
        if over is not None:
            source = over(source)
        passphrase = access.gate().passphrase
        return Browser(source, passphrase, access.on_event, replays=access.replay_journal)
    except BaseException:
        source.close()
        raise


def resolve(
    address: str | Location, access: Access | None = None
) -> tuple[Browser, BrowsedVolume, str]:
    """The file system that an address leads into, and the path in it; ``/`` if it names none.

    The browser has to be closed.

    Raises:
        UsageError: if the address names a disk with several volumes.
        ImagingError: of the kind that says what is wrong.
    """
    location = parse(address) if isinstance(address, str) else address
    browser = open_browser(location, access)
    try:
        return browser, browser.volume(), location.inside or "/"
    except BaseException:
        browser.close()
        raise


def look_up(tree: FileTree, path: str, *, follow: bool = True, deleted: bool = False) -> Entry:
    """The entry at a path. Links on the way are followed, at its end only if ``follow`` is set.

    Raises:
        NotFoundError: if there is none.
        CorruptImageError: if the root cannot be read.
        ReadError: the same; or if it may be where a folder cannot be read.
    """
    folder, _, name = path.rstrip("/").rpartition("/")
    if follow or name in ("", ".", ".."):
        return find_path(tree, path, follow=True, deleted=deleted)
    above = find_path(tree, folder, follow=True, deleted=deleted)
    return find_path(tree, f"{above.path.rstrip('/')}/{name}", deleted=deleted)


def file_content(tree: FileTree, entry: Entry, stream: str | None = None) -> Source:
    """The bytes of a file, or of a stream of it.

    Raises:
        NotFoundError: if it has no such stream, or is nothing that has bytes.
        ImagingError: as :meth:`~imprint.filesystems.tree.FileTree.content` does.
    """
    if stream is not None and stream not in entry.streams:
        known = ", ".join(map(shown, entry.streams[:_NAMED_MAX])) or "none"
        raise NotFoundError(
            f"has no stream {shown(stream)}; it has: {known}", name=shown(entry.path)
        )
    if stream is None and entry.type not in _WITH_BYTES:
        raise NotFoundError(f"expected a file, found a {entry.type.value}", name=shown(entry.path))
    return tree.content(entry, stream)


def open_content(location: Location, access: Access) -> Storage:
    """A file in the file system of a disk, as a storage that owns the disk.

    The format and the snapshot that ``access`` asks for are those of the image that the file
    is, not of the disk.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    outer = replace(access, format=None, snapshot=None, size_policy=None, used=None)
    browser, volume, path = resolve(location, outer)
    try:
        files = browser.tree(volume)
        content = file_content(files, look_up(files, path))
        return ContentStorage(content, name=location.text, on_close=browser.close)
    except BaseException:
        browser.close()
        raise


def _in_words(name: str) -> str:
    if not name:
        return "disk"
    if name[0] == "p" and name[1:].isdigit():
        return f"partition {name[1:]}"
    return f"volume {name}"
