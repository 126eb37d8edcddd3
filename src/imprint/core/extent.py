"""Extents: *where* the bytes of a disk are, without the bytes."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from imprint.core.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Storage


class Kind(enum.Enum):
    """What a run of a disk is."""

    DATA = "data"
    """Plain bytes in a storage: reading the disk is reading the storage."""
    ENCODED = "encoded"
    """Bytes that only the layer can produce: compressed or encrypted."""
    ZERO = "zero"
    """Reads as zeros, whatever a parent holds."""
    HOLE = "hole"
    """Never written: reads from the parent if there is one, else as zeros."""
    UNUSED = "unused"
    """Nothing that counts: no file system uses it. Reads as zeros, whatever is there."""
    BAD = "bad"
    """Could not be read when the image was made; reads as zeros."""


class Extent(NamedTuple):
    """A run of a disk of one kind.

    A ``NamedTuple``, since copies build one for each run: half the cost of a dataclass.

    Attributes:
        offset: of the disk, in bytes.
        length: in bytes; never 0.
        kind: what the run is.
        storage: holds the bytes; given exactly for ``DATA`` and ``ENCODED``.
        storage_offset: of ``storage``, in bytes. For ``ENCODED`` it is where the unit that
            the extent lies in is stored, and need not be aligned to anything.
    """

    offset: int
    length: int
    kind: Kind
    storage: Storage | None = None
    storage_offset: int = 0

    @property
    def end(self) -> int:
        """The first byte of the disk behind the extent."""
        return self.offset + self.length

    def clip(self, start: int, end: int) -> Extent:
        """The part inside ``[start, end)``, which must overlap the extent."""
        first = max(self.offset, start)
        last = min(self.end, end)
        assert first < last
        position = self.storage_offset
        if self.kind is Kind.DATA:
            position += first - self.offset
        return Extent(first, last - first, self.kind, self.storage, position)

    def follows(self, before: Extent) -> bool:
        """Whether this extent goes on exactly where ``before`` ends, in disk and storage."""
        if before.kind is not self.kind or before.end != self.offset:
            return False
        if self.kind is Kind.DATA:
            return (
                self.storage is before.storage
                and before.storage_offset + before.length == self.storage_offset
            )
        return self.kind is not Kind.ENCODED or self.storage is before.storage


def without_holes(place: Extent) -> Extent:
    """A ``DATA`` extent as its storage sees it: ``ZERO`` where that is a hole; may be shorter.

    An image that is preallocated is mostly holes after a sparse copy. What lies behind the
    storage's end stays data, and fails when it is read.
    """
    storage = place.storage
    assert storage is not None
    inside = min(place.length, storage.size - place.storage_offset)
    found = next(iter(storage.extents(place.storage_offset, inside)))
    if found.kind is Kind.HOLE:
        return Extent(place.offset, found.length, Kind.ZERO)
    return place if found.length == inside else place._replace(length=found.length)


def coalesce(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours that are one run. Empty input gives empty output."""
    last: Extent | None = None
    for extent in extents:
        if last is None:
            last = extent
        elif extent.follows(last):
            last = last._replace(length=last.length + extent.length)
        else:
            yield last
            last = extent
    if last is not None:
        yield last


def cut(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """Split at multiples of ``size``, so that no piece crosses one."""
    for extent in extents:
        start = extent.offset
        while start < extent.end:
            border = min(extent.end, (start // size + 1) * size)
            yield extent.clip(start, border)
            start = border


def check_range(offset: int, length: int, *, size: int, name: str) -> None:
    """Refuse a range that is not wholly inside of a disk.

    Raises:
        ReadError: if it is not.
    """
    if offset < 0 or length < 0 or offset + length > size:
        raise ReadError(
            f"expected a range inside the {size} bytes, found {offset} + {length}",
            name=name,
            offset=offset,
            length=length,
        )
