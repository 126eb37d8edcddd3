"""All I/O of all formats, over ``map`` and ``allocate``.

:class:`Image` reads a layer and its parents; :class:`WritableImage` also writes. Nothing
else in imprint turns a mapping into bytes, so a map can never disagree with a read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from imprint.core.buffers import ZEROS, fill_zero, is_zero
from imprint.core.contracts import Finishing
from imprint.core.errors import CorruptImageError, ReadError
from imprint.core.extent import Extent, Kind, coalesce
from imprint.core.limits import DECODE_CACHE_BYTES, SPAN_BYTES
from imprint.core.recent import Recent
from imprint.core.units import align_down, align_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Layer, Source, Storage, Traits, WritableLayer
    from imprint.core.info import ImageInfo


class Image:
    """A disk image opened for reading: a layer, and what lies below it.

    Thread-safe. A hole reads from ``parent`` as far as that reaches, and as zeros beyond.
    """

    def __init__(self, layer: Layer, *, name: str, parent: Source | None = None) -> None:
        self._layer = layer
        self._name = name
        self._parent = parent
        self._cache: Recent[tuple[int, int]] = Recent(DECODE_CACHE_BYTES)

    @property
    def name(self) -> str:
        """Path or address of the image."""
        return self._name

    @property
    def size(self) -> int:
        """Of the disk, in bytes."""
        return self._layer.size

    @property
    def traits(self) -> Traits:
        """Of the disk."""
        return self._layer.traits

    @property
    def parent(self) -> Source | None:
        """What holes read from."""
        return self._parent

    def info(self) -> ImageInfo:
        """What can be said of the image without reading its data."""
        return self._layer.info()

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes of ``[offset, offset + length)``, cut off at the disk's end.

        Raises:
            ReadError: if any of them cannot be read.
        """
        length = max(0, min(length, self.size - offset))
        buffer = bytearray(length)
        self.readinto(memoryview(buffer), offset)
        return bytes(buffer)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        self._check_range(offset, len(buffer))
        for extent in self.own_extents(offset, len(buffer)):
            start = extent.offset - offset
            view = buffer[start : start + extent.length]
            if extent.kind is Kind.DATA:
                assert extent.storage is not None
                extent.storage.readinto(view, extent.storage_offset)
            elif extent.kind is Kind.ENCODED:
                self._decode_into(view, extent)
            elif extent.kind is Kind.HOLE and self._parent is not None:
                self._read_parent(view, extent.offset)
            else:
                fill_zero(view)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What the range is made of, seen through all parents."""
        return coalesce(self._chain_extents(offset, length))

    def own_extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The same for this image alone: holes stay holes, whatever a parent has there."""
        self._check_range(offset, length)
        position, end = offset, offset + length
        while position < end:
            extent = self._layer.map(position, end - position)
            assert extent.offset == position
            assert 0 < extent.length <= end - position
            yield extent
            position = extent.end

    def close(self) -> None:
        """Close the layer and its parents."""
        self._layer.close()
        if self._parent is not None:
            self._parent.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ReadError(
                f"expected a range inside the disk's {self.size} bytes, found {offset} + {length}",
                name=self._name,
                offset=offset,
                length=length,
            )

    def _chain_extents(self, offset: int, length: int) -> Iterator[Extent]:
        for extent in self.own_extents(offset, length):
            if extent.kind is not Kind.HOLE or self._parent is None:
                yield extent
                continue
            inside = min(extent.end, self._parent.size)
            if inside > extent.offset:
                yield from self._parent.extents(extent.offset, inside - extent.offset)
            if extent.end > max(inside, extent.offset):
                start = max(inside, extent.offset)
                yield Extent(start, extent.end - start, Kind.HOLE)

    def _read_parent(self, view: memoryview, offset: int) -> None:
        assert self._parent is not None
        inside = max(0, min(len(view), self._parent.size - offset))
        if inside:
            self._parent.readinto(view[:inside], offset)
        fill_zero(view[inside:])

    def _decode_into(self, view: memoryview, extent: Extent) -> None:
        """Fill ``view`` from as many units as the extent touches; it may start inside one."""
        position = extent.offset
        while position < extent.end:
            unit = self._layer.unit(position)
            if not unit.offset <= position < unit.end:
                raise CorruptImageError("a decoded unit lies elsewhere", name=self._name)
            stop = min(unit.end, extent.end)
            part = view[position - extent.offset : stop - extent.offset]
            if len(part) == unit.length:
                self._layer.decode(unit, part)
            else:
                within = position - unit.offset
                part[:] = self._decoded(unit)[within : within + len(part)]
            position = stop

    def _decoded(self, unit: Extent) -> memoryview:
        place = (unit.offset, unit.storage_offset)
        cached = self._cache.get(place)
        if cached is None:
            buffer = bytearray(unit.length)
            self._layer.decode(unit, memoryview(buffer))
            cached = bytes(buffer)
            self._cache.put(place, cached)
        return memoryview(cached)

    def _forget_decoded(self) -> None:
        self._cache.clear()


