"""The state of an F2FS: its superblock, the checkpoint that counts, and its journals.

Source: Linux ``fs/f2fs/checkpoint.c`` (``f2fs_get_valid_checkpoint``), ``fs/f2fs/f2fs.h``
(``__bitmap_ptr``), ``fs/f2fs/segment.c`` (``read_compacted_summaries``).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.filesystems.f2fs import layout
from imprint.filesystems.f2fs.layout import BLOCK, Checkpoint, NodeFooter, Superblock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader

_HOT_DATA, _COLD_DATA = 0, 2
_DATA_LOGS, _ALL_LOGS = 3, 6
_CHECKSUM_AT_END: Final = BLOCK - 4
_PACK_BLOCKS_MAX: Final = 512
_NAT_JOURNAL_ENTRY: Final = 4 + layout.NAT_ENTRY
_WARM_NODE: Final = 1
_VERSION_MASK: Final = 0xFFFFFFFF
_AREA_ERROR: Final = "expected areas one behind the other inside the volume"


@dataclass(frozen=True)
class State:
    """What is needed to find blocks.

    Attributes:
        block: the superblock.
        checkpoint: that counts.
        sit_bitmap: a bit for each block of the segment table: set, the second copy counts.
        nat_bitmap: the same for the node table.
        sit_journal: changes of the segment table that are not in it yet.
        nat_journal: the same of the node table.
    """

    block: Superblock
    checkpoint: Checkpoint
    sit_bitmap: bytes
    nat_bitmap: bytes
    sit_journal: bytes
    nat_journal: bytes

    @property
    def segment_blocks(self) -> int:
        """Blocks of a segment."""
        return 1 << self.block.log_segment_blocks

    def nat_block(self, number: int) -> int:
        """The copy that counts of a block of the node table, by its number there.

        Source: Linux ``fs/f2fs/node.h`` (``current_nat_addr``).
        """
        segment = self.segment_blocks
        where = self.block.nat_block + number // segment * 2 * segment + number % segment
        return where + segment * is_set(self.nat_bitmap, number)

    def addresses_of_inode(self, content: bytes) -> tuple[int, int]:
        """From where to where an inode has addresses of blocks, or its content."""
        inline = content[layout.INLINE_AT]
        start, end = layout.ADDRESSES_AT, layout.NIDS_AT
        if inline & layout.EXTRA_ATTRIBUTES:
            start += int.from_bytes(content[start : start + 2], "little") // 4 * 4
        if inline & layout.EXTRA_ATTRIBUTES and self.block.features & layout.FLEXIBLE_XATTR:
            at = layout.ADDRESSES_AT + 2
            end -= 4 * int.from_bytes(content[at : at + 2], "little")
        elif inline & (layout.INLINE_XATTR | layout.INLINE_NAMES):
            end -= layout.INLINE_XATTR_BYTES
        return start, max(start, end)

    def newer_nodes(self) -> Iterator[tuple[int, int]]:
        """``(nid, block)`` of what the journal of the node table has."""
        count = int.from_bytes(self.nat_journal[:2], "little")
        for index in range(min(count, (layout.JOURNAL_BYTES - 2) // _NAT_JOURNAL_ENTRY)):
            at = 2 + index * _NAT_JOURNAL_ENTRY
            entry = self.nat_journal[at : at + _NAT_JOURNAL_ENTRY]
            yield int.from_bytes(entry[:4], "little"), int.from_bytes(entry[9:13], "little")


def read_state(reader: VolumeReader) -> State:
    """Read what counts at present.

    Raises:
        CorruptImageError: if no superblock, or no checkpoint, is whole.
        UnsupportedFeatureError: if it has a feature that is not known.
    """
    block = _superblock(reader)
    packs = [
        pack
        for pack in (
            _pack(reader, block.checkpoint_block),
            _pack(reader, block.checkpoint_block + (1 << block.log_segment_blocks)),
        )
        if pack is not None
    ]
    if not packs:
        raise CorruptImageError(
            "checkpoint: expected one that is whole, found none", name=reader.name
        )
    start, checkpoint, content = max(packs, key=lambda pack: pack[1].version)
    sit_bitmap, nat_bitmap = _bitmaps(reader, block, start, checkpoint, content)
    sit_journal, nat_journal = _journals(reader, start, checkpoint)
    return State(block, checkpoint, sit_bitmap, nat_bitmap, sit_journal, nat_journal)


def goes_on(reader: VolumeReader, state: State) -> bool:
    """Whether a node was written behind the checkpoint, to be recovered at the next mount.

    A clean checkpoint does not exclude it: nothing is written to it when a volume is mounted.
    Source: Linux ``fs/f2fs/recovery.c`` (``find_fsync_dnodes``, ``is_recoverable_dnode``).
    """
    head = state.checkpoint
    segments = memoryview(head.node_segments)
    segment = int.from_bytes(segments[4 * _WARM_NODE : 4 * _WARM_NODE + 4], "little")
    offset = int.from_bytes(head.node_offsets[2 * _WARM_NODE : 2 * _WARM_NODE + 2], "little")
    if offset >= state.segment_blocks or segment >= state.block.main_segments:
        return False
    where = state.block.main_block + segment * state.segment_blocks + offset
    end = reader.read(
        (where + 1) * BLOCK - NodeFooter.SIZE, NodeFooter.SIZE, "node behind the checkpoint"
    )
    return NodeFooter.unpack(end).version & _VERSION_MASK == head.version & _VERSION_MASK


def f2fs_crc(data: bytes | bytearray, crc: int = layout.MAGIC) -> int:
    """CRC-32 with F2FS's own seed and without inversion; zlib inverts before and after."""
    return zlib.crc32(data, crc ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def is_set(bitmap: bytes, number: int) -> bool:
    """Whether a bit is set; bit 0 is the highest of byte 0."""
    return bool(bitmap[number // 8] & 0x80 >> number % 8)


def _superblock(reader: VolumeReader) -> Superblock:
    for offset in layout.SUPER_OFFSETS:
        block = Superblock.unpack(reader.read(offset, Superblock.SIZE, "superblock"))
        if block.magic == layout.MAGIC:
            break
    else:
        raise CorruptImageError("superblock: expected its mark, found none", name=reader.name)
    unknown = block.features & ~layout.KNOWN_FEATURES
    need = [
        ("log_block_size", block.log_block_size == 12, "12"),
        ("log_segment_blocks", block.log_segment_blocks == 9, "9"),
        ("features", not unknown, f"known features, not 0x{unknown:x}"),
        ("first_device", not any(block.first_device), "one device"),
    ]
    for field, holds, expected in need:
        block.require(field, holds, expected, where=reader.name, error=UnsupportedFeatureError)
    segment = 1 << block.log_segment_blocks
    in_order = (
        block.checkpoint_block > 1
        and block.checkpoint_block + 2 * segment <= block.sit_block
        and block.sit_block + block.sit_segments * segment <= block.nat_block
        and block.nat_block + block.nat_segments * segment <= block.summary_block
        and block.summary_block <= block.main_block
        and block.main_block + block.main_segments * segment <= block.block_count
        and block.block_count * BLOCK <= reader.size
        and block.main_segments <= block.sit_segments // 2 * segment * layout.SIT_ENTRIES
    )
    if not in_order:
        raise CorruptImageError(f"superblock: {_AREA_ERROR}", name=reader.name)
    return block


def _pack(reader: VolumeReader, start: int) -> tuple[int, Checkpoint, bytes] | None:
    """A checkpoint pack, if its first and last block are whole and say the same."""
    content = bytes(reader.read(start * BLOCK, BLOCK, "checkpoint"))
    head = Checkpoint.unpack(content)
    if not 2 <= head.total_blocks <= _PACK_BLOCKS_MAX or not _is_whole(content, head):
        return None
    tail = bytes(reader.read((start + head.total_blocks - 1) * BLOCK, BLOCK, "checkpoint"))
    last = Checkpoint.unpack(tail)
    if last.version != head.version or not _is_whole(tail, last):
        return None
    return start, head, content


def _is_whole(content: bytes, head: Checkpoint) -> bool:
    at = head.checksum_offset
    if not Checkpoint.SIZE <= at <= _CHECKSUM_AT_END:
        return False
    crc = f2fs_crc(content[:at])
    if at < _CHECKSUM_AT_END:
        crc = f2fs_crc(content[at + 4 :], crc)
    return crc == int.from_bytes(content[at : at + 4], "little")


def _bitmaps(
    reader: VolumeReader, block: Superblock, start: int, head: Checkpoint, content: bytes
) -> tuple[bytes, bytes]:
    sit_size, nat_size = head.sit_bitmap_bytes, head.nat_bitmap_bytes
    bits = (block.sit_segments // 2) << block.log_segment_blocks
    nat_bits = (block.nat_segments // 2) << block.log_segment_blocks
    if sit_size * 8 < bits or nat_size * 8 < nat_bits:
        raise CorruptImageError(
            "checkpoint: expected bitmaps for all blocks of the tables, found shorter ones",
            name=reader.name,
        )
    base = Checkpoint.SIZE
    if head.flags & layout.CP_LARGE_NAT_BITMAP:
        places = (base + 4 + nat_size, base + 4)
    elif block.checkpoint_payload:
        block.require(
            "checkpoint_payload",
            block.checkpoint_payload < _PACK_BLOCKS_MAX,
            "blocks of a checkpoint pack",
            where=reader.name,
        )
        payload = reader.read((start + 1) * BLOCK, block.checkpoint_payload * BLOCK, "bitmap")
        content = content[:BLOCK] + bytes(payload)
        places = (BLOCK, base)
    else:
        places = (base, base + sit_size)
    sit = content[places[0] : places[0] + sit_size]
    nat = content[places[1] : places[1] + nat_size]
    if len(sit) < sit_size or len(nat) < nat_size:
        raise CorruptImageError("checkpoint: its bitmaps are cut off", name=reader.name)
    return sit, nat


def _journals(reader: VolumeReader, start: int, head: Checkpoint) -> tuple[bytes, bytes]:
    """What stands in the summaries of the logs for cold and hot data."""
    if head.flags & layout.CP_COMPACT_SUMMARIES:
        where = (start + head.summaries_at) * BLOCK
        both = bytes(reader.read(where, 2 * layout.JOURNAL_BYTES, "compacted summaries"))
        return both[layout.JOURNAL_BYTES :], both[: layout.JOURNAL_BYTES]
    logs = _ALL_LOGS if head.flags & layout.CP_UMOUNT else _DATA_LOGS
    first = start + head.total_blocks - (logs + 1)
    found = []
    for log in (_COLD_DATA, _HOT_DATA):
        where = (first + log) * BLOCK + layout.SUMMARIES_BYTES
        found.append(bytes(reader.read(where, layout.JOURNAL_BYTES, "summary")))
    return found[0], found[1]
