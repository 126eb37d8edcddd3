"""A storage with some of its sectors replaced in memory: a journal replayed, nothing written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.buffers import fill_zero
from imprint.core.errors import RefusedError, TruncatedImageError
from imprint.core.extent import Extent, Kind, coalesce
from imprint.core.units import align_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imprint.core.contracts import Storage, Traits

SECTOR_BYTES: Final = 4096
"""What is replaced as a whole."""


class OverlayStorage:
    """Reads from ``inner``, but where a sector was replaced. It cannot be written.

    Owns ``inner``. As thread-safe as it is, since the sectors never change.
    """

    def __init__(
        self, inner: Storage, sectors: Mapping[int, bytes], *, size: int | None = None
    ) -> None:
        """Lay ``sectors`` over ``inner``.

        Args:
            inner: what is read where nothing was replaced.
            sectors: ``SECTOR_BYTES`` bytes each, by their number.
            size: how long it is at least; zeros behind ``inner``'s end.
        """
        assert all(len(data) == SECTOR_BYTES for data in sectors.values())
        self._inner = inner
        self._sectors = dict(sectors)
        end = (max(sectors) + 1) * SECTOR_BYTES if sectors else 0
        self._size = max(inner.size, end, size or 0)

    @property
    def name(self) -> str:
        """Of the inner storage."""
        return self._inner.name

    @property
    def size(self) -> int:
        """In bytes; may be more than the inner storage has."""
        return self._size

    @property
    def traits(self) -> Traits:
        """Of the inner storage."""
        return self._inner.traits

    @property
    def is_writable(self) -> bool:
        """It is not."""
        return False

    @property
    def stored_size(self) -> int:
        """Of the inner storage."""
        return self._inner.stored_size

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        end = offset + len(buffer)
        if end > self._size:
            raise TruncatedImageError(
                f"expected {len(buffer)} bytes at 0x{offset:x}, found a file of {self._size} bytes",
                name=self.name,
                offset=offset,
                length=len(buffer),
            )
        inside = max(0, min(len(buffer), self._inner.size - offset))
        if inside:
            self._inner.readinto(buffer[:inside], offset)
        fill_zero(buffer[inside:])
        for number in self._within(offset, end):
            start = max(offset, number * SECTOR_BYTES)
            stop = min(end, (number + 1) * SECTOR_BYTES)
            skipped = start - number * SECTOR_BYTES
            data = self._sectors[number]
            buffer[start - offset : stop - offset] = data[skipped : skipped + stop - start]

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the inner storage; what was replaced is data."""
        return coalesce(self._extents(offset, length))

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        position, end = offset, offset + length
        for number in self._within(offset, end):
            start = max(offset, number * SECTOR_BYTES)
            stop = min(end, (number + 1) * SECTOR_BYTES)
            yield from self._beneath(position, start)
            yield Extent(start, stop - start, Kind.DATA, self, start)
            position = stop
        yield from self._beneath(position, end)

    def _beneath(self, start: int, end: int) -> Iterator[Extent]:
        """Extents of a range of which nothing was replaced."""
        inside = min(end, self._inner.size)
        if inside > start:
            for extent in self._inner.extents(start, inside - start):
                yield extent if extent.storage is None else extent._replace(storage=self)
        first = max(start, inside)
        if end > first:
            yield Extent(first, end - first, Kind.HOLE)

    def _within(self, start: int, end: int) -> list[int]:
        """Numbers of the replaced sectors in a range, ascending."""
        first, behind = start // SECTOR_BYTES, align_up(end, SECTOR_BYTES) // SECTOR_BYTES
        if behind - first < len(self._sectors):
            return [number for number in range(first, behind) if number in self._sectors]
        return sorted(number for number in self._sectors if first <= number < behind)

    def write(self, data: memoryview, offset: int) -> None:
        """Refused."""
        raise self._refusal()

    def zero(self, offset: int, length: int) -> None:
        """Refused."""
        raise self._refusal()

    def resize(self, size: int) -> None:
        """Refused."""
        raise self._refusal()

    def can_offload(self, source: Storage) -> bool:
        """Never."""
        del source
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Refused."""
        raise self._refusal()

    def flush(self) -> None:
        """Nothing to flush."""

    def commit(self) -> None:
        """Nothing to commit."""

    def abort(self) -> None:
        """Nothing to remove."""

    def close(self) -> None:
        """Close the inner storage."""
        self._inner.close()

    def _refusal(self) -> RefusedError:
        return RefusedError("is being read and cannot be written", name=self.name)