class WritableImage(Image):
    """A disk image opened for writing: also a :class:`~imprint.core.contracts.Target`.

    Bytes go to their new place first and are linked then, so that a failure half-way
    leaves the disk as it was.
    """

    def __init__(
        self,
        layer: WritableLayer,
        storage: Storage,
        *,
        name: str,
        parent: Source | None = None,
        is_fresh: bool = False,
        others: tuple[Storage, ...] = (),
    ) -> None:
        """Take over a layer and its storages.

        Args:
            layer: where bytes go.
            storage: the image's file.
            name: of the image.
            parent: what holes read from.
            is_fresh: was created for this copy, so that what is not written is zero.
            others: further files of the image, committed before ``storage`` that names them.
        """
        super().__init__(layer, name=name, parent=parent)
        self._writable = layer
        self._storage = storage
        self._others = others
        self._reads_zero = is_fresh and parent is None

    @property
    def traits(self) -> Traits:
        """Of the disk."""
        return replace(self._layer.traits, reads_zero=self._reads_zero)

    def write(self, data: memoryview, offset: int) -> None:
        """Store ``data``; a unit that it covers in part keeps its other bytes."""
        self._check_range(offset, len(data))
        position, end = offset, offset + len(data)
        while position < end:
            place = self._writable.place(position, end - position)
            if place is not None:
                stored = data[position - offset : place.end - offset]
                _storage_of(place).write(stored, place.storage_offset)
                position = place.end
            else:
                position = self._write_new(data, offset, position)

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros: whole units give up their room."""
        self._check_range(offset, length)
        grain, end = self._writable.traits.grain, offset + length
        first = min(align_up(offset, grain), end)
        last = end if end == self.size else max(align_down(end, grain), first)
        self._write_zeros(offset, first - offset)
        if last > first:
            self._writable.zero(first, last - first)
            self._forget_decoded()
        self._write_zeros(last, end - last)

    def can_offload(self, extent: Extent) -> bool:
        """Whether the system can move a ``DATA`` extent; only whole units."""
        grain = self._writable.traits.grain
        aligned = extent.offset % grain == 0 and (
            extent.length % grain == 0 or extent.end == self.size
        )
        return aligned and extent.storage is not None and self._storage.can_offload(extent.storage)

    def copy_from(self, extent: Extent) -> None:
        """Let the system move a ``DATA`` extent of whole units."""
        position = extent.offset
        while position < extent.end:
            rest = extent.clip(position, extent.end)
            place = self._writable.place(position, rest.length)
            is_new = place is None
            if place is None:
                place = self._writable.allocate(position, rest.length)
            moved = rest.clip(position, place.end)
            assert moved.storage is not None
            _storage_of(place).copy_range(
                moved.storage, moved.storage_offset, place.storage_offset, moved.length
            )
            if is_new:
                self._writable.link(place)
            position = place.end
        self._forget_decoded()

    def resize(self, size: int) -> None:
        """Change the disk's size; flushed when this returns. Shrinking cuts off the end."""
        if self._parent is not None and self.size < min(size, self._parent.size):
            self._own_last_unit()
        self._writable.resize(size)
        self._forget_decoded()
        self.flush()

    def flush(self) -> None:
        """Make all that was written durable."""
        self._writable.flush()

    def checkpoint(self) -> None:
        """The same, under the name that a resumable copy knows it by."""
        self._writable.flush()

    def suspend(self) -> None:
        """Close the files and keep what the last checkpoint made durable."""
        for storage in (*self._others, self._storage):
            storage.close()

    def commit(self) -> None:
        """Flush, and let the storage take its final name."""
        self._writable.flush()
        if isinstance(self._writable, Finishing):
            self._writable.finish()
        for storage in (*self._others, self._storage):
            storage.commit()

    def abort(self) -> None:
        """Forget it all."""
        for storage in (*self._others, self._storage):
            storage.abort()

    def _write_new(self, data: memoryview, offset: int, position: int) -> int:
        """Write units that have no place yet, from ``position`` on; where that ended.

        Units that ``data`` covers only in part are completed with what they read as now.
        """
        grain, end = self._writable.traits.grain, offset + len(data)
        start = align_down(position, grain)
        stop = min(align_up(end, grain), self.size)
        place = self._writable.allocate(start, stop - start)
        storage, where = _storage_of(place), place.storage_offset
        last = min(end, place.end)
        stored = data[position - offset : last - offset]
        if len(stored) < place.length <= SPAN_BYTES:
            # One write, so that no sector is torn where a layer reuses a unit's own place.
            whole = self._current(start, place.length)
            whole[position - start : last - start] = stored
            storage.write(whole, where)
        else:
            self._copy_current(start, position, storage, where)
            storage.write(stored, where + position - start)
            self._copy_current(last, place.end, storage, where + last - start)
        self._writable.link(place)
        self._forget_decoded()
        return last

    def _copy_current(self, start: int, end: int, storage: Storage, where: int) -> None:
        """Copy what ``[start, end)`` reads as now: by spans, since a unit may be 256 MiB."""
        for at in range(start, end, SPAN_BYTES):
            storage.write(self._current(at, min(SPAN_BYTES, end - at)), where + at - start)

    def _own_last_unit(self) -> None:
        """Give the last unit its own place: behind the old end, a longer parent would show."""
        start = align_down(self.size, self._writable.traits.grain)
        if start < self.size and self._writable.place(start, 1) is None:
            self.write(self._current(start, 1), start)

    def _current(self, offset: int, length: int) -> memoryview:
        buffer = memoryview(bytearray(length))
        self.readinto(buffer, offset)
        return buffer

    def _write_zeros(self, offset: int, length: int) -> None:
        """Zero a part of a unit, unless it reads as zeros already."""
        for start in range(offset, offset + length, SPAN_BYTES):
            size = min(SPAN_BYTES, offset + length - start)
            if not is_zero(self._current(start, size)):
                self.write(memoryview(ZEROS)[:size], start)


def _storage_of(place: Extent) -> Storage:
    assert place.storage is not None, "a layer gave a place without a storage"
    return place.storage
