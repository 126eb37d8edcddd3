"""Pipes as targets and as sources: real pipes, with threads at their other end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.cancel import CancelToken
from imprint.core.contracts import Order
from imprint.core.errors import (
    Cancelled,
    ReadError,
    RefusedError,
    TargetError,
    TruncatedImageError,
    UsageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.formats import CreateSpec
from imprint.core.units import KIB, MIB
from imprint.formats import raw
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.storage.sequential import SequentialSource
from imprint.storage.stream import StreamStorage, open_input, spool
from imprint.testing.opener import DictOpener
from imprint.transfer.copy import copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Pipe:
    """A pipe; what one end does happens in a thread."""

    def __init__(self) -> None:
        self.output, self.input = os.pipe()
        self.received = bytearray()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_fed = False

    def drain(self) -> None:
        """Receive to the end."""

        def work() -> None:
            while piece := os.read(self.output, 1 << 20):
                self.received += piece

        self._start(work)

    def feed(self, content: bytes) -> None:
        """Send, in pieces of odd sizes, and hang up."""
        self._is_fed = True

        def work() -> None:
            try:
                for start in range(0, len(content), 77_777):
                    os.write(self.input, content[start : start + 77_777])
            except BrokenPipeError:
                pass
            finally:
                self.hang_up()

        self._start(work)

    def hang_up(self) -> None:
        with self._lock:
            if self.input >= 0:
                os.close(self.input)
                self.input = -1

    def walk_away(self) -> None:
        with self._lock:
            if self.output >= 0:
                os.close(self.output)
                self.output = -1

    def end(self) -> None:
        """Stop the thread at the other end, whatever it waits for."""
        if self._is_fed:
            self.walk_away()
        else:
            self.hang_up()
        self.join()
        self.hang_up()
        self.walk_away()

    def join(self) -> bytes:
        """What has arrived, once the sender has hung up."""
        for thread in self._threads:
            thread.join()
        return bytes(self.received)

    def _start(self, work: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()


@contextmanager
def _pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    try:
        yield pipe
    finally:
        pipe.end()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with _pipe() as pipe:
        yield pipe


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _random(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _read(storage: FileStorage | SequentialSource, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    storage.readinto(memoryview(buffer), offset)
    return bytes(buffer)


class TestOutput:
    def test_what_is_written_arrives_with_its_gaps_as_zeros(self, pipe: Pipe) -> None:
        """Fails if bytes shift when something is left out."""
        pipe.drain()
        data = _random(3 * MIB)
        stream = StreamStorage(pipe.input)
        stream.write(memoryview(data), 10)
        stream.zero(3 * MIB + 10, 100)
        stream.zero(3 * MIB + 200, 2 * MIB)
        stream.write(memoryview(b""), 0)
        stream.zero(0, 0)
        stream.write(memoryview(b"end"), 5 * MIB + 1000)
        stream.resize(5 * MIB + 2000)
        assert stream.size == 5 * MIB + 2000
        assert stream.stored_size == 5 * MIB + 1003
        stream.commit()
        stream.commit()
        stream.abort()
        stream.close()
        pipe.hang_up()
        expected = bytearray(5 * MIB + 2000)
        expected[10 : 10 + len(data)] = data
        expected[5 * MIB + 1000 : 5 * MIB + 1003] = b"end"
        assert pipe.join() == expected

    def test_going_back_is_refused(self, pipe: Pipe) -> None:
        """Fails if bytes for an earlier place are sent as if they came next."""
        pipe.drain()
        stream = StreamStorage(pipe.input)
        stream.write(memoryview(bytes(100)), 0)
        with pytest.raises(RefusedError, match="found 0x63 after 0x64"):
            stream.write(memoryview(b"x"), 99)
        with pytest.raises(RefusedError):
            stream.zero(0, 200)
        with pytest.raises(RefusedError):
            stream.resize(99)

    def test_only_what_is_to_come_can_be_read(self, pipe: Pipe) -> None:
        """Fails if what was sent reads as something else, or what is left out is not zeros."""
        pipe.drain()
        stream = StreamStorage(pipe.input)
        stream.write(memoryview(b"\x11" * 100), 0)
        stream.resize(200)
        buffer = memoryview(bytearray(b"\x22" * 100))
        stream.readinto(buffer, 100)
        assert buffer == bytes(100)
        for offset in (0, 99, 101):
            with pytest.raises(ReadError, match="cannot be read back"):
                stream.readinto(buffer, offset)
        stream.readinto(buffer[:0], 0)

    def test_a_reader_that_goes_away_is_an_error(self, pipe: Pipe) -> None:
        """Fails if a broken pipe ends in a traceback, or in silence."""
        stream = StreamStorage(pipe.input)
        stream.write(memoryview(b"first"), 0)
        pipe.walk_away()
        with pytest.raises(TargetError, match="at 0x5: the reader went away") as caught:
            stream.write(memoryview(bytes(10)), 5)
        assert caught.value.name == "standard output"
        stream.resize(100)
        with pytest.raises(TargetError, match="the reader went away"):
            stream.commit()

    def test_a_pipe_that_does_not_block_is_waited_for(self, pipe: Pipe) -> None:
        """Fails if a full pipe, made non-blocking by another program, is an error."""
        os.set_blocking(pipe.input, False)
        data = _random(4 * MIB)
        threading.Timer(0.05, pipe.drain).start()
        StreamStorage(pipe.input).write(memoryview(data), 0)
        pipe.hang_up()
        while len(pipe.received) < len(data):
            time.sleep(0.01)
        assert pipe.join() == data

    def test_a_full_disk_behind_it_is_an_error(self) -> None:
        """Fails if ``> file`` on a full disk passes for success."""
        fd = os.open("/dev/full", os.O_WRONLY)
        try:
            with pytest.raises(TargetError, match="no space left"):
                StreamStorage(fd).write(memoryview(b"x"), 0)
        finally:
            os.close(fd)

    def test_a_file_behind_it_gets_the_same(self, tmp_path: Path) -> None:
        """Fails if redirecting into a file, or appending to one, misplaces bytes."""
        path = tmp_path / "file"
        path.write_bytes(b"head")
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        stream = StreamStorage(fd)
        stream.zero(0, 10)
        stream.write(memoryview(b"x"), 10)
        stream.commit()
        os.close(fd)
        assert path.read_bytes() == b"head" + bytes(10) + b"x"

    def test_a_terminal_is_refused(self) -> None:
        """Fails if a disk is poured over the user's screen."""
        script = (
            "from imprint.core.errors import RefusedError\n"
            "from imprint.storage.stream import StreamStorage\n"
            "try: StreamStorage.output()\n"
            "except RefusedError as error: raise SystemExit(7)\n"
        )
        master, terminal = os.openpty()
        try:
            done = subprocess.run([sys.executable, "-c", script], stdout=terminal, check=False)
        finally:
            os.close(master)
            os.close(terminal)
        assert done.returncode == 7

    def test_a_closed_output_is_an_error(self) -> None:
        """Fails if ``>&-`` ends in a traceback."""
        script = (
            "from imprint.core.errors import TargetError\n"
            "from imprint.storage.stream import StreamStorage\n"
            "try: StreamStorage.output()\n"
            "except TargetError as error: raise SystemExit(7)\n"
        )
        command = ["sh", "-c", '"$0" -c "$1" >&-', sys.executable, script]
        assert subprocess.run(command, check=False).returncode == 7

    def test_a_raw_image_can_be_copied_to_it(self, pipe: Pipe) -> None:
        """Fails if the raw format and the copy engine need more than ascending writes."""
        pipe.drain()
        content = bytes(MIB + 5) + _random(2 * MIB + 7) + bytes(3 * MIB)
        source = raw.FORMAT.open(MemoryStorage(content), DictOpener())
        stream = StreamStorage(pipe.input)
        assert stream.traits.order is Order.ASCENDING
        target = raw.FORMAT.create(stream, CreateSpec(len(content), DictOpener()))
        copy(source, target, workers=3)
        pipe.hang_up()
        assert pipe.join() == content

    def test_bytes_are_copied_from_other_storages(self, pipe: Pipe) -> None:
        """Fails if a copy sends other bytes than the source has."""
        pipe.drain()
        data = _random(2 * MIB + 9)
        stream = StreamStorage(pipe.input)
        assert stream.is_writable
        assert not stream.can_offload(MemoryStorage())
        stream.copy_range(MemoryStorage(data), 3, 5, 2 * MIB)
        assert list(stream.extents(1, 2)) == [Extent(1, 2, Kind.DATA, stream, 1)]
        assert list(stream.extents(1, 0)) == []
        pipe.hang_up()
        assert pipe.join() == bytes(5) + data[3 : 3 + 2 * MIB]


