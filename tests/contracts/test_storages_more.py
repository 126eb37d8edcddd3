"""Storages that cannot grow, or not be written, against what remains of the contract."""

from __future__ import annotations

import functools
import http.server
import os
import random
import re
import subprocess
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ImagingError
from imprint.core.extent import Kind
from imprint.core.units import KIB, MIB
from imprint.endpoints.open import Access, open_editable
from imprint.exports.nbd.export import Export
from imprint.filters.shared import SharedDisk
from imprint.storage.device import DeviceStorage
from imprint.storage.device_target import DeviceTarget
from imprint.storage.http import HttpStorage
from imprint.storage.memory import MemoryStorage
from imprint.storage.nbd import NbdStorage
from imprint.storage.sequential import SequentialSource
from imprint.storage.stream import open_input, spool
from imprint.testing.nbd_peers import serving, uri

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage

SIZE = 4 * MIB
CONTENT = random.Random(1).randbytes(SIZE)


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _read(storage: Storage, offset: int = 0, length: int = SIZE) -> bytes:
    buffer = bytearray(length)
    storage.readinto(memoryview(buffer), offset)
    return bytes(buffer)


class ReadContract(ABC):
    """What every storage does for those who read."""

    @abstractmethod
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        """A storage that holds ``CONTENT``."""

    @pytest.fixture
    def storage(self, tmp_path: Path, undo: ExitStack) -> Iterator[Storage]:
        storage = self.make(tmp_path, undo)
        yield storage
        storage.close()
        storage.close()

    def test_it_says_what_it_is(self, storage: Storage) -> None:
        """Fails if a property is missing or absurd."""
        assert storage.name
        assert storage.size == SIZE
        assert 0 <= storage.stored_size <= SIZE + MIB
        assert storage.traits.grain >= 1
        assert storage.traits.logical_sector in (512, 4096)

    def test_it_returns_its_content(self, storage: Storage) -> None:
        """Fails if a byte is elsewhere."""
        assert _read(storage) == CONTENT

    def test_threads_read_side_by_side(self, storage: Storage) -> None:
        """Fails if readers share a position. Each byte is read once: streams allow no more."""

        def read(index: int) -> bool:
            offset = index * 48 * KIB
            length = min(48 * KIB, SIZE - offset)
            return _read(storage, offset, length) == CONTENT[offset : offset + length]

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(-(-SIZE // (48 * KIB)))))

    @pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (SIZE - 1, 2), (1 << 50, 512)])
    def test_reading_behind_the_end_is_an_error(
        self, storage: Storage, offset: int, length: int
    ) -> None:
        """Fails if a short read passes for a whole one."""
        with pytest.raises(ImagingError) as caught:
            _read(storage, offset, length)
        assert caught.value.name == storage.name
        assert (caught.value.offset, caught.value.length) == (offset, length)

    def test_reading_nothing_does_nothing(self, storage: Storage) -> None:
        """Fails if an empty range is taken for an error."""
        assert _read(storage, 0, 0) == b""
        assert list(storage.extents(SIZE, 0)) == []

    def test_extents_cover_the_range_exactly(self, storage: Storage) -> None:
        """Fails if an extent is missing, overlaps, or names another storage."""
        for start, length in ((0, SIZE), (1, 1), (MIB - 1, MIB + 2), (SIZE - 1, 1)):
            position = start
            for extent in storage.extents(start, length):
                assert extent.offset == position
                assert extent.kind is Kind.DATA
                assert extent.storage is storage
                assert extent.storage_offset == extent.offset
                position = extent.end
            assert position == start + length

    def test_what_cannot_be_written_says_so(self, storage: Storage) -> None:
        """Fails if a write is dropped in silence."""
        if storage.is_writable:
            pytest.skip("can be written")
        with pytest.raises(ImagingError):
            storage.write(memoryview(b"x"), 0)
        assert _read(storage, 0, 1) == CONTENT[:1]
        assert not storage.can_offload(MemoryStorage())
        storage.abort()


