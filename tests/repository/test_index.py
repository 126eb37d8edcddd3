"""The index: against a decoder made from the format's page, a dictionary, and hostile content."""

from __future__ import annotations

import os
import random
import resource
import struct
import time
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import RepositoryError
from imprint.objects.memory import MemoryStore
from imprint.repository import index as index_module
from imprint.repository.index import ChunkIndex, IndexTable, build_index
from imprint.repository.index_content import Place
from imprint.repository.index_table import RecordTable, make_table, merge_tables, sorted_records
from imprint.repository.pack import Directory, PackKind
from imprint.repository.protection import Plain
from imprint.repository.writing import put_index
from imprint.testing.format_faults import bounded_memory
from imprint.testing.small_packs import chunks, encrypted, pack_of, protections

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imprint.repository.pack import FinishedPack
    from imprint.repository.protection import Protection

MIB = 1 << 20

Row = tuple[bytes, int, int, int, int, int, int, int, int]
"""A pack's name and kind; a group's position, stored and raw length, codec, number; the chunk's
offset and length."""


def decode_index(content: bytes) -> list[tuple[bytes, Row]]:
    """Names and places of all chunks in their order, by nothing but the page of the format."""
    packs, groups, count = struct.unpack_from("<3I", content)
    at = 12

    def column(number: int, code: str) -> list[int]:
        nonlocal at
        found = struct.unpack_from(f"<{number}{code}", content, at)
        at += struct.calcsize(f"<{number}{code}")
        return list(found)

    names = [content[at + 32 * number :][:32] for number in range(packs)]
    at += 32 * packs
    counts, kinds = column(packs, "I"), column(packs, "B")
    owner = [(number, each) for number in range(packs) for each in range(counts[number])]
    columns = [column(groups, code) for code in "IIIB"]
    where, offsets, lengths = (column(count, "I") for _ in range(3))
    assert len(content) == at + 32 * count
    found = []
    for number in range(count):
        group = where[number]
        pack, place = owner[group]
        position, stored, raw, codec = (each[group] for each in columns)
        row = names[pack], kinds[pack], position, stored, raw, codec, place
        name = content[at + 32 * number :][:32]
        found.append((name, (*row, offsets[number], lengths[number])))
    return found


def rows_of(packs: Iterable[FinishedPack]) -> list[tuple[bytes, Row]]:
    """What an index of packs has to say, one chunk after the other."""
    found: list[tuple[bytes, Row]] = []
    for pack in packs:
        directory = pack.directory
        chunk, position = 0, len(pack.parts[0])
        for group, count in enumerate(directory.counts):
            stored, raw = directory.stored[group], directory.raw[group]
            offset = 0
            for length in directory.lengths[chunk : chunk + count]:
                name = bytes(directory.names[32 * chunk :][:32])
                row = pack.name, directory.kind, position, stored, raw, directory.codecs[group]
                found.append((name, (*row, group, offset, length)))
                offset += length
                chunk += 1
            position += stored
    return found


def place_of(row: Row) -> Place:
    pack, _, position, stored, raw, codec, number, offset, length = row
    return Place(pack, position, stored, raw, codec, number, offset, length)


def some_packs(count: int, protection: Protection, *, seed: int = 0) -> list[FinishedPack]:
    kinds = [PackKind.DATA, PackKind.NODES]
    return [
        pack_of(
            [chunks(5, seed=100 * seed + 10 * number + group, longest=300) for group in range(3)],
            protection,
            kind=kinds[number % 2],
        )
        for number in range(count)
    ]


def content_of(packs: Sequence[FinishedPack]) -> bytes:
    return build_index([(pack.name, pack.directory) for pack in packs])


