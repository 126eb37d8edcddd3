"""Which file system is in a disk or partition, told by signatures."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError
from imprint.core.units import KIB, MIB
from imprint.filesystems.probes import apple, bsd, linux, members, microsoft, optical
from imprint.filters.peek import Peek

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Source
    from imprint.filesystems.facts import FileSystem

IDENTIFY_BYTES_MAX: Final = 1 * MIB
"""What identifying one file system may read: signatures, a root directory, a B-tree's node."""

HEAD_BYTES: Final = 72 * KIB
"""Read at once: all signatures but those of UDF and RAID are below; the last is of Btrfs."""

# Containers first: what is behind their headers may look like the file system inside. Then
# as blkid does; UDF before ISO 9660, since a bridge disc has both and UDF says more.
_PROBES: Final[tuple[Callable[[Peek], FileSystem | None], ...]] = (
    members.linux_raid,
    members.lvm2,
    members.luks,
    microsoft.bitlocker,
    microsoft.fat,
    linux.swap,
    linux.xfs,
    linux.ext,
    optical.udf,
    optical.iso9660,
    apple.hfs_plus,
    apple.hfs,
    apple.mfs,
    microsoft.ntfs,
    linux.squashfs,
    linux.btrfs,
    microsoft.exfat,
    linux.f2fs,
    apple.apfs,
    bsd.ufs,
)

_TWO_SIDES: Final = "it has HFS beside ISO 9660, without a partition: that is not shown"


def identify(source: Source) -> FileSystem | None:
    """The file system at the start of ``source``, or ``None`` if it is none of those known.

    Reads at most :data:`IDENTIFY_BYTES_MAX`. What is told is what the signatures say; the
    file system may be damaged, or cut off.

    Raises:
        ReadError: if it may be one whose signature cannot be read.
        FormatError: if what the image says of the range makes no sense.
    """
    peek = Peek(source, budget=IDENTIFY_BYTES_MAX, head=HEAD_BYTES)
    failure: ReadError | FormatError | None = None
    for probe in _PROBES:
        try:
            found = probe(peek)
        except (ReadError, FormatError) as error:
            failure = error  # another one may be found beside the bad sectors
            continue
        if found is not None:
            return _beside(peek, found)
    if failure is not None:
        raise failure
    return None


def _beside(peek: Peek, found: FileSystem) -> FileSystem:
    """The same, with a word on the other side of a disc for PCs and Macs.

    As a rule, that is a partition. Without a map it begins where ISO 9660 does.
    """
    if found.kind == "iso9660":
        with suppress(ReadError, FormatError):
            if apple.hfs(peek) is not None:
                return replace(found, doubt=_TWO_SIDES)
    return found
