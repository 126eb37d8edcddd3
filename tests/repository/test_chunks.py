"""Reading chunks: from sound packs, damaged ones, by many threads, and as little as needed."""

from __future__ import annotations

import random
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import PassphraseError, RepositoryError
from imprint.objects.memory import MemoryStore
from imprint.repository.chunks import ChunkReader
from imprint.repository.index import ChunkIndex, build_index
from imprint.repository.pack import PackKind, pack_object
from imprint.repository.protection import Plain
from imprint.repository.writing import put_index
from imprint.testing.format_faults import bounded_memory
from imprint.testing.small_packs import chunks, encrypted, pack_of, protections, put_packs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.repository.pack import FinishedPack
    from imprint.repository.protection import Protection

IDS = ["plain", "aes", "chacha"]
NOISE = blake3(b"noise").digest(100_000)


class CountingStore(MemoryStore):
    """Knows what was asked of it, and takes its time."""

    def __init__(self, *, latency_s: float = 0.0, pause_s: float = 0.0) -> None:
        super().__init__("store")
        self.ranges: list[tuple[str, int, int]] = []
        self._latency_s = latency_s
        self._pause_s = pause_s

    @property
    def latency_s(self) -> float:
        return self._latency_s

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.ranges.append((name, offset, length))
        time.sleep(self._pause_s)
        return super().get_range(name, offset, length)


def reader_of(
    packs: Sequence[FinishedPack],
    protection: Protection,
    *,
    store: MemoryStore | None = None,
    cache_bytes: int = 1 << 20,
) -> ChunkReader:
    store = store or MemoryStore("store")
    put_packs(store, protection, packs)
    return ChunkReader(store, ChunkIndex(store, protection), protection, cache_bytes=cache_bytes)


def some_groups(count: int, *, seed: int = 0) -> list[list[bytes]]:
    return [chunks(6, seed=seed + number) for number in range(count)]


