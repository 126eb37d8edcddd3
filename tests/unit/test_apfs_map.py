"""APFS containers put together by hand: what counts, what is doubted, what is refused."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError, FormatError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.filesystems.apfs import FILE_SYSTEM, layout
from imprint.filesystems.apfs.objects import checksum
from imprint.storage.memory import MemoryStorage
from imprint.testing.apfs_volume import (
    ADDRESSES,
    BITMAP,
    BLOCK,
    BLOCKS,
    DATA,
    FILES,
    INFO,
    JUMPSTART,
    KEYS,
    OBJECTS,
    OLD,
    QUEUED,
    SNAPSHOT_FILE,
    TAIL,
    USED,
    VOLUME,
    container,
    seal,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.filesystems.allocation import Allocation

SUPERBLOCK, MAP, OLDER = 4, 3, 2
SPACE, QUEUE = DATA[0], DATA[0] + 1
SUPER: Final = layout.ContainerSuperblock
SPACES: Final = layout.SpaceManager


def allocation(content: bytes) -> Allocation:
    return FILE_SYSTEM.allocation(MemoryStorage(content))


def in_bytes(blocks: Sequence[tuple[int, int]]) -> Runs:
    return Runs.of([*((s * BLOCK, n * BLOCK) for s, n in blocks), (BLOCKS * BLOCK, TAIL)])


def changed(block: int, at: int, data: bytes, *, is_listed: bool = False) -> bytes:
    """A container with other bytes in a block, whose checksum is right."""
    content = bytearray(container(is_listed=is_listed))
    content[block * BLOCK + at : block * BLOCK + at + len(data)] = data
    if block != BITMAP:
        seal(content, block)
    return bytes(content)


def place(structure: type[layout.ObjectHeader], name: str) -> int:
    return structure.FIELDS[name].at


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


@pytest.mark.parametrize("is_listed", [False, True])
def test_the_map_has_what_both_checkpoints_use(is_listed: bool) -> None:
    """Fails if the newer bitmap, the older one, the queue or the end is not kept."""
    found = allocation(container(is_listed=is_listed))
    assert (found.unit, found.doubts, found.notes) == (BLOCK, (), ())
    assert found.used == in_bytes([*USED, (OLD, 1)])


def test_everything_that_is_named_is_reached() -> None:
    """Fails if a file, a snapshot, a tree or the driver for EFI is not found by the walk."""
    reached = Runs.of(FILE_SYSTEM.reached(MemoryStorage(container())))
    assert reached.end <= BLOCKS * BLOCK
    named = [*FILES, SNAPSHOT_FILE, (JUMPSTART, 3), KEYS, (OBJECTS, 2), (VOLUME, 4), (48, 6)]
    for start, count in named:
        assert reached.covers(start * BLOCK, count * BLOCK), start
    assert not reached.covers(QUEUED[0] * BLOCK, 1)


def test_extents_of_an_encrypted_volume_are_reached_by_counts() -> None:
    """Fails if encrypted nodes are parsed, or nobody is told that they are not."""
    content = bytearray(container(is_encrypted=True))
    content[48 * BLOCK : 50 * BLOCK] = random.Random(1).randbytes(2 * BLOCK)
    reached = Runs.of(FILE_SYSTEM.reached(MemoryStorage(bytes(content))))
    assert reached.covers(FILES[0][0] * BLOCK, FILES[0][1] * BLOCK)
    assert allocation(bytes(content)).notes == (
        "volume 'by hand' is encrypted: its files cannot be walked",
    )


def test_a_chunk_without_a_bitmap_is_free() -> None:
    """Fails if block 0 is read for a bitmap; all that is always kept stays."""
    content = bytearray(changed(SPACE, 72, u64(BLOCKS)))
    entry = struct.pack(layout.CHUNK_ENTRY, 6, 0, BLOCKS, BLOCKS, 0)
    content[INFO * BLOCK + 40 : INFO * BLOCK + 72] = entry
    seal(content, INFO)
    content[OLDER * BLOCK] ^= 1
    found = allocation(bytes(content))
    assert found.doubts == ("blocks that are still to become free are marked as free",)
    assert found.used == in_bytes([(0, 36), QUEUED])


def test_a_chunk_without_a_bitmap_that_is_not_free_is_kept() -> None:
    """Fails if what is counted as used is left out as nobody says where."""
    entry = struct.pack(layout.CHUNK_ENTRY, 6, 0, BLOCKS, 40, 0)
    found = allocation(changed(INFO, 40, entry))
    assert found.used == Runs.whole(BLOCKS * BLOCK + TAIL)
    assert "free blocks are miscounted in 1 of its chunks" in found.doubts


DOUBTFUL: Final = {
    "free blocks of a chunk": (INFO, 60, u32(7)),
    "free blocks of all": (SPACE, 72, u64(7)),
    "blocks of the queue": (SPACE, 240, u64(7)),
    "bitmap": (BITMAP, 11, b"\x01"),
    "being made smaller": (SUPERBLOCK, 1240, struct.pack("<QQ", 90, 6)),
    "another container": (0, 72, bytes(16)),
    "newest map": (MAP, 36, u32(1000)),
    "newest map is not the last": (MAP, 32, u32(0)),
    "newest map is older": (MAP, 16, u64(3)),
    "newest object outside": (MAP, 40 + 32, u64(40)),
    "newest object is another": (MAP, 40 + 24, u64(77)),
    "newest object is huge": (MAP, 40 + 8, u32(0xFFFFF000)),
    "newest index": (SUPERBLOCK, 136, u32(5)),
    "newest length": (SUPERBLOCK, 140, u32(0xFFFFFFFF)),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_does_not_fit_leaves_a_doubt(name: str) -> None:
    """Fails if a map is believed whose counts contradict it, or that is not the newest."""
    found = allocation(changed(*DOUBTFUL[name]))
    assert found.doubts
    assert len(in_bytes(USED) - found.used) == 0


@pytest.mark.parametrize("what", ["torn", "lost", "of other areas"])
def test_the_older_checkpoint_counts_if_the_newest_is_not_whole(what: str) -> None:
    """Fails if a half-written superblock is believed, or nobody misses one."""
    content = bytearray(container())
    if what == "torn":
        content[SUPERBLOCK * BLOCK + 2000] ^= 1
    elif what == "lost":
        content[SUPERBLOCK * BLOCK : (SUPERBLOCK + 1) * BLOCK] = bytes(BLOCK)
    else:
        content = bytearray(changed(SUPERBLOCK, place(SUPER, "data_blocks"), u32(9)))
    found = allocation(bytes(content))
    assert found.doubts == ("its newest checkpoint is not whole",)
    assert found.used == in_bytes([*USED, (OLD, 1)])


def test_an_older_checkpoint_that_is_not_whole_is_left_out() -> None:
    """Fails if blocks are kept, or the map is doubted, for what nobody can go back to."""
    for block in (1, 2, DATA[0] + 2, DATA[0] + 3, INFO + 1):
        content = bytearray(container())
        content[block * BLOCK + 60] ^= 1
        found = allocation(bytes(content))
        assert found.doubts == ()
        assert found.used == in_bytes(USED)
    content = bytearray(container())
    content[(BITMAP + 1) * BLOCK + 11] ^= 1
    assert allocation(bytes(content)).used == in_bytes(USED)


UNSUPPORTED: Final = {
    "first version": (SUPERBLOCK, place(SUPER, "incompatible_features"), u64(1)),
    "Fusion": (SUPERBLOCK, place(SUPER, "incompatible_features"), u64(0x102)),
    "unknown": (0, place(SUPER, "incompatible_features"), u64(0x1002)),
    "unknown for writing": (0, place(SUPER, "readonly_features"), u64(1)),
    "scattered descriptors": (0, place(SUPER, "descriptor_blocks"), u32(1 << 31 | 8)),
    "scattered data": (0, place(SUPER, "data_blocks"), u32(1 << 31 | 10)),
    "second device": (SPACE, place(SPACES, "second_block_count"), u64(1)),
    "unknown flags": (SPACE, place(SPACES, "flags"), u32(2)),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_known_is_refused(name: str) -> None:
    """Fails if a container is read by rules that are not its own."""
    with pytest.raises(UnsupportedFeatureError):
        allocation(changed(*UNSUPPORTED[name]))


CORRUPT: Final = {
    "size of blocks": (0, place(SUPER, "block_size"), u32(4095)),
    "blocks behind the volume": (SUPERBLOCK, place(SUPER, "block_count"), u64(BLOCKS + 1)),
    "no blocks": (0, place(SUPER, "block_count"), u64(0)),
    "descriptors outside": (0, place(SUPER, "descriptor_base"), u64(1 << 63)),
    "data outside": (0, place(SUPER, "data_base"), u64(BLOCKS)),
    "many descriptors": (0, place(SUPER, "descriptor_blocks"), u32(0x7FFFFFFF)),
    "many volumes": (SUPERBLOCK, place(SUPER, "volumes_max"), u32(101)),
    "keys outside": (SUPERBLOCK, place(SUPER, "keybag_start"), u64(1 << 60)),
    "jumpstart elsewhere": (SUPERBLOCK, place(SUPER, "jumpstart"), u64(FILES[0][0])),
    "jumpstart's extents": (JUMPSTART, 44, u32(0xFFFFFFFF)),
    "driver outside": (JUMPSTART, 176, u64(BLOCKS)),
    "no such space manager": (SUPERBLOCK, place(SUPER, "space_manager"), u64(5)),
    "size of chunks": (SPACE, place(SPACES, "chunk_blocks"), u32(64)),
    "number of chunks": (SPACE, place(SPACES, "chunk_count"), u64(2)),
    "number of infos": (SPACE, place(SPACES, "info_count"), u32(0)),
    "blocks of the device": (SPACE, place(SPACES, "block_count"), u64(BLOCKS - 1)),
    "addresses behind the object": (SPACE, place(SPACES, "addresses_at"), u32(BLOCK - 7)),
    "pool outside": (SPACE, place(SPACES, "pool_start"), u64(BLOCKS)),
    "chunk information elsewhere": (SPACE, 2568, u64(OBJECTS)),
    "chunk information outside": (SPACE, 2568, u64(1 << 62)),
    "chunk information of another": (INFO, 32, u32(1)),
    "chunks of another number": (INFO, 36, u32(2)),
    "chunk elsewhere": (INFO, 48, u64(32768)),
    "chunk of another size": (INFO, 56, u32(32768)),
    "bitmap outside": (INFO, 64, u64(BLOCKS)),
    "queue's root": (SPACE, place(SPACES, "queue_root"), u64(99)),
    "queue's block outside": (QUEUE, 56 + 8 + 8, u64(BLOCKS)),
    "queue's level": (QUEUE, 34, b"\x01"),
    "queue's records": (QUEUE, 36, u32(3)),
    "queue's table": (QUEUE, 40, b"\xff\xff"),
    "no such volume": (SUPERBLOCK, place(SUPER, "volumes"), u64(7)),
    "volume's place": (OBJECTS + 1, BLOCK - 40 - 8, u64(VOLUME + 1)),
    "map's tree": (OBJECTS, 48, u64(OBJECTS)),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_what_contradicts_itself_is_refused(name: str) -> None:
    """Fails if numbers are believed that cannot be."""
    with pytest.raises(CorruptImageError):
        allocation(changed(*CORRUPT[name]))


@pytest.mark.parametrize("block", [0, ADDRESSES, INFO, JUMPSTART, OBJECTS, OBJECTS + 1, VOLUME])
def test_every_checksum_is_looked_at(block: int) -> None:
    """Fails if rot is noticed in some objects only."""
    content = bytearray(container(is_listed=True))
    content[block * BLOCK + 3000] ^= 1
    with pytest.raises(CorruptImageError, match="checksum"):
        allocation(bytes(content))


def test_trees_that_do_not_end_are_refused() -> None:
    """Fails if a node that is its own child, or one outside, is followed."""
    head = struct.pack("<HHI", layout.NODE_IS_ROOT, 1, 1)
    for child in (50, 51, 1 << 61):
        content = bytearray(container())
        content[50 * BLOCK + 32 : 50 * BLOCK + 40] = head
        end = 51 * BLOCK - layout.TREE_INFO_BYTES
        content[end - 20 : end - 12] = u64(child)
        seal(content, 50)
        with pytest.raises(CorruptImageError):
            list(FILE_SYSTEM.reached(MemoryStorage(bytes(content))))


def test_the_checksum_is_that_of_the_specification() -> None:
    """Fails if sums are taken otherwise: over all words with the checksum both have to be 0."""
    data = random.Random(2).randbytes(4088)
    whole = data + checksum(bytes(8) + data).to_bytes(8, "little")
    first = second = 0
    for (word,) in struct.iter_unpack("<I", whole):
        first = (first + word) % 0xFFFFFFFF
        second = (second + first) % 0xFFFFFFFF
    assert (first, second) == (0, 0)


def test_random_damage_gives_a_map_or_one_error() -> None:
    """Fails if hostile structures raise anything else, or hang."""
    dice = random.Random(3)
    whole = container()
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            block = dice.choice((0, 2, 3, 4, 9, 10, 20, 32, 40, 41, 44, 45, 46, *range(47, 54)))
            at = dice.choice((dice.randrange(8, 200), dice.randrange(4096)))
            content[block * BLOCK + at] = dice.choice((0, 1, 255, dice.randrange(256)))
            seal(content, block)
        storage = MemoryStorage(bytes(content))
        for look in (FILE_SYSTEM.allocation, lambda item: list(FILE_SYSTEM.reached(item))):
            try:
                look(storage)
            except FormatError:
                continue
