"""Reading a Parallels image: lookups in the block allocation table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, TruncatedImageError
from imprint.core.extent import Extent, Kind
from imprint.core.info import ImageInfo
from imprint.core.tables import PagedTable, read_table
from imprint.core.units import div_up
from imprint.formats.parallels.layout import IN_USE, Header, read_header

if TYPE_CHECKING:
    from imprint.core.contracts import Storage


class ParallelsLayer:
    """An image opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, storage: Storage, header: Header, bat: PagedTable) -> None:
        self._storage = storage
        self._header = header
        self._bat = bat

    @property
    def size(self) -> int:
        """As the header says."""
        return self._header.disk_size

    @property
    def traits(self) -> Traits:
        """The grain is the cluster."""
        return Traits(grain=self._header.cluster_size)

    @property
    def header(self) -> Header:
        """As it is in the file, or will be after the next flush."""
        return self._header

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, for as many clusters as lie alike.

        Raises:
            CorruptImageError: if its cluster lies in the header or the table.
            TruncatedImageError: if its cluster begins behind the end of the file.
        """
        index, within = divmod(offset, self._header.cluster_size)
        entry = self._bat.entries[index]
        if entry == 0:
            return Extent(offset, self._run_bytes(index, within, length, step=0), Kind.HOLE)
        place = self._place(offset, length, index, within)
        if place.storage_offset - within < self._header.bat_end:
            raise CorruptImageError(
                f"cluster {index}: expected data behind the table's end at "
                f"0x{self._header.bat_end:x}, found 0x{place.storage_offset - within:x}",
                name=self._storage.name,
                offset=place.storage_offset,
            )
        if place.storage_offset >= self._storage.size:
            raise TruncatedImageError(
                f"cluster {index}: expected data at 0x{place.storage_offset:x}, "
                f"found a file of {self._storage.size} bytes",
                name=self._storage.name,
                offset=place.storage_offset,
            )
        return place

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """What the header says."""
        header = self._header
        notes: tuple[str, ...] = ()
        if header.in_use == IN_USE:
            notes += ("The image is in use, or was not closed properly.",)
        if header.extension_sector:
            notes += ("The image has an extension (dirty bitmaps), which is not looked at.",)
        return ImageInfo(
            "parallels",
            header.disk_size,
            options={
                "cluster_size": header.cluster_size,
                "signature": header.magic.decode("ascii"),
            },
            notes=notes,
        )

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def _place(self, offset: int, length: int, index: int, within: int) -> Extent:
        """The ``DATA`` extent of a cluster, and those that follow it in the file."""
        header = self._header
        # Entries of version 1 go up by a cluster's sectors, those of version 2 by one.
        step = header.cluster_sectors // header.unit_sectors
        run = self._run_bytes(index, within, length, step=step)
        position = self._bat.entries[index] * header.unit_bytes + within
        return Extent(offset, run, Kind.DATA, self._storage, position)

    def _run_bytes(self, index: int, within: int, length: int, *, step: int) -> int:
        size = self._header.cluster_size
        run = self._bat.run(index, div_up(within + length, size), step=step)
        return min(length, run * size - within)


def read_image(storage: Storage) -> tuple[Header, PagedTable]:
    """Header and table.

    Raises:
        CorruptImageError: if they contradict the format or the file's size.
        UnsupportedFeatureError: see :func:`~imprint.formats.parallels.layout.read_header`.
    """
    header = read_header(storage)
    bat = read_table(storage, Header.SIZE, header.bat_entries, "I", "little")
    return header, PagedTable(bat, "little")