@pytest.mark.parametrize("protection", protections(), ids=IDS)
def test_chunks_are_read_as_they_were(protection: Protection) -> None:
    """Fails if a chunk does not come back, read in whatever way."""
    groups = [some_groups(4, seed=10 * number) for number in range(3)]
    reader = reader_of([pack_of(each, protection) for each in groups], protection)
    everything = [chunk for each in groups for group in each for chunk in group]
    random.Random(1).shuffle(everything)
    for chunk in everything:
        name = protection.name_of(chunk)
        assert reader.read(name) == chunk
        buffer = bytearray(len(chunk) // 2)
        reader.readinto(name, len(chunk) // 3, memoryview(buffer))
        assert buffer == chunk[len(chunk) // 3 :][: len(buffer)]


@given(st.randoms(use_true_random=False), st.booleans(), st.sampled_from([1, 30_000, 1 << 20]))
def test_many_pieces_are_read_at_once(made: random.Random, is_far: bool, cache_bytes: int) -> None:
    """Fails if the order, the groups or a small cache mix up which bytes go where."""
    protection = Plain()
    groups = [some_groups(3, seed=made.randrange(1000)) for _ in range(3)]
    store = CountingStore(latency_s=0.05 if is_far else 0.0)
    packs = [pack_of(each, protection) for each in groups]
    reader = reader_of(packs, protection, store=store, cache_bytes=cache_bytes)
    everything = [chunk for each in groups for group in each for chunk in group]
    parts, expected = [], []
    for chunk in made.choices(everything, k=made.randrange(20)):
        start = made.randrange(len(chunk) + 1)
        length = made.randrange(len(chunk) - start + 1)
        parts.append((protection.name_of(chunk), start, memoryview(bytearray(length))))
        expected.append(chunk[start : start + length])
    reader.readinto_many(parts)
    assert [bytes(buffer) for _, _, buffer in parts] == expected


def test_a_group_is_asked_for_once() -> None:
    """Fails if reading a disk in order fetches or decodes groups again and again."""
    protection, store = Plain(), CountingStore()
    groups = some_groups(5)
    reader = reader_of([pack_of(groups, protection)], protection, store=store)
    for group in groups:
        for chunk in group:
            reader.read(protection.name_of(chunk))
    assert len(store.ranges) == len(groups)
    reader = reader_of([pack_of(groups, protection)], protection, store=store, cache_bytes=1)
    store.ranges.clear()
    names = [protection.name_of(chunk) for group in groups for chunk in group]
    random.Random(1).shuffle(names)
    reader.readinto_many([(name, 0, memoryview(bytearray(1))) for name in names])
    assert len(store.ranges) == len(groups)


def test_many_threads_ask_for_a_group_once() -> None:
    """Fails if threads that want the same group each fetch it, or one waits for another group."""
    protection, store = Plain(), CountingStore(pause_s=0.1)
    groups = some_groups(2)
    reader = reader_of([pack_of(groups, protection)], protection, store=store)
    barrier = threading.Barrier(12)

    def read(chunk: bytes) -> bool:
        barrier.wait()
        return bytes(reader.read(protection.name_of(chunk))) == chunk

    everything = [chunk for group in groups for chunk in group]
    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(read, everything))
    assert len(store.ranges) == 2


def test_neighbours_are_fetched_together_where_requests_take_long() -> None:
    """Fails if each group of a pack in an object store costs a request."""
    protection, store = Plain(), CountingStore(latency_s=0.05)
    groups = some_groups(6)
    reader = reader_of([pack_of(groups, protection)], protection, store=store)
    names = [protection.name_of(group[0]) for group in groups]
    reader.readinto_many([(name, 0, memoryview(bytearray(1))) for name in names])
    assert len(store.ranges) == 1
    for group in groups:
        assert reader.read(protection.name_of(group[-1])) == group[-1]
    assert len(store.ranges) == 1


def test_who_reads_along_a_pack_asks_seldom() -> None:
    """Fails if restoring from an object store costs a request for each group."""
    protection, store = Plain(), CountingStore(latency_s=0.05)
    groups = some_groups(16)
    reader = reader_of([pack_of(groups, protection)], protection, store=store)
    for group in groups:
        for chunk in group:
            buffer = memoryview(bytearray(len(chunk)))
            reader.readinto_many([(protection.name_of(chunk), 0, buffer)])
            assert buffer == chunk
    assert len(store.ranges) <= 5
    store.ranges.clear()
    reader = reader_of([pack_of(groups, protection)], protection, store=store)
    for group in groups[::-2]:
        reader.readinto_many([(protection.name_of(group[0]), 0, memoryview(bytearray(1)))])
    wanted = sum(len(chunk) for group in groups[::-2] for chunk in group)
    assert sum(length for _, _, length in store.ranges) < wanted


def test_the_cache_is_bounded() -> None:
    """Fails if memory grows with what was read."""
    protection = Plain()
    groups = some_groups(30)
    reader = reader_of([pack_of(groups, protection)], protection, cache_bytes=100_000)
    for group in groups:
        for chunk in group:
            reader.read(protection.name_of(chunk))
            cache = reader._caches[PackKind.DATA]
            kept = cache._groups.values()
            assert cache._bytes == sum(each.cost for each in kept)
            assert cache._bytes <= 100_000 or len(kept) == 1


def test_data_does_not_drive_out_nodes() -> None:
    """Fails if reads all over a disk fetch the same leaves again and again."""
    protection, store = Plain(), CountingStore()
    nodes = [chunks(2, seed=number, longest=200) for number in range(3)]
    data = some_groups(30)
    packs = [pack_of(nodes, protection, kind=PackKind.NODES), pack_of(data, protection)]
    reader = reader_of(packs, protection, store=store, cache_bytes=100_000)
    for chunk in [chunk for group in (*nodes, *data) for chunk in group]:
        reader.read(protection.name_of(chunk))
    store.ranges.clear()
    for group in nodes:
        assert [reader.read(protection.name_of(chunk)) for chunk in group] == group
    assert not store.ranges


def long_groups(count: int) -> list[list[bytes]]:
    """Groups of chunks of 10,000 bytes, which compress by half, to 500,000 each."""
    made = random.Random(1)
    return [
        [made.randbytes(5000).hex().encode() for _ in range(100)]  # two bytes for one
        for _ in range(count)
    ]


def test_no_more_of_a_group_is_fetched_than_a_chunk_needs() -> None:
    """Fails if a read of 4 KiB from a folder copies 0.5 MiB, or what was copied is asked for again.

    Where requests take long, or a group is encrypted as a whole, there is one request.
    """
    (group,) = long_groups(1)
    for protection, latency_s in ((Plain(), 0.0), (Plain(), 0.05), (encrypted(), 0.0)):
        store = CountingStore(latency_s=latency_s)
        pack = pack_of([group], protection)
        reader = reader_of([pack], protection, store=store)
        names = [protection.name_of(chunk) for chunk in group]
        assert reader.read(names[0]) == group[0]
        (stored,) = pack.directory.stored
        lengths = [length for _, _, length in store.ranges if length > 100]  # others are of heads
        if protection.is_encrypted or latency_s:
            assert lengths == [stored]
            continue
        assert lengths[0] < stored // 4
        assert [reader.read(name) for name in names] == group
        (_, first, length), rest = store.ranges
        assert rest[1:] == (first + length, stored - length)


def test_who_reads_in_a_row_gets_whole_groups() -> None:
    """Fails if reading a folder in order takes two requests for a group, and decodes it twice."""
    protection, store = Plain(), CountingStore()
    groups = long_groups(3)
    reader = reader_of([pack_of(groups, protection)], protection, store=store)
    for chunk in [chunk for group in groups for chunk in group]:
        assert reader.read(protection.name_of(chunk)) == chunk
    assert len(store.ranges) == len(groups) + 1  # that somebody reads in a row is seen by then


def test_a_pack_that_goes_away_between_two_requests_is_missed_and_read_when_it_is_back() -> None:
    """Fails if half a group that was read goes on with other bytes, or never."""
    protection, store = Plain(), MemoryStore("store")
    (group,) = long_groups(1)
    pack = pack_of([group], protection)
    reader = reader_of([pack], protection, store=store)
    names = [protection.name_of(chunk) for chunk in group]
    assert reader.read(names[0]) == group[0]
    store.delete(pack_object(pack.name))
    with pytest.raises(RepositoryError, match="missing"):
        reader.read(names[-1])
    store.put(pack_object(pack.name), pack.parts)
    assert [reader.read(name) for name in names] == group


def half_damaged(groups: Sequence[Sequence[bytes]]) -> tuple[ChunkReader, list[bytes]]:
    """A reader of one group, the second half of whose frame is not what it was."""
    protection = Plain()
    pack = pack_of(groups, protection)
    store = MemoryStore("store")
    put_packs(store, protection, [pack])
    content = bytearray(b"".join(pack.parts))
    end = len(pack.parts[0]) + pack.directory.stored[0]
    middle = end - pack.directory.stored[0] // 2
    for at in range(middle, end):
        content[at] ^= 0xFF
    store.put(pack_object(pack.name), (bytes(content),))
    reader = ChunkReader(store, ChunkIndex(store, protection), protection)
    return reader, [protection.name_of(chunk) for group in groups for chunk in group]


def test_no_more_of_a_group_is_decoded_than_a_chunk_needs() -> None:
    """Fails if a read of 4 KiB decompresses a group of 1 MiB. What is behind is damaged here."""
    text = b"".join(b"%d " % number for number in range(200_000))
    group = [text[at : at + 10_000] for at in range(0, 1_000_000, 10_000)]
    reader, names = half_damaged([group])
    for number in (0, 7, 3):
        buffer = memoryview(bytearray(4096))
        reader.readinto(names[number], 1000, buffer)
        assert buffer == group[number][1000:5096]
    with pytest.raises(RepositoryError) as caught:
        reader.read(names[-1])
    error = caught.value
    pack = reader._index.find(names[0])
    assert pack is not None
    assert error.name == f"store/{pack_object(pack.pack)}"
    assert (error.offset, error.length) == (pack.group_position, pack.group_stored)
    assert "group 0" in str(error)
    assert reader.read(names[1]) == group[1]


@pytest.mark.parametrize("protection", protections(), ids=IDS)
def test_damage_costs_only_its_group(protection: Protection) -> None:
    """Fails if damage goes unseen, has another error than ours, or spreads."""
    groups = [[b"ab" * 60, NOISE[:50]], [NOISE[50:99], b"x"], [b"z" * 99]]
    pack = pack_of(groups, protection)
    store = MemoryStore("store")
    put_packs(store, protection, [pack])
    data = bytearray(b"".join(pack.parts))
    start = len(pack.parts[0]) + len(pack.parts[1])
    for at in range(start, start + len(pack.parts[2])):
        data[at] ^= 1 << at % 8
        store.put(pack_object(pack.name), (bytes(data),))
        data[at] ^= 1 << at % 8
        reader = ChunkReader(store, ChunkIndex(store, protection), protection)
        failures = []
        for number, group in enumerate(groups):
            for chunk in group:
                try:
                    assert reader.read(protection.name_of(chunk)) == chunk
                except RepositoryError as error:
                    failures.append((number, error.offset, error.name))
        expected = (1, start, f"store/{pack_object(pack.name)}")
        assert failures == [expected] * (2 if protection.is_encrypted else 1)


def test_what_was_damaged_once_is_read_again() -> None:
    """Fails if a mended pack, or a reading error that has passed, stays an error."""
    protection, store = Plain(), MemoryStore("store")
    pack = pack_of([[NOISE[:5000], b"b" * 5000]], protection)
    put_packs(store, protection, [pack])
    reader = ChunkReader(store, ChunkIndex(store, protection), protection)
    sound = b"".join(pack.parts)
    bad = bytearray(sound)
    bad[1000] ^= 1
    for content in (bad, sound[:2000], b""):
        store.put(pack_object(pack.name), (bytes(content),))
        with pytest.raises(RepositoryError):
            reader.read(protection.name_of(NOISE[:5000]))
    store.put(pack_object(pack.name), (sound,))
    assert reader.read(protection.name_of(NOISE[:5000])) == NOISE[:5000]


@pytest.mark.parametrize("protection", protections(), ids=IDS)
@pytest.mark.parametrize("is_far", [False, True])
def test_a_pack_that_was_repacked_is_found_again(protection: Protection, is_far: bool) -> None:
    """Fails if a prune beside a long restore breaks it."""
    store = CountingStore(latency_s=0.05 * is_far)
    old = pack_of([[b"a" * 50, b"b" * 50], [b"c" * 50]], protection)
    reader = reader_of([old], protection, store=store)
    parts = [
        (protection.name_of(letter * 50), 1, memoryview(bytearray(20))) for letter in (b"a", b"c")
    ]
    (old_index,) = store.list("index/")
    assert protection.name_of(b"a" * 50) in reader._index
    new = [pack_of([[b"c" * 50, b"a" * 50]], protection), pack_of([[b"b" * 50]], protection)]
    put_packs(store, protection, new)
    store.delete(old_index.name)
    store.delete(pack_object(old.name))
    reader.readinto_many(parts)
    assert [bytes(buffer) for _, _, buffer in parts] == [b"a" * 20, b"c" * 20]
    assert reader.read(protection.name_of(b"b" * 50)) == b"b" * 50


def test_a_chunk_that_others_have_put_since_is_found() -> None:
    """Fails if a reader has to be opened again to see a new snapshot."""
    protection, store = Plain(), MemoryStore()
    reader = reader_of([], protection, store=store)
    with pytest.raises(RepositoryError, match="in no index"):
        reader.read(protection.name_of(b"new"))
    put_packs(store, protection, [pack_of([[b"new"]], protection)])
    buffer = memoryview(bytearray(2))
    reader.readinto_many([(protection.name_of(b"new"), 1, buffer)])
    assert bytes(buffer) == b"ew"


def test_missing_packs_are_named() -> None:
    """Fails if the error does not say which pack is gone."""
    protection, store = Plain(), MemoryStore("store")
    pack = pack_of([[b"a"]], protection)
    reader = reader_of([pack], protection, store=store)
    store.delete(pack_object(pack.name))
    with pytest.raises(RepositoryError, match="missing") as caught:
        reader.read(protection.name_of(b"a"))
    assert caught.value.name == f"store/{pack_object(pack.name)}"


def test_reading_behind_a_chunk_is_refused() -> None:
    """Fails if a node that says a chunk is longer makes us read the next chunk's bytes."""
    protection = Plain()
    reader = reader_of([pack_of([[b"abc", b"def"]], protection)], protection)
    for offset, length in ((0, 4), (3, 1), (4, 0), (-1, 2)):
        buffer = memoryview(bytearray(length))
        with pytest.raises(RepositoryError, match="chunk"):
            reader.readinto(protection.name_of(b"abc"), offset, buffer)
        with pytest.raises(RepositoryError, match="chunk"):
            reader.readinto_many([(protection.name_of(b"abc"), offset, buffer)])


def test_who_may_only_add_cannot_read() -> None:
    """Fails if a host with an `add` key reads chunks, or gets an error that does not say why."""
    store = MemoryStore()
    put_packs(store, encrypted(), [pack_of([[b"a"]], encrypted())])
    protection = encrypted(can_read=False)
    reader = ChunkReader(store, ChunkIndex(store, protection), protection)
    with pytest.raises(PassphraseError):
        reader.read(protection.name_of(b"a"))


@pytest.mark.parametrize(
    ("raw", "codec", "offset", "length"),
    [
        (100, 1, 0, 100),
        (16 << 20, 1, 0, 16 << 20),
        (16 << 20, 1, 0, 1 << 20),
        (300, 1, 200, 101),
        (300, 1, 0xFFFFFFFF, 0xFFFFFFFF),
        (300, 1, 0, 0),
        (300, 0, 0, 300),
        (20, 0, 0, 20),
        (299, 1, 0, 300),
    ],
)
def test_an_index_that_lies_is_found_out(raw: int, codec: int, offset: int, length: int) -> None:
    """Fails if a hostile index leads to another error, to wrong bytes, or to much memory."""
    protection, store = Plain(), MemoryStore("store")
    chunk = b"abc" * 100
    pack = pack_of([[chunk]], protection)
    store.put(pack_object(pack.name), pack.parts)
    name = protection.name_of(chunk)
    stored = pack.directory.stored[0]
    content = struct.pack("<3I", 1, 1, 1) + pack.name + struct.pack("<IB", 1, 0)
    content += struct.pack("<3IB3I", 8, stored, raw, codec, 0, offset, length) + name
    put_index(store, protection, content)
    reader = ChunkReader(store, ChunkIndex(store, protection), protection)
    with bounded_memory(128 << 20), pytest.raises(RepositoryError, match="group 0") as caught:
        reader.read(name)
    assert caught.value.name == f"store/{pack_object(pack.name)}"
    index = ChunkIndex(store, protection)
    index.add(build_index([(pack.name, pack.directory)]))
    assert bytes(reader._name_of(chunk)) == name
