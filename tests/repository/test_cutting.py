"""Where disks are cut into chunks: every byte once, at most 1 MiB, and alike wherever files lie."""

from __future__ import annotations

import random
import zlib
from array import array
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.repository.cutting import Cuts, Cutting

LONGEST = 256 * KIB
"""Of a chunk."""

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = st.lists(
    st.sampled_from([512, 1024, 4096, 7 * KIB, 8 * KIB, 20 * KIB, 300 * KIB, MIB, 2500 * KIB]),
    min_size=1,
    max_size=16,
)


def content(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(512) + bytes([number % 251 + 1]) * (size - 512)


def files(sizes: Sequence[int]) -> list[bytes]:
    return [content(number, size) for number, size in enumerate(sizes)]


def laid(parts: Sequence[bytes], at: int) -> Cutting:
    """A disk of zeros with files one behind the other."""
    return Cutting(Cuts(array("Q", accumulate(map(len, parts), initial=at))))


def chunks(cutting: Cutting, at: int, data: bytes) -> list[bytes]:
    ends = list(accumulate(cutting.lengths(at, memoryview(data)), initial=0))
    assert ends[-1] == len(data)
    return [data[start:end] for start, end in pairwise(ends)]


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(0, 1 << 31), st.data())
def test_every_byte_is_in_one_chunk_of_at_most_256_kib(
    sizes: list[int], blocks: int, data: st.DataObject
) -> None:
    """Fails if a chunk is empty or too long, or if bytes are lost, wherever the stretch begins."""
    parts, at = files(sizes), blocks * 512
    cutting, disk = laid(parts, at), b"".join(parts)
    start = data.draw(st.integers(0, len(disk) - 1))
    end = data.draw(st.integers(start, len(disk)))
    lengths = cutting.lengths(at + start, memoryview(disk)[start:end])
    assert sum(lengths) == end - start
    assert all(0 < length <= LONGEST for length in lengths)
    assert lengths == cutting.lengths(at + start, memoryview(disk)[start:end])


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(0, 1 << 31), st.integers(0, 1 << 31))
def test_the_same_files_elsewhere_are_the_same_chunks(
    sizes: list[int], one: int, other: int
) -> None:
    """Fails if the place on the disk has a part in where files are cut."""
    parts = files(sizes)
    disk = b"".join(parts)
    found = [chunks(laid(parts, at * 512), at * 512, disk) for at in (one, other)]
    assert found[0] == found[1]


@settings(deadline=None, max_examples=30)
@given(SIZES, st.randoms(use_true_random=False))
def test_large_files_are_the_same_chunks_in_any_order(
    sizes: list[int], dice: random.Random
) -> None:
    """Fails if the neighbours of a large file have a part in how it is cut."""
    parts = files(sizes)
    mixed = dice.sample(parts, len(parts))
    found = set(chunks(laid(mixed, MIB), MIB, b"".join(mixed)))
    for part in parts:
        if len(part) >= 8 * KIB:
            assert {part[at : at + LONGEST] for at in range(0, len(part), LONGEST)} <= found


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(0, 1 << 20), st.data())
def test_a_disk_that_is_read_by_stretches_is_cut_as_one(
    sizes: list[int], blocks: int, data: st.DataObject
) -> None:
    """Fails if chunks of large files depend on where a stretch begins or ends."""
    parts, at = files([size for size in sizes if size >= 8 * KIB]), blocks * 512
    cutting, disk = laid(parts, at), b"".join(parts)
    whole = set(accumulate(cutting.lengths(at, memoryview(disk)), initial=at))
    wanted = at + data.draw(st.integers(0, len(disk)))
    border = cutting.border_after(wanted)
    assert wanted <= border <= wanted + LONGEST
    if border < at + len(disk):
        halves = (at, disk[: border - at]), (border, disk[border - at :])
        found = [accumulate(cutting.lengths(a, memoryview(b)), initial=a) for a, b in halves]
        assert {cut for cuts in found for cut in cuts} == whole


