"""Disks as folders: what a mount shows, and mounting it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.endpoints.browsing import open_browser
from imprint.endpoints.location import Where, parse
from imprint.endpoints.mount_points import check_point
from imprint.endpoints.shown_disk import ShownDisk, shown_tree
from imprint.endpoints.tools import find
from imprint.exports.fuse.contents import Raw
from imprint.exports.fuse.facts import Showing
from imprint.exports.fuse.session import Session, check_available, serve
from imprint.exports.fuse.trees import ShownTree
from imprint.exports.fuse.view import View
from imprint.filesystems.tree import Type
from imprint.filters.shared import SharedDisk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.endpoints.browsing import Browser
    from imprint.endpoints.location import Location
    from imprint.endpoints.open import Access

CONTROL: Final = ".imprint"
"""A file in the folder that only those find who know of it: it says which process serves it."""


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
    over: Callable[[Source], Source] | None = None
    if request.cow is not None:
        over = _overlaid(location, request.cow, access.snapshot)
    with open_browser(location, access, over=over) as browser:
        shown, mounted = _shown(browser, location, request, access)
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
            writable=over is not None,
            threads=over is None and _is_far(location.outermost),
            helper=find("fusermount3") is not None,
        )
        serve(view, request.point, session, lambda: on_ready(mounted))


def _overlaid(location: Location, place: str, snapshot: str | None) -> Callable[[Source], Source]:
    """Lays an overlay in ``place`` over a disk."""
    from imprint.endpoints.cow import open_overlay  # most only look

    def over(disk: Source) -> Source:
        return SharedDisk(open_overlay(disk, location.text, place, snapshot=snapshot), like=disk)

    return over


def owner_of(showing: Showing) -> tuple[int, int]:
    """Whose the disks are: the user's who mounts, unless somebody else is named."""
    owner = os.geteuid() if showing.owner is None else showing.owner
    group = os.getegid() if showing.group is None else showing.group
    return owner, group


def _shown(
    browser: Browser, location: Location, request: MountRequest, access: Access
) -> tuple[ShownDisk | ShownTree, Mounted]:
    """What is in the folder, and a summary of it."""
    if location.inside is not None:
        tree = shown_tree(
            browser.volume(),
            request.showing,
            path=location.inside,
            on_event=access.on_event,
            replays=browser.replays,
        )
        if tree.top().entry.type is not Type.DIRECTORY:
            raise UsageError("expected a folder, found a file", name=location.text)
        return tree, Mounted(os.getpid(), (), (".",))
    shown = ShownDisk(browser, request.showing, access.on_event)
    things = shown()
    disks = tuple(name for name, thing in things.items() if isinstance(thing, Raw))
    trees = tuple(name for name, thing in things.items() if isinstance(thing, ShownTree))
    return shown, Mounted(os.getpid(), disks, trees)


def _is_far(location: Location) -> bool:
    """Whether reading is waiting for a network. Otherwise one thread is faster than several."""
    if location.where is Where.REPOSITORY:
        return "://" in location.base
    return location.where not in (Where.FILE, Where.DEVICE)
