"""Parity: any two lost shards of a pack are computed again; a slow decoder of the test agrees."""

from __future__ import annotations

import random
import struct
from itertools import combinations

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.errors import RepositoryError
from imprint.repository.parity import Mended, check_parity, encode_parity, mend

CELL = 4096


def times(a: int, b: int) -> int:
    """Multiply in GF(2^8) as polynomials, bit by bit, modulo x^8 + x^4 + x^3 + x^2 + 1."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def inverse(a: int) -> int:
    """The element that gives 1 with ``a``: there is one."""
    return next(b for b in range(256) if times(a, b) == 1)


def factor(row: int, shard: int, shards: int) -> int:
    """As the format page says."""
    return times(shards ^ shard, inverse((shards + row) ^ shard))


def parity_of(pack: bytes, percent: int) -> bytes:
    return b"".join(encode_parity(pack, blake3(pack).digest(), percent))


def mended(pack: bytes, parity: bytes, name: bytes) -> Mended:
    return mend(pack, parity, blake3(name).digest())


def test_the_object_is_laid_out_as_the_format_page_says() -> None:
    """Another implementation would read another thing."""
    pack = random.Random(1).randbytes(10 * CELL + 17)
    name = blake3(pack).digest()
    parity = parity_of(pack, 50)
    magic, version, data, parities, bits, size, of = struct.unpack_from("<4sBBBBQ32s", parity)
    assert (magic, version, data, parities, bits, size, of) == (
        b"IMPr",
        1,
        4,
        2,
        12,
        len(pack),
        name,
    )
    assert parity[48:64] == blake3(parity[:48]).digest(16)
    assert parity[-64:] == parity[:64]
    stripes = -(-len(pack) // (data * CELL))
    padded = pack.ljust(data * stripes * CELL, b"\0")
    front = 64 + 16 * stripes * (data + parities)
    cells = [padded[at : at + CELL] for at in range(0, len(padded), CELL)]
    cells += [parity[at : at + CELL] for at in range(front, len(parity) - 64, CELL)]
    assert len(cells) == stripes * (data + parities)
    assert parity[64:front] == b"".join(blake3(cell).digest(16) for cell in cells)
    made = random.Random(2)
    for _ in range(50):
        stripe, at, row = made.randrange(stripes), made.randrange(CELL), made.randrange(2)
        expected = 0
        for shard in range(data):
            byte = cells[shard * stripes + stripe][at]
            expected ^= times(factor(row, shard, data), byte)
        assert cells[(data + row) * stripes + stripe][at] == expected


def test_any_two_shards_of_many_can_be_lost() -> None:
    """The matrix must have no square part without an inverse."""
    pack = random.Random(3).randbytes(10 * CELL)
    parity = parity_of(pack, 20)
    assert parity[5:7] == bytes((10, 2))
    for lost in combinations(range(10), 2):
        damaged = bytearray(pack)
        for shard in lost:
            damaged[shard * CELL : (shard + 1) * CELL] = bytes(CELL)
        assert mended(bytes(damaged), parity, pack) == Mended(pack, True, 2)


def test_a_lost_shard_of_parity_leaves_one_to_mend_with() -> None:
    """Parity lies on the same disks, and rots like packs."""
    pack = random.Random(4).randbytes(10 * CELL)
    parity = parity_of(pack, 20)
    for row in range(2):
        rotten = bytearray(parity)
        rotten[len(parity) - 64 - (2 - row) * CELL] ^= 1
        damaged = bytes(CELL) + pack[CELL:]
        assert mended(damaged, bytes(rotten), pack) == Mended(pack, True, 1)
        with pytest.raises(RepositoryError):
            check_parity(bytes(rotten), blake3(pack).digest())


def test_three_damaged_cells_of_a_stripe_are_not_made_up() -> None:
    """What cannot be mended must not look as if it was; the rest of the pack stays."""
    pack = random.Random(5).randbytes(20 * CELL)
    parity = parity_of(pack, 20)  # 10 shards of two cells
    damaged = bytearray(pack)
    for shard in range(3):
        damaged[shard * 2 * CELL] ^= 1  # stripe 0
    damaged[CELL] ^= 1  # stripe 1
    found = mended(bytes(damaged), parity, pack)
    assert not found.is_whole
    assert found.cells == 1
    assert found.data[CELL : 2 * CELL] == pack[CELL : 2 * CELL]
    assert found.data[2 * CELL :] == damaged[2 * CELL :]


def test_a_run_of_the_percentage_can_be_lost_anywhere() -> None:
    """What a bad spot of a disk is: one run, not spread cells."""
    pack = random.Random(6).randbytes(2 << 20)
    parity = parity_of(pack, 5)
    assert len(parity) < 0.062 * len(pack)
    run = 100 << 10  # just below 5 %
    for start in (0, 12345, len(pack) - run):
        damaged = pack[:start] + bytes(run) + pack[start + run :]
        assert mended(damaged, parity, pack).data == pack


def test_a_cut_pack_and_a_lost_small_one_are_made_whole() -> None:
    """What is missing at the end is damaged; all of a small pack fits into its parity."""
    pack = random.Random(7).randbytes(40 * CELL - 100)
    assert mended(pack[:-CELL], parity_of(pack, 5), pack).data == pack
    small = b"small"
    assert mended(b"", parity_of(small, 5), small) == Mended(small, True, 1)
    assert mended(b"small and longer", parity_of(small, 5), small).data == small


def test_a_damaged_table_of_checksums_costs_no_more_than_its_cells() -> None:
    """A wrong checksum makes a sound cell look lost; it is computed again, to the same."""
    pack = random.Random(8).randbytes(10 * CELL)
    rotten = bytearray(parity_of(pack, 20))
    rotten[64] ^= 1
    damaged = pack[:-1] + bytes([pack[-1] ^ 1])
    assert mended(damaged, bytes(rotten), pack) == Mended(pack, True, 2)


def test_one_damaged_head_is_enough_to_go_on_with() -> None:
    """It is there twice."""
    pack = random.Random(9).randbytes(3 * CELL)
    for at in (0, -64):
        rotten = bytearray(parity_of(pack, 100))
        rotten[at] ^= 1
        assert mended(bytes(CELL) + pack[CELL:], bytes(rotten), pack).data == pack
    with pytest.raises(RepositoryError):
        mended(pack, parity_of(pack, 100), b"another pack")


@settings(max_examples=40)
@given(
    size=st.integers(1, 9 * CELL),
    percent=st.integers(1, 100),
    flips=st.lists(st.integers(0, 9 * CELL), max_size=2),
)
def test_two_flipped_bytes_anywhere_are_put_right(
    size: int, percent: int, flips: list[int]
) -> None:
    """Two bytes are in two cells at most, which any stripe can lose."""
    pack = random.Random(size).randbytes(size)
    damaged = bytearray(pack)
    for at in flips:
        damaged[at % size] ^= 0x55
    found = mended(bytes(damaged), parity_of(pack, percent), pack)
    assert found.is_whole
    assert found.data == pack


@settings(max_examples=60)
@given(data=st.binary(max_size=300), cut=st.integers(0, 20_000), flip=st.integers(0, 20_000))
def test_any_bytes_give_parity_or_one_error(data: bytes, cut: int, flip: int) -> None:
    """Whoever can write to the store can put anything there."""
    pack = random.Random(1).randbytes(2 * CELL)
    parity = bytearray(parity_of(pack, 100))
    parity[flip % len(parity)] ^= 0xFF
    for tried in (data, bytes(parity[:cut]), bytes(parity)):
        try:
            found = mended(pack, tried, pack)
        except RepositoryError:
            continue
        assert found.data == pack
