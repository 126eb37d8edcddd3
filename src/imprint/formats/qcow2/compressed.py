"""Compressed clusters: where they are, what is in them, and writing an image of them.

Source: QEMU ``docs/interop/qcow2.txt``, *Compressed Clusters Descriptor*.
"""

from __future__ import annotations

import array
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.buffers import ZEROS, is_zero
from imprint.core.contracts import Order, Traits
from imprint.core.errors import CorruptImageError, TargetError, TruncatedImageError
from imprint.core.image import Image
from imprint.core.units import align_down, align_up
from imprint.formats.qcow2 import layout
from imprint.formats.qcow2.layout import COMPRESSED, COPIED, SECTOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Storage
    from imprint.formats.qcow2.layer import Qcow2Layer

WINDOW_BITS: Final = 12
"""QEMU inflates with a window of 4 KiB (QEMU ``block/qcow2-threads.c``): no match may reach
back further than that."""


def unpack_descriptor(entry: int, cluster_bits: int) -> tuple[int, int]:
    """Offset and length, in bytes, of what an L2 entry with ``COMPRESSED`` refers to.

    The length is that of whole sectors, of which the last may hold something else behind the
    stream's end.
    """
    offset_bits = 62 - (cluster_bits - 8)
    offset = entry & (1 << offset_bits) - 1
    sectors = (entry & COMPRESSED - 1) >> offset_bits
    return offset, (sectors + 1) * SECTOR - offset % SECTOR


def pack_descriptor(offset: int, length: int, cluster_bits: int) -> int:
    """The L2 entry for ``length`` compressed bytes at ``offset``.

    Raises:
        TargetError: if a descriptor cannot express the offset.
    """
    offset_bits = 62 - (cluster_bits - 8)
    if offset >> offset_bits:
        raise TargetError(f"expected compressed clusters below 2^{offset_bits}: use smaller ones")
    sectors = (offset + length - 1) // SECTOR - offset // SECTOR
    return COMPRESSED | sectors << offset_bits | offset


def host_clusters(entry: int, cluster_bits: int) -> tuple[int, int]:
    """The first host cluster that a compressed cluster lies in, and how many there are."""
    offset, length = unpack_descriptor(entry, cluster_bits)
    first = offset >> cluster_bits
    return first, (offset + length - 1 >> cluster_bits) - first + 1


def decode(
    storage: Storage, entry: int, cluster_bits: int, compression_type: int, buffer: memoryview
) -> None:
    """Fill ``buffer`` with the start of a compressed cluster.

    Raises:
        CorruptImageError: if it does not decompress to a whole cluster.
        TruncatedImageError: if it lies behind the end of the file.
    """
    offset, length = unpack_descriptor(entry, cluster_bits)
    # A writer need not fill up the last sector at the end of the file.
    if offset >= storage.size or offset + length > align_up(storage.size, SECTOR):
        raise TruncatedImageError(
            f"compressed cluster at 0x{offset:x}: expected 0x{length:x} bytes inside the "
            f"file's 0x{storage.size:x}",
            name=storage.name,
            offset=offset,
            length=length,
        )
    stored = bytearray(min(length, storage.size - offset))
    storage.readinto(memoryview(stored), offset)
    try:
        data = _decompress(stored, 1 << cluster_bits, compression_type)
    except CorruptImageError as failure:
        raise CorruptImageError(
            f"compressed cluster at 0x{offset:x}: {failure}",
            name=storage.name,
            offset=offset,
            length=length,
        ) from failure
    buffer[:] = data if len(buffer) == len(data) else data[: len(buffer)]


def _decompress(stored: bytearray, size: int, compression_type: int) -> bytes:
    if compression_type == layout.COMPRESSION_ZSTD:
        from imprint.codecs import zstd

        return zstd.decompress(stored, size)
    from imprint.codecs import deflate

    return deflate.decompress(stored, size)


