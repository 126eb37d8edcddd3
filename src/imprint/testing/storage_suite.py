"""What every storage must obey.

Inherit, and say how one is made::

    class TestMemory(StorageContract):
        def make(self, tmp_path: Path) -> Storage:
            del tmp_path
            return MemoryStorage()
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ImagingError
from imprint.core.extent import Kind
from imprint.core.units import KIB, MIB
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Storage


class StorageContract:
    """The tests; a subclass is collected, this class is not."""

    def make(self, tmp_path: Path) -> Storage:
        """An empty, writable storage."""
        raise NotImplementedError

    def visible(self, tmp_path: Path) -> bytes | None:
        """What others see under its name now; ``None`` if nothing.

        Override this for storages that outlive their object.
        """
        del tmp_path
        pytest.skip("nothing of it is visible to others")

    def test_it_returns_what_was_written(self, tmp_path: Path) -> None:
        """Fails if a write lands elsewhere, or touches its neighbours."""
        storage = self.make(tmp_path)
        expected = bytearray(random.Random(1).randbytes(300 * KIB))
        storage.write(memoryview(bytes(expected)), 0)
        for offset, length in ((0, 1), (511, 2), (4095, 8194), (299 * KIB, KIB)):
            expected[offset : offset + length] = bytes([offset % 251]) * length
            storage.write(memoryview(bytes([offset % 251]) * length), offset)
        assert storage.size == len(expected)
        assert _read(storage) == expected
        storage.abort()

    def test_it_does_not_keep_the_buffer(self, tmp_path: Path) -> None:
        """Fails if a write is only remembered: the caller reuses its buffer."""
        storage = self.make(tmp_path)
        buffer = bytearray(b"\x55" * 5000)
        storage.write(memoryview(buffer), 0)
        buffer[:] = bytes(5000)
        assert _read(storage) == b"\x55" * 5000
        storage.abort()

    def test_it_grows_by_zeros(self, tmp_path: Path) -> None:
        """Fails if a write behind the end leaves anything but zeros before it."""
        storage = self.make(tmp_path)
        storage.write(memoryview(b"a"), 0)
        storage.write(memoryview(b"b"), 100_000)
        assert storage.size == 100_001
        assert _read(storage) == b"a" + bytes(99_999) + b"b"
        storage.abort()

    def test_a_large_write_is_whole(self, tmp_path: Path) -> None:
        """Fails if more than a span is written only in part."""
        storage = self.make(tmp_path)
        data = random.Random(2).randbytes(3 * MIB + 7)
        storage.write(memoryview(data), 5)
        assert _read(storage) == bytes(5) + data
        storage.abort()

    def test_zero_makes_zeros_and_grows(self, tmp_path: Path) -> None:
        """Fails if zeroing misses a byte, takes one too many, or does not grow like a write."""
        storage = self.make(tmp_path)
        storage.write(memoryview(b"\xaa" * 50_000), 0)
        storage.zero(4097, 20_000)
        storage.zero(49_000, 10_000)
        expected = bytearray(b"\xaa" * 50_000 + bytes(9_000))
        expected[4097:24_097] = bytes(20_000)
        expected[49_000:] = bytes(10_000)
        assert _read(storage) == expected
        storage.abort()

    def test_resize_cuts_off_and_grows_by_zeros(self, tmp_path: Path) -> None:
        """Fails if bytes that were cut off come back."""
        storage = self.make(tmp_path)
        storage.write(memoryview(b"\xaa" * 10_000), 0)
        storage.resize(3_000)
        assert storage.size == 3_000
        storage.resize(12_000)
        assert storage.size == 12_000
        assert _read(storage) == b"\xaa" * 3_000 + bytes(9_000)
        storage.abort()

    @pytest.mark.parametrize(("offset", "length"), [(0, 101), (100, 1), (50, 51), (1 << 40, 1)])
    def test_reading_behind_the_end_is_an_error(
        self, tmp_path: Path, offset: int, length: int
    ) -> None:
        """Fails if a short read passes for a whole one."""
        storage = self.make(tmp_path)
        storage.write(memoryview(bytes(100)), 0)
        with pytest.raises(ImagingError) as caught:
            storage.readinto(memoryview(bytearray(length)), offset)
        assert caught.value.name == storage.name
        storage.abort()

    def test_reading_nothing_does_nothing(self, tmp_path: Path) -> None:
        """Fails if an empty range, even at the end, is taken for an error."""
        storage = self.make(tmp_path)
        storage.write(memoryview(bytes(100)), 0)
        storage.readinto(memoryview(bytearray()), 100)
        assert list(storage.extents(100, 0)) == []
        storage.abort()

    def test_extents_cover_the_range_exactly(self, tmp_path: Path) -> None:
        """Fails if an extent is missing, overlaps, or calls data a hole."""
        storage = self.make(tmp_path)
        storage.write(memoryview(b"\x11" * 70_000), 0)
        storage.write(memoryview(b"\x22" * 70_000), 1 * MIB)
        storage.resize(2 * MIB)
        content = _read(storage)
        for start, length in ((0, 2 * MIB), (1, 1), (69_999, 2), (65_000, MIB), (MIB + 1, 17)):
            position = start
            for extent in storage.extents(start, length):
                assert extent.offset == position
                assert extent.length > 0
                assert extent.kind in (Kind.DATA, Kind.HOLE)
                if extent.kind is Kind.DATA:
                    assert extent.storage is storage
                    assert extent.storage_offset == extent.offset
                else:
                    assert not any(content[extent.offset : extent.end])
                position = extent.end
            assert position == start + length
        storage.abort()

    def test_bytes_can_be_copied_from_another_storage(self, tmp_path: Path) -> None:
        """Fails if an offloaded copy differs from reading and writing."""
        data = random.Random(3).randbytes(2 * MIB + 100)
        source = MemoryStorage(data)
        storage = self.make(tmp_path)
        assert not storage.can_offload(source)
        storage.copy_range(source, 50, 1000, 2 * MIB)
        assert _read(storage) == bytes(1000) + data[50 : 50 + 2 * MIB]
        storage.abort()

    def test_bytes_can_be_copied_within_it(self, tmp_path: Path) -> None:
        """Fails if a storage cannot be its own source: drivers move blocks that way."""
        storage = self.make(tmp_path)
        data = random.Random(4).randbytes(200_000)
        storage.write(memoryview(data), 0)
        storage.copy_range(storage, 10, 300_000, 150_000)
        assert _read(storage) == data + bytes(100_000) + data[10:150_010]
        storage.abort()

    def test_many_threads_can_read(self, tmp_path: Path) -> None:
        """Fails if readers share a position."""
        storage = self.make(tmp_path)
        data = random.Random(5).randbytes(1 * MIB)
        storage.write(memoryview(data), 0)

        def read(index: int) -> bool:
            offset = index * 7919 % (MIB - 4096)
            buffer = bytearray(4096)
            storage.readinto(memoryview(buffer), offset)
            return buffer == data[offset : offset + 4096]

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(200)))
        storage.abort()

    def test_it_says_what_it_is(self, tmp_path: Path) -> None:
        """Fails if a property is missing or absurd."""
        storage = self.make(tmp_path)
        assert storage.name
        assert storage.is_writable
        assert storage.size == 0
        storage.write(memoryview(bytes([1]) * 8192), 0)
        assert storage.size == 8192
        assert storage.stored_size >= 0
        assert storage.traits.grain >= 1
        storage.abort()

    def test_commit_makes_it_visible(self, tmp_path: Path) -> None:
        """Fails if what was committed is not there afterwards, or closing twice is an error."""
        storage = self.make(tmp_path)
        storage.write(memoryview(b"whole"), 0)
        storage.flush()
        storage.commit()
        storage.close()
        storage.close()
        assert self.visible(tmp_path) == b"whole"

    def test_abort_can_be_repeated(self, tmp_path: Path) -> None:
        """Fails if giving up twice, or after closing, is an error."""
        storage = self.make(tmp_path)
        storage.write(memoryview(b"half"), 0)
        storage.abort()
        storage.abort()
        storage.close()


def _read(storage: Storage) -> bytes:
    buffer = bytearray(storage.size)
    storage.readinto(memoryview(buffer), 0)
    return bytes(buffer)
