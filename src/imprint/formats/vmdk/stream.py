"""Writing streamOptimized: compressed, front to back, in one pass.

::

    header | descriptor | (grain marker, data) … | GT marker, table | … | GD marker, directory |
    footer marker, footer | EOS marker

The header says that the footer knows where the directory is, so nothing is written twice and a
pipe will do. Grains ascend, and each table follows its grains: VMware refuses other orders.

Source: VMware *Virtual Disk Format 5.0*, "Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.ascending import AscendingUnits
from imprint.core.buffers import is_zero
from imprint.core.contracts import Order, Traits
from imprint.core.errors import TargetError
from imprint.core.units import align_up, div_up
from imprint.formats.vmdk import inflate, layout
from imprint.formats.vmdk.create import DESCRIPTOR_SECTORS, Plan, packed_text
from imprint.formats.vmdk.layout import (
    ENTRIES_PER_TABLE,
    GRAIN_MARKER_BYTES,
    SECTOR,
    TABLE_SECTORS,
    Marker,
    SparseHeader,
)
from imprint.formats.vmdk.sparse_writer import to_disk

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Storage

_FLAGS: Final = layout.FLAG_NEWLINES | layout.FLAG_COMPRESSED | layout.FLAG_MARKERS
_GRAIN_MARKER: Final = struct.Struct("<QI")


class StreamTarget(AscendingUnits):
    """A target that compresses; see :class:`~imprint.core.contracts.Encoding`."""

    def __init__(
        self,
        storage: Storage,
        made: Plan,
        text: str,
        *,
        when_done: Callable[[], None] = lambda: None,
    ) -> None:
        """Writes header and descriptor, ``text``; ``when_done`` is called when all is there."""
        super().__init__(made.grain)
        self._when_done = when_done
        self._storage = storage
        self._made = made
        self._header = stream_header(made)
        self._directory = array("I", bytes(4 * div_up(made.size, made.grain * ENTRIES_PER_TABLE)))
        self._table = _empty_table()
        self._number = 0  # of that table
        self._position = self._header.overhead  # in sectors
        storage.write(memoryview(self._header.pack() + packed_text(text)), 0)

    @property
    def name(self) -> str:
        """Path or address of the image."""
        return self._storage.name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._made.size

    @property
    def traits(self) -> Traits:
        """Ascending; what is left out is zeros."""
        return Traits(grain=self._grain, order=Order.ASCENDING, reads_zero=True)

    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """Compress grains, each with its marker, in whole sectors."""
        assert offset % self._grain == 0
        units = []
        for start in range(0, len(data), self._grain):
            grain = data[start : start + self._grain]
            if is_zero(grain):
                units.append(b"")
                continue
            # What a guest cannot see of the last grain are zeros.
            packed = inflate.compress(bytes(grain).ljust(self._grain, b"\0"), self._made.level)
            unit = _GRAIN_MARKER.pack((offset + start) // SECTOR, len(packed)) + packed
            units.append(unit.ljust(align_up(len(unit), SECTOR), b"\0"))
        return units

    def commit(self) -> None:
        """Write the last table, the directory and the footer, and let the file take its name."""
        self._finish_partial()
        self._finish_table()
        directory = bytes(to_disk(self._directory))
        directory = directory.ljust(align_up(len(directory), SECTOR), b"\0")
        place = self._append_marked(layout.MARKER_GD, directory)
        footer = self._header.replace(directory_offset=place)
        self._append_marked(layout.MARKER_FOOTER, footer.pack())
        self._append(bytes(SECTOR))
        self._storage.commit()
        self._when_done()

    def abort(self) -> None:
        """Forget it all; of a pipe, what has left has left."""
        self._storage.abort()

    def _append_units(self, units: list[bytes], index: int) -> None:
        pieces: list[bytes] = []
        sectors = 0
        for grain, unit in enumerate(units, index):
            number, within = divmod(grain, ENTRIES_PER_TABLE)
            if not unit:
                continue
            if number != self._number:
                self._append(b"".join(pieces))
                pieces, sectors = [], 0
                self._finish_table()
                self._number = number
            self._table[within] = self._position + sectors
            pieces.append(unit)
            sectors += len(unit) // SECTOR
        self._append(b"".join(pieces))
        self._next_unit = index + len(units)

    def _finish_table(self) -> None:
        """Write the table at hand behind its grains; if it has none, it is left out."""
        if any(self._table):
            table = bytes(to_disk(self._table))
            self._directory[self._number] = self._append_marked(layout.MARKER_GT, table)
            self._table = _empty_table()

    def _append_marked(self, kind: int, data: bytes) -> int:
        """Append a marker and what it announces; the sector of the latter."""
        marker = Marker(value=len(data) // SECTOR, kind=kind)
        place = self._position + 1
        self._append(marker.pack() + data)
        return place

    def _append(self, data: bytes) -> None:
        if data:
            if self._position + len(data) // SECTOR > layout.SECTOR_MAX:
                raise TargetError("expected a stream of at most 2 TiB", name=self.name)
            self._storage.write(memoryview(data), self._position * SECTOR)
            self._position += len(data) // SECTOR


def stream_header(made: Plan) -> SparseHeader:
    """The header of a stream, which does not know yet where the directory will be."""
    return SparseHeader(
        version=layout.VERSION_STREAM,
        flags=_FLAGS,
        capacity=made.size // SECTOR,
        grain_size=made.grain // SECTOR,
        descriptor_offset=1,
        descriptor_size=DESCRIPTOR_SECTORS,
        directory_offset=layout.GD_AT_END,
        overhead=align_up(1 + DESCRIPTOR_SECTORS, made.grain // SECTOR),
        newlines=layout.NEWLINES,
        compression=layout.COMPRESSION_DEFLATE,
    )


def end_of(made: Plan, grains: int) -> int:
    """Bytes of a stream of so many grains, none of which gets shorter."""
    stored = align_up(made.grain + inflate.STORED_EXCESS + GRAIN_MARKER_BYTES, SECTOR)
    tables = div_up(made.size, made.grain * ENTRIES_PER_TABLE)
    end = stream_header(made).overhead * SECTOR + grains * stored
    end += min(tables, grains) * (1 + TABLE_SECTORS) * SECTOR
    return end + SECTOR + align_up(4 * tables, SECTOR) + 3 * SECTOR


def _empty_table() -> array[int]:
    return array("I", bytes(4 * ENTRIES_PER_TABLE))
