"""What a mount shows of a disk: itself, its partitions, and the files of its volumes.

What is written while it is mounted shows when somebody looks: the partitions are looked up again,
and a tree is opened anew if bytes of its volume were written. Containers are put together once,
in the beginning, since that may need passphrases; trees in them are opened anew as well.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError
from imprint.core.events import Finding, OnEvent, Severity
from imprint.endpoints.browsing import browsed, look_up, opened_tree
from imprint.endpoints.inside import outer_leaves
from imprint.endpoints.survey import describe
from imprint.exports.fuse.contents import Raw
from imprint.exports.fuse.trees import ShownTree
from imprint.filesystems.trees import READERS, WITH_MODES
from imprint.filters.shared import SharedDisk
from imprint.filters.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from imprint.endpoints.browsing import BrowsedVolume, Browser
    from imprint.endpoints.inside import Leaf
    from imprint.endpoints.survey import Survey
    from imprint.exports.fuse.facts import Showing
    from imprint.filesystems.tree import Entry, FileTree

DISK: Final = "disk.raw"
"""The whole disk."""

REPLACED_MAX: Final = 8
"""Trees that are no longer shown and have open files: each may be a process."""

_WITHOUT_FILES: Final = frozenset({"swap"})
_WITHOUT_ATTRIBUTES: Final = frozenset({"exfat", "iso9660", "vfat"})
"""Neither streams nor extended ones, or none that are told."""

_Range = tuple[int, int]
"""Where something begins, and where it ends, in bytes of the disk."""


@dataclass
class _Known:
    """A tree that is shown.

    Attributes:
        tree: itself.
        kind: of its file system.
        range: where its bytes are, or may be.
        is_old: some of them were written since.
    """

    tree: ShownTree
    kind: str
    range: _Range
    is_old: bool = False


class ShownDisk:
    """Asked for it, gives what is shown now, by name: the same object while nothing changes.

    Safe to use from many threads.
    """

    def __init__(self, browser: Browser, showing: Showing, on_event: OnEvent) -> None:
        """Look at a disk for the first time.

        Args:
            browser: of the disk. If that is a :class:`SharedDisk`, it is shown for writing.
            showing: how what is in file systems is shown.
            on_event: told what is not shown, and why, and what file systems say when they are
                opened for the first time.

        Raises:
            ImagingError: if the disk cannot be read.
        """
        self._source = browser.source
        self._disk = browser.source if isinstance(browser.source, SharedDisk) else None
        self._showing = showing
        self._replays = browser.replays
        self._on_event = on_event
        self._lock = threading.Lock()
        self._is_old = False
        self._known: dict[str, _Known] = {}
        self._numbers: dict[str, int] = {}
        self._replaced: weakref.WeakSet[ShownTree] = weakref.WeakSet()
        survey = describe(self._source)
        plain, containers = outer_leaves(self._source, survey)
        self._containers = _identities(containers)
        volumes, outer = browser.volumes(), {leaf.name for leaf in plain}
        self._inner = [volume for volume in volumes if volume.name not in outer]
        self._things = self._made(survey, volumes, on_event)
        if self._disk is not None:
            self._disk.on_change = self._changed

    def __call__(self) -> Mapping[str, Raw | ShownTree]:
        """What is there now.

        Raises:
            ImagingError: if the disk cannot be read.
        """
        with self._lock:
            if self._is_old:
                self._is_old = False  # before it is looked at: what is written now counts again
                try:
                    self._look_again()
                except BaseException:
                    self._is_old = True
                    raise
            return self._things

    def _changed(self, offset: int, length: int) -> None:
        """Some of the disk was written."""
        for known in self._known.values():
            start, end = known.range
            if offset < end and start < offset + length:
                known.is_old = True
        self._is_old = True

    def _look_again(self) -> None:
        survey = describe(self._source)
        plain, containers = outer_leaves(self._source, survey)
        are_same = _identities(containers) == self._containers
        volumes = [*map(browsed, plain), *(self._inner if are_same else ())]
        self._things = self._made(survey, volumes, None)

    def _made(
        self, survey: Survey, volumes: Sequence[BrowsedVolume], on_event: OnEvent | None
    ) -> dict[str, Raw | ShownTree]:
        """What is in the folder."""
        whole, shown = self._source, dict[str, Raw | ShownTree]()
        ranges: dict[str, _Range] = {}
        shown[DISK] = Raw(whole, self._disk)
        for item in survey.volumes:
            part = item.partition
            if not part.is_free and part.length and part.end <= whole.size:
                name = f"p{part.index}"
                window = Window(whole, part.start, part.length, name=f"{whole.name}#{name}")
                shown[f"{name}.raw"] = Raw(window, self._disk, part.start)
                ranges[name] = part.start, part.end
        known: dict[str, _Known] = {}
        for volume in volumes:
            if volume.problem is not None:
                _tell(on_event, volume, Severity.WARNING, f"is not shown: {volume.problem}")
                continue
            name = volume.folder
            if volume.name:
                shown.setdefault(f"{name}.raw", Raw(volume.source))
            if volume.kind is None or volume.kind in _WITHOUT_FILES:
                continue
            if volume.kind in READERS:
                found = self._tree(name, volume, ranges.get(volume.name, (0, whole.size)))
                known[name], shown[name] = found, found.tree
            else:
                what = f"files of {volume.kind} cannot be listed: it is shown as a disk only"
                _tell(on_event, volume, Severity.INFO, what)
        self._replaced.update(
            old.tree for name, old in self._known.items() if known.get(name) is not old
        )
        self._known = known
        return shown

    def _tree(self, name: str, volume: BrowsedVolume, place: _Range) -> _Known:
        """The tree of a volume: the one that is shown, as long as it is true."""
        assert volume.kind is not None
        found = self._known.get(name)
        if found is not None:
            if (found.kind, found.range) == (volume.kind, place) and not found.is_old:
                return found
            if len(self._replaced) >= REPLACED_MAX:
                self._is_old = True
                return found
        on_event = None if name in self._numbers else self._on_event  # once
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        shown = shown_tree(volume, self._showing, number, on_event=on_event, replays=self._replays)
        return _Known(shown, volume.kind, place)


def shown_tree(
    volume: BrowsedVolume,
    showing: Showing,
    number: int = 1,
    path: str = "/",
    on_event: OnEvent | None = None,
    *,
    replays: bool = False,
) -> ShownTree:
    """The files of a volume, or a folder of them; opened when somebody looks.

    Args:
        volume: that they are in.
        showing: how.
        number: of the tree among those that are shown, from 1.
        path: of the folder.
        on_event: told what could not be followed when it was opened.
        replays: its journal is replayed in memory, each time it is opened.
    """
    opened: list[FileTree] = []
    tops: list[Entry] = []

    def top() -> tuple[FileTree, Entry]:  # asked under the lock
        if not opened:
            opened.append(opened_tree(volume, replays=replays)[1])
            for note in opened[0].notes:
                _tell(on_event, volume, Severity.WARNING, note)
        if not tops:
            tops.append(look_up(opened[0], path))
        return opened[0], tops[0]

    shown = ShownTree(
        top,
        threading.RLock(),
        showing,
        number=number,
        has_streams=volume.kind not in _WITHOUT_ATTRIBUTES,
        has_modes=volume.kind in WITH_MODES,
    )
    # It goes when nobody has a file of it open any more.
    weakref.finalize(shown, _close, opened)
    return shown


def _close(opened: Iterable[FileTree]) -> None:
    for item in opened:
        with suppress(ImagingError):
            item.close()


def _identities(containers: Iterable[Leaf]) -> list[tuple[object, ...]]:
    """What containers are told apart by."""
    return [
        (
            leaf.name,
            leaf.source.size,
            getattr(leaf.source, "start", 0),
            None if leaf.filesystem is None else (leaf.filesystem.kind, leaf.filesystem.uuid),
        )
        for leaf in containers
    ]


def _tell(on_event: OnEvent | None, volume: BrowsedVolume, severity: Severity, what: str) -> None:
    if on_event is not None:
        on_event(Finding(severity, volume.where, what))
