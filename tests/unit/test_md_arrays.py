"""Arrays of Linux RAID that are put together from members, against the bytes that went in."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.containers import SECTOR, old_raid_member, raid_member, seal_raid
from imprint.volumes.mdraid import CONTAINER

if TYPE_CHECKING:
    from imprint.volumes.assembly import Assembly

DATA: Final = random.Random(1).randbytes(256 * KIB)
OTHER: Final = random.Random(2).randbytes(256 * KIB)


def assemble(*members: bytes | bytearray) -> list[Assembly]:
    sources = [MemoryStorage(bytes(item), name=f"m{i}") for i, item in enumerate(members)]
    return CONTAINER.assemble(sources, lambda _: b"")


def content(assembly: Assembly) -> bytes:
    (inner,) = assembly.volumes
    buffer = bytearray(inner.source.size)
    inner.source.readinto(memoryview(buffer), 0)
    assert sum(item.length for item in inner.source.extents(0, inner.source.size)) == len(buffer)
    return bytes(buffer)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_a_mirror_is_read_from_one_leg_and_is_on_both(version: str) -> None:
    """Fails if the data is looked for elsewhere, or if only one leg is given back."""
    legs = [raid_member(DATA, role=role, version=version) for role in (0, 1)]
    (found,) = assemble(*legs)
    assert content(found) == DATA
    (inner,) = found.volumes
    assert inner.name == "md5"
    for piece in inner.pieces:
        assert piece.member is not None
        start = piece.member_offset
        assert legs[piece.member][start : start + piece.length] == DATA
    assert [piece.member for piece in inner.pieces] == [0, 1]
    assert all(len(free) == 0 for free in found.free)


@pytest.mark.parametrize("order", ["<", ">"])
def test_old_superblocks_are_read_in_both_byte_orders(order: str) -> None:
    """Fails if an array of an old machine is unknown."""
    (found,) = assemble(old_raid_member(DATA, order=order), old_raid_member(DATA, role=1))
    assert content(found) == DATA
    assert found.volumes[0].name == "md3"
    (alone,) = assemble(old_raid_member(DATA, role=1, order=order))
    assert content(alone) == DATA


@pytest.mark.parametrize("stale_first", [True, False])
def test_a_stale_leg_is_not_trusted(stale_first: bool) -> None:
    """Fails if old data is read, or if what is free in the new leg is left out of the old one."""
    legs = [raid_member(OTHER, role=0, events=6), raid_member(DATA, role=1, events=7)]
    (found,) = assemble(*(legs if stale_first else legs[::-1]))
    assert content(found) == DATA
    assert [piece.member for piece in found.volumes[0].pieces] == [1 if stale_first else 0]
    assert any("not in sync" in note for note in found.notes)


@pytest.mark.parametrize("kwargs", [{"role": 0xFFFF}, {"role": 0xFFFE}, {"features": 2}])
def test_a_spare_a_failed_leg_and_one_being_rebuilt_are_not_read(kwargs: dict[str, int]) -> None:
    """Fails if bytes are read that were never copied."""
    (found,) = assemble(raid_member(OTHER, **kwargs))  # type: ignore[arg-type]
    assert found.volumes == ()


def test_of_a_mirror_that_is_not_clean_nothing_is_left_out() -> None:
    """Fails if a block is left out that the other leg's file system may use."""
    (found,) = assemble(*(raid_member(DATA, role=role, clean=False) for role in (0, 1)))
    assert content(found) == DATA
    assert found.volumes[0].pieces == ()
    assert any("not clean" in note for note in found.notes)


@pytest.mark.parametrize("count", [2, 3])
def test_stripes_and_rows_are_joined_in_order(count: int) -> None:
    """Fails if chunks are taken from the wrong member."""
    dice = random.Random(count)
    columns = [dice.randbytes(192 * KIB) for _ in range(count)]
    chunk = 16 * KIB
    rows = range(0, 192 * KIB, chunk)
    for level, expected in (
        (0, b"".join(column[row : row + chunk] for row in rows for column in columns)),
        (-1, b"".join(columns)),
    ):
        members = [
            raid_member(column, level=level, role=role, count=count, chunk=chunk)
            for role, column in enumerate(columns)
        ]
        (found,) = assemble(*members[::-1])
        assert content(found) == expected
        for piece in found.volumes[0].pieces:
            assert piece.member is not None
            held = members[::-1][piece.member][piece.member_offset :][: piece.length]
            assert held == expected[piece.offset : piece.end]
        (lacking,) = assemble(*members[1:])
        assert lacking.volumes == ()


@pytest.mark.parametrize(
    "kwargs", [{"level": 5}, {"features": 4}, {"features": 16}, {"level": 0, "chunk": 0}]
)
def test_what_is_not_understood_counts_as_a_whole(kwargs: dict[str, int]) -> None:
    """Fails if an array of another level, or one being reshaped, is read as if it were not."""
    members = [raid_member(DATA, role=role, **kwargs) for role in (0, 1)]  # type: ignore[arg-type]
    (found,) = assemble(*members)
    assert found.volumes == ()
    assert any("cannot be read" in note for note in found.notes)
    assert all(len(free) == 0 for free in found.free)


def test_two_arrays_are_two_and_bad_blocks_are_not_read() -> None:
    """Fails if members of different arrays are mixed, or a log of bad blocks is ignored."""
    other = raid_member(OTHER, name="here:root")
    other[4096 + 16 : 4096 + 32] = b"B" * 16
    seal_raid(other, 4096)
    found = assemble(raid_member(DATA), other)
    assert [item.volumes[0].name for item in found] == ["md5", "md/root"]
    assert [content(item) for item in found] == [DATA, OTHER]
    bad = raid_member(DATA, features=8)
    bad[4096 + 186 : 4096 + 192] = (8).to_bytes(2, "little") + (8).to_bytes(4, "little")
    bad[8192:8200] = (5 << 10 | 3).to_bytes(8, "little")
    seal_raid(bad, 4096)
    (found_bad,) = assemble(bad)
    assert found_bad.volumes == ()


@pytest.mark.parametrize("at", [4096 + 72, 4096 + 128, 4096 + 200, 4096 + 256])
def test_a_superblock_that_does_not_match_its_checksum_is_refused(at: int) -> None:
    """Fails if a damaged superblock decides what is read."""
    member = raid_member(DATA)
    member[at] ^= 1
    with pytest.raises(CorruptImageError, match="checksum"):
        assemble(member)


@pytest.mark.parametrize(
    ("at", "value"),
    [(128, 1 << 50), (136, 1 << 50), (80, 1 << 50), (160, 1 << 30), (220, 1 << 31), (92, 5000)],
)
def test_huge_numbers_are_refused(at: int, value: int) -> None:
    """Fails if a superblock leads outside of its member."""
    member = raid_member(DATA)
    length = 8 if at in (128, 136, 80) else 4
    member[4096 + at : 4096 + at + length] = value.to_bytes(length, "little")
    seal_raid(member, 4096)
    with pytest.raises(CorruptImageError):
        assemble(member)
    assert SECTOR == 512