class TestSequential:
    def test_it_is_read_in_order(self, pipe: Pipe) -> None:
        """Fails if a read returns other bytes than those at its offset."""
        data = _random(5 * MIB + 3)
        pipe.feed(data)
        source = SequentialSource(pipe.output, len(data), name="input")
        for start in range(0, len(data), MIB):
            length = min(MIB, len(data) - start)
            assert _read(source, start, length) == data[start : start + length]

    @given(
        cuts=st.lists(st.integers(1, 199_999), max_size=12, unique=True),
        seed=st.integers(0, 1000),
    )
    def test_any_order_will_do(self, cuts: list[int], seed: int) -> None:
        """Fails if what one reader skipped is lost for the others."""
        data = _random(200_000)
        borders = [0, *sorted(cuts), len(data)]
        ranges = list(pairwise(borders))
        random.Random(seed).shuffle(ranges)
        with _pipe() as pipe:
            pipe.feed(data)
            source = SequentialSource(pipe.output, len(data), name="input")
            for start, stop in ranges:
                assert _read(source, start, stop - start) == data[start:stop]

    def test_many_threads_can_read(self, pipe: Pipe) -> None:
        """Fails if threads that come out of order mix up the stream."""
        data = _random(16 * MIB)
        pipe.feed(data)
        source = SequentialSource(pipe.output, len(data), name="input")

        def read(index: int) -> bool:
            start = index * 64 * KIB
            return _read(source, start, 64 * KIB) == data[start : start + 64 * KIB]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(256)))

    def test_a_range_across_what_is_kept_and_what_comes(self, pipe: Pipe) -> None:
        """Fails if a read that begins among kept bytes and ends in new ones has a seam."""
        data = _random(300_000)
        pipe.feed(data)
        source = SequentialSource(pipe.output, len(data), name="input")
        assert _read(source, 100_000, 10) == data[100_000:100_010]
        assert _read(source, 40_000, 20_000) == data[40_000:60_000]
        assert _read(source, 60_000, 40_000) == data[60_000:100_000]
        assert _read(source, 0, 40_000) == data[:40_000]
        assert _read(source, 100_010, 199_990) == data[100_010:]
        assert _read(source, 300_000, 0) == b""

    def test_nothing_is_read_twice(self, pipe: Pipe) -> None:
        """Fails if a second reading returns anything."""
        pipe.feed(bytes(1000))
        source = SequentialSource(pipe.output, 1000, name="input")
        _read(source, 0, 500)
        with pytest.raises(ReadError, match="only once"):
            _read(source, 499, 2)
        with pytest.raises(ReadError, match="only once"):
            _read(source, 0, 10)

    def test_what_is_kept_is_bounded(self, pipe: Pipe) -> None:
        """Fails if skipping a terabyte keeps it in memory."""
        data = _random(8 * MIB)
        pipe.feed(data)
        source = SequentialSource(pipe.output, len(data), name="input", backlog_bytes=2 * MIB)
        assert _read(source, 6 * MIB, MIB) == data[6 * MIB : 7 * MIB]
        assert _read(source, 4 * MIB, 2 * MIB) == data[4 * MIB : 6 * MIB]
        with pytest.raises(ReadError, match="gone"):
            _read(source, 3 * MIB, MIB)

    def test_a_short_stream_is_an_error(self, pipe: Pipe) -> None:
        """Fails if a disk that breaks off is completed with anything."""
        pipe.feed(bytes(1000))
        source = SequentialSource(pipe.output, 2000, name="input")
        with pytest.raises(TruncatedImageError, match="expected 2000 bytes, found 1000"):
            _read(source, 500, 1000)
        with pytest.raises(TruncatedImageError, match="found a size of 2000"):
            _read(source, 1999, 2)

    def test_it_can_be_copied(self, pipe: Pipe, tmp_path: Path) -> None:
        """Fails if the copy engine, with threads, needs more than one reading."""
        data = _random(9 * MIB + 17)
        pipe.feed(data)
        stored = FileStorage.open(_touched(tmp_path / "copy"), writable=True)
        source = raw.FORMAT.open(
            SequentialSource(pipe.output, len(data), name="input"), DictOpener()
        )
        target = raw.FORMAT.create(stored, CreateSpec(len(data), DictOpener()))
        copy(source, target, workers=4)
        assert (tmp_path / "copy").read_bytes() == data

    def test_it_cannot_be_written(self, pipe: Pipe) -> None:
        """Fails if a write is silently dropped."""
        source = SequentialSource(pipe.output, 10, name="input")
        assert not source.is_writable
        assert not source.can_offload(source)
        assert source.stored_size == source.size == 10
        assert source.traits.order is Order.ASCENDING
        with pytest.raises(RefusedError):
            source.write(memoryview(b"x"), 0)
        with pytest.raises(RefusedError):
            source.zero(0, 1)
        with pytest.raises(RefusedError):
            source.resize(1)
        with pytest.raises(RefusedError):
            source.copy_range(source, 0, 0, 1)
        source.flush()
        source.commit()
        source.abort()
        source.close()
        assert [extent.length for extent in source.extents(0, 10)] == [10]
        assert list(source.extents(0, 0)) == []


