"""Checkpoints of a container: which one counts, and which one came before it.

A checkpoint is a superblock and the maps of its ephemeral objects, in the ring of the descriptor
area. Nothing that an older one needs is overwritten before a newer one is whole, so the newest
whole one is what the container is, however it was left.

Source: "Apple File System Reference", "Mounting an Apple File System Partition".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import MIB
from imprint.filesystems.apfs import layout
from imprint.filesystems.apfs.layout import (
    CheckpointEntry,
    CheckpointMap,
    ContainerSuperblock,
    Extent,
    ObjectHeader,
)
from imprint.filesystems.apfs.objects import Blocks, is_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader

DESCRIPTORS_BYTES_MAX: Final = 64 * MIB
"""Of the descriptor area; the largest containers have a few MiB."""

EPHEMERAL_BYTES_MAX: Final = 16 * MIB
"""Of the objects of one checkpoint: nearly all are the free queues' nodes, at most 512 each."""

CANDIDATES_MAX: Final = 6
"""Superblocks that are looked at: a power cut tears the newest, and no more."""


@dataclass(frozen=True)
class Checkpoint:
    """One that is whole.

    Attributes:
        superblock: of it.
        block: where the superblock is.
        ephemeral: objects by their number: the first block and bytes of each.
    """

    superblock: ContainerSuperblock
    block: int
    ephemeral: dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Container:
    """What is needed to find the rest.

    Attributes:
        blocks: of it.
        newest: the checkpoint that counts.
        is_behind: there is a superblock of a newer one that is not whole.
        descriptors: the area of maps and superblocks.
        data: the area of ephemeral objects.
        first_uuid: of the container whose superblock is in block 0.
    """

    blocks: Blocks
    newest: Checkpoint
    is_behind: bool
    descriptors: Extent
    data: Extent
    first_uuid: bytes
    _older: Iterator[Checkpoint]

    def previous(self) -> Checkpoint | None:
        """The newest of the older checkpoints that are whole. To be asked once."""
        return next(self._older, None)

    def ephemeral(self, checkpoint: Checkpoint, oid: int, what: str) -> bytes:
        """An object that was verified with its checkpoint.

        Raises:
            CorruptImageError: if the checkpoint has no such object.
        """
        if oid not in checkpoint.ephemeral:
            raise CorruptImageError(
                f"{what}: expected an object {oid} in the checkpoint", name=self.blocks.reader.name
            )
        block, size = checkpoint.ephemeral[oid]
        return self.blocks.read(block, size // self.blocks.size, what)


def read_container(reader: VolumeReader) -> Container:
    """Find the checkpoints.

    Raises:
        CorruptImageError: if none is whole.
        UnsupportedFeatureError: if it has features that are not known.
    """
    first = ContainerSuperblock.unpack(reader.read(0, ContainerSuperblock.SIZE, "superblock"))
    if first.magic != layout.CONTAINER_MAGIC or first.block_size not in layout.BLOCK_SIZES:
        raise CorruptImageError("superblock: expected its mark, found none", name=reader.name)
    blocks = Blocks(reader, first.block_size, reader.size // first.block_size)
    blocks.verify(blocks.read(0, 1, "superblock"), 0, "superblock")
    _check_superblock(blocks, first)
    blocks.count = first.block_count
    descriptors = Extent(first.descriptor_base, first.descriptor_blocks)
    data = Extent(first.data_base, first.data_blocks)
    for extent in (descriptors, data):
        blocks.check(extent, "checkpoint area")
    candidates = _candidates(blocks, descriptors)
    found = _whole(blocks, descriptors, data, candidates)
    newest = next(found, None)
    if newest is None:
        raise CorruptImageError("checkpoints: expected a whole one, found none", name=reader.name)
    _check_superblock(blocks, newest.superblock)
    blocks.count = newest.superblock.block_count
    is_behind = newest.superblock.xid != max(candidates[0][0], first.xid)
    return Container(blocks, newest, is_behind, descriptors, data, first.uuid, found)


def _check_superblock(blocks: Blocks, block: ContainerSuperblock) -> None:
    reader = blocks.reader
    unknown = block.incompatible_features & ~layout.KNOWN_INCOMPATIBLE
    need = [
        ("incompatible_features", not unknown, "known features"),
        ("readonly_features", not block.readonly_features, "no features"),
        ("descriptor_blocks", not block.descriptor_blocks & layout.IS_TREE, "an area in one piece"),
        ("data_blocks", not block.data_blocks & layout.IS_TREE, "an area in one piece"),
    ]
    for field, holds, expected in need:
        block.require(field, holds, expected, where=reader.name, error=UnsupportedFeatureError)
    room = reader.size // block.block_size
    area = block.descriptor_blocks * block.block_size
    right = [
        ("block_size", block.block_size == blocks.size, "one size of blocks"),
        ("block_count", 0 < block.block_count <= room, "blocks of the volume"),
        ("descriptor_blocks", 0 < area <= DESCRIPTORS_BYTES_MAX, "some blocks"),
        ("volumes_max", block.volumes_max <= len(block.volumes) // 8, "at most 100"),
    ]
    for field, holds, expected in right:
        block.require(field, holds, expected, where=reader.name)


def _candidates(blocks: Blocks, area: Extent) -> list[tuple[int, int]]:
    """``(transaction, index in the area)`` of what looks like a superblock, newest first."""
    found = []
    step = max(1, MIB // blocks.size)
    for first in range(0, area.length, step):
        count = min(step, area.length - first)
        piece = memoryview(blocks.read(area.start + first, count, "checkpoint area"))
        for index in range(count):
            content = piece[index * blocks.size :]
            header = ObjectHeader.unpack(content)
            if (
                header.type & layout.TYPE_MASK == layout.CONTAINER
                and bytes(content[32:36]) == layout.CONTAINER_MAGIC
            ):
                found.append((header.xid, first + index))
    return sorted(found, reverse=True)


def _whole(
    blocks: Blocks, area: Extent, data: Extent, candidates: list[tuple[int, int]]
) -> Iterator[Checkpoint]:
    """The checkpoints of which everything is there, newest first."""
    for _, index in candidates[:CANDIDATES_MAX]:
        content = blocks.read(area.start + index, 1, "superblock of a checkpoint")
        superblock = ContainerSuperblock.unpack(content)
        areas = (
            Extent(superblock.descriptor_base, superblock.descriptor_blocks),
            Extent(superblock.data_base, superblock.data_blocks),
        )
        if not is_whole(content) or areas != (area, data) or superblock.block_size != blocks.size:
            continue
        ephemeral = _ephemeral(blocks, area, data, superblock, index)
        if ephemeral is not None:
            yield Checkpoint(superblock, area.start + index, ephemeral)


def _ephemeral(
    blocks: Blocks, area: Extent, data: Extent, superblock: ContainerSuperblock, index: int
) -> dict[int, tuple[int, int]] | None:
    """Its ephemeral objects, all verified; ``None`` if something is amiss."""
    length = superblock.descriptor_length
    # The superblock is written last, behind its maps.
    begins = (index - length + 1) % area.length
    if not 1 < length <= area.length or superblock.descriptor_index != begins:
        return None
    found: dict[int, tuple[int, int]] = {}
    left = EPHEMERAL_BYTES_MAX
    for step in range(length - 1):
        block = area.start + (begins + step) % area.length
        content = blocks.read(block, 1, "checkpoint map")
        head = CheckpointMap.unpack(content)
        if (
            head.type & layout.TYPE_MASK != layout.CHECKPOINT_MAP
            or head.xid != superblock.xid
            or head.count > (blocks.size - CheckpointMap.SIZE) // CheckpointEntry.SIZE
            or bool(head.flags & layout.LAST_MAP) != (step == length - 2)
            or not is_whole(content)
        ):
            return None
        for number in range(head.count):
            entry = CheckpointEntry.unpack(
                memoryview(content)[CheckpointMap.SIZE + number * CheckpointEntry.SIZE :]
            )
            left -= entry.size
            if left < 0 or not _is_object(blocks, data, entry):
                return None
            found[entry.oid] = (entry.block, entry.size)
    return found


def _is_object(blocks: Blocks, data: Extent, entry: CheckpointEntry) -> bool:
    """Whether what a map names is there and whole."""
    count, rest = divmod(entry.size, blocks.size)
    start = entry.block - data.start
    if rest or not count or start < 0 or start + count > data.length:
        return False
    content = blocks.read(entry.block, count, "ephemeral object")
    head = ObjectHeader.unpack(content)
    return (head.oid, head.type) == (entry.oid, entry.type) and is_whole(content)
