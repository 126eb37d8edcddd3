"""What can be told of the source of an acquisition, and whether anybody could write it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from imprint.core.errors import ReadError, RefusedError, UsageError
from imprint.core.system import exists, reason_of
from imprint.core.units import utc_text
from imprint.endpoints.location import Where, parse
from imprint.storage.medium import describe_medium

if TYPE_CHECKING:
    from pathlib import Path

_WRITE_BITS = 0o222


def source_facts(address: str) -> dict[str, Any]:
    """Facts about a source by its address: ``where``, and ``medium`` or ``file``.

    Raises:
        ReadError: if it is a device of which the kernel does not tell.
    """
    location = parse(address)
    facts: dict[str, Any] = {"where": location.where.value}
    if location.where is Where.DEVICE:
        facts["medium"] = describe_medium(location.path).to_json()
    elif location.where is Where.FILE and exists(location.path):
        found = location.path.stat()
        facts["file"] = {
            "path": str(location.path.absolute()),
            "size": found.st_size,
            "mtime": utc_text(found.st_mtime),
            "is_read_only": not is_writable(location.path),
        }
    return facts


def check_read_only(address: str) -> None:
    """Refuse a source that could be written while it is read.

    Raises:
        RefusedError: if the device, or the file, is writable.
        UsageError: if it is neither a device nor a file, of which nobody can tell.
        ReadError: if it is not there.
    """
    location = parse(address)
    if location.where is Where.DEVICE:
        if describe_medium(location.path).is_read_only is not True:
            raise RefusedError(
                "expected a read-only device, found one that can be written",
                name=str(location.path),
                advice=f"use a write blocker, or: blockdev --setro {location.path}",
            )
    elif location.where is Where.FILE:
        if is_writable(location.path):
            raise RefusedError(
                "expected a read-only file, found one that can be written",
                name=str(location.path),
                advice=f"chmod a-w {location.path}",
            )
    else:
        raise UsageError("--require-read-only needs a device or a file as source", name=address)


def is_writable(path: Path) -> bool:
    """Whether a file's permissions let anybody write it, and its file system too.

    Raises:
        ReadError: if it is not there.
    """
    try:
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return False
        return bool(path.stat().st_mode & _WRITE_BITS)
    except OSError as failure:
        raise ReadError(reason_of(failure), name=str(path)) from failure
