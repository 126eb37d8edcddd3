"""Writing an image front to back, into a pipe.

The tables of an image refer to its data, and its header to its tables, so all of them have to
be known before the first byte of data leaves. The source is therefore copied twice. The first
pass (:class:`Survey`) compresses everything and keeps only lengths: 4 bytes for each cluster.
The second (:class:`StreamTarget`) lays out header, refcounts, L1, L2 tables and then the data
in the order of the disk, compressing it once more; what does not have the length that the
survey has seen means that the source has changed, and is an error.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Order, Traits
from imprint.core.errors import ReadError, UnsupportedFeatureError, UsageError
from imprint.core.units import align_up, div_up
from imprint.formats.qcow2 import compressed, counts
from imprint.formats.qcow2.create import header_area
from imprint.formats.qcow2.layout import COPIED
from imprint.formats.qcow2.tables import packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.formats.qcow2.create import Plan

_ENTRY_BYTES: Final = 8


class _Pass:
    """What both passes have in common: they take whole clusters, compressed by workers."""

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan: Final = plan
        self._name = name
        self._compress = (
            _as_it_is
            if plan.compression == "none"
            else compressed.compressor(plan.compression_type, plan.level)
        )

    @property
    def name(self) -> str:
        """What errors call it."""
        return self._name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self.plan.size

    @property
    def traits(self) -> Traits:
        """Whole clusters in ascending order; the rest is zeros."""
        return Traits(grain=self.plan.cluster_size, order=Order.ASCENDING, reads_zero=True)

    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """As the image stores it, cluster by cluster; see ``Encoding``."""
        del offset
        return compressed.encode(data, self.plan.cluster_size, self._compress)

    def write(self, data: memoryview, offset: int) -> None:
        """Encode and store."""
        self.write_encoded(self.encode(data, offset), offset)

    def write_encoded(self, units: list[bytes], offset: int) -> None:
        """Store clusters."""
        raise NotImplementedError

    def zero(self, offset: int, length: int) -> None:
        """What is not written is zero."""


class Survey(_Pass):
    """The first pass. By L2 table: the stored length of each cluster, 0 if it is all zeros."""

    def __init__(self, plan: Plan) -> None:
        if plan.encryption is not None:
            raise UsageError("an encrypted image cannot be written as a stream")
        super().__init__(plan, "survey")
        self.per_l2: Final = plan.cluster_size // _ENTRY_BYTES
        self.lengths: Final[dict[int, array.array[int]]] = {}

    def write_encoded(self, units: list[bytes], offset: int) -> None:
        """Note the lengths."""
        cluster = offset // self.plan.cluster_size
        for index, unit in enumerate(units, cluster):
            if not unit:
                continue
            number, within = divmod(index, self.per_l2)
            table = self.lengths.get(number)
            if table is None:
                table = self.lengths[number] = array.array("I", bytes(4 * self.per_l2))
            table[within] = len(unit)

    def commit(self) -> None:
        """Nothing to keep."""

    def abort(self) -> None:
        """Nothing to remove."""


class StreamTarget(_Pass):
    """The second pass: an image that leaves while it is made."""

    def __init__(self, storage: Storage, survey: Survey) -> None:
        """Writes everything up to the first byte of data."""
        super().__init__(survey.plan, storage.name)
        self._storage = storage
        self._survey = survey
        self._layout = _Layout(survey)
        self._position = self._layout.data_start
        self._left = sum(sum(map(bool, table)) for table in survey.lengths.values())
        position = 0
        for piece in self._layout.tables():
            storage.write(memoryview(piece), position)
            position += len(piece)
        assert position == self._layout.data_start

    def write_encoded(self, units: list[bytes], offset: int) -> None:
        """Send clusters, if they are those that the survey has seen."""
        size = self.plan.cluster_size
        pieces: list[bytes] = []
        start = self._position
        for index, unit in enumerate(units, offset // size):
            number, within = divmod(index, self._survey.per_l2)
            table = self._survey.lengths.get(number)
            if len(unit) != (table[within] if table is not None else 0):
                raise self._changed(index * size)
            if not unit:
                continue
            self._left -= 1
            position = self._layout.place(self._position, len(unit))
            pieces.append(bytes(position - self._position))
            pieces.append(unit)
            self._position = position + len(unit)
        if pieces:
            self._storage.write(memoryview(b"".join(pieces)), start)

    def commit(self) -> None:
        """Fill up the last cluster, and wait until it has left."""
        if self._left:
            raise self._changed(self.size)
        end = align_up(self._position, self.plan.cluster_size)
        self._storage.zero(self._position, end - self._position)
        self._storage.commit()

    def abort(self) -> None:
        """What has left has left."""
        self._storage.abort()

    def _changed(self, offset: int) -> ReadError:
        return ReadError(
            f"the source changed between the two passes, at or before 0x{offset:x}",
            name=self._name,
            offset=offset,
            advice="write a file instead: that needs one pass",
        )


class _Layout:
    """Where everything is: header, refcount table, refcount blocks, L1, L2 tables, data."""

    def __init__(self, survey: Survey) -> None:
        plan = survey.plan
        self._survey = survey
        self._size = plan.cluster_size
        self._bits = plan.refcount_bits
        self._area = header_area(plan)
        self._l1_size = self._area.l1_entries_for(plan.size)
        self._l1_clusters = div_up(self._l1_size * _ENTRY_BYTES, self._size)
        self._references = array.array("I")
        self._count_data()
        per_block = self._size * 8 // self._bits
        self._blocks = self._table_clusters = 0
        while True:
            total = self._data_cluster + len(self._references)
            blocks = div_up(total, per_block)
            table_clusters = div_up(blocks * _ENTRY_BYTES, self._size)
            if (blocks, table_clusters) == (self._blocks, self._table_clusters):
                break
            self._blocks, self._table_clusters = blocks, table_clusters
        if max(self._references, default=0) >> self._bits:
            raise UnsupportedFeatureError(
                f"refcount_bits={self._bits} cannot count the compressed clusters that share "
                "one cluster of the file",
                advice="leave refcount_bits at 16",
            )

    @property
    def data_start(self) -> int:
        """Of the first cluster of data."""
        return self._data_cluster * self._size

    def place(self, position: int, length: int) -> int:
        """Where a cluster goes that comes next: whole ones are aligned, others follow on."""
        return align_up(position, self._size) if length == self._size else position

    def tables(self) -> Iterator[bytes]:
        """Everything in front of the data, in order."""
        size = self._size
        l1_cluster = 1 + self._table_clusters + self._blocks
        area = self._area.with_header(
            refcount_table_offset=size,
            refcount_table_clusters=self._table_clusters,
            l1_table_offset=l1_cluster * size if self._l1_size else 0,
            l1_size=self._l1_size,
        )
        _, head = area.pack(self._survey.name)
        yield head.ljust(size, b"\0")
        first_block = (1 + self._table_clusters) * size
        blocks = array.array("Q", range(first_block, first_block + self._blocks * size, size))
        yield packed(blocks).ljust(self._table_clusters * size, b"\0")
        yield from self._refcount_blocks()
        l1 = array.array("Q", bytes(self._l1_size * _ENTRY_BYTES))
        first_l2 = l1_cluster + self._l1_clusters
        for at, number in enumerate(sorted(self._survey.lengths)):
            l1[number] = (first_l2 + at) * size | COPIED
        yield packed(l1).ljust(self._l1_clusters * size, b"\0")
        yield from self._l2_tables()

    @property
    def _data_cluster(self) -> int:
        return (
            1 + self._table_clusters + self._blocks + self._l1_clusters + len(self._survey.lengths)
        )

    def _count_data(self) -> None:
        """How many stored clusters touch each cluster of the file's data part."""
        position = 0
        for _, length in self._stored():
            position = self.place(position, length)
            first, last = position // self._size, (position + length - 1) // self._size
            self._references.extend([0] * (last + 1 - len(self._references)))
            for cluster in range(first, last + 1):
                self._references[cluster] += 1
            position += length

    def _stored(self) -> Iterator[tuple[int, int]]:
        """Guest cluster and stored length of all that is stored, in order."""
        for number in sorted(self._survey.lengths):
            start = number * self._survey.per_l2
            for within, length in enumerate(self._survey.lengths[number]):
                if length:
                    yield start + within, length

    def _refcount_blocks(self) -> Iterator[bytes]:
        per_block = self._size * 8 // self._bits
        before = self._data_cluster
        for number in range(self._blocks):
            first = number * per_block
            values = array.array("I", [1]) * max(0, min(per_block, before - first))
            start = max(0, first - before)
            values += self._references[start : start + per_block - len(values)]
            values.extend([0] * (per_block - len(values)))
            block = counts.pack(values, self._bits)
            assert block is not None, "checked when the layout was made"
            yield packed(block)

    def _l2_tables(self) -> Iterator[bytes]:
        position, size = self.data_start, self._size
        for number in sorted(self._survey.lengths):
            table = array.array("Q", bytes(size))
            for within, length in enumerate(self._survey.lengths[number]):
                if not length:
                    continue
                position = self.place(position, length)
                if length == size:
                    table[within] = position | COPIED
                else:
                    bits = self._survey.plan.cluster_bits
                    table[within] = compressed.pack_descriptor(position, length, bits)
                position += length
            yield packed(table)


def _as_it_is(plain: bytes) -> bytes:
    return plain