class CompressedTarget:
    """Writes clusters compressed, one behind the other; a cluster that does not shrink is plain.

    The costly half, :meth:`encode`, may run in many threads. A unit is stored compressed if it
    is shorter than a cluster. Clusters that are written in part are completed with what they
    read as, and kept until another one is written, which is why the order should ascend.
    """

    def __init__(
        self, layer: Qcow2Layer, *, level: int | None = None, is_fresh: bool = True
    ) -> None:
        """Takes over a layer that is open for writing.

        Args:
            layer: of the image.
            level: of the compression; ``None`` is the codec's default.
            is_fresh: was created for this copy, so that what is not written is zero.
        """
        self._layer = layer
        self._reads_zero = is_fresh and layer.parent is None
        self._storage = layer.storage
        self._cluster_size = layer.area.cluster_size
        self._cluster_bits = layer.area.header.cluster_bits
        self._compress = compressor(layer.area.header.compression_type, level)
        self._pack = _Pack(layer)
        self._partial: bytearray | None = None
        self._partial_offset = 0

    @property
    def name(self) -> str:
        """Path or address of the image."""
        return self._storage.name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._layer.size

    @property
    def traits(self) -> Traits:
        """Whole clusters in ascending order are the quickest."""
        return Traits(grain=self._cluster_size, order=Order.ASCENDING, reads_zero=self._reads_zero)

    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """Compress clusters; see :class:`~imprint.core.contracts.Encoding`."""
        assert offset % self._cluster_size == 0
        return encode(data, self._cluster_size, self._compress)

    def write_encoded(self, units: list[bytes], offset: int) -> None:
        """Store clusters; see :class:`~imprint.core.contracts.Encoding`."""
        self._finish_partial()
        self._store(units, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Store ``data``, whatever its borders are."""
        position, end = offset, offset + len(data)
        while position < end:
            start = align_down(position, self._cluster_size)
            stop = end if end == self.size else align_down(end, self._cluster_size)
            if position == start and stop > start:
                piece = data[position - offset : stop - offset]
                self.write_encoded(self.encode(piece, position), position)
            else:
                stop = min(end, start + self._cluster_size)
                buffer = self._open_partial(start)
                buffer[position - start : stop - start] = data[position - offset : stop - offset]
            position = stop

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros."""
        end = offset + length
        first = min(align_up(offset, self._cluster_size), end)
        last = end if end == self.size else max(align_down(end, self._cluster_size), first)
        self._write_zeros(offset, first)
        if last > first:
            self._finish_partial()
            self._layer.zero(first, last - first)
        self._write_zeros(last, end)

    def checkpoint(self) -> None:
        """Make all that was written durable."""
        self._finish_partial()
        self._layer.flush()

    def suspend(self) -> None:
        """Close the files."""
        self._layer.close()

    def commit(self) -> None:
        """Flush, and let the storage take its final name."""
        self.checkpoint()
        self._storage.commit()

    def abort(self) -> None:
        """Forget it all."""
        self._storage.abort()

    def _store(self, units: list[bytes], offset: int) -> None:
        """Runs of zeros are unlinked, others stored."""
        index, count = 0, len(units)
        with self._layer.lock:
            while index < count:
                stop = index
                is_data = bool(units[index])
                while stop < count and bool(units[stop]) == is_data:
                    stop += 1
                start = offset + index * self._cluster_size
                if is_data:
                    new = self._pack.store(units[index:stop])
                    self._layer.writer.set_entries(start // self._cluster_size, new)
                    self._layer.writer.flush_if_large()
                else:
                    length = (stop - index) * self._cluster_size
                    self._layer.zero(start, min(length, self.size - start))
                index = stop

    def _open_partial(self, start: int) -> bytearray:
        """The buffer of the cluster at ``start``, filled with what it reads as."""
        if self._partial is None or self._partial_offset != start:
            self._finish_partial()
            buffer = bytearray(min(self._cluster_size, self.size - start))
            image = Image(self._layer, name=self.name, parent=self._layer.parent)
            image.readinto(memoryview(buffer), start)
            self._partial, self._partial_offset = buffer, start
        return self._partial

    def _finish_partial(self) -> None:
        if self._partial is not None:
            data, self._partial = self._partial, None
            self._store(self.encode(memoryview(data), self._partial_offset), self._partial_offset)

    def _write_zeros(self, start: int, end: int) -> None:
        while start < end:
            stop = min(end, start + len(ZEROS))
            self.write(memoryview(ZEROS)[: stop - start], start)
            start = stop


class _Pack:
    """Stores units: compressed ones tightly behind each other, plain ones on clusters."""

    def __init__(self, layer: Qcow2Layer) -> None:
        self._layer = layer
        self._cluster_size = layer.area.cluster_size
        self._cluster_bits = layer.area.header.cluster_bits
        self._position = 0  # of the next compressed unit in the file
        self._end = 0  # of the cluster that it is in
        self._users = 0  # units that lie in that cluster
        self._free_count = layer.writer.refcounts.free_count

    def store(self, units: list[bytes]) -> array.array[int]:
        """Write units that are not empty; their L2 entries."""
        new = array.array("Q", bytes(8 * len(units)))
        self._leave_if_freed()
        # Compressed ones first: a plain one between them would leave the rest of a cluster.
        plain = [index for index, unit in enumerate(units) if len(unit) == self._cluster_size]
        pieces: list[bytes] = []
        start = self._position
        for index, unit in enumerate(units):
            if len(unit) == self._cluster_size:
                continue
            if not self._reserve(len(unit)):
                self._write(pieces, start)
                pieces, start = [], self._position
            new[index] = pack_descriptor(self._position, len(unit), self._cluster_bits)
            pieces.append(unit)
            self._position += len(unit)
        self._write(pieces, start)
        done = 0
        while done < len(plain):
            first, count = self._layer.writer.refcounts.allocate(len(plain) - done)
            some = plain[done : done + count]
            self._write([units[index] for index in some], first * self._cluster_size)
            for place, index in enumerate(some, first):
                new[index] = place * self._cluster_size | COPIED
            done += count
        return new

    def _leave_if_freed(self) -> None:
        """Leave the cluster at hand if a flush may have freed it, its units being replaced."""
        free_count = self._layer.writer.refcounts.free_count
        if free_count != self._free_count:
            self._free_count = free_count
            self._position = self._end = self._users = 0

    def _reserve(self, length: int) -> bool:
        """Make room for a compressed unit and count it; whether it follows the one before."""
        refcounts = self._layer.writer.refcounts
        is_full = self._users == refcounts.maximum
        if self._position + length <= self._end and not is_full:
            if self._users:
                refcounts.add(self._end - 1 >> self._cluster_bits, 1, 1)
            self._users += 1
            return True
        first = refcounts.allocate_exactly(1) * self._cluster_size
        follows = first == self._end and not is_full and self._position < self._end
        if follows:  # the unit begins in the old cluster and ends in the new one
            refcounts.add(self._end - 1 >> self._cluster_bits, 1, 1)
        else:
            self._position = first
        self._users = 1
        self._end = first + self._cluster_size
        return follows

    def _write(self, pieces: list[bytes], start: int) -> None:
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._layer.storage.write(memoryview(data), start)


def encode(data: memoryview, cluster_size: int, compress: Callable[[bytes], bytes]) -> list[bytes]:
    """The stored form of each cluster: empty if it is zeros, plain if it does not shrink."""
    units = []
    for start in range(0, len(data), cluster_size):
        cluster = data[start : start + cluster_size]
        if is_zero(cluster):
            units.append(b"")
            continue
        # What a guest cannot see of the last cluster are zeros.
        plain = bytes(cluster).ljust(cluster_size, b"\0")
        small = compress(plain)
        units.append(small if len(small) < cluster_size else plain)
    return units


def compressor(compression_type: int, level: int | None) -> Callable[[bytes], bytes]:
    """What compresses one cluster; thread-safe. ``level`` is the codec's default."""
    if compression_type == layout.COMPRESSION_ZSTD:
        from imprint.codecs import zstd

        return partial(zstd.compress, level=zstd.LEVEL_DEFAULT if level is None else level)
    from imprint.codecs import deflate

    return partial(
        deflate.compress,
        level=deflate.LEVEL_DEFAULT if level is None else level,
        window_bits=WINDOW_BITS,
    )
