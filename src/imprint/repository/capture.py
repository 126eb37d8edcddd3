"""Adding a disk to a repository.

::

    regions ─► windowed(read, cut, name) ─► what is new, in groups ─► windowed(compress) ─► packs
               workers                      one thread: leaves        workers

A region whose chunks are all those of the older snapshot costs reading and hashing, nothing more:
its leaf is used again. Only what differs is cut anew, and what cannot be read of the older
snapshot: it may be damaged, or forgotten and pruned while the disk is read.
"""

from __future__ import annotations

import time
from array import array
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from imprint.core.buffers import is_zero
from imprint.core.contracts import Salvage
from imprint.core.errors import ReadError, RepositoryError
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.core.extent import Extent, Kind
from imprint.core.runs import Runs
from imprint.objects.contract import MissingObjectError
from imprint.repository.leaves import (
    UNREAD,
    chunks_of,
    count_read,
    joined,
    make_leaf,
    unchanged_entries,
    without_entries,
)
from imprint.repository.nodes import Leaf, Piece, TreeBuilder
from imprint.repository.pack import GROUP_BYTES, Group, encode_group
from imprint.repository.regions import COUNTS, Region, fresh_regions, known_regions, with_edges
from imprint.transfer.pace import Pace
from imprint.transfer.report import Report
from imprint.transfer.span import HAS_BYTES
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Source
    from imprint.repository.leaves import Entries
    from imprint.repository.nodes import Tree
    from imprint.repository.protection import Protection
    from imprint.repository.regions import Cutting
    from imprint.repository.writing import ChunkWriter
    from imprint.transfer.hashing import HashSet


_UNREADABLE: Final = (RepositoryError, MissingObjectError, ReadError)
"""What is raised where a repository is damaged, or something of it was removed."""


@dataclass(frozen=True)
class Options:
    """How a disk is added.

    Attributes:
        workers: threads that read, and as many that compress.
        level: of Zstandard.
        older: tree and size of a snapshot of the same disk, which much is the same as. What of it
            cannot be read counts as new.
        changed: what may differ from it; ``None``: anything.
        hashes: to take of the whole disk; then all of it is read, whatever is known.
        keeps_bad: what the source has in place of what could not be read is data like any other.
        on_event: told of progress, and of what could not be read of the older snapshot.
        cancel: stops it.
    """

    workers: int = 2
    level: int = 3
    older: tuple[Tree, int] | None = None
    changed: Runs | None = None
    hashes: HashSet | None = None
    keeps_bad: bool = False
    on_event: OnEvent = ignore
    cancel: CancelToken | None = None


@dataclass
class _Read:
    """A region, read.

    Attributes:
        region: what was to be read.
        leaf: what it is; ``None``: as the older leaf says.
        new: names and bytes of chunks that have to be added.
        moved: bytes that were read.
        runs: what was read, with its offset; only if it has to be hashed.
    """

    region: Region
    leaf: Leaf | None = None
    new: list[tuple[bytes, bytes]] = field(default_factory=list)
    moved: int = 0
    runs: list[tuple[int, memoryview]] = field(default_factory=list)


def store_disk(
    source: Source,
    writer: ChunkWriter,
    protection: Protection,
    cutting: Cutting,
    options: Options,
) -> tuple[bytes, Report]:
    """Add all of a disk: the name of its root, and what was done. Packs are durable then.

    Raises:
        ReadError: if it cannot be read.
        ImagingError: whatever reading or storing raises.
    """
    began = time.monotonic()
    run = _Run(source, writer, protection, cutting, options)
    encoded = windowed(
        run.encode, run.groups(), workers=options.workers, window=options.workers + 1
    )
    with closing(encoded) as groups:
        for names, group in groups:
            writer.add(group, names)
    root = run.finish()
    writer.finish()
    report = run.report
    report.duration_s = time.monotonic() - began
    report.hashes = {} if options.hashes is None else options.hashes.digests()
    report.bad = run.all_bad()
    return root, report


