"""A Btrfs made by hand: expected are the places where it was put."""

from __future__ import annotations

from imprint.core.runs import Runs
from imprint.core.units import KIB
from imprint.filesystems.btrfs import FILE_SYSTEM
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.btrfs_volumes import volume_by_hand

# Every copy of: the chunk tree; eight nodes, of which two are of the log; extents of two files.
TREES = [(1032, 4), (1048, 4), (1064, 32), (1128, 32)]
FILES = [(1192, 8), (1208, 8)]
FORMER = [(1096, 4), (1160, 4)]
SUPERBLOCK = [(64, 4)]
RESERVED = [(0, 1024)]


def runs_of_kib(runs: list[tuple[int, int]]) -> Runs:
    return Runs.of(runs).scaled(KIB)


def volume() -> MemoryStorage:
    return MemoryStorage(volume_by_hand(), name="volume")


def test_all_that_is_reached_is_where_it_was_put() -> None:
    """Fails if a copy, the log, or what a node points to is left out."""
    reached = Runs.of(FILE_SYSTEM.reached(volume()))
    assert reached == runs_of_kib(TREES + FILES + SUPERBLOCK)


def test_the_map_has_a_former_commit_as_well_and_what_is_reserved() -> None:
    """Fails if more is left out than what nobody needs, or if counts that fit leave a doubt."""
    found = FILE_SYSTEM.allocation(volume())
    assert found.used == runs_of_kib(RESERVED + TREES + FILES + FORMER)
    assert found.doubts == ()
    assert len(found.notes) == 1


def test_a_former_commit_that_was_overwritten_is_left_out() -> None:
    """Fails if old pointers are believed, and lead to what they never pointed to."""
    content = bytearray(volume_by_hand())
    for start, length in FORMER:
        content[start * KIB : (start + length) * KIB] = bytes(length * KIB)
    found = FILE_SYSTEM.allocation(MemoryStorage(bytes(content), name="volume"))
    assert found.used == runs_of_kib(RESERVED + TREES + FILES)
    assert found.doubts == ()
