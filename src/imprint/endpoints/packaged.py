"""Whether a file is a package of several images, and which of them is meant."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError, UnsupportedFeatureError, UsageError
from imprint.endpoints.appliance import kinds

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

_TAR_HEAD_BYTES: Final = 512
"""Of an archive: the name of its first file, which of a package is the descriptor."""


def image_format(name: str | None) -> str | None:
    """What the name of a format says of an image: that of a package says nothing.

    Raises:
        UnsupportedFeatureError: if it is that of a package that cannot be read.
    """
    kind = None if name is None else kinds.by_name(name)
    if kind is None:
        return name
    if not kind.support.read:
        raise UnsupportedFeatureError(f"{kind.name} packages are only written")
    return None


def is_package(storage: Storage, format_name: str | None) -> bool:
    """Whether it is a package of several images.

    One that is said to be an image is none, whatever is in it: a guest can write what it likes
    into its disk.
    """
    if format_name is not None and kinds.by_name(format_name) is None:
        return False
    head = bytearray(min(_TAR_HEAD_BYTES, storage.size))
    with contextlib.suppress(ReadError):
        storage.readinto(memoryview(head), 0)
    return head[257:262] == b"ustar" and b".ovf" in head[:100].lower()


def inside_package(
    storage: Storage, disk: int | None = None, *, format_name: str | None, name: str
) -> Storage:
    """The image that is meant, where the file is a package of several; else the file itself.

    Args:
        storage: of the file; the result owns it.
        disk: number of the disk; ``None``: the first, if it is a package.
        format_name: what the user calls it: with a number the disk, without one the file.
        name: what errors call it.

    Raises:
        FormatError: if the package is not sound, or it is said to be one and is none.
        UsageError: if there is no such disk in it.
    """
    if is_package(storage, None if disk is not None else format_name):
        from imprint.endpoints.appliance import package  # only for packages

        return package.open_disk(storage, disk or 1)
    if disk is not None:
        raise UsageError("is no OVA: it has no disks to choose from", name=name)
    if image_format(format_name) != format_name:
        raise FormatError("expected an OVA: an archive that begins with a descriptor", name=name)
    return storage
