"""What the superblock says of the places of everything else.

A volume is cut into groups. Each has a bitmap of its clusters (which are blocks, but for
bigalloc), one of its inodes and a table of inodes; these may be anywhere, with flex_bg in
another group. Some groups begin with a copy of the superblock and of all group descriptors,
and with room for these to grow; with meta_bg the descriptors are spread over the groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import KIB, align_up
from imprint.filesystems.ext import features
from imprint.filesystems.ext.checksums import checksum
from imprint.filesystems.ext.layout import FIRST_INODE, MAGIC, SUPERBLOCK_OFFSET, Superblock

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader

GROUP_COUNT_MAX: Final = 1 << 20
"""128 TiB at the usual 128 MiB. Python looks at each group, at some 20 µs."""


@dataclass(frozen=True)
class Geometry:
    """Sizes and places. Blocks are counted from the volume's start.

    Attributes:
        superblock: the one at byte 1024; of revision 0 with what later ones say.
        where: the volume's name, for errors.
        block_size: in bytes.
        ratio: how many blocks a cluster has: 1 without bigalloc.
        block_count: of the file system, block 0 included.
        group_count: the last one may be short.
        descriptor_size: in bytes.
        seed: of checksums with metadata_csum.
    """

    superblock: Superblock
    where: str
    block_size: int
    ratio: int
    block_count: int
    group_count: int
    descriptor_size: int
    seed: int

    def has(self, *, compat: int = 0, incompat: int = 0, ro_compat: int = 0) -> bool:
        """Whether the file system has all these features."""
        block = self.superblock
        return (
            block.compat & compat == compat
            and block.incompat & incompat == incompat
            and block.ro_compat & ro_compat == ro_compat
        )

    @property
    def has_checksums(self) -> bool:
        """Whether descriptors have checksums; only then they have flags too."""
        return bool(self.superblock.ro_compat & (features.GDT_CSUM | features.METADATA_CSUM))

    @property
    def inode_table_blocks(self) -> int:
        """Blocks of each group's table of inodes."""
        block = self.superblock
        return -(-block.inodes_per_group * block.inode_size // self.block_size)

    @property
    def descriptors_per_block(self) -> int:
        """Group descriptors in a block."""
        return self.block_size // self.descriptor_size

    @property
    def descriptor_blocks(self) -> int:
        """Blocks of one copy of all group descriptors."""
        return -(-self.group_count // self.descriptors_per_block)

    @property
    def free_block_count(self) -> int:
        """As the superblock has it."""
        block = self.superblock
        return self._wide(block.free_block_count_low, block.free_block_count_high)

    def group_start(self, group: int) -> int:
        """The first block of a group."""
        return self.superblock.first_data_block + group * self.superblock.blocks_per_group

    def group_length(self, group: int) -> int:
        """How many blocks a group has."""
        start = self.group_start(group)
        return min(self.superblock.blocks_per_group, self.block_count - start)

    def group_clusters(self, group: int) -> int:
        """How many clusters a group has; the last one may be in it in part."""
        return -(-self.group_length(group) // self.ratio)

    def has_superblock(self, group: int) -> bool:
        """Whether a group begins with a copy of the superblock."""
        if group == 0:
            return True
        if self.has(compat=features.SPARSE_SUPER2):
            return group in (self.superblock.backup_group_0, self.superblock.backup_group_1)
        if group == 1 or not self.has(ro_compat=features.SPARSE_SUPER):
            return True
        return group % 2 == 1 and any(_is_power(group, base) for base in (3, 5, 7))

    def head_blocks(self, group: int) -> int:
        """How many blocks at a group's start hold superblock and descriptors, or may.

        Source: Linux ``ext4_num_base_meta_clusters``.
        """
        has_copy = self.has_superblock(group)
        # With 1 KiB in a block and bigalloc, group 0 begins with a block for boot code.
        first = self.first_copy if group == 0 else 0
        meta_group = group // self.descriptors_per_block
        if self._is_spread(meta_group):
            edge = self.descriptors_per_block - 1
            return first + has_copy + (group % self.descriptors_per_block in (0, 1, edge))
        if not has_copy:
            return 0
        count = self.descriptor_blocks
        if self.has(incompat=features.META_BG):
            count = min(count, self.superblock.first_meta_group)
        return first + 1 + count + self.superblock.reserved_gdt_blocks

    @property
    def first_copy(self) -> int:
        """Of group 0's blocks, the one with the superblock."""
        return SUPERBLOCK_OFFSET // self.block_size - self.superblock.first_data_block

    def descriptor_place(self, index: int) -> int:
        """The block with the first copy of a block of descriptors.

        Source: Linux ``descriptor_loc``.
        """
        if not self._is_spread(index):
            return SUPERBLOCK_OFFSET // self.block_size + 1 + index
        group = index * self.descriptors_per_block
        skipped = self.first_copy if group == 0 else 0
        return self.group_start(group) + skipped + self.has_superblock(group)

    def _is_spread(self, meta_group: int) -> bool:
        return (
            self.has(incompat=features.META_BG) and meta_group >= self.superblock.first_meta_group
        )

    def _wide(self, low: int, high: int) -> int:
        return low | high << 32 if self.has(incompat=features.BITS_64) else low


def read_geometry(reader: VolumeReader, *, may_be_cut: bool = False) -> Geometry:
    """Read and check the superblock.

    Args:
        reader: of the volume.
        may_be_cut: whether the volume may end before the file system does.

    Raises:
        CorruptImageError: if it contradicts itself, or does not fit to the volume.
        UnsupportedFeatureError: see :func:`~imprint.filesystems.ext.features.check_features`.
    """
    data = reader.read(SUPERBLOCK_OFFSET, Superblock.SIZE, "superblock")
    block = Superblock.unpack(data, where=reader.name)
    check = _Checker(block, reader.name)
    check("magic", block.magic == MAGIC, f"0x{MAGIC:x}")
    if block.revision == 0:
        block = block.replace(
            compat=0, incompat=0, ro_compat=0, inode_size=128, first_inode=FIRST_INODE
        )
    features.check_features(block, where=reader.name)
    if block.ro_compat & features.METADATA_CSUM:
        check("checksum_type", block.checksum_type == 1, "1, CRC-32C")
        expected = checksum(data[: Superblock.FIELDS["checksum"].at])
        check("checksum", block.checksum == expected, f"0x{expected:x}")
    _check_sizes(block, check)
    is_wide = bool(block.incompat & features.BITS_64)
    block_size = KIB << block.log_block_size
    block_count = block.block_count_low | (block.block_count_high << 32 if is_wide else 0)
    check("block_count_low", block_count > block.first_data_block, "more blocks")
    if block_count * block_size > reader.size and not may_be_cut:
        raise CorruptImageError(
            f"superblock: expected a file system that fits into {reader.size} bytes, "
            f"found one of {block_count * block_size}",
            name=reader.name,
        )
    group_count = -(-(block_count - block.first_data_block) // block.blocks_per_group)
    if group_count > GROUP_COUNT_MAX:
        raise UnsupportedFeatureError(
            f"expected at most {GROUP_COUNT_MAX} groups, found {group_count}", name=reader.name
        )
    inode_count = group_count * block.inodes_per_group
    check("inode_count", block.inode_count == inode_count, f"0x{inode_count:x}")
    has_seed = block.incompat & features.CSUM_SEED
    return Geometry(
        superblock=block,
        where=reader.name,
        block_size=block_size,
        ratio=1 << block.log_cluster_size - block.log_block_size
        if block.ro_compat & features.BIGALLOC
        else 1,
        block_count=block_count,
        group_count=group_count,
        descriptor_size=block.descriptor_size if is_wide else 32,
        seed=block.checksum_seed if has_seed else checksum(block.uuid),
    )


@dataclass(frozen=True)
class _Checker:
    block: Superblock
    where: str

    def __call__(self, field: str, holds: bool, expected: str) -> None:  # noqa: FBT001
        self.block.require(field, holds, expected, where=self.where, at=SUPERBLOCK_OFFSET)


def _check_sizes(block: Superblock, check: _Checker) -> None:
    """Refuse sizes that the kernel would refuse as well; the bits of a byte stay together."""
    check("log_block_size", block.log_block_size <= 6, "at most 6")
    block_size = KIB << block.log_block_size
    bits = block_size * 8
    if block.ro_compat & features.BIGALLOC:
        ratio_log = block.log_cluster_size - block.log_block_size
        check("log_cluster_size", 0 <= ratio_log <= 16, "a cluster of at most 65536 blocks")
        check("first_data_block", block.first_data_block == 0, "0")
        is_valid = 0 < block.clusters_per_group <= bits and block.clusters_per_group % 8 == 0
        check("clusters_per_group", is_valid, "bits that fit into a block")
        is_valid = block.blocks_per_group == block.clusters_per_group << ratio_log
        check("blocks_per_group", is_valid, "the blocks of clusters_per_group")
    else:
        first = 1 if block.log_block_size == 0 else 0
        check("first_data_block", block.first_data_block == first, str(first))
        is_valid = 0 < block.blocks_per_group <= bits and block.blocks_per_group % 8 == 0
        check("blocks_per_group", is_valid, "bits that fit into a block")
    is_valid = 128 <= block.inode_size <= block_size and block.inode_size.bit_count() == 1
    check("inode_size", is_valid, "a power of two from 128 to a block")
    check("inodes_per_group", 0 < block.inodes_per_group <= bits, "bits that fit into a block")
    if block.incompat & features.BITS_64:
        is_valid = 64 <= block.descriptor_size <= KIB and block.descriptor_size.bit_count() == 1
        check("descriptor_size", is_valid, "a power of two from 64 to 1024")
    table = align_up(block.inodes_per_group * block.inode_size, block_size) // block_size
    is_valid = table < block.blocks_per_group
    check("inodes_per_group", is_valid, "a table that fits into a group")


def _is_power(value: int, base: int) -> bool:
    while value % base == 0:
        value //= base
    return value == 1
