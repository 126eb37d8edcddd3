"""The copy engine over memory: what arrives, what is skipped, what happens when it fails."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.cancel import CancelToken
from imprint.core.contracts import Traits
from imprint.core.errors import Cancelled, ReadError, TargetTooSmallError
from imprint.core.events import Event, Progress
from imprint.core.extent import Extent, Kind
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage
from imprint.transfer.copy import copy
from imprint.transfer.hashing import HashSet
from imprint.transfer.span import batches, split_zeros

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


class PatchySource(MemoryStorage):
    """Memory of which some ranges are holes."""

    def __init__(self, size: int, data: list[tuple[int, bytes]]) -> None:
        super().__init__(bytes(size))
        self._data = sorted((offset, len(content)) for offset, content in data)
        for offset, content in data:
            self.content[offset : offset + len(content)] = content

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        position, end = offset, offset + length
        for start, size in self._data:
            first, last = max(start, position), min(start + size, end)
            if first >= last:
                continue
            if first > position:
                yield Extent(position, first - position, Kind.HOLE)
            yield Extent(first, last - first, Kind.DATA, self, first)
            position = last
        if position < end:
            yield Extent(position, end - position, Kind.HOLE)


class RecordingTarget:
    """A target that notes every call."""

    def __init__(self, size: int, *, reads_zero: bool = True, grain: int = 4096) -> None:
        self.size = size
        self.name = "target"
        self.traits = Traits(grain=grain, reads_zero=reads_zero)
        self.content = bytearray(b"\xee" * size) if not reads_zero else bytearray(size)
        self.calls: list[tuple[str, int, int]] = []
        self.ended = ""

    def write(self, data: memoryview, offset: int) -> None:
        self.calls.append(("write", offset, len(data)))
        self.content[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.calls.append(("zero", offset, length))
        self.content[offset : offset + length] = bytes(length)

    def commit(self) -> None:
        self.ended += "commit"

    def abort(self) -> None:
        self.ended += "abort"


class ResumableTarget(RecordingTarget):
    """The same, with checkpoints."""

    def checkpoint(self) -> None:
        self.calls.append(("checkpoint", 0, 0))

    def suspend(self) -> None:
        self.ended += "suspend"


class Notebook:
    """A journal in memory."""

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.is_discarded = False

    def record(self, position: int) -> None:
        self.positions.append(position)

    def discard(self) -> None:
        self.is_discarded = True


chunks = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 40), st.sampled_from([0, 1, 255])), max_size=8
)


def _disk(layout: list[tuple[int, int, int]], size: int) -> PatchySource:
    unit = 64 << 10
    data: list[tuple[int, bytes]] = []
    position = 0
    for gap, length, value in layout:
        start = position + gap * unit
        data.append((start, bytes([value]) * (length * unit - (value & 1) * 100)))
        position = start + length * unit
    return PatchySource(max(size, position) + 777, data)


@settings(max_examples=40, deadline=None)
@given(layout=chunks, workers=st.integers(1, 4), reads_zero=st.booleans(), zeros=st.booleans())
def test_the_target_holds_what_the_source_holds(
    layout: list[tuple[int, int, int]], workers: int, reads_zero: bool, zeros: bool
) -> None:
    """Fails if a span is lost, doubled or put elsewhere, whatever the map looks like."""
    source = _disk(layout, MIB)
    target = RecordingTarget(source.size + 512, reads_zero=reads_zero)
    hashes = HashSet(["sha256"])

    report = copy(source, target, workers=workers, hashes=hashes, detect_zeros=zeros)

    assert bytes(target.content) == bytes(source.content) + bytes(512)
    assert report.hashes["sha256"] == hashlib.sha256(source.content).hexdigest()
    assert target.ended == "commit"


def test_zeros_in_the_data_are_not_written() -> None:
    """Fails if a run of zeros that the map calls data takes up room in the target."""
    content = b"\x01" * 65536 + bytes(3 * 65536) + b"\x02" * 65536
    source = MemoryStorage(content)
    target = RecordingTarget(len(content), grain=65536)

    copy(source, target, workers=1)

    assert target.calls == [("write", 0, 65536), ("write", 4 * 65536, 65536)]


def test_a_hole_of_64_tib_is_one_batch() -> None:
    """Fails if an empty disk is walked through window by window."""
    hole = Extent(4096, 64 << 40, Kind.HOLE)
    found = list(batches([Extent(0, 4096, Kind.DATA), hole], MIB))
    assert [sum(extent.length for extent in batch) for batch in found] == [
        MIB,
        (64 << 40) - MIB,
        4096,
    ]


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.sampled_from([b"\0", b"\x01", b"\0\x01"]), min_size=1, max_size=40),
    shift=st.integers(0, 3),
    tail=st.integers(0, 700),
)
def test_runs_of_zeros_are_found_at_the_grain(blocks: list[bytes], shift: int, tail: int) -> None:
    """Fails if split_zeros loses bytes, or calls a run zero that is not."""
    grain = 512
    offset = shift * 200
    data = b"".join((block * grain)[:grain] for block in blocks) + bytes(tail)
    spans = list(split_zeros(memoryview(data), offset, grain))
    joined = b"".join(bytes(span.data) if span.data else bytes(span.length) for span in spans)
    assert joined == data
    assert [span.offset for span in spans] == [
        offset + sum(before.length for before in spans[:index]) for index in range(len(spans))
    ]
    for span in spans:
        if span.data is not None and not shift:
            for start in range(0, span.length, grain):
                assert any(span.data[start : start + grain])


def test_a_failing_read_aborts_after_what_came_before_it() -> None:
    """Fails if an error is swallowed, or the target is committed all the same."""
    source = FaultyStorage(MemoryStorage(b"\x01" * (4 * MIB)), bad=[(2 * MIB, 1)])
    target = RecordingTarget(4 * MIB)

    with pytest.raises(ReadError):
        copy(source, target, workers=3)

    assert target.ended == "abort"
    assert target.calls == [("write", 0, MIB), ("write", MIB, MIB)]


def test_a_target_that_is_too_small_is_refused_before_anything_is_written() -> None:
    """Fails if the end of the source is cut off silently."""
    target = RecordingTarget(MIB)
    with pytest.raises(TargetTooSmallError):
        copy(MemoryStorage(b"\x01" * (MIB + 1)), target)
    assert target.calls == []
    assert target.ended == "abort"


def test_cancelling_stops_at_the_next_span() -> None:
    """Fails if Ctrl-C has to wait for the whole disk."""
    cancel = CancelToken()
    target = RecordingTarget(8 * MIB)

    def stop(event: Event) -> None:
        del event
        cancel.cancel()

    with pytest.raises(Cancelled):
        copy(MemoryStorage(b"\x01" * (8 * MIB)), target, workers=1, cancel=cancel, on_event=stop)
    assert len(target.calls) == 1
    assert target.ended == "abort"


def test_checkpoints_are_recorded_after_they_are_durable() -> None:
    """Fails if a crash could find a journal that is ahead of the target."""
    target, notebook = ResumableTarget(4 * MIB), Notebook()
    copy(
        MemoryStorage(b"\x01" * (4 * MIB)),
        target,
        workers=1,
        journal=notebook,
        checkpoint_interval_s=0,
    )
    verbs = [call[0] for call in target.calls]
    assert verbs == ["write", "checkpoint"] * 4
    assert notebook.positions == [MIB, 2 * MIB, 3 * MIB, 4 * MIB]
    assert notebook.is_discarded


def test_a_failure_behind_a_checkpoint_suspends() -> None:
    """Fails if hours of copying are thrown away because of one error."""
    source = FaultyStorage(MemoryStorage(b"\x01" * (4 * MIB)), bad=[(2 * MIB, 1)])
    target, notebook = ResumableTarget(4 * MIB), Notebook()
    with pytest.raises(ReadError):
        copy(source, target, workers=1, journal=notebook, checkpoint_interval_s=0)
    assert target.ended == "suspend"
    assert not notebook.is_discarded
    assert notebook.positions[-1] == 2 * MIB


def test_a_resumed_copy_writes_the_rest_and_hashes_all() -> None:
    """Fails if the hash of a resumed copy leaves out what came before."""
    content = random.Random(7).randbytes(4 * MIB)
    target = RecordingTarget(4 * MIB, reads_zero=False)
    report = copy(MemoryStorage(content), target, hashes=HashSet(["md5", "blake3"]), start=3 * MIB)
    assert target.calls == [("write", 3 * MIB, MIB)]
    assert report.hashes["md5"] == hashlib.md5(content).hexdigest()
    plain = RecordingTarget(4 * MIB, reads_zero=False)
    assert copy(MemoryStorage(content), plain, start=3 * MIB).bytes_read == MIB


def test_progress_ends_at_the_whole_disk() -> None:
    """Fails if a bar stays below 100 % after a finished copy."""
    events: list[Event] = []
    copy(
        PatchySource(3 * MIB, [(0, b"\x01" * 4096)]),
        RecordingTarget(3 * MIB),
        on_event=events.append,
    )
    last = events[-1]
    assert isinstance(last, Progress)
    assert (last.done, last.total, last.moved) == (3 * MIB, 3 * MIB, 4096)
