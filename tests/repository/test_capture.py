"""Disks that go into a repository and come out of it."""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.contracts import Traits
from imprint.core.errors import RepositoryError
from imprint.core.events import Event, Finding
from imprint.core.extent import Extent, Kind
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.objects.memory import MemoryStore
from imprint.repository.capture import Options, store_disk
from imprint.repository.chunks import ChunkReader
from imprint.repository.condemning import put_condemned
from imprint.repository.cutting import Cuts, Cutting
from imprint.repository.nodes import Piece, Tree
from imprint.repository.pack_contents import list_packs
from imprint.repository.repository import Repository
from imprint.repository.snapshots import Manifest
from imprint.transfer.hashing import HashSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.repository.source import SnapshotSource
    from imprint.transfer.report import Report

TIME = "2026-01-01T00:00:00.000000Z"


@dataclass
class Disk:
    """Bytes, and what is said of them: ``(offset, kind)`` where another kind begins.

    Attributes:
        content: of the disk.
        kinds: ascending, the first at 0.
        bad: sectors that cannot be read, which it tells as a salvaging source does.
        reads: what was read: offset and length.
    """

    content: bytes
    kinds: list[tuple[int, Kind]] = field(default_factory=lambda: [(0, Kind.ENCODED)])
    bad: list[tuple[int, int]] = field(default_factory=list)
    reads: list[tuple[int, int]] = field(default_factory=list)
    name: str = "disk"
    traits: Traits = field(default_factory=Traits)

    @property
    def size(self) -> int:
        return len(self.content)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        self.reads.append((offset, len(buffer)))
        buffer[:] = self.content[offset : offset + len(buffer)]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        ends = [start for start, _ in self.kinds[1:]] + [self.size]
        for (start, kind), end in zip(self.kinds, ends, strict=True):
            first, last = max(start, offset), min(end, offset + length)
            if first < last:
                yield Extent(first, last - first, kind)

    def bad_extents(self) -> list[Extent]:
        return [Extent(offset, length, Kind.BAD) for offset, length in self.bad]

    def close(self) -> None:
        """Nothing to close."""


def capture(
    repository: Repository,
    disk: Disk,
    options: Options | None = None,
    cutting: Cutting | None = None,
) -> tuple[SnapshotSource, Report, int]:
    """The disk as it is in the repository, and how many bytes that has added."""
    with repository.session("capture") as session:
        writer = repository.writer(session)
        root, report = store_disk(
            disk, writer, repository.protection, cutting or Cutting(), options or Options()
        )
        manifest = Manifest("disk", TIME, disk.size, root.hex(), stored=writer.stored)
        snapshot = repository.commit(manifest, session, writer)
        writer.close()
    return repository.source(snapshot), report, writer.stored


def read(source: SnapshotSource) -> bytes:
    buffer = bytearray(source.size)
    if buffer:
        source.readinto(memoryview(buffer), 0)
    return bytes(buffer)


def pieces(source: SnapshotSource) -> list[tuple[int, int, Kind]]:
    return [(item.offset, item.length, item.kind) for item in source.extents(0, source.size)]


