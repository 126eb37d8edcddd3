"""The cipher filter: plain bytes above, the cipher's sectors below."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.codecs.ciphers import SectorCipher, sector_cipher
from imprint.core.errors import ImagingError, ReadError
from imprint.core.extent import Extent, Kind
from imprint.core.units import KIB, MIB
from imprint.filters.cipher import CipherStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage

SIZE = 16 * KIB
PLAIN = random.Random(1).randbytes(SIZE)
RANGES = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted)


def cipher(mode: str = "xts-plain64", sector_size: int = 512) -> SectorCipher:
    key = random.Random(7).randbytes(32)
    return sector_cipher(key, algorithm="aes", mode=mode, name="test", sector_size=sector_size)


def stored(plain: bytes, first_sector: int = 0, sector_size: int = 512) -> bytes:
    """What the plain bytes are below; the cipher itself is tested elsewhere."""
    buffer = bytearray(plain)
    cipher(sector_size=sector_size).encrypt(memoryview(buffer), first_sector)
    return bytes(buffer)


def read(storage: CipherStorage, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    storage.readinto(memoryview(buffer), offset)
    return bytes(buffer)


@pytest.mark.parametrize("sector_size", [512, 4096])
@given(ends=RANGES)
def test_any_range_reads_plain(ends: list[int], sector_size: int) -> None:
    """Fails if a part of a sector is decrypted wrongly, or from the wrong place."""
    start, end = ends
    inner = MemoryStorage(stored(PLAIN, sector_size=sector_size))
    storage = CipherStorage(inner, cipher(sector_size=sector_size))
    assert read(storage, start, end - start) == PLAIN[start:end]


@pytest.mark.parametrize("sector_size", [512, 4096])
@given(ends=RANGES)
def test_any_range_can_be_written(ends: list[int], sector_size: int) -> None:
    """Fails if a write changes the rest of a sector, or stores anything plain."""
    start, end = ends
    data = random.Random(end).randbytes(end - start)
    inner = MemoryStorage(stored(PLAIN, sector_size=sector_size))
    storage = CipherStorage(inner, cipher(sector_size=sector_size))

    storage.write(memoryview(data), start)

    expected = PLAIN[:start] + data + PLAIN[end:]
    assert bytes(inner.content) == stored(expected, sector_size=sector_size)


@given(ends=RANGES)
def test_zeroed_ranges_are_encrypted_zeros(ends: list[int]) -> None:
    """Fails if zeros get below the cipher, where they would decrypt to random bytes."""
    start, end = ends
    inner = MemoryStorage(stored(PLAIN))
    CipherStorage(inner, cipher()).zero(start, end - start)
    assert bytes(inner.content) == stored(PLAIN[:start] + bytes(end - start) + PLAIN[end:])


def test_a_large_write_is_encrypted_whole() -> None:
    """Fails if a piece between the first and the last is taken for one with cut sectors."""
    data = random.Random(2).randbytes(3 * MIB + 700)
    inner = MemoryStorage()
    storage = CipherStorage(inner, cipher())
    storage.write(memoryview(data), 100)
    assert read(storage, 0, 100 + len(data)) == bytes(100) + data
    assert storage.size == 3 * MIB + 1024


def test_a_write_leaves_the_callers_bytes_alone() -> None:
    """Fails if encryption happens in the buffer that the caller goes on using."""
    data = bytearray(b"\x55" * 2048)
    CipherStorage(MemoryStorage(), cipher()).write(memoryview(data), 0)
    assert data == b"\x55" * 2048


def test_sectors_are_numbered_from_the_first_sector() -> None:
    """Fails if a volume that starts inside a disk gets the disk's sector numbers."""
    inner = MemoryStorage(stored(PLAIN, first_sector=1000))
    storage = CipherStorage(inner, cipher(), first_sector=1000)
    assert read(storage, 700, 5000) == PLAIN[700:5700]


def test_a_part_of_a_new_sector_is_completed_with_zeros() -> None:
    """Fails if the end of a disk that is not whole sectors long cannot be written."""
    inner = MemoryStorage()
    storage = CipherStorage(inner, cipher())
    storage.write(memoryview(b"abc"), 512)
    assert bytes(inner.content[512:]) == stored(b"abc" + bytes(509), first_sector=1)


def test_a_gap_in_front_of_a_write_is_left_alone() -> None:
    """Fails if the tables that a format keeps between its clusters are overwritten."""
    inner = MemoryStorage()
    CipherStorage(inner, cipher()).write(memoryview(bytes(512)), 4096)
    assert bytes(inner.content[:4096]) == bytes(4096)


def test_it_grows_by_encrypted_zeros_and_can_be_cut_off() -> None:
    """Fails if new room reads as random bytes."""
    inner = MemoryStorage(stored(PLAIN))
    storage = CipherStorage(inner, cipher())
    storage.resize(4096)
    storage.resize(8192)
    assert read(storage, 0, 8192) == PLAIN[:4096] + bytes(4096)


def test_it_is_all_data_in_itself() -> None:
    """Fails if somebody is led to the encrypted bytes below it."""
    storage = CipherStorage(MemoryStorage(stored(PLAIN)), cipher())
    assert list(storage.extents(512, 5000)) == [Extent(512, 5000, Kind.DATA, storage, 512)]
    assert list(storage.extents(512, 0)) == []


def test_copies_go_through_the_cipher() -> None:
    """Fails if a copy is left to the system, which would store plain bytes."""
    inner = MemoryStorage(stored(bytes(SIZE)))
    storage = CipherStorage(inner, cipher())
    source = MemoryStorage(random.Random(3).randbytes(2 * MIB + 77))
    assert not storage.can_offload(source)
    storage.copy_range(source, 7, 1024, 2 * MIB + 70)
    assert read(storage, 1024, 2 * MIB + 70) == bytes(source.content[7:])
    storage.copy_range(storage, 1024, 8192, 3000)
    assert read(storage, 8192, 3000) == bytes(source.content[7:3007])


def test_a_read_error_gets_through() -> None:
    """Fails if a sector that cannot be read is taken for zeros, also before a partial write."""
    inner = FaultyStorage(MemoryStorage(stored(PLAIN)), bad=[(1024, 512)], verbs=["read"])
    storage = CipherStorage(inner, cipher())
    with pytest.raises(ReadError):
        read(storage, 0, 4096)
    with pytest.raises(ReadError):
        storage.write(memoryview(b"x"), 1100)


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1)])
def test_reading_behind_the_end_is_an_error(offset: int, length: int) -> None:
    """Fails if a short read passes for a whole one."""
    storage = CipherStorage(MemoryStorage(stored(PLAIN)), cipher())
    with pytest.raises(ImagingError):
        read(storage, offset, length)


@pytest.mark.parametrize("mode", ["xts-plain64", "cbc-essiv:sha256"])
def test_many_threads_can_read(mode: str) -> None:
    """Fails if readers share a cipher's state."""
    storage = CipherStorage(MemoryStorage(bytes(256 * KIB)), cipher(mode))
    expected = read(storage, 0, 256 * KIB)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda index: read(storage, index * KIB, KIB), range(256))
        assert b"".join(parts) == expected
