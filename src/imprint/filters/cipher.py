"""A storage seen through a sector cipher: plain bytes above, encrypted ones below."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imprint.core.buffers import ZEROS, copy_by_hand
from imprint.core.errors import PassphraseError
from imprint.core.extent import Extent, Kind
from imprint.core.limits import SPAN_BYTES
from imprint.core.units import align_down, align_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.codecs.ciphers import SectorCipher
    from imprint.core.contracts import Storage, Traits


class CipherStorage:
    """Decrypts what is read from ``storage`` and encrypts what is written to it.

    Offsets are those of ``storage``, and sectors are numbered from its start: the sector at
    offset ``n * sector_size`` has the number ``first_sector + n``, which may be below 0 where
    nothing is read. All of it is data: where the storage has holes, there is nothing
    encrypted, and nothing sensible to read.

    A sector that is written in part is read, changed and written back; of a sector that the
    storage does not wholly have yet, the other bytes become zeros. What lies between the
    former end and a write behind it is left to the storage.
    """

    def __init__(self, storage: Storage, cipher: SectorCipher, *, first_sector: int = 0) -> None:
        self._storage = storage
        self._cipher = cipher
        self._first_sector = first_sector

    def numbered_from(self, first_sector: int) -> CipherStorage:
        """The same storage and cipher with other sector numbers."""
        return CipherStorage(self._storage, self._cipher, first_sector=first_sector)

    @property
    def name(self) -> str:
        """Of the storage."""
        return self._storage.name

    @property
    def size(self) -> int:
        """Of the storage."""
        return self._storage.size

    @property
    def traits(self) -> Traits:
        """Of the storage, but never finer than the cipher's sectors."""
        traits, sector_size = self._storage.traits, self._cipher.sector_size
        return replace(
            traits,
            grain=max(traits.grain, sector_size),
            physical_sector=max(traits.physical_sector, sector_size),
            reads_zero=False,
        )

    @property
    def is_writable(self) -> bool:
        """Of the storage."""
        return self._storage.is_writable

    @property
    def stored_size(self) -> int:
        """Of the storage."""
        return self._storage.stored_size

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` with plain bytes; whole sectors are decrypted where they are wanted."""
        size = self._cipher.sector_size
        end = offset + len(buffer)
        first, last = align_up(offset, size), align_down(end, size)
        if first > last:  # inside one sector
            buffer[:] = self._read_sector(last)[offset - last : end - last]
            return
        if offset < first:
            buffer[: first - offset] = self._read_sector(first - size)[offset - first :]
        if first < last:
            middle = buffer[first - offset : last - offset]
            self._storage.readinto(middle, first)
            self._cipher.decrypt(middle, self._sector(first))
        if last < end:
            buffer[last - offset :] = self._read_sector(last)[: end - last]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data."""
        if length:
            yield Extent(offset, length, Kind.DATA, self, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Store ``data`` encrypted, in whole sectors."""
        position, end = offset, offset + len(data)
        while position < end:
            # Pieces end at multiples of the span, so that only the first and the last piece
            # can have a sector in part.
            stop = min(end, align_down(position, SPAN_BYTES) + SPAN_BYTES)
            self._write_piece(data[position - offset : stop - offset], position)
            position = stop

    def zero(self, offset: int, length: int) -> None:
        """Store encrypted zeros: a hole would read as random bytes."""
        for start in range(offset, offset + length, SPAN_BYTES):
            piece = min(SPAN_BYTES, offset + length - start)
            self.write(memoryview(ZEROS)[:piece], start)

    def resize(self, size: int) -> None:
        """Cut off, or grow by encrypted zeros."""
        former = self.size
        if size <= former:
            self._storage.resize(size)
        else:
            self.zero(former, size - former)

    def can_offload(self, source: Storage) -> bool:
        """Nobody encrypts but we."""
        del source
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Read, encrypt and write."""
        copy_by_hand(source, source_offset, self, offset, length)

    def flush(self) -> None:
        """Of the storage."""
        self._storage.flush()

    def commit(self) -> None:
        """Of the storage."""
        self._storage.commit()

    def abort(self) -> None:
        """Of the storage."""
        self._storage.abort()

    def close(self) -> None:
        """Of the storage, which has one owner: closing it again changes nothing."""
        self._storage.close()

    def _sector(self, offset: int) -> int:
        return self._first_sector + offset // self._cipher.sector_size

    def _read_sector(self, start: int) -> memoryview:
        """The plain sector at ``start``."""
        view = memoryview(bytearray(self._cipher.sector_size))
        self._storage.readinto(view, start)
        self._cipher.decrypt(view, self._sector(start))
        return view

    def _write_piece(self, data: memoryview, offset: int) -> None:
        size = self._cipher.sector_size
        end = offset + len(data)
        first, last = align_down(offset, size), align_up(end, size)
        buffer = memoryview(bytearray(last - first))
        if first < offset:
            self._load(buffer[:size], first)
        if end < last and (last - size > first or first == offset):
            self._load(buffer[-size:], last - size)
        buffer[offset - first : end - first] = data
        self._cipher.encrypt(buffer, self._sector(first))
        self._storage.write(buffer, first)

    def _load(self, sector: memoryview, start: int) -> None:
        """What a sector that is written in part holds now; zeros if it is not there."""
        if start + len(sector) <= self._storage.size:
            sector[:] = self._read_sector(start)


class LockedCipher:
    """A cipher without a key: whoever uses it learns that the passphrase is missing.

    What needs no key, as a map or a header's facts, can be had of a disk nevertheless.
    """

    def __init__(self, missing: PassphraseError, sector_size: int) -> None:
        """``missing`` says whose passphrase it is; ``sector_size`` in bytes."""
        self._missing = missing
        self.sector_size = sector_size

    def encrypt(self, view: memoryview, sector: int) -> None:
        """Refused."""
        self.decrypt(view, sector)

    def decrypt(self, view: memoryview, sector: int) -> None:
        """Refused.

        Raises:
            PassphraseError: always.
        """
        del view, sector
        missing = self._missing
        raise PassphraseError(
            str(missing.args[0]), name=missing.name, advice=missing.advice
        ) from missing
