"""What a disk is made of, one part for each extent line; offsets are those of the part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.errors import ReadError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.extent import Extent, Kind

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.core.errors import ImagingError

FLAT_GRAIN: Final = 4096
"""Worth cutting a flat extent at: a block of most file systems."""

_UNIT: Final = 64 << 10


class Part(Protocol):
    """A run of the disk; the methods are those of a layer."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def grain(self) -> int:
        """What it is allocated in."""

    @property
    def storages(self) -> tuple[Storage, ...]:
        """Where its bytes are."""

    def map(self, offset: int, length: int) -> Extent:
        """What is at ``offset``, and for how long."""

    def unit(self, offset: int) -> Extent:
        """The unit around ``offset``, of which ``map`` said ``ENCODED``."""

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """The bytes of a whole unit."""


class WritablePart(Part, Protocol):
    """A part that can be written; see :class:`~imprint.core.contracts.WritableLayer`."""

    def place(self, offset: int, length: int) -> Extent | None:
        """Where bytes may be overwritten."""

    def allocate(self, offset: int, length: int) -> Extent:
        """Room for units that have none."""

    def link(self, extent: Extent) -> None:
        """Make a range be what was allocated."""

    def zero(self, offset: int, length: int) -> None:
        """Make whole units read as zeros."""

    def resize(self, size: int) -> None:
        """Change its size, durably."""

    def flush(self) -> None:
        """Write back what has changed, durably."""


class FlatPart:
    """Plain bytes at an offset of a file."""

    grain = FLAT_GRAIN

    def __init__(self, storage: Storage, size: int, start: int) -> None:
        """All in bytes."""
        self._storage = storage
        self._size = size
        self._start = start
        self._is_whole = False

    @property
    def size(self) -> int:
        """As the descriptor says."""
        return self._size

    @property
    def storages(self) -> tuple[Storage, ...]:
        """The file."""
        return (self._storage,)

    def map(self, offset: int, length: int) -> Extent:
        """The file's bytes, and zeros where its file system has a hole.

        Raises:
            TruncatedImageError: if the file ends before ``offset``.
        """
        position = self._start + offset
        inside = min(length, self._storage.size - position)
        if inside <= 0:
            raise TruncatedImageError(
                f"expected data at 0x{position:x}, found a file of {self._storage.size} bytes",
                name=self._storage.name,
                offset=position,
            )
        found = next(iter(self._storage.extents(position, inside)))
        if found.kind is Kind.HOLE:
            return Extent(offset, found.length, Kind.ZERO)
        return Extent(offset, found.length, Kind.DATA, self._storage, position)

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def place(self, offset: int, length: int) -> Extent:
        """Every byte has its place."""
        length = min(length, self._size - offset)
        return Extent(offset, length, Kind.DATA, self._storage, self._start + offset)

    def allocate(self, offset: int, length: int) -> Extent:
        """The same."""
        return self.place(offset, length)

    def link(self, extent: Extent) -> None:
        """Nothing refers to it."""

    def zero(self, offset: int, length: int) -> None:
        """Punch a hole."""
        self._storage.zero(self._start + offset, length)

    def resize(self, size: int) -> None:
        """Grow by zeros; what is cut off stays until :meth:`trim`.

        Raises:
            UnsupportedFeatureError: if something else lies behind it in the file.
        """
        end = self._start + self._size
        self._is_whole = self._storage.size == end
        if size > self._size:
            if not self._is_whole:
                raise UnsupportedFeatureError(
                    f"cannot grow: expected a file of {end} bytes, found {self._storage.size}",
                    name=self._storage.name,
                )
            self._storage.resize(self._start + size)
            self._storage.flush()
        self._size = size

    def claim(self) -> None:
        """What is behind the end is of an interrupted change, and must not come back."""
        end = self._start + self._size
        if self._storage.size > end:
            self._storage.resize(end)
            self._storage.flush()

    def trim(self) -> None:
        """Give back what lay behind the end, if it was this extent's."""
        if self._is_whole and self._storage.size > self._start + self._size:
            self._storage.resize(self._start + self._size)

    def flush(self) -> None:
        """Wait for the file."""
        self._storage.flush()


class ZeroPart:
    """Reads as zeros, and is stored nowhere."""

    grain = FLAT_GRAIN
    storages: tuple[Storage, ...] = ()

    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def size(self) -> int:
        """As the descriptor says."""
        return self._size

    def map(self, offset: int, length: int) -> Extent:
        """Zeros, over a parent too."""
        return Extent(offset, length, Kind.ZERO)

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError


class FailingPart:
    """What may not, or cannot, be read: an error for each read, never zeros."""

    grain = FLAT_GRAIN
    storages: tuple[Storage, ...] = ()

    def __init__(self, size: int, storage: Storage, error: ImagingError | None = None) -> None:
        """``storage`` is the descriptor's; ``error`` what every read says."""
        self._size = size
        self._storage = storage
        self._error = error

    @property
    def size(self) -> int:
        """As the descriptor says."""
        return self._size

    def map(self, offset: int, length: int) -> Extent:
        """Something that has to be decoded, which fails."""
        return Extent(offset, length, Kind.ENCODED, self._storage, 0)

    def unit(self, offset: int) -> Extent:
        """A piece, so that what is salvaged is cut in pieces too."""
        start = offset - offset % _UNIT
        return Extent(start, min(_UNIT, self._size - start), Kind.ENCODED, self._storage, 0)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Fail.

        Raises:
            ReadError: always, but for a file that the gate has refused: then what that said.
        """
        if self._error is not None:
            raise self._error
        raise ReadError(
            "the descriptor forbids reading this part of the disk (NOACCESS)",
            name=self._storage.name,
            offset=unit.offset,
            length=unit.length,
        )