def test_small_files_share_a_chunk_until_one_whose_beginning_is_chosen() -> None:
    """Fails if the choice depends on anything but the first 512 bytes of a small file."""
    parts = [content(number, 4096) for number in range(400)]
    expected = [
        index for index, part in enumerate(parts) if index and zlib.crc32(part[:512]) % 8 == 0
    ]
    assert len(expected) > 25
    found = chunks(laid(parts, 5 * MIB), 5 * MIB, b"".join(parts))
    assert [len(chunk) // 4096 for chunk in found] == [
        end - start for start, end in zip([0, *expected], [*expected, 400], strict=True)
    ]
    del parts[200:203]
    again = chunks(laid(parts, 0), 0, b"".join(parts))
    assert len(set(found) - set(again)) <= 4


def test_small_files_that_are_never_chosen_are_cut_at_a_border_before_256_kib_is_full() -> None:
    """Fails if a small file is cut in two where whole ones fit."""
    part = next(
        part
        for part in (content(number, 3 * KIB) for number in range(99))
        if zlib.crc32(part[:512]) % 8
    )
    found = chunks(laid([part] * 1000, 0), 0, part * 1000)
    assert [len(chunk) for chunk in found[:2]] == [LONGEST // (3 * KIB) * 3 * KIB] * 2


def test_a_disk_of_which_nothing_is_known_is_cut_every_256_kib() -> None:
    """Fails if the same bytes at the same place are other chunks when less of the disk is used."""
    cutting = Cutting()
    data = memoryview(bytes(3 * LONGEST))
    assert cutting.lengths(LONGEST // 4, data) == [
        3 * LONGEST // 4,
        LONGEST,
        LONGEST,
        LONGEST // 4,
    ]
    assert [cutting.border_after(at) for at in (0, 1, LONGEST, LONGEST + 1)] == [
        0,
        LONGEST,
        LONGEST,
        2 * LONGEST,
    ]


def test_where_files_are_not_known_every_sixteenth_block_begins_a_chunk() -> None:
    """Fails if anything but the beginning of a block decides, or blocks are not counted from 0."""
    dice, start, count = random.Random(9), 63 * 512, 2000
    blocks = [dice.randbytes(4096) for _ in range(count)]
    cuts = Cuts(array("Q", [start, start + count * 4096]), Runs.of([(start, count * 4096)]))
    expected: list[int] = []
    for n in range(1, count):
        is_long = n - (expected[-1] if expected else 0) == LONGEST // 4096
        if is_long or zlib.crc32(blocks[n][:512]) % 16 == 0:
            expected.append(n)
    assert 80 < len(expected) < 170
    found = chunks(Cutting(cuts), start, b"".join(blocks))
    assert [len(chunk) // 4096 for chunk in found] == [
        b - a for a, b in pairwise([0, *expected, count])
    ]
    # Read from elsewhere on, and with other blocks before them.
    moved = blocks[1000:] + blocks[:1000]
    again = Cutting(cuts).lengths(start + 512, memoryview(b"".join(moved))[512:])
    chosen = {n for n in expected if n > 1000 and zlib.crc32(blocks[n][:512]) % 16 == 0}
    assert set(accumulate(again, initial=512)) >= {(n - 1000) * 4096 for n in chosen}


def test_blocks_that_are_all_the_same_make_chunks_of_at_most_256_kib() -> None:
    """Fails if a disk of one byte is cut into very many chunks, or into one that is too long."""
    cuts = Cuts(array("Q", [0, 8 * MIB]), Runs.of([(0, 8 * MIB)]))
    for content_of_all in (bytes(8 * MIB), b"\xff" * (8 * MIB)):
        lengths = Cutting(cuts).lengths(0, memoryview(content_of_all))
        assert lengths == [LONGEST] * 32
