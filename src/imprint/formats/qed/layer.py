"""Reading a QED: lookups in two levels of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, TruncatedImageError
from imprint.core.extent import Extent, Kind
from imprint.core.info import ImageInfo
from imprint.core.tables import TableCache, run_length
from imprint.core.units import div_up
from imprint.formats.qed.layout import (
    ENTRY_ABSENT,
    ENTRY_ZERO,
    FEATURE_BACKING_RAW,
    FEATURE_NEED_CHECK,
    Header,
)

if TYPE_CHECKING:
    from array import array

    from imprint.core.contracts import Storage


class QedLayer:
    """A QED opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, storage: Storage, header: Header, *, backing: str | None = None) -> None:
        """``backing`` is the name of the backing file, for :meth:`info`."""
        self._storage = storage
        self._header = header
        self._backing = backing
        self._tables = TableCache(storage, "Q", "little")

    @property
    def size(self) -> int:
        """As the header says."""
        return self._header.disk_size

    @property
    def traits(self) -> Traits:
        """The grain is the cluster."""
        return Traits(grain=self._header.cluster_size)

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, for as many clusters of its L2 table as lie alike.

        Raises:
            CorruptImageError: if an entry is no multiple of the cluster size.
            TruncatedImageError: if a table or a cluster begins behind the file's end.
        """
        header = self._header
        size, count = header.cluster_size, header.table_count
        cluster, within = divmod(offset, size)
        l1_index, index = divmod(cluster, count)
        wanted = div_up(within + length, size)
        table, at = self._find(header.l1_table_offset, l1_index)
        if table[at] == ENTRY_ABSENT:
            run = run_length(table, at, div_up(index + wanted, count))
            return Extent(offset, min(length, (run * count - index) * size - within), Kind.HOLE)
        table, at = self._find(self._checked(table[at]), index)
        entry = table[at]
        is_data = entry not in (ENTRY_ABSENT, ENTRY_ZERO)
        run = run_length(table, at, wanted, step=size if is_data else 0)
        length = min(length, run * size - within)
        if not is_data:
            return Extent(offset, length, Kind.HOLE if entry == ENTRY_ABSENT else Kind.ZERO)
        position = self._checked(entry) + within
        return Extent(offset, length, Kind.DATA, self._storage, position)

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
        if header.features & FEATURE_NEED_CHECK:
            notes += ("The image was not closed properly: its last writes may be missing.",)
        is_raw = self._backing is not None and bool(header.features & FEATURE_BACKING_RAW)
        if self._backing is not None and not is_raw:
            notes += ("The image does not say what format its backing file is in.",)
        return ImageInfo(
            "qed",
            header.disk_size,
            options={"cluster_size": header.cluster_size, "table_size": header.table_size},
            parent=self._backing,
            parent_format="raw" if is_raw else None,
            features=header.feature_names,
            notes=notes,
        )

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def _find(self, offset: int, index: int) -> tuple[array[int], int]:
        """The table at ``offset``, or a piece of it, and where in that an entry is."""
        return self._tables.find(offset, self._header.table_count, index)

    def _checked(self, offset: int) -> int:
        """The offset of a table or cluster, if it can be one."""
        size, name = self._header.cluster_size, self._storage.name
        if offset % size:
            raise CorruptImageError(
                f"expected an offset in whole clusters of {size} bytes, found 0x{offset:x}",
                name=name,
                offset=offset,
            )
        if offset >= self._storage.size:
            raise TruncatedImageError(
                f"expected a cluster at 0x{offset:x}, found a file of {self._storage.size} bytes",
                name=name,
                offset=offset,
            )
        return offset
