"""Disks as folders: what a mount shows, and mounting it."""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.events import Finding, Severity
from imprint.endpoints.browsing import Browser, look_up, open_browser
from imprint.endpoints.location import Where, parse
from imprint.endpoints.mount_points import check_point
from imprint.endpoints.survey import describe
from imprint.endpoints.tools import find
from imprint.exports.fuse.contents import Raw
from imprint.exports.fuse.facts import Showing
from imprint.exports.fuse.session import Session, check_available, serve
from imprint.exports.fuse.trees import ShownTree
from imprint.exports.fuse.view import View
from imprint.filesystems.tree import Type
from imprint.filters.shared import SharedDisk
from imprint.filters.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.endpoints.browsing import BrowsedVolume
    from imprint.endpoints.location import Location
    from imprint.endpoints.open import Access
    from imprint.filesystems.tree import Entry, FileTree

CONTROL: Final = ".imprint"
"""A file in the folder that only those find who know of it: it says which process serves it."""

DISK: Final = "disk.raw"
"""The whole disk."""

_FILES: Final = "files"  # of a disk that is one file system
_WITHOUT_FILES: Final = frozenset({"swap"})
_STREAMS: Final = frozenset({"ntfs", "hfsplus", "apfs"})


@dataclass(frozen=True)
class MountRequest:
    """What shall be mounted, and how.

    Attributes:
        address: of a disk, a part of it, or a folder in its file system.
        point: where: an empty folder.
        cow: an overlay that takes what is written, or ``memory``; ``None``: nothing is written.
        showing: how what is in file systems is shown.
        allow_other: other users may look too.
    """

    address: str
    point: Path
    cow: str | None = None
    showing: Showing = field(default_factory=Showing)
    allow_other: bool = False


@dataclass(frozen=True)
class Mounted:
    """What is there now.

    Attributes:
        pid: of the process that serves it, which is this one.
        disks: names of files that are disks.
        trees: names of folders that are file systems; ``.`` if all that is mounted is one.
    """

    pid: int
    disks: tuple[str, ...]
    trees: tuple[str, ...]


def mount(request: MountRequest, access: Access, on_ready: Callable[[Mounted], None]) -> None:
    """Mount a disk, and serve it until it is unmounted, or a signal ends it.

    Has to be called in the main thread. What was written is durable when this returns.

    Args:
        request: what and where.
        access: how the disk may be opened.
        on_ready: called in another thread, once the files are there.

    Raises:
        UsageError: if the request makes no sense.
        TargetError: if there is nowhere to mount it.
        UnsupportedFeatureError: if there is no FUSE.
        ImagingError: of the kind that says what is wrong with the disk.
    """
    check_point(request.point)
    check_available()
    location = parse(request.address)
    if location.where is Where.STREAM:
        raise UsageError("expected what can be read anywhere, found a pipe", name=location.text)
    if location.inside is not None and request.cow is not None:
        raise UsageError("--cow needs a disk: nothing can be written to the files of a folder")
    with ExitStack() as stack:
        browser = stack.enter_context(open_browser(location, access))
        disk: SharedDisk | None = None
        if request.cow is not None:
            from imprint.endpoints.cow import open_overlay  # most only look

            disk = SharedDisk(open_overlay(browser.source, location.text, request.cow))
            stack.callback(disk.close)
        shown, mounted = _shown(browser, location, disk, request, access)
        control = json.dumps({"pid": mounted.pid, "address": request.address})
        view = View(
            shown,
            owner=owner_of(request.showing),
            time_ns=time.time_ns(),
            notes={CONTROL: f"{control}\n".encode()},
        )
        session = Session(
            source=location.text,
            allow_other=request.allow_other,
            writable=disk is not None,
            threads=disk is None and _is_far(location.outermost),
            helper=find("fusermount3") is not None,
        )
        serve(view, request.point, session, lambda: on_ready(mounted))


def owner_of(showing: Showing) -> tuple[int, int]:
    """Whose the disks are: the user's who mounts, unless somebody else is named."""
    owner = os.geteuid() if showing.owner is None else showing.owner
    group = os.getegid() if showing.group is None else showing.group
    return owner, group


def _shown(
    browser: Browser,
    location: Location,
    disk: SharedDisk | None,
    request: MountRequest,
    access: Access,
) -> tuple[dict[str, Raw | ShownTree] | ShownTree, Mounted]:
    """What is in the folder, and a summary of it."""
    if location.inside is not None:
        tree = _tree(browser, browser.volume(), request, 1, location.inside)
        if tree.top().entry.type is not Type.DIRECTORY:
            raise UsageError("expected a folder, found a file", name=location.text)
        return tree, Mounted(os.getpid(), (), (".",))
    shown: dict[str, Raw | ShownTree] = {}
    whole: Source = browser.source if disk is None else disk
    shown[DISK] = Raw(whole, disk)
    for item in describe(browser.source).volumes:
        part = item.partition
        if not part.is_free and part.length and part.end <= whole.size:
            name = f"p{part.index}.raw"
            window = Window(whole, part.start, part.length, name=f"{whole.name}#p{part.index}")
            shown[name] = Raw(window, disk, part.start)
    volumes = browser.volumes()
    for number, volume in enumerate(volumes, 1):
        if volume.problem is not None:
            what = f"is not shown: {volume.problem}"
            access.on_event(Finding(Severity.WARNING, volume.where, what))
            continue
        name = _name_of(volume)
        if volume.name:
            shown.setdefault(f"{name}.raw", Raw(volume.source))
        if volume.kind is None or volume.kind in _WITHOUT_FILES:
            continue
        if _is_listed(volume.kind):
            shown[name] = _tree(browser, volume, request, number, "/")
        else:
            what = f"files of {volume.kind} cannot be listed: it is shown as a disk only"
            access.on_event(Finding(Severity.INFO, volume.where, what))
    disks = tuple(name for name, thing in shown.items() if isinstance(thing, Raw))
    trees = tuple(name for name, thing in shown.items() if isinstance(thing, ShownTree))
    return shown, Mounted(os.getpid(), disks, trees)


def _is_far(location: Location) -> bool:
    """Whether reading is waiting for a network. Otherwise one thread is faster than several."""
    if location.where is Where.REPOSITORY:
        return "://" in location.base
    return location.where not in (Where.FILE, Where.DEVICE)


def _name_of(volume: BrowsedVolume) -> str:
    """``p3#lvm/vg/root`` is ``p3-lvm-vg-root``."""
    return volume.name.replace("#", "-").replace("/", "-") or _FILES


def _is_listed(kind: str) -> bool:
    """Whether files of such a file system can be listed."""
    from imprint.filesystems.trees import READERS  # changes with what is installed

    return kind in READERS


def _tree(
    browser: Browser, volume: BrowsedVolume, request: MountRequest, number: int, path: str
) -> ShownTree:
    top: list[tuple[FileTree, Entry]] = []

    def opened() -> tuple[FileTree, Entry]:
        if not top:  # asked under the lock
            tree = browser.tree(volume)
            top.append((tree, look_up(tree, path)))
        return top[0]

    return ShownTree(
        opened,
        browser.lock(volume),
        request.showing,
        number=number,
        has_streams=volume.kind in _STREAMS,
    )
