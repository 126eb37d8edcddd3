"""An ext3 or ext4 as its own mount would show it: with what its journal has.

Copies of blocks are read where they lie in the journal. What the kernel does then changes neither
names nor contents: it removes files that were deleted while they were open, and gives back what
was reserved behind the ends of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import CorruptImageError
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.ext import features, layout
from imprint.filesystems.ext.checksums import checksum
from imprint.filesystems.ext.fastcommit import UnknownFastCommitError, fast_changes
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.journal import Log, read_log
from imprint.filesystems.ext.layout import SUPERBLOCK_OFFSET, Superblock
from imprint.filesystems.ext.replayed import replayed
from imprint.filesystems.ext.ring import Ring
from imprint.filesystems.journals import WITHOUT, Recovered

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.filesystems.ext.geometry import Geometry
    from imprint.filters.replayed import Replayed

_INCOMPAT_AT = Superblock.FIELDS["incompat"].at
_CHECKSUM_AT = Superblock.FIELDS["checksum"].at


def recovered(volume: Source) -> Recovered:
    """The volume after replaying; see :func:`imprint.filesystems.journals.replayed`.

    Raises:
        CorruptImageError: if the journal contradicts itself.
        UnsupportedFeatureError: if it has a feature that is not known, or is on another device.
        ReadError: if it cannot be read.
    """
    head = VolumeReader(volume).read(SUPERBLOCK_OFFSET, Superblock.SIZE, "superblock")
    block = Superblock.unpack(head)
    if block.revision == 0 or not block.incompat & features.RECOVER:
        return Recovered(volume)
    geometry = read_geometry(VolumeReader(volume), may_be_cut=True)
    if not geometry.has(compat=features.HAS_JOURNAL):
        raise CorruptImageError(
            "superblock: expected a journal to replay, found none",
            name=volume.name,
            advice=WITHOUT,
        )
    ring, log = Ring(volume, geometry), Log()
    said: list[str] = []
    if ring.superblock.start:
        log = read_log(ring)
        if log.doubts:
            # The kernel does not mount it, and what e2fsck makes of it is nobody's state.
            raise CorruptImageError(log.doubts[0], name=volume.name, advice=WITHOUT)
        said.append(f"its journal was replayed in memory, transactions: {log.transactions}")
        said += log.remarks
        said += _left_out(ring, log)
    return Recovered(_settled(volume, geometry, log), tuple(said))


def _settled(volume: Source, geometry: Geometry, log: Log) -> Replayed:
    """The volume with the copies of the log, and a superblock that needs no recovery."""
    size = geometry.block_size
    first, within = divmod(SUPERBLOCK_OFFSET, size)
    own = {first: log.copies[first]} if first in log.copies else {}
    reader = VolumeReader(replayed(volume, own, size))
    block = reader.read(first * size, size, "superblock")
    block[within : within + Superblock.SIZE] = _cleared(block[within : within + Superblock.SIZE])
    return replayed(volume, log.copies, size, held={first: bytes(block)})


def _cleared(raw: bytearray) -> bytearray:
    """A superblock of a file system whose journal has nothing to be replayed."""
    block = Superblock.unpack(raw)
    raw[_INCOMPAT_AT : _INCOMPAT_AT + 4] = (block.incompat & ~features.RECOVER).to_bytes(
        4, "little"
    )
    if block.ro_compat & features.METADATA_CSUM:
        raw[_CHECKSUM_AT:] = checksum(raw[:_CHECKSUM_AT]).to_bytes(4, "little")
    return raw


def _left_out(ring: Ring, log: Log) -> list[str]:
    """What fast commits have changed since: they tell of changes, and have no blocks."""
    if not ring.superblock.incompat & layout.JOURNAL_FAST_COMMIT:
        return []
    try:
        found = fast_changes(ring, log.sequence)
    except UnknownFastCommitError:
        return ["its fast commits are of an unknown kind: what they changed is not told"]
    made = found.get(layout.FAST_CREATE, 0) + found.get(layout.FAST_LINK, 0)
    removed = found.get(layout.FAST_UNLINK, 0)
    inodes = found.get(layout.FAST_INODE, 0)
    if not (made or removed or inodes):
        return []
    what = (
        "its fast commits are not replayed, and what they changed is not told: "
        f"names that were made: {made}, names that were removed: {removed}, "
        f"changed files and folders: {inodes}"
    )
    return [what]