@pytest.mark.parametrize("protection", [Plain(), encrypted()], ids=["plain", "sealed"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_an_index_is_what_the_page_says(protection: Protection, count: int) -> None:
    """Fails if another implementation could not read what we write."""
    packs = some_packs(count, protection)
    content = content_of(packs)
    assert decode_index(content) == sorted(rows_of(packs))
    table = IndexTable(content)
    assert table.packs == [pack.name for pack in packs]
    assert len(table) == 15 * count
    for name, row in rows_of(packs):
        assert table.find(name) == place_of(row)
        assert table.find(name[:-1] + bytes([name[-1] ^ 1])) is None
    assert table.find(bytes(32)) is None
    assert table.find(b"\xff" * 32) is None


# Few values, so that names are found inside of other records, and twice.
NAMES = st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=3).map(
    lambda values: bytes((values * 32)[:32])
)
RECORDS = st.lists(
    st.tuples(NAMES, st.tuples(*[st.sampled_from([0, 1, 0x01000000, 0x02010201])] * 3)),
    max_size=300,
)


def table_of(
    records: Iterable[tuple[bytes, Sequence[int]]], *, in_file: bool = False, block: int = 7
) -> RecordTable:
    packed = sorted_records(bytearray(b"".join(n + struct.pack("<III", *v) for n, v in records)))
    blocks = (packed[at : at + 44 * block] for at in range(0, len(packed), 44 * block))
    return make_table(blocks, len(packed) // 44, in_file=in_file)


@given(RECORDS, NAMES, st.booleans())
def test_a_table_finds_what_is_in_it(
    records: list[tuple[bytes, tuple[int, ...]]], other: bytes, in_file: bool
) -> None:
    """Fails if what looks like a name at a wrong place hides a chunk, or is taken for one."""
    table = table_of(records, in_file=in_file)
    assert len(table) == len(records)
    assert table.is_in_file == in_file
    for name in {other, *(name for name, _ in records)}:
        expected = sorted(values for found, values in records if found == name)
        assert sorted(table.find_all(name)) == expected
        found = table.find(name)
        assert (found in expected) if expected else (found is None)


@given(st.lists(RECORDS, max_size=5), st.booleans())
def test_merged_tables_have_all_records(
    parts: list[list[tuple[bytes, tuple[int, ...]]]], in_file: bool
) -> None:
    """Fails if merging loses a chunk."""
    merged = merge_tables([table_of(part, in_file=in_file) for part in parts])
    together = table_of([record for part in parts for record in part])
    assert merged.read(0, 44 * len(merged)) == together.read(0, 44 * len(together))
    for name in {name for part in parts for name, _ in part}:
        assert sorted(merged.find_all(name)) == sorted(together.find_all(name))


@pytest.mark.parametrize("sizes", [(70_000, 3), (40_000, 40_000, 1000), (2, 0, 1, 140_000)])
def test_long_tables_are_merged_by_pieces(sizes: tuple[int, ...]) -> None:
    """Fails at the borders of the pieces."""
    made = random.Random(sum(sizes))
    parts = [made.randbytes(44 * size) for size in sizes]
    tables = [
        make_table([sorted_records(bytearray(part))], len(part) // 44, in_file=number == 1)
        for number, part in enumerate(parts)
    ]
    everything = sorted_records(bytearray(b"".join(parts)))
    assert merge_tables(tables).read(0, len(everything)) == everything


def test_a_chunk_costs_a_known_amount_of_memory() -> None:
    """Fails if a table takes more than 45 bytes for a chunk."""
    count = 50_000
    table = make_table([sorted_records(bytearray(random.Random(1).randbytes(44 * count)))], count)
    assert 44 * count < table.memory_bytes < 45 * count
    in_file = make_table([table.read(0, 44 * count)], count, in_file=True)
    assert in_file.memory_bytes < count


@pytest.mark.parametrize("protection", protections(), ids=["plain", "aes", "chacha"])
@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_all_index_objects_are_searched(protection: Protection, count: int) -> None:
    """Fails if chunks are missed when there are few or many index objects."""
    store = MemoryStore()
    index = ChunkIndex(store, protection)
    packs = some_packs(count, protection)
    for pack in packs[::2]:
        put_index(store, protection, content_of([pack]))
    assert len(index) == 15 * len(packs[::2])
    for pack in packs[1::2]:
        index.add(content_of([pack]))
    for name, row in rows_of(packs):
        assert index.find(name) == place_of(row)
        assert name in index
    for name in (blake3(b"").digest(), *(pack.name for pack in packs)):
        assert index.find(name) is None
    assert index.packs() == {pack.name: pack.directory.kind for pack in packs}
    loaded = index._loaded.tables
    assert loaded is not None
    assert all(len(one) >= 2 * len(next_one) for one, next_one in pairwise(loaded)) or count < 4


def test_what_others_have_put_is_there_after_reloading() -> None:
    """Fails if a long-running reader does not see new packs, or believes in replaced ones."""
    store, protection = MemoryStore(), Plain()
    old, new, repacked = some_packs(3, protection)
    put_index(store, protection, content_of([old]))
    index = ChunkIndex(store, protection)
    name = bytes(new.directory.names[:32])
    assert name not in index
    put_index(store, protection, content_of([new]))
    assert name not in index
    assert index.reload()
    assert name in index
    assert not index.reload()
    gone = next(store.list("index/")).name
    put_index(store, protection, content_of([repacked]))
    store.delete(gone)
    assert index.reload()
    kept = decode_index(content_of([repacked])) + decode_index(
        content_of([new if bytes(old.directory.names[:32]) not in index else old])
    )
    assert len(index) == len(kept)
    for name, row in kept:
        assert index.find(name) == place_of(row)
    assert len(index.packs()) == 2


def test_chunks_of_condemned_packs_are_absent() -> None:
    """Fails if a session builds upon packs that are about to be deleted."""
    protection = Plain()
    shared = chunks(3, seed=1)
    one = pack_of([chunks(4, seed=2), shared], protection)
    two = pack_of([shared, chunks(4, seed=3)], protection)
    for packs in ([one, two], [two, one]):
        index = ChunkIndex(MemoryStore(), protection)
        index.add(content_of(packs))
        view = index.without([one.name])
        for name, row in rows_of([two]):
            assert view.find(name) == place_of(row)
        assert not any(protection.name_of(chunk) in view for chunk in chunks(4, seed=2))
        assert all(protection.name_of(chunk) in index for chunk in chunks(4, seed=2))
        assert not any(name in view.without([two.name]) for name, _ in rows_of(packs))
        more = pack_of([chunks(2, seed=9)], protection)
        view.add(content_of([more]))
        assert all(name in index for name, _ in rows_of([more]))


def test_a_long_index_is_kept_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if memory grows with the repository."""
    store, protection = MemoryStore(), Plain()
    packs = some_packs(4, protection)
    for pack in packs:
        put_index(store, protection, content_of([pack]))
    monkeypatch.setattr(index_module, "TABLE_BYTES_MAX", 1500)
    index = ChunkIndex(store, protection)
    for name, row in rows_of(packs):
        assert index.find(name) == place_of(row)
    tables = index._loaded.tables
    assert tables is not None
    assert sorted(table.is_in_file for table in tables) == [False, False, True, True]


def index_bytes(
    packs: Sequence[int], groups: Sequence[tuple[int, int, int, int]], records: Sequence[bytes]
) -> bytes:
    """Content by hand: groups of packs; position, stored, raw, codec of groups; names."""
    columns = list(zip(*groups, strict=True)) or [(), (), (), ()]
    return b"".join(
        (
            struct.pack("<3I", len(packs), len(groups), len(records)),
            bytes(32 * len(packs)),
            struct.pack(f"<{len(packs)}I{len(packs)}x", *packs),
            *(struct.pack(f"<{len(groups)}I", *column) for column in columns[:3]),
            bytes(columns[3]),
            *(bytes(4 * len(records)) for _ in range(3)),
            *records,
        )
    )


SOUND = index_bytes([1], [(8, 9, 9, 0)], [b"\1" * 32, b"\2" * 32])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "12 bytes"),
        (struct.pack("<3I", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), "4294967295 packs"),
        (SOUND[:-1], "found"),
        (SOUND + b"\0", "found"),
        (index_bytes([2], [(8, 9, 9, 0)], []), "expected 1 groups, found 2"),
        (index_bytes([1, 0xFFFFFFFF], [(8, 9, 9, 0)], []), "expected 1 groups, found 4294967296"),
        (index_bytes([1], [(8, 9, 9, 2)], []), "codec"),
        (index_bytes([1], [(8, 9, 0, 0)], []), "groups of 1"),
        (index_bytes([1], [(8, 9, 17 * MIB, 0)], []), "groups of 1"),
        (index_bytes([1], [(8, 0xFFFFFFFF, 1, 0)], []), "stored groups"),
        (index_bytes([], [], [b"\1" * 32]), "groups below 0"),
        (SOUND.replace(bytes(8) + b"\1" * 32, bytes(8) + b"\3" * 32), "ascending"),
        (index_bytes([1], [(8, 9, 9, 0)], [b"\1" * 32] * 5000), "hashes"),
    ],
    ids=range(13),
)
def test_an_index_that_contradicts_itself_is_refused(content: bytes, message: str) -> None:
    """Fails if hostile content leads to another error than ours, or to much memory."""
    assert IndexTable(SOUND).find(b"\2" * 32) == Place(bytes(32), 8, 9, 9, 0, 0, 0, 0)
    with bounded_memory(64 * MIB), pytest.raises(RepositoryError, match=message):
        IndexTable(content)


def test_packs_of_which_two_things_are_said_are_kept_apart() -> None:
    """Fails if a wrong index object changes what a right one says of the same pack."""
    index = ChunkIndex(MemoryStore(), Plain())
    index.add(index_bytes([1], [(8, 9, 9, 0)], [b"\1" * 32]))
    index.add(index_bytes([1], [(8, 8, 9, 0)], [b"\2" * 32]))
    index.add(index_bytes([2], [(8, 9, 9, 0), (17, 3, 3, 0)], [b"\3" * 32]))
    assert index.find(b"\1" * 32) == Place(bytes(32), 8, 9, 9, 0, 0, 0, 0)
    assert index.find(b"\2" * 32) == Place(bytes(32), 8, 8, 9, 0, 0, 0, 0)
    assert index.find(b"\3" * 32) == Place(bytes(32), 8, 9, 9, 0, 0, 0, 0)


@pytest.mark.parametrize("protection", protections(), ids=["plain", "aes", "chacha"])
def test_damaged_index_objects_are_named(protection: Protection) -> None:
    """Fails if a flipped bit in an index object is believed."""
    store = MemoryStore()
    put_index(store, protection, content_of(some_packs(1, protection)))
    (info,) = store.list("index/")
    data = bytearray(store.get(info.name))
    for at in range(0, len(data), 5):
        data[at] ^= 1 << at % 8
        store.put(info.name, (bytes(data),))
        with pytest.raises(RepositoryError) as caught:
            ChunkIndex(store, protection).find(bytes(32))
        assert caught.value.name is not None
        assert info.name in caught.value.name
        data[at] ^= 1 << at % 8


def synthetic_packs(count: int) -> list[tuple[bytes, Directory]]:
    """Packs of chunks of 16 KiB, 64 in a group and 32 groups in a pack, without their content."""
    made = random.Random(count)
    packs = []
    for _ in range(0, count, 2048):
        directory = Directory(PackKind.DATA, start=8)
        directory.stored = array("I", [MIB // 2]) * 32
        directory.raw = array("I", [MIB]) * 32
        directory.codecs = bytearray(b"\1" * 32)
        directory.lengths = array("I", [16 << 10]) * 2048
        directory.counts = array("I", [64]) * 32
        directory.names = bytearray(made.randbytes(32 * 2048))
        packs.append((made.randbytes(32), directory))
    return packs


@pytest.mark.timeout(900)
def test_an_index_of_many_chunks(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if some chunk of many is not found. ``IMPRINT_INDEX_CHUNKS=10000000`` makes them ten
    million, which takes a minute or two and about 2 GiB, most of it for making them.
    """
    count = int(os.environ.get("IMPRINT_INDEX_CHUNKS", "200000"))
    store, protection = MemoryStore(), Plain()
    packs = synthetic_packs(count)
    count = 2048 * len(packs)
    began = time.perf_counter()
    step = 512  # packs in an index object: a million chunks
    for start in range(0, len(packs), step):
        put_index(store, protection, build_index(packs[start : start + step]))
    built = time.perf_counter()
    index = ChunkIndex(store, protection)
    assert len(index) == count
    loaded = time.perf_counter()
    asked = [
        (bytes(directory.names[at : at + 32]), pack, at // 2048)
        for pack, directory in packs[:: max(1, len(packs) // 100)]
        for at in range(0, 65536, 32)
    ]
    names = [name for name, _, _ in asked]
    absent = [name[:4] + blake3(name).digest()[4:] for name in names]
    before = time.perf_counter()
    hits = [name in index for name in names]
    middle = time.perf_counter()
    misses = [name in index for name in absent]
    end = time.perf_counter()
    assert all(hits)
    assert not any(misses)
    for name, pack, group in asked[::17]:
        place = index.find(name)
        assert place is not None
        assert (place.pack, place.group_number, place.length) == (pack, group, 16 << 10)
    with capsys.disabled():
        if "IMPRINT_INDEX_CHUNKS" in os.environ:
            print(  # noqa: T201
                f"\n{count} chunks: built in {built - began:.1f} s, loaded in "
                f"{loaded - built:.2f} s, {index.memory_bytes / count:.2f} bytes each in memory, "
                f"{1e6 * (middle - before) / len(names):.2f} µs a hit, "
                f"{1e6 * (end - middle) / len(names):.2f} µs a miss, at most "
                f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB"
            )