class WriteContract(ReadContract):
    """What storages of a fixed size do for those who write."""

    def test_it_returns_what_was_written(self, storage: Storage) -> None:
        """Fails if a write lands elsewhere, or touches its neighbours."""
        expected = bytearray(CONTENT)
        for offset, length in ((0, 1), (511, 2), (4095, 8194), (MIB - 3, MIB), (SIZE - 1, 1)):
            data = bytearray(bytes([1 + offset % 251]) * length)
            expected[offset : offset + length] = data
            storage.write(memoryview(data), offset)
            data[:] = bytes(length)  # the caller reuses its buffer
        assert _read(storage) == expected

    def test_zero_makes_zeros(self, storage: Storage) -> None:
        """Fails if zeroing misses a byte, or takes one too many."""
        expected = bytearray(CONTENT)
        for offset, length in ((5, 100), (4096, 8192), (MIB - 1, 2 * MIB), (SIZE - 7, 7)):
            expected[offset : offset + length] = bytes(length)
            storage.zero(offset, length)
        assert _read(storage) == expected

    def test_it_does_not_grow(self, storage: Storage) -> None:
        """Fails if a write that does not fit is done in part."""
        with pytest.raises(ImagingError):
            storage.write(memoryview(b"xy"), SIZE - 1)
        with pytest.raises(ImagingError):
            storage.zero(SIZE - 1, 2)
        with pytest.raises(ImagingError):
            storage.resize(SIZE + 1)
        storage.resize(SIZE)
        assert _read(storage) == CONTENT

    def test_bytes_can_be_copied_from_another_storage(self, storage: Storage) -> None:
        """Fails if a copied range differs."""
        data = random.Random(3).randbytes(2 * MIB + 100)
        storage.copy_range(MemoryStorage(data), 50, 1000, 2 * MIB)
        assert _read(storage, 1000, 2 * MIB) == data[50 : 50 + 2 * MIB]

    def test_commit_and_abort_can_be_repeated(self, storage: Storage) -> None:
        """Fails if finishing twice is an error."""
        storage.write(memoryview(b"whole"), 0)
        storage.flush()
        storage.commit()
        storage.commit()
        storage.abort()
        storage.abort()


class TestTargetOfMemory(WriteContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        del tmp_path, undo
        return DeviceTarget(MemoryStorage(CONTENT), SIZE)


class TestTargetLargerThanItsDisk(WriteContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        del tmp_path, undo
        return DeviceTarget(MemoryStorage(CONTENT + bytes(100 * KIB)), SIZE)


def _loop(tmp_path: Path, undo: ExitStack, sector: str = "512") -> Path:
    file = tmp_path / "disk.img"
    file.write_bytes(CONTENT)
    command = ["losetup", "--find", "--show", "--sector-size", sector, str(file)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    undo.callback(subprocess.run, ["losetup", "--detach", device], check=True)
    return Path(device)


@pytest.mark.root
@pytest.mark.oracle("losetup")
class TestDeviceForReading(ReadContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        return DeviceStorage.open(_loop(tmp_path, undo))


@pytest.mark.root
@pytest.mark.oracle("losetup")
class TestDeviceInPlace(WriteContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        return DeviceStorage.open(_loop(tmp_path, undo, "4096"), writable=True)


@pytest.mark.root
@pytest.mark.oracle("losetup")
class TestDeviceTarget(WriteContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        return DeviceTarget.open(_loop(tmp_path, undo))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, last = map(int, re.findall(r"\d+", self.headers["Range"]))
        body = CONTENT[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{SIZE}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — its name there
        pass


class TestHttp(ReadContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        del tmp_path
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        undo.callback(server.server_close)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        undo.callback(thread.join)
        undo.callback(server.shutdown)
        storage = HttpStorage.open(f"http://127.0.0.1:{server.server_address[1]}/disk")
        undo.callback(storage.close)
        return storage


class TestNbd(ReadContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        del tmp_path
        export = Export("", MemoryStorage(CONTENT, writable=False))
        storage = NbdStorage.open(uri(undo.enter_context(serving(export))))
        undo.callback(storage.close)
        return storage


class TestNbdInPlace(WriteContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        (tmp_path / "disk.raw").write_bytes(CONTENT)
        disk = SharedDisk(open_editable(str(tmp_path / "disk.raw"), Access(format="raw")))
        undo.callback(disk.close)
        path = undo.enter_context(serving(Export("", disk)))
        storage = NbdStorage.open(uri(path), writable=True)
        undo.callback(storage.close)
        return storage


def _feed(undo: ExitStack) -> int:
    """The reading end of a pipe that ``CONTENT`` comes through, if anybody wants it."""
    output, input_ = os.pipe()

    def work() -> None:
        with os.fdopen(input_, "wb") as pipe:
            try:
                pipe.write(CONTENT)
            except BrokenPipeError:
                pipe.raw.close()

    thread = threading.Thread(target=work)
    thread.start()
    undo.callback(thread.join)
    undo.callback(os.close, output)
    return output


class TestSequential(ReadContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        del tmp_path
        return SequentialSource(_feed(undo), SIZE, name="input")


class TestSpooled(ReadContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        return spool(_feed(undo), tmp_path)


class TestRedirectedFile(ReadContract):
    def make(self, tmp_path: Path, undo: ExitStack) -> Storage:
        path = tmp_path / "disk.img"
        path.write_bytes(CONTENT)
        fd = os.open(path, os.O_RDONLY)
        undo.callback(functools.partial(os.close, fd))
        return open_input(fd)
