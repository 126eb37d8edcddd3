"""What storages have in common that are written front to back and never read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.buffers import ZEROS, copy_by_hand, fill_zero
from imprint.core.contracts import Order, Traits
from imprint.core.errors import ReadError, RefusedError
from imprint.core.extent import Extent, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage


class AscendingStorage:
    """All of :class:`~imprint.core.contracts.Storage` but where the bytes go.

    Ranges that are left out become zeros. A subclass has ``_send``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._position = 0
        self._end = 0

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """What was written, or what :meth:`resize` has promised."""
        return max(self._position, self._end)

    @property
    def traits(self) -> Traits:
        """Ascending; what is left out becomes zeros."""
        return Traits(order=Order.ASCENDING, reads_zero=True)

    @property
    def is_writable(self) -> bool:
        """It is."""
        return True

    @property
    def stored_size(self) -> int:
        """What was written so far."""
        return self._position

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Zeros, for what was not written yet.

        Raises:
            ReadError: for what was sent: that is gone.
        """
        if len(buffer) and not self._position <= offset <= self.size - len(buffer):
            raise ReadError(
                "cannot be read back", name=self._name, offset=offset, length=len(buffer)
            )
        fill_zero(buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data."""
        if length:
            yield Extent(offset, length, Kind.DATA, self, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Send ``data``, after zeros for what lies before it.

        Raises:
            RefusedError: if ``offset`` lies before what was written already.
            TargetError: if it cannot be sent.
        """
        if len(data):
            self._advance(offset)
            self._send(data)

    def zero(self, offset: int, length: int) -> None:
        """Send zeros; otherwise as :meth:`write`."""
        if length:
            self._advance(offset)
            self._advance(offset + length)

    def resize(self, size: int) -> None:
        """Promise a size: :meth:`commit` fills up to it with zeros.

        Raises:
            RefusedError: if more was written already.
        """
        if size < self._position:
            raise self._going_back(size)
        self._end = size

    def can_offload(self, source: Storage) -> bool:
        """Never: what is sent has to be counted."""
        del source
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Read and send."""
        copy_by_hand(source, source_offset, self, offset, length)

    def flush(self) -> None:
        """Nothing is kept back."""

    def commit(self) -> None:
        """Send the zeros that are missing."""
        self._advance(self.size)
        self.flush()

    def abort(self) -> None:
        """Nothing: what was sent, was sent."""

    def close(self) -> None:
        """Nothing: what is behind it is borrowed."""

    def _send(self, data: memoryview) -> None:
        """Send all of ``data``, and move ``_position`` behind what was sent."""
        raise NotImplementedError

    def _advance(self, offset: int) -> None:
        if offset < self._position:
            raise self._going_back(offset)
        while self._position < offset:
            self._send(memoryview(ZEROS)[: offset - self._position])

    def _going_back(self, offset: int) -> RefusedError:
        return RefusedError(
            f"expected ascending offsets, found 0x{offset:x} after 0x{self._position:x}",
            name=self._name,
            offset=offset,
            advice="this format needs a file to write to",
        )