class TestInput:
    def test_a_pipe_is_copied_and_leaves_nothing(
        self, pipe: Pipe, tmp_path: Path, closing: ExitStack
    ) -> None:
        """Fails if the copy differs, is not sparse, or has a name that could be left behind."""
        content = _random(MIB + 5) + bytes(6 * MIB - 5) + b"end"
        pipe.feed(content)
        storage = spool(pipe.output, tmp_path)
        closing.callback(storage.close)
        assert storage.size == len(content)
        assert _read(storage, 0, len(content)) == content
        assert storage.stored_size < 4 * MIB
        assert list(tmp_path.iterdir()) == []
        assert storage.name == "standard input"
        assert not storage.is_writable

    def test_an_empty_pipe_is_an_empty_storage(
        self, pipe: Pipe, tmp_path: Path, closing: ExitStack
    ) -> None:
        """Fails if no bytes at all are an error of ours."""
        pipe.feed(b"")
        storage = spool(pipe.output, tmp_path)
        closing.callback(storage.close)
        assert storage.size == 0

    def test_a_pipe_of_zeros_keeps_its_size(
        self, pipe: Pipe, tmp_path: Path, closing: ExitStack
    ) -> None:
        """Fails if zeros at the end are cut off with the hole that they become."""
        pipe.feed(bytes(3 * MIB + 1))
        storage = spool(pipe.output, tmp_path)
        closing.callback(storage.close)
        assert storage.size == 3 * MIB + 1

    def test_a_pipe_that_does_not_block_is_waited_for(
        self, pipe: Pipe, tmp_path: Path, closing: ExitStack
    ) -> None:
        """Fails if an empty pipe, made non-blocking by another program, is its end."""
        os.set_blocking(pipe.output, False)
        content = _random(2 * MIB)
        threading.Timer(0.05, pipe.feed, [content]).start()
        storage = spool(pipe.output, tmp_path)
        closing.callback(storage.close)
        assert _read(storage, 0, storage.size) == content

    def test_waiting_for_a_pipe_can_be_stopped(self, pipe: Pipe, tmp_path: Path) -> None:
        """Fails if Ctrl-C has no effect while nothing comes."""
        cancel = CancelToken()
        threading.Timer(0.05, cancel.cancel).start()
        with pytest.raises(Cancelled):
            spool(pipe.output, tmp_path, cancel=cancel)

    def test_a_folder_that_cannot_be_written_is_named(self, pipe: Pipe, tmp_path: Path) -> None:
        """Fails if the error does not say where the temporary file was wanted."""
        missing = tmp_path / "missing"
        with pytest.raises(TargetError, match="cannot make a temporary file") as caught:
            spool(pipe.output, missing)
        assert caught.value.name == str(missing)

    def test_a_file_is_used_as_it_is(self, tmp_path: Path) -> None:
        """Fails if ``< file`` is copied, or closes the descriptor that is not ours."""
        path = tmp_path / "disk.img"
        path.write_bytes(b"content")
        fd = os.open(path, os.O_RDONLY)
        try:
            storage = open_input(fd, folder=tmp_path / "missing")
            assert isinstance(storage, FileStorage)
            assert _read(storage, 0, 7) == b"content"
            storage.close()
            os.fstat(fd)
        finally:
            os.close(fd)

    def test_a_file_that_was_begun_is_a_stream(self, tmp_path: Path) -> None:
        """Fails if what another program has read of it already comes again."""
        path = tmp_path / "disk.img"
        path.write_bytes(b"head" + b"content")
        fd = os.open(path, os.O_RDONLY)
        try:
            os.read(fd, 4)
            storage = open_input(fd, folder=tmp_path)
            assert isinstance(storage, FileStorage)
            assert _read(storage, 0, storage.size) == b"content"
            storage.close()
        finally:
            os.close(fd)

    def test_a_pipe_of_known_size_is_not_copied(self, pipe: Pipe, tmp_path: Path) -> None:
        """Fails if room for a whole disk is needed though it is read front to back."""
        pipe.feed(b"0123456789")
        storage = open_input(pipe.output, size=10, folder=tmp_path / "missing")
        assert isinstance(storage, SequentialSource)
        assert _read(storage, 0, 10) == b"0123456789"

    def test_a_terminal_is_refused(self, tmp_path: Path) -> None:
        """Fails if the program waits for a disk to be typed in."""
        master, terminal = os.openpty()
        try:
            with pytest.raises(UsageError, match="found a terminal"):
                open_input(terminal, folder=tmp_path)
        finally:
            os.close(master)
            os.close(terminal)

    def test_a_closed_input_is_an_error(self, tmp_path: Path) -> None:
        """Fails if ``<&-`` ends in a traceback; a folder cannot be read either."""
        with pytest.raises(ReadError, match="bad file descriptor"):
            open_input(1 << 20, folder=tmp_path)
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(ReadError, match="is a directory"):
                open_input(fd, folder=tmp_path)
        finally:
            os.close(fd)
