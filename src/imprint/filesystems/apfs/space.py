"""Which blocks are in use: the space manager of a checkpoint, its chunks and their bitmaps.

Blocks that were given up wait in the free queue, and are marked as used, until no checkpoint
needs them any more. Bitmaps have no checksums: the counts of free blocks stand for them.

Source: "Apple File System Reference", "Space Manager".
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.filesystems.apfs import layout
from imprint.filesystems.apfs.layout import ChunkBlock, Extent, SpaceManager
from imprint.filesystems.apfs.trees import walk
from imprint.filesystems.collected import CollectedRuns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.apfs.checkpoints import Checkpoint, Container

_ENTRY: Final = struct.Struct(layout.CHUNK_ENTRY)
_ADDRESS_BYTES: Final = 8


@dataclass
class Space:
    """What a checkpoint's space manager says.

    Attributes:
        manager: of the checkpoint.
        used: blocks that are marked as used.
        queued: blocks that are to become free.
        doubts: sentences about what does not fit.
        wrong_chunks: how many have another number of free blocks than they say.
        infos: the chunk-info blocks.
        bitmaps: the block of each chunk's bitmap.
    """

    manager: SpaceManager
    used: CollectedRuns = field(default_factory=CollectedRuns)
    queued: CollectedRuns = field(default_factory=CollectedRuns)
    doubts: list[str] = field(default_factory=list)
    wrong_chunks: int = 0
    infos: list[int] = field(default_factory=list)
    bitmaps: array[int] = field(default_factory=lambda: array("Q"))


def read_space(container: Container, checkpoint: Checkpoint, known: Space | None = None) -> Space:
    """Read the map of a checkpoint.

    Args:
        container: it is in.
        checkpoint: to be read.
        known: what another checkpoint says: what is the same is not read again, and is not in
            the result.

    Raises:
        CorruptImageError: if its structures contradict themselves.
        UnsupportedFeatureError: if there are two devices.
    """
    content = container.ephemeral(checkpoint, checkpoint.superblock.space_manager, "space manager")
    space = Space(_manager(container, checkpoint, content))
    free = 0
    for index, block in enumerate(_infos(container, space.manager, content)):
        space.infos.append(block)
        if known is not None and block in known.infos[index : index + 1]:
            first = len(space.bitmaps)
            space.bitmaps.extend(known.bitmaps[first : first + space.manager.chunks_per_block])
            continue
        free += _read_chunks(container, space, index, known)
    if space.wrong_chunks:
        space.doubts.append(f"free blocks are miscounted in {space.wrong_chunks} of its chunks")
    if known is None and free != space.manager.free_count:
        space.doubts.append(f"expected {space.manager.free_count} free blocks, found {free}")
    _read_queue(container, checkpoint, space)
    return space


def pool_of(manager: SpaceManager) -> tuple[Extent, Extent]:
    """Where bitmaps and chunk-info blocks live, and the bitmaps of this."""
    return (
        Extent(manager.pool_start, manager.pool_count),
        Extent(manager.pool_bitmaps_start, manager.pool_bitmaps_count),
    )


def _manager(container: Container, checkpoint: Checkpoint, content: bytes) -> SpaceManager:
    blocks = container.blocks
    manager = SpaceManager.unpack(content)
    size, where = blocks.size, blocks.reader.name
    total = checkpoint.superblock.block_count
    chunks = -(-total // (8 * size))
    per_block = (size - ChunkBlock.SIZE) // layout.CHUNK_ENTRY_BYTES
    per_address = (size - ChunkBlock.SIZE) // _ADDRESS_BYTES
    infos = -(-chunks // per_block)
    addresses = -(-infos // per_address)
    listed = manager.address_count or manager.info_count
    room = (len(content) - manager.addresses_at) // _ADDRESS_BYTES
    unknown = manager.flags & ~layout.KNOWN_SPACE_FLAGS
    for name, known in (
        ("second_block_count", not manager.second_block_count),
        ("flags", not unknown),
    ):
        manager.require(name, known, "one device", where=where, error=UnsupportedFeatureError)
    right = [
        ("type", manager.type & layout.TYPE_MASK == layout.SPACE_MANAGER, "a space manager"),
        ("block_size", manager.block_size == size, "the size of the container's"),
        ("chunk_blocks", manager.chunk_blocks == 8 * size, "a bit for each"),
        ("chunks_per_block", manager.chunks_per_block == per_block, "as many as fit"),
        ("blocks_per_address_block", manager.blocks_per_address_block == per_address, "the same"),
        ("block_count", manager.block_count == total, "the blocks of the container"),
        ("chunk_count", manager.chunk_count == chunks, "chunks for all blocks"),
        ("info_count", manager.info_count == infos, "blocks for all chunks"),
        ("address_count", manager.address_count in (0, addresses), "addresses of all of them"),
        ("addresses_at", manager.addresses_at > 0 and listed <= room, "a place in the object"),
    ]
    for name, holds, expected in right:
        manager.require(name, holds, expected, where=where)
    for extent in pool_of(manager):
        blocks.check(extent, "internal pool")
    return manager


def _infos(container: Container, manager: SpaceManager, content: bytes) -> Iterator[int]:
    """Where the chunk-info blocks are, by their number."""
    if not manager.address_count:
        yield from _numbers(content, manager.addresses_at, manager.info_count)
        return
    left = manager.info_count
    blocks = _numbers(content, manager.addresses_at, manager.address_count)
    for index, block in enumerate(blocks):
        expected = min(left, manager.blocks_per_address_block)
        listed = _chunk_block(container, block, layout.ADDRESS_BLOCK, index, expected)
        yield from _numbers(listed, ChunkBlock.SIZE, expected)
        left -= expected


def _numbers(content: bytes, at: int, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"<{count}Q", content, at)


def _chunk_block(container: Container, block: int, kind: int, index: int, count: int) -> bytes:
    """One that has that number and as many entries, and was verified."""
    content = container.blocks.physical(block, kind, "chunk information")
    head = ChunkBlock.unpack(content)
    for name, expected in (("index", index), ("count", count)):
        head.require(
            name,
            getattr(head, name) == expected,
            str(expected),
            where=container.blocks.reader.name,
            at=block * container.blocks.size,
        )
    return content


def _read_chunks(container: Container, space: Space, index: int, known: Space | None) -> int:
    """Add the chunks of one chunk-info block; gives how many free blocks they count."""
    blocks, manager = container.blocks, space.manager
    first = index * manager.chunks_per_block
    count = min(manager.chunks_per_block, manager.chunk_count - first)
    content = _chunk_block(container, space.infos[index], layout.CHUNK_BLOCK, index, count)
    start = first * manager.chunk_blocks
    total = min(count * manager.chunk_blocks, manager.block_count - start)
    wanted, counts, free = {}, {}, 0
    entries = _ENTRY.iter_unpack(content[ChunkBlock.SIZE :][: count * _ENTRY.size])
    for number, (_, address, length, free_count, bitmap) in enumerate(entries):
        expected = min(manager.chunk_blocks, total - number * manager.chunk_blocks)
        place = start + number * manager.chunk_blocks
        if address != place or length & layout.COUNT_MASK != expected:
            raise CorruptImageError(
                f"chunk {first + number}: expected {expected} blocks from {place}, "
                f"found {length & layout.COUNT_MASK} from {address}",
                name=blocks.reader.name,
            )
        free += free_count & layout.COUNT_MASK
        space.bitmaps.append(bitmap)
        if known is None or bitmap not in known.bitmaps[first + number : first + number + 1]:
            counts[number] = free_count & layout.COUNT_MASK
            if bitmap:
                wanted[number] = bitmap
    bits = bytearray(count * blocks.size)
    for number, bitmap in _read_bitmaps(container, wanted):
        bits[number * blocks.size : (number + 1) * blocks.size] = bitmap
    _check_counts(space, first, bits, counts)
    space.used.add_bits(bits, start, total)
    return free


def _read_bitmaps(container: Container, wanted: dict[int, int]) -> Iterator[tuple[int, bytes]]:
    """The bitmaps of chunks, neighbours at once."""
    blocks = container.blocks
    most = MIB // blocks.size
    order = sorted(wanted, key=wanted.__getitem__)
    while order:
        group = [order.pop(0)]
        while order and len(group) < most and wanted[order[0]] == wanted[group[-1]] + 1:
            group.append(order.pop(0))
        content = blocks.read(wanted[group[0]], len(group), "bitmap of a chunk")
        for index, number in enumerate(group):
            yield number, content[index * blocks.size : (index + 1) * blocks.size]


def _check_counts(space: Space, first: int, bits: bytearray, counts: dict[int, int]) -> None:
    """Notice chunks whose count of free blocks is not that of their bitmap."""
    manager = space.manager
    size = manager.chunk_blocks // 8
    for number, count in counts.items():
        start = (first + number) * manager.chunk_blocks
        length = min(manager.chunk_blocks, manager.block_count - start)
        content = int.from_bytes(bits[number * size : (number + 1) * size], "little")
        if count != length - (content & (1 << length) - 1).bit_count():
            space.wrong_chunks += 1
            if not space.bitmaps[first + number]:
                space.used.add(Runs.of([(start, length)]))


def _read_queue(container: Container, checkpoint: Checkpoint, space: Space) -> None:
    """Add what waits to become free."""
    manager, blocks = space.manager, container.blocks
    if not manager.queue_root:
        return

    def load(oid: int) -> bytes:
        return container.ephemeral(checkpoint, oid, "free queue")

    total = 0
    for _, records in walk(manager.queue_root, load, "free queue", blocks.reader.name):
        extents = []
        for key, value in records:
            count = int.from_bytes(value[:8], "little") if value else 1
            extent = Extent(int.from_bytes(key[8:16], "little"), count)
            extents.append(blocks.check(extent, "free queue"))
            total += count
        space.queued.add(Runs.of(extents))
    if total != manager.queued_count:
        space.doubts.append(f"expected {manager.queued_count} blocks in the queue, found {total}")
