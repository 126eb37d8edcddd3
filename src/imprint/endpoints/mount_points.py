"""Folders on which something is mounted, or shall be."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from imprint.core.errors import RefusedError, TargetBusyError, TargetError, UsageError
from imprint.endpoints import tools
from imprint.exports.fuse.session import TYPE
from imprint.storage.device_facts import System

if TYPE_CHECKING:
    from pathlib import Path


def check_point(point: Path) -> None:
    """See whether something can be mounted there; what a process of ours has left is removed.

    Raises:
        TargetError: if it is missing, or no folder.
        RefusedError: if there is something in it.
    """
    try:
        is_empty = _is_empty(point)
    except OSError as failure:
        if failure.errno == errno.ENOENT:
            reason = "nothing"
        elif failure.errno == errno.ENOTDIR:
            reason = "something else"
        else:
            reason = (failure.strerror or "what cannot be read").lower()
        raise TargetError(f"expected an empty folder, found {reason}", name=str(point)) from failure
    if os.path.ismount(point):
        raise RefusedError("something is mounted there already", name=str(point))
    if not is_empty:
        raise RefusedError("expected an empty folder, found one with files", name=str(point))


def _is_empty(point: Path) -> bool:
    try:
        return next(point.iterdir(), None) is None
    except OSError as failure:
        if failure.errno != errno.ENOTCONN:
            raise
    detach(mounted_at(point), lazy=True)  # of a process that was killed
    return next(point.iterdir(), None) is None


def mounted_at(point: Path) -> str:
    """The path of a mount of ours, which does not have to answer.

    Raises:
        UsageError: if nothing is mounted there, or something else.
    """
    system = System()
    # Of a process that is stopped, even looking at the folder itself would wait for ever.
    where = os.path.join(os.path.realpath(point.parent), point.name)  # noqa: PTH118
    mounts = [mount for mount in system.mounts() if mount.point == where]
    if not mounts:
        where = os.path.realpath(point)
        mounts = [mount for mount in system.mounts() if mount.point == where]
    if not mounts:
        raise UsageError("nothing is mounted there", name=str(point))
    if mounts[-1].type != f"fuse.{TYPE}":
        raise UsageError(
            "what is mounted there is none of ours", name=str(point), advice="umount unmounts it"
        )
    return where


def detach(where: str, *, lazy: bool) -> None:
    """Take a mount out of the tree of folders.

    Args:
        where: its path.
        lazy: even if it is in use.

    Raises:
        TargetBusyError: if it is in use.
        TargetError: if it cannot be.
    """
    program = "fusermount3" if tools.find("fusermount3") else "fusermount"
    words = [program, "-u", *(["-z"] if lazy else []), "--", where]
    if os.geteuid() == 0 or tools.find(program) is None:
        words = ["umount", *(["-l"] if lazy else []), "--", where]
    try:
        tools.run(*words)
    except TargetError as failure:
        if "busy" in str(failure):
            raise TargetBusyError(
                "is in use: a file of it is open, or a program is in it, or it is mounted from",
                name=where,
                advice="--lazy takes it away, and ends it when nobody uses it any more",
            ) from failure
        raise TargetError(str(failure.args[0]), name=where) from failure
