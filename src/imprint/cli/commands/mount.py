"""mount: show a disk and the files in it as a folder."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli import options
from imprint.cli.background import in_background
from imprint.endpoints.mounting import Mounted, MountRequest, mount
from imprint.exports.fuse.facts import Showing
from imprint.transfer.heap import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint mount disk.qcow2 /mnt             disk.raw, p1.raw, p1/ ... are there then
  imprint mount repo:/srv/images::laptop /mnt
  imprint mount disk.E01#p2:/home /mnt      only that folder
  imprint mount disk.vhdx /mnt --cow changes.qcow2
  imprint unmount /mnt
"""

_ID_MAX: Final = (1 << 32) - 2
# The library prefers libfuse 2 where there are both; this is its way of being told otherwise.
_LIBRARY: Final = ("FUSE_LIBRARY_NAME", "fuse3")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/mount.md`` lists them too."""
    parser.add_argument("image", help="disk, part of it, or folder in its file system")
    parser.add_argument("folder", type=Path, help="empty folder, where it is shown")
    parser.add_argument(
        "--cow",
        metavar="FILE",
        help="disks can be written: what is written goes into this QCOW2, which is made if it is "
        "not there; memory: it is forgotten in the end",
    )
    parser.add_argument(
        "--deleted",
        action="store_true",
        help="folders have a folder .deleted with the names that were deleted from them",
    )
    parser.add_argument(
        "--system",
        action="store_true",
        help="show what is the file system's own as well: its tables, its journal",
    )
    parser.add_argument(
        "--links",
        choices=("as-is", "text"),
        default="as-is",
        help="what symbolic links are; text: files, so that none leads out of the image",
    )
    parser.add_argument(
        "--owner",
        metavar="USER[:GROUP]",
        type=_owner,
        help="whose all files are, by number or name, instead of what the image says",
    )
    parser.add_argument(
        "--allow-other",
        action="store_true",
        help="other users may look too, as far as permissions let them",
    )
    parser.add_argument(
        "--foreground", action="store_true", help="do not go to the background: Ctrl-C unmounts"
    )
    options.add_replay(parser)
    options.add_access(parser)
    options.add_place_options(parser)
    options.add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Mount; the folder is ready when this returns, unless it stays in the foreground."""
    if sys.platform == "linux" and _LIBRARY[0] not in os.environ:
        from ctypes.util import find_library  # asks other programs

        if find_library(_LIBRARY[1]) is not None:
            os.environ[_LIBRARY[0]] = _LIBRARY[1]
    owner, group = args.owner or (None, None)
    request = MountRequest(
        args.image,
        args.folder,
        cow=args.cow,
        showing=Showing(owner, group, args.links == "text", args.deleted, args.system),
        allow_other=args.allow_other,
    )

    def work(ready: Callable[[], None]) -> int:
        def on_ready(mounted: Mounted) -> None:
            _tell(request, mounted, console)
            ready()

        keep_freed_memory()  # libfuse takes a buffer for every read, and gives it back
        mount(request, options.access(args, console), on_ready)
        return 0

    return work(console.flush) if args.foreground else in_background(console, work)


def _tell(request: MountRequest, mounted: Mounted, console: Console) -> None:
    names = [*mounted.disks, *(f"{name}/" for name in mounted.trees)]
    console.print(f"{request.point}: {', '.join(names)}")
    console.result(
        folder=str(request.point),
        pid=mounted.pid,
        disks=mounted.disks,
        trees=mounted.trees,
        cow=request.cow,
    )


def _owner(text: str) -> tuple[int, int]:
    """``USER`` or ``USER:GROUP``; without a group it is the user's own."""
    import grp  # not on every system
    import pwd

    user, _, group = text.partition(":")
    try:
        if user.isdecimal() and int(user[:11]) <= _ID_MAX:
            number = int(user)
            own = number
        else:
            number, own = pwd.getpwnam(user)[2:4]
        if not group:
            return number, own
        if group.isdecimal() and int(group[:11]) <= _ID_MAX:
            return number, int(group)
        return number, grp.getgrnam(group).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no such user or group: {text!r:.80}") from None
