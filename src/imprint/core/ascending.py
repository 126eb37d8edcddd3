"""Writing a disk front to back in units that are encoded, whatever pieces it comes in."""

from __future__ import annotations

from abc import ABC, abstractmethod

from imprint.core.errors import TargetError
from imprint.core.units import align_down


class AscendingUnits(ABC):
    """The half of an ``Encoding`` target that cuts what is written into units.

    A unit that comes in pieces is kept until it is whole; what is left out is zeros.
    """

    def __init__(self, grain: int) -> None:
        """``grain`` is the size of a unit, in bytes."""
        self._grain = grain
        self._next_unit = 0  # the first one that may still come
        self._partial: bytearray | None = None
        self._partial_offset = 0

    @property
    @abstractmethod
    def name(self) -> str:
        """Path or address of the image."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Of the disk."""

    @abstractmethod
    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """See :class:`~imprint.core.contracts.Encoding`."""

    @abstractmethod
    def _append_units(self, units: list[bytes], index: int) -> None:
        """Store units from number ``index`` on, and set ``_next_unit`` to the one behind them."""

    def write_encoded(self, units: list[bytes], offset: int) -> None:
        """Append units."""
        self._finish_partial()
        self._store(units, offset // self._grain)

    def write(self, data: memoryview, offset: int) -> None:
        """Append ``data``, whatever its borders are."""
        position, end = offset, offset + len(data)
        while position < end:
            start = align_down(position, self._grain)
            stop = end if end == self.size else align_down(end, self._grain)
            if position == start and stop > start:
                piece = data[position - offset : stop - offset]
                self.write_encoded(self.encode(piece, position), position)
            else:
                stop = min(end, start + self._grain)
                buffer = self._open_partial(start)
                buffer[position - start : stop - start] = data[position - offset : stop - offset]
            position = stop

    def zero(self, offset: int, length: int) -> None:
        """What is not written is zero; what was written to the last unit is taken back."""
        if offset < self._next_unit * self._grain:
            raise self._not_ascending(offset)
        if self._partial is not None:
            first = max(0, offset - self._partial_offset)
            last = min(len(self._partial), offset + length - self._partial_offset)
            if first < last:
                self._partial[first:last] = bytes(last - first)

    def _finish_partial(self) -> None:
        """Store the unit that came in pieces, if there is one."""
        if self._partial is not None:
            data, self._partial = self._partial, None
            units = self.encode(memoryview(data), self._partial_offset)
            self._store(units, self._partial_offset // self._grain)

    def _store(self, units: list[bytes], index: int) -> None:
        if units and index < self._next_unit:
            raise self._not_ascending(index * self._grain)
        self._append_units(units, index)

    def _open_partial(self, start: int) -> bytearray:
        """The buffer of the unit at ``start``, which is written piece by piece."""
        if self._partial is None or self._partial_offset != start:
            self._finish_partial()
            if start < self._next_unit * self._grain:
                raise self._not_ascending(start)
            self._partial = bytearray(min(self._grain, self.size - start))
            self._partial_offset = start
        return self._partial

    def _not_ascending(self, offset: int) -> TargetError:
        return TargetError(
            f"expected ascending writes, found one at 0x{offset:x}", name=self.name, offset=offset
        )
