"""The group descriptors: where each group has its bitmaps and inodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.core.units import MIB
from imprint.filesystems.ext import features
from imprint.filesystems.ext.checksums import checksum, crc16
from imprint.filesystems.ext.layout import BLOCK_UNINIT, INODE_UNINIT, GroupDescriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ext.geometry import Geometry

_CHECKSUM_AT: Final = GroupDescriptor.FIELDS["checksum"].at
_READ_BYTES: Final = 1 * MIB
_OWN: Final = ("block bitmap", "inode bitmap", "inode table")


class Group(NamedTuple):
    """What a descriptor says; places are blocks of the volume.

    Attributes:
        number: of the group, from 0.
        block_bitmap: of its clusters; not there if ``has_bitmap`` is false.
        inode_bitmap: one block.
        inode_table: the first block.
        has_bitmap: otherwise only the group's own structures are in use.
        free_count: of clusters.
        inodes_used: inodes at the table's start that were ever in use, at most.
        bitmap_checksum: all or the low half, as the descriptor's size allows.
    """

    number: int
    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    has_bitmap: bool
    free_count: int
    inodes_used: int
    bitmap_checksum: int


def read_groups(reader: VolumeReader, geometry: Geometry, *, is_strict: bool) -> Iterator[Group]:
    """All group descriptors, from their first copy.

    Args:
        reader: of the volume.
        geometry: of its superblock.
        is_strict: refuse checksums that do not match.

    Raises:
        CorruptImageError: for these, and for places outside of the file system.
    """
    for index, data in enumerate(_descriptors(reader, geometry)):
        if is_strict and geometry.has_checksums:
            _check(data, index, geometry)
        group = _group(data, index, geometry)
        for (place, length), what in zip(own_runs(group, geometry), _OWN, strict=True):
            _check_inside(place, length, what, group, geometry)
        yield group


def read_group(reader: VolumeReader, geometry: Geometry, index: int) -> Group:
    """One group's descriptor, unchecked but for the place of its table of inodes.

    Raises:
        CorruptImageError: if that is outside.
    """
    block, position = divmod(index, geometry.descriptors_per_block)
    size = geometry.descriptor_size
    place = geometry.descriptor_place(block) * geometry.block_size + position * size
    group = _group(reader.read(place, size, "group descriptor"), index, geometry)
    _check_inside(group.inode_table, geometry.inode_table_blocks, _OWN[2], group, geometry)
    return group


def own_runs(group: Group, geometry: Geometry) -> list[tuple[int, int]]:
    """A group's bitmaps and table of inodes, as runs of blocks, wherever they are."""
    return [
        (group.block_bitmap, 1),
        (group.inode_bitmap, 1),
        (group.inode_table, geometry.inode_table_blocks),
    ]


def head_runs(geometry: Geometry) -> list[tuple[int, int]]:
    """All copies of the superblock and the descriptors, with the room to grow, in blocks."""
    return [
        (geometry.group_start(index), min(length, geometry.group_length(index)))
        for index in range(geometry.group_count)
        if (length := geometry.head_blocks(index))
    ]


def _descriptors(reader: VolumeReader, geometry: Geometry) -> Iterator[memoryview]:
    """The bytes of each descriptor. Blocks of them that touch are read in one go."""
    block_size, left = geometry.block_size, geometry.group_count
    for first, count in _runs_of_blocks(geometry):
        offset = first * block_size
        data = memoryview(reader.read(offset, count * block_size, "group descriptors"))
        for position in range(0, len(data), geometry.descriptor_size):
            if left == 0:
                return
            left -= 1
            yield data[position : position + geometry.descriptor_size]


def _runs_of_blocks(geometry: Geometry) -> Iterator[tuple[int, int]]:
    """Where the blocks of descriptors are, in order; those that touch as one."""
    first, count = geometry.descriptor_place(0), 1
    for index in range(1, geometry.descriptor_blocks):
        place = geometry.descriptor_place(index)
        if place == first + count and count * geometry.block_size < _READ_BYTES:
            count += 1
        else:
            yield first, count
            first, count = place, 1
    yield first, count


def _group(data: bytes | bytearray | memoryview, number: int, geometry: Geometry) -> Group:
    is_short = geometry.descriptor_size < GroupDescriptor.SIZE
    item = GroupDescriptor.unpack(bytes(data) + bytes(32) if is_short else data)
    flags = item.flags if geometry.has_checksums else 0
    inode_count = geometry.superblock.inodes_per_group
    unused = item.unused_inodes_low | item.unused_inodes_high << 16
    if not geometry.has_checksums:
        unused = 0
    return Group(
        number=number,
        block_bitmap=item.block_bitmap_low | item.block_bitmap_high << 32,
        inode_bitmap=item.inode_bitmap_low | item.inode_bitmap_high << 32,
        inode_table=item.inode_table_low | item.inode_table_high << 32,
        has_bitmap=not flags & BLOCK_UNINIT,
        free_count=item.free_count_low | item.free_count_high << 16,
        inodes_used=0 if flags & INODE_UNINIT else max(0, inode_count - unused),
        bitmap_checksum=item.block_bitmap_checksum_low | item.block_bitmap_checksum_high << 16,
    )


def _check(data: memoryview, index: int, geometry: Geometry) -> None:
    """Refuse a descriptor whose checksum does not match.

    Source: Linux ``ext4_group_desc_csum``.
    """
    number = index.to_bytes(4, "little")
    head, tail = data[:_CHECKSUM_AT], data[_CHECKSUM_AT + 2 :]
    if geometry.has(ro_compat=features.METADATA_CSUM):
        expected = checksum(number + bytes(head) + bytes(2) + bytes(tail), geometry.seed) & 0xFFFF
    else:
        rest = tail if geometry.has(incompat=features.BITS_64) else b""
        expected = crc16(geometry.superblock.uuid + number + bytes(head) + bytes(rest))
    found = int.from_bytes(data[_CHECKSUM_AT : _CHECKSUM_AT + 2], "little")
    if found != expected:
        raise CorruptImageError(
            f"descriptor of group {index}: expected the checksum 0x{expected:x}, found 0x{found:x}",
            name=geometry.where,
        )


def _check_inside(place: int, length: int, what: str, group: Group, geometry: Geometry) -> None:
    first = geometry.superblock.first_data_block
    if not first < place <= geometry.block_count - length:
        raise CorruptImageError(
            f"{what} of group {group.number}: expected blocks between {first} and "
            f"{geometry.block_count}, found {place} + {length}",
            name=geometry.where,
        )
