"""What the superblock says of an XFS: its shape and its features, and which of them we know."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.filesystems.allocation import READ_BYTES_MAX, VolumeReader
from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.layout import BASIC_BLOCK, Superblock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.core.contracts import Source
    from imprint.core.tables import EntryCode

_GROUP_BLOCKS_MIN: Final = 64
_GROUP_BYTES_MAX: Final = 1 << 40
_LOG_BYTES_MAX: Final = 1 << 31


class Reader(VolumeReader):
    """Reads a volume, with basic blocks laid over it that its log would put there."""

    def __init__(
        self,
        volume: Source,
        changed: Mapping[int, bytes] | None = None,
        *,
        budget: int = READ_BYTES_MAX,
    ) -> None:
        """``changed``: ``BASIC_BLOCK`` bytes each, by their number; ``budget``: of its base."""
        super().__init__(volume, budget=budget)
        self._changed = changed or {}

    def read(self, offset: int, length: int, what: str) -> bytearray:
        """As its base does, whole basic blocks."""
        data = super().read(offset, length, what)
        if self._changed:
            first = offset // BASIC_BLOCK
            for index in range(length // BASIC_BLOCK):
                block = self._changed.get(first + index)
                if block is not None:
                    data[index * BASIC_BLOCK : (index + 1) * BASIC_BLOCK] = block
        return data

    def is_changed(self, offset: int, length: int) -> bool:
        """Whether any of a range was laid over: its checksum is made when it is written."""
        if not self._changed:
            return False
        blocks = range(offset // BASIC_BLOCK, (offset + length) // BASIC_BLOCK)
        return any(block in self._changed for block in blocks)


@dataclass(frozen=True)
class Geometry:
    """The shape of a file system. Blocks of a group count from its start.

    Attributes:
        superblock: all of it.
        is_v5: structures have checksums and say where they belong.
        uuid: that structures of version 5 have.
    """

    superblock: Superblock
    is_v5: bool
    uuid: bytes

    @property
    def block_size(self) -> int:
        """In bytes."""
        return self.superblock.block_size

    @property
    def header_blocks(self) -> int:
        """How many blocks the four sectors at the start of a group take up."""
        return -(-4 * self.superblock.sector_size // self.block_size)

    @property
    def log_at(self) -> int:
        """Of the log, in bytes."""
        return self.offset_of(self.superblock.log_start)

    @property
    def log_bytes(self) -> int:
        """Of the log."""
        return self.superblock.log_blocks * self.block_size

    def has(self, ro_compat: int = 0, incompat: int = 0) -> bool:
        """Whether all of these features of version 5 are there."""
        block = self.superblock
        return self.is_v5 and not (ro_compat & ~block.ro_compat or incompat & ~block.incompat)

    def group_length(self, group: int) -> int:
        """In blocks; the last group may be shorter."""
        block = self.superblock
        return min(block.group_blocks, block.blocks - group * block.group_blocks)

    def offset(self, group: int, block: int) -> int:
        """In bytes of the volume."""
        return (group * self.superblock.group_blocks + block) * self.block_size

    def split(self, block: int) -> tuple[int, int]:
        """Group, and block inside of it, of a file system block number."""
        return block >> self.superblock.group_log, block & (1 << self.superblock.group_log) - 1

    def offset_of(self, block: int) -> int:
        """In bytes of the volume, of a file system block number."""
        return self.offset(*self.split(block))

    def holds(self, block: int, count: int = 1) -> bool:
        """Whether a run that begins at a file system block number is inside one group."""
        group, first = self.split(block)
        if group >= self.superblock.group_count:
            return False
        return self.header_blocks <= first and first + count <= self.group_length(group)


def numbers(code: EntryCode, data: bytes | bytearray | memoryview) -> array[int]:
    """Big-endian numbers; what is behind the last whole one is left out."""
    table = array(code)
    table.frombytes(data[: len(data) - len(data) % table.itemsize])
    if sys.byteorder == "little":
        table.byteswap()
    return table


def has_checksum(data: bytes | bytearray | memoryview, at: int) -> bool:
    """Whether a structure has its CRC-32C, little-endian, at ``at``."""
    view = memoryview(data)
    value = crc32c(view[at + 4 :], crc32c(bytes(4), crc32c(view[:at])))
    return value == int.from_bytes(view[at : at + 4], "little")


def read_geometry(reader: Reader) -> Geometry:
    """Read the first superblock and refuse what it must not be.

    Raises:
        CorruptImageError: if it contradicts itself or the volume.
        UnsupportedFeatureError: if there is a feature that is not known, or a second device.
        ReadError: if it cannot be read.
    """
    name = reader.name
    block = Superblock.unpack(reader.read(0, BASIC_BLOCK, "superblock"), where=name)
    block.require("magic", block.magic == layout.SUPERBLOCK_MAGIC, "XFSB", where=name)
    version = block.version & layout.VERSION_MASK
    if version not in (4, 5):
        raise UnsupportedFeatureError(f"XFS: expected version 4 or 5, found {version}", name=name)
    is_v5 = version == 5
    _check_shape(block, reader)
    if is_v5:
        data = reader.read(0, block.sector_size, "superblock")
        is_sealed = has_checksum(data, layout.SUPERBLOCK_CRC_AT)
        if not is_sealed and not reader.is_changed(0, len(data)):
            raise CorruptImageError("superblock: the checksum does not match", name=name, offset=0)
        _check_features_v5(block, name)
    else:
        _check_features_v4(block, name)
    _check_devices(block, name)
    has_other = is_v5 and block.incompat & layout.INCOMPAT_META_UUID
    geometry = Geometry(block, is_v5, block.meta_uuid if has_other else block.uuid)
    block.require(
        "log_start", geometry.holds(block.log_start, block.log_blocks), "a place", where=name
    )
    return geometry


def _check_shape(block: Superblock, reader: Reader) -> None:
    """Sizes and counts fit each other and the volume."""

    def require(field: str, holds: bool, expected: str) -> None:  # noqa: FBT001 - as its base
        block.require(field, holds, expected, where=reader.name)

    require("block_log", 9 <= block.block_log <= 16, "9 to 16")
    require("block_size", block.block_size == 1 << block.block_log, "what its logarithm says")
    require("sector_log", 9 <= block.sector_log <= 15, "9 to 15")
    require("sector_size", block.sector_size == 1 << block.sector_log, "what its logarithm says")
    require("inode_log", 8 <= block.inode_log <= 11, "8 to 11")
    require("inode_size", block.inode_size == 1 << block.inode_log, "what its logarithm says")
    per_block_log = block.block_log - block.inode_log
    require("inodes_per_block_log", block.inodes_per_block_log == per_block_log, "what fits")
    require("inodes_per_block", block.inodes_per_block == 1 << max(0, per_block_log), "what fits")
    require("in_progress", block.in_progress == 0, "that mkfs had finished")
    group_bytes = block.group_blocks * block.block_size
    require("group_blocks", block.group_blocks >= _GROUP_BLOCKS_MIN, "64 or more")
    require("group_blocks", group_bytes <= _GROUP_BYTES_MAX, "groups of up to 1 TiB")
    require("group_log", block.group_blocks <= 1 << block.group_log <= 1 << 31, "to fit groups")
    before_last = (block.group_count - 1) * block.group_blocks
    require("group_count", block.group_count > 0, "some groups")
    require(
        "blocks",
        before_last + 4 < block.blocks <= before_last + block.group_blocks,
        "what the groups have",
    )
    require("log_blocks", 0 < block.log_blocks * block.block_size <= _LOG_BYTES_MAX, "up to 2 GiB")
    reader.check(0, block.blocks * block.block_size, "file system")


def _check_features_v4(block: Superblock, name: str) -> None:
    if block.version & layout.V4_SHARED or not block.version & layout.V4_DIR_V2:
        raise UnsupportedFeatureError(
            f"XFS: expected known features, found 0x{block.version:x}", name=name
        )
    features2 = block.features2 if block.version & layout.V4_MORE_BITS else 0
    if features2 & ~layout.V4_FEATURES2_KNOWN:
        raise UnsupportedFeatureError(
            f"XFS: expected known further features, found 0x{features2:x}", name=name
        )


def _check_features_v5(block: Superblock, name: str) -> None:
    unknown = {
        "read-only compatible": block.ro_compat & ~layout.RO_COMPAT_KNOWN,
        "incompatible": block.incompat & ~layout.INCOMPAT_KNOWN,
        "log": block.log_incompat & ~layout.LOG_INCOMPAT_KNOWN,
    }
    for bit, feature in layout.INCOMPAT_NAMES.items():
        if block.incompat >> bit & 1:
            raise UnsupportedFeatureError(f"XFS: the feature {feature} is not known", name=name)
    for kind, bits in unknown.items():
        if bits:
            raise UnsupportedFeatureError(
                f"XFS: expected known features, found the {kind} bits 0x{bits:x}", name=name
            )


def _check_devices(block: Superblock, name: str) -> None:
    if block.realtime_blocks:
        raise UnsupportedFeatureError(
            "XFS: has a realtime device, which is not in this volume", name=name
        )
    if block.log_start == 0:
        raise UnsupportedFeatureError(
            "XFS: has its log on another device, which is not in this volume", name=name
        )