@st.composite
def disks(draw: st.DrawFn, size: int | None = None) -> Disk:
    """Up to 12 MiB, with holes that are zeros, and unused parts that are not."""
    made = random.Random(draw(st.integers(0, 1 << 32)))
    length = size if size is not None else 512 * draw(st.integers(1, 24 * 1024))
    content = bytearray()
    kinds = []
    while len(content) < length:
        kind = made.choice([Kind.ENCODED, Kind.ENCODED, Kind.HOLE, Kind.ZERO, Kind.UNUSED])
        run = min(length - len(content), 512 * made.choice([1, 7, 64, 1000, 3000, 12000]))
        kinds.append((len(content), kind))
        seed = made.randbytes(64) if made.random() < 0.8 else bytes(64)
        content += bytes(run) if kind in {Kind.HOLE, Kind.ZERO} else seed * (run // 64)
    return Disk(bytes(content), kinds)


def as_it_reads(disk: Disk) -> bytes:
    """With zeros where nothing is used."""
    content = bytearray(disk.content)
    for extent in disk.extents(0, disk.size):
        if extent.kind is Kind.UNUSED:
            content[extent.offset : extent.end] = bytes(extent.length)
    return bytes(content)


@settings(max_examples=25, deadline=None)
@given(disk=disks(), workers=st.integers(1, 3))
def test_what_goes_in_comes_out(disk: Disk, workers: int) -> None:
    """Fails if a byte changes, or is missing, whatever the disk's map says."""
    repository = Repository.create(MemoryStore())
    source, report, _ = capture(repository, disk, Options(workers=workers))
    assert read(source) == as_it_reads(disk)
    unused = sum(e.length for e in disk.extents(0, disk.size) if e.kind is Kind.UNUSED)
    assert sum(e.length for e in source.extents(0, disk.size) if e.kind is Kind.UNUSED) == unused
    encoded = sum(e.length for e in disk.extents(0, disk.size) if e.kind is Kind.ENCODED)
    assert report.bytes_read == encoded


@settings(max_examples=25, deadline=None)
@given(disk=disks(size=9 * MIB), other=disks(size=9 * MIB), data=st.data())
def test_a_disk_that_changed_comes_out_as_it_is_now(
    disk: Disk, other: Disk, data: st.DataObject
) -> None:
    """Fails if something of the older snapshot stays that is not true any more."""
    repository = Repository.create(MemoryStore())
    before, _, _ = capture(repository, disk)
    start = 512 * data.draw(st.integers(0, 18 * 1024 - 1))
    end = 512 * data.draw(st.integers(start // 512 + 1, 18 * 1024))
    content = disk.content[:start] + other.content[start:end] + disk.content[end:]
    kinds = [(extent.offset, extent.kind) for extent in disk.extents(0, start)]
    kinds += [(extent.offset, extent.kind) for extent in other.extents(start, end - start)]
    kinds += [(extent.offset, extent.kind) for extent in disk.extents(end, disk.size - end)]
    now = Disk(content, kinds)
    after, _, _ = capture(repository, now, Options(older=(before.tree, before.size)))
    assert read(after) == as_it_reads(now)
    assert read(before) == as_it_reads(disk)


@settings(max_examples=15, deadline=None)
@given(disk=disks())
def test_a_disk_that_did_not_change_adds_nothing(disk: Disk) -> None:
    """Fails if the same disk gets another root, or anything is stored twice."""
    repository = Repository.create(MemoryStore())
    first, _, _ = capture(repository, disk)
    again, _, stored = capture(repository, disk, Options(older=(first.tree, first.size)))
    assert stored == 0
    assert again.snapshot.manifest.root == first.snapshot.manifest.root


def test_a_sparse_image_has_the_chunks_of_a_full_one() -> None:
    """Fails if the same disk is stored twice because one image leaves out zeros."""
    made = random.Random(1)
    content = bytearray(made.randbytes(16 * MIB))
    kinds: list[tuple[int, Kind]] = [(0, Kind.ENCODED)]
    for start, end in ((100 * KIB, 104 * KIB), (3 * MIB + 512, 4 * MIB), (6 * MIB, 13 * MIB + 512)):
        content[start:end] = bytes(end - start)
        kinds += [(start, Kind.HOLE), (end, Kind.ENCODED)]
    repository = Repository.create(MemoryStore())
    full, _, stored = capture(repository, Disk(bytes(content)))
    sparse, _, added = capture(repository, Disk(bytes(content), kinds))
    assert read(full) == read(sparse) == content
    assert stored > 7 * MIB
    assert added < 4 * KIB  # nodes: what was a hole is told


def test_the_disk_may_grow_and_shrink() -> None:
    """Fails if the older snapshot's end is taken for the disk's."""
    content = random.Random(2).randbytes(11 * MIB + 512)
    repository = Repository.create(MemoryStore())
    source, _, _ = capture(repository, Disk(content[: 7 * MIB]))
    for size in (len(content), 5 * MIB + 512, 512, 0, 3 * MIB):
        source, _, _ = capture(
            repository, Disk(content[:size]), Options(older=(source.tree, source.size))
        )
        assert read(source) == content[:size]


def test_only_what_may_have_changed_is_read() -> None:
    """Fails if a disk that tells what was written is read as a whole."""
    content = random.Random(3).randbytes(24 * MIB)
    repository = Repository.create(MemoryStore())
    source, _, _ = capture(repository, Disk(content))
    changed = bytearray(content)
    changed[9 * MIB : 9 * MIB + 10] = b"other text"
    disk = Disk(bytes(changed))
    written = Runs.of([(9 * MIB, 512)])
    options = Options(older=(source.tree, source.size), changed=written)
    after, report, _ = capture(repository, disk, options)
    assert read(after) == changed
    assert report.bytes_read <= 6 * MIB
    assert all(offset <= 9 * MIB < offset + length for offset, length in disk.reads)


@settings(max_examples=25, deadline=None)
@given(disk=disks(size=9 * MIB), other=disks(size=9 * MIB), data=st.data())
def test_a_disk_of_which_it_is_known_what_changed_comes_out_as_it_is_now(
    disk: Disk, other: Disk, data: st.DataObject
) -> None:
    """Fails if a chunk that may have changed is not read, or is not the one that it was."""
    repository = Repository.create(MemoryStore())
    cutting = Cutting(Cuts(array("Q", range(0, 9 * MIB, 64 * KIB))))
    before, _, _ = capture(repository, disk, cutting=cutting)
    lengths = st.integers(1, 300 * KIB)
    drawn = data.draw(st.lists(st.tuples(st.integers(0, 9 * MIB - 1), lengths), max_size=5))
    changed = Runs.of((start, min(length, 9 * MIB - start)) for start, length in drawn)
    content = bytearray(disk.content)
    kinds = []
    for place, holder in ((changed, other), (changed.complement(disk.size), disk)):
        for start, length in place:
            content[start : start + length] = holder.content[start : start + length]
            kinds += [(item.offset, item.kind) for item in holder.extents(start, length)]
    now = Disk(bytes(content), sorted(kinds))
    options = Options(older=(before.tree, before.size), changed=changed)
    after, _, _ = capture(repository, now, options, cutting)
    assert read(after) == as_it_reads(now)


def test_one_chunk_of_a_region_is_read_if_one_may_have_changed() -> None:
    """Fails if a change costs reading the region that it is in."""
    content = random.Random(4).randbytes(8 * MIB)
    repository = Repository.create(MemoryStore())
    source, _, _ = capture(repository, Disk(content))
    disk = Disk(content[: 5 * MIB] + b"other" + content[5 * MIB + 5 :])
    options = Options(older=(source.tree, source.size), changed=Runs.of([(5 * MIB, 1)]))
    after, report, _ = capture(repository, disk, options)
    assert read(after) == disk.content
    assert disk.reads == [(5 * MIB, 256 * KIB)]
    assert report.bytes_read == 256 * KIB


def test_what_cannot_be_read_is_told() -> None:
    """Fails if bad sectors become data, or good ones beside them are lost."""
    content = bytearray(random.Random(4).randbytes(6 * MIB))
    bad = [(512, 512), (2 * MIB, 3 * 512), (6 * MIB - 512, 512)]
    for offset, length in bad:
        content[offset : offset + length] = bytes(length)
    repository = Repository.create(MemoryStore())
    source, report, _ = capture(repository, Disk(bytes(content), bad=bad))
    assert read(source) == content
    assert [(item.offset, item.length) for item in report.bad] == bad
    found = [item[:2] for item in pieces(source) if item[2] is Kind.BAD]
    assert found == bad


def test_hashes_are_those_of_the_whole_disk() -> None:
    """Fails if what is skipped is not hashed as the zeros that it reads as."""
    import hashlib

    made = random.Random(5)
    content = made.randbytes(MIB) + bytes(9 * MIB) + made.randbytes(512)
    kinds = [(0, Kind.ENCODED), (MIB, Kind.HOLE), (10 * MIB, Kind.ENCODED)]
    repository = Repository.create(MemoryStore())
    first, _, _ = capture(repository, Disk(content, kinds))
    for options in (
        Options(hashes=HashSet(["sha256"])),
        Options(hashes=HashSet(["sha256"]), older=(first.tree, first.size), changed=Runs.of([])),
    ):
        _, report, _ = capture(repository, Disk(content, kinds), options)
        assert report.hashes == {"sha256": hashlib.sha256(content).hexdigest()}


def test_a_chunk_that_was_lost_is_stored_again() -> None:
    """Fails if leaves are used again whose chunks are not there any more."""
    content = random.Random(6).randbytes(8 * MIB)
    store = MemoryStore()
    repository = Repository.create(store)
    source, _, _ = capture(repository, Disk(content))
    for item in list(store.list("index/")):
        store.delete(item.name)  # with the packs of data gone, repair leaves an index like this
    fresh = Repository.open(store, lambda _: b"")
    nodes = {name for name, _ in source.tree.names()}
    assert nodes
    again, _, stored = capture(fresh, Disk(content), Options(older=(source.tree, source.size)))
    assert stored > 8 * MIB
    assert read(again) == content


def test_zeros_are_no_chunks() -> None:
    """Fails if zeros that were read take room."""
    repository = Repository.create(MemoryStore())
    source, _, stored = capture(repository, Disk(bytes(16 * MIB)))
    assert stored < KIB
    kinds = {
        kind
        for start, end, name in source.tree.leaves(0, source.size)
        for kind in source.tree.leaf(name, start, end).kinds
    }
    assert kinds == {Piece.ZERO}


class Losing(Disk):
    """A disk during whose first read something happens to the repository."""

    def __init__(self, content: bytes, happens: Callable[[], None]) -> None:
        super().__init__(content)
        self.happens = happens

    def readinto(self, buffer: memoryview, offset: int) -> None:
        if not self.reads:
            self.happens()
        super().readinto(buffer, offset)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_parent_that_is_pruned_meanwhile_is_no_reason_to_fail(workers: int) -> None:
    """Fails if a capture needs a snapshot that somebody may forget at any moment."""
    repository = Repository.create(MemoryStore())
    content = random.Random(1).randbytes(20 * MIB)
    older, _, _ = capture(repository, Disk(content))
    old = {item.name for item in repository.store.list("packs/")}

    def prune() -> None:
        for name in old:
            repository.store.delete(name)

    # Of a prune that began before the capture: what it condemned counts as absent already.
    put_condemned(repository.store, repository.protection, list_packs(repository.store))
    fresh = Repository(repository.store, repository.format, repository.protection)

    def load(name: bytes) -> bytes:
        reader = ChunkReader(fresh.store, fresh.index, fresh.protection)  # which remembers nothing
        return bytes(reader.read(name))

    tree = Tree(bytes.fromhex(older.snapshot.manifest.root), older.size, load)
    told: list[Event] = []
    options = Options(workers, older=(tree, older.size), on_event=told.append)
    disk = Losing(content, prune)
    made, report, _ = capture(fresh, disk, options)
    assert not old & {item.name for item in repository.store.list("packs/")}
    assert report.bytes_read == len(content)
    again = Repository(repository.store, repository.format, repository.protection)
    assert read(again.source(made.snapshot)) == content
    (found,) = (event for event in told if isinstance(event, Finding))
    assert "the last snapshot cannot be read" in found.what


def test_what_is_lost_of_the_older_tree_counts_as_new() -> None:
    """Fails if a damaged leaf costs the comparison with all others, or the capture."""
    store = MemoryStore()
    repository = Repository.create(store)
    content = random.Random(2).randbytes(20 * MIB)
    older, _, _ = capture(repository, Disk(content))
    leaves = list(older.tree.leaves(0, older.size))
    lost = leaves[2]

    def load(name: bytes) -> bytes:
        if name == lost[2]:
            raise RepositoryError("is gone")
        return bytes(repository.chunks.read(name))

    tree = Tree(bytes.fromhex(older.snapshot.manifest.root), older.size, load)
    told: list[Event] = []
    options = Options(older=(tree, older.size), changed=Runs.of([]), on_event=told.append)
    disk = Disk(content)
    made, report, stored = capture(repository, disk, options)
    assert report.bytes_read == lost[1] - lost[0]
    assert made.snapshot.manifest.root == older.snapshot.manifest.root
    assert stored == 0
    assert [event.what for event in told if isinstance(event, Finding)] == [
        "counts as new where the last snapshot cannot be read: is gone"
    ]