class _Run:
    """One capture: what workers do, and what the thread does that keeps the order."""

    def __init__(
        self,
        source: Source,
        writer: ChunkWriter,
        protection: Protection,
        cutting: Cutting,
        options: Options,
    ) -> None:
        self._source = source
        self._salvage = source if isinstance(source, Salvage) else None
        self._writer = writer
        self._name_of = protection.name_of
        self._cutting = cutting
        self._options = options
        self._tree = TreeBuilder(writer.add_node)
        self._pace = Pace(source.size, "capture", options.on_event)
        self._end = 0
        self._bad: list[tuple[int, int]] = []
        self._lost: list[Exception] = []
        self.report = Report(source.size)

    def encode(self, pieces: list[tuple[bytes, bytes]]) -> tuple[list[bytes], Group]:
        """Compress new chunks; runs in a worker."""
        group = encode_group([data for _, data in pieces], self._options.level)
        return [name for name, _ in pieces], group

    def groups(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """New chunks, as many as are compressed together; leaves are kept on the way."""
        pending: list[tuple[bytes, bytes]] = []
        size = 0
        workers = self._options.workers
        regions = windowed(self._read, self._regions(), workers=workers, window=workers + 1)
        with closing(regions) as found:
            for read in found:
                if self._options.cancel is not None:
                    self._options.cancel.check()
                self._keep(read)
                for name, data in read.new:
                    if size + len(data) > GROUP_BYTES:
                        yield pending
                        pending, size = [], 0
                    pending.append((name, data))
                    size += len(data)
        if pending:
            yield pending

    def finish(self) -> bytes:
        """Keep what is left of the tree; the root."""
        self._pace.tell(self._source.size, self.report.bytes_read, force=True)
        if self._lost:
            first = self._lost[0]
            what = f"counts as new where the last snapshot cannot be read: {first.args[0]}"
            self._options.on_event(Finding(Severity.WARNING, self._source.name, what))
        assert self._end == self._source.size, "regions have to cover the disk"
        if not self._source.size:
            self._tree.add(0, 0, self._writer.add_node(Leaf(0, b"", array("Q"), b"").encode()))
        return self._tree.finish()

    def bad_extents(self) -> list[Extent]:
        """What the source could not read so far."""
        return [] if self._salvage is None else self._salvage.bad_extents()

    def all_bad(self) -> list[Extent]:
        """The same, and what the source knew without reading."""
        tried = ((extent.offset, extent.length) for extent in self.bad_extents())
        return [Extent(*run, Kind.BAD) for run in Runs.of([*self._bad, *tried])]

    def _regions(self) -> Iterator[Region]:
        if self._options.older is None:
            extents = with_edges(self._source.extents(0, self._source.size))
            return fresh_regions(extents, self._cutting)
        tree, size = self._options.older
        changed = self._options.changed if self._options.hashes is None else None
        leaves = self._leaves(tree, size)
        return known_regions(self._source, leaves, self._cutting, changed)

    def _leaves(self, older: Tree, size: int) -> Iterator[tuple[int, int, bytes]]:
        """Those of the older snapshot, up to where it cannot be read."""
        try:
            yield from older.leaves(0, min(size, self._source.size))
        except _UNREADABLE as failure:
            self._lost.append(failure)

    def _older_leaf(self, region: Region) -> Leaf | None:
        """What the older snapshot has of a region, if all of that can be used again."""
        if region.leaf is None:
            return None
        assert self._options.older is not None
        try:
            leaf = self._options.older[0].leaf(region.leaf, region.start, region.end)
        except _UNREADABLE as failure:
            self._lost.append(failure)
            return None
        return leaf if self._writer.has_all([region.leaf, *chunks_of(leaf)]) else None

    def _keep(self, read: _Read) -> None:
        region = read.region
        name = region.leaf if read.leaf is None else self._writer.add_node(read.leaf.encode())
        assert name is not None
        assert region.start == self._end, "regions have to cover the disk"
        self._end = region.end
        self._tree.add(region.start, region.end, name)
        self.report.bytes_read += read.moved
        self._bad += [(e.offset, e.length) for e in region.extents if e.kind is Kind.BAD]
        if self._options.hashes is not None:
            position = region.start
            for offset, data in read.runs:
                self._options.hashes.update_zeros(offset - position)
                self._options.hashes.update(data)
                position = offset + len(data)
            self._options.hashes.update_zeros(region.end - position)
        bad = sum(extent.length for extent in self.bad_extents())
        self._pace.tell(region.end, self.report.bytes_read, bad=bad)

    def _read(self, region: Region) -> _Read:
        """Read a region, and find out what of it is new; runs in a worker."""
        older = self._older_leaf(region)
        trusted = {} if older is None else unchanged_entries(older, region)
        wanted = without_entries(region.extents, trusted)
        runs = self._runs(wanted)
        moved = sum(extent.length for extent in wanted if extent.kind in HAS_BYTES)
        kept = runs if self._options.hashes is not None else []
        known: Entries = {}
        if older is not None:
            known = self._unchanged(older, runs)
            is_same = len(trusted) + len(known) == count_read(older)
            if is_same and self._is_same_outside(older, region.extents):
                return _Read(region, None, moved=moved, runs=kept)
        leaf, new = self._leaf(region, runs, known, trusted)
        return _Read(region, leaf, new, moved, kept)

    def _runs(self, extents: Sequence[Extent]) -> list[tuple[int, memoryview]]:
        """What the extents hold, as runs of the disk; what could not be read is left out."""
        wanted = sum(extent.length for extent in extents if extent.kind in COUNTS)
        buffer = memoryview(bytearray(wanted))
        runs: list[tuple[int, int, int]] = []
        at = 0
        for extent in extents:
            if extent.kind not in COUNTS:
                continue
            view = buffer[at : at + extent.length]
            if extent.kind is Kind.DATA:
                assert extent.storage is not None
                extent.storage.readinto(view, extent.storage_offset)
            elif extent.kind is Kind.ENCODED:
                self._source.readinto(view, extent.offset)
            if runs and runs[-1][0] + runs[-1][2] == extent.offset:
                runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + extent.length)
            else:
                runs.append((extent.offset, at, extent.length))
            at += extent.length
        found = [(offset, buffer[at : at + length]) for offset, at, length in runs]
        return self._without_bad(found)

    def _without_bad(self, runs: list[tuple[int, memoryview]]) -> list[tuple[int, memoryview]]:
        bad = [(extent.offset, extent.end) for extent in self._left_out()]
        if not bad:
            return runs
        left = []
        for offset, data in runs:
            end = offset + len(data)
            inside = [(max(a, offset), min(b, end)) for a, b in bad if a < end and b > offset]
            borders = [offset, *(border for pair in inside for border in pair), end]
            left += [
                (a, data[a - offset : b - offset])
                for a, b in zip(borders[::2], borders[1::2], strict=True)
                if a < b
            ]
        return left

    def _unchanged(self, older: Leaf, runs: list[tuple[int, memoryview]]) -> Entries:
        """What of the older leaf still holds."""
        known: Entries = {}
        name_of = self._name_of
        entry, borders, kinds = 0, older.borders, older.kinds
        for offset, data in runs:
            end = offset + len(data)
            while entry < len(kinds) and borders[entry] < offset:
                entry += 1
            while entry < len(kinds) and borders[entry + 1] <= end:
                start = borders[entry]
                if kinds[entry] <= Piece.ZERO:
                    view = data[start - offset : borders[entry + 1] - offset]
                    if kinds[entry] == Piece.ZERO:
                        if is_zero(view):
                            known[start] = len(view), None
                    else:
                        name = older.name_of(entry)
                        if name_of(view) == name:
                            known[start] = len(view), name
                entry += 1
        return known

    def _is_same_outside(self, older: Leaf, extents: Sequence[Extent]) -> bool:
        """Whether what was not read is of the kinds that it was."""
        then = joined(
            (offset, length, kind if kind > Piece.ZERO else Piece.DATA)
            for offset, length, kind in zip(older.borders, older.lengths, older.kinds, strict=False)
        )
        now = joined(
            (extent.offset, extent.length, UNREAD.get(extent.kind, Piece.DATA))
            for extent in extents
        )
        return then == now and not self._has_bad(extents)

    def _has_bad(self, extents: Sequence[Extent]) -> bool:
        start, end = extents[0].offset, extents[-1].end
        return any(bad.offset < end and bad.end > start for bad in self._left_out())

    def _left_out(self) -> list[Extent]:
        """What could not be read so far, and is not kept."""
        return [] if self._options.keeps_bad else self.bad_extents()

    def _leaf(
        self,
        region: Region,
        runs: list[tuple[int, memoryview]],
        known: Entries,
        trusted: Entries,
    ) -> tuple[Leaf, list[tuple[bytes, bytes]]]:
        """The leaf of a region, and its chunks that are new."""
        entries: list[tuple[int, int, bytes | None, Piece]] = [
            (start, length, name, Piece.ZERO if name is None else Piece.DATA)
            for start, (length, name) in {**known, **trusted}.items()
        ]
        fresh: list[tuple[bytes, memoryview]] = []
        for offset, data in runs:
            for start, view in _stretches(offset, data, known):
                if start in known:
                    continue
                at = 0
                for length in self._cutting.lengths(start, view):
                    piece = view[at : at + length]
                    if is_zero(piece):
                        entries.append((start + at, length, None, Piece.ZERO))
                    else:
                        name = self._name_of(piece)
                        fresh.append((name, piece))
                        entries.append((start + at, length, name, Piece.DATA))
                    at += length
        is_new = self._writer.claim([name for name, _ in fresh])
        new = [
            (name, bytes(piece)) for (name, piece), fits in zip(fresh, is_new, strict=True) if fits
        ]
        return make_leaf(region, entries), new


def _stretches(offset: int, data: memoryview, known: Entries) -> Iterator[tuple[int, memoryview]]:
    """A run in parts: each entry that is known, and each stretch between."""
    end = offset + len(data)
    borders = {offset, end}
    for start, (length, _) in known.items():
        if offset <= start < end:
            borders.update((start, start + length))
    for start, stop in pairwise(sorted(borders)):
        yield start, data[start - offset : stop - offset]
