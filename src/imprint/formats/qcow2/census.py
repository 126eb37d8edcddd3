"""Counting who refers to which host cluster, by walking everything that can refer to one."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError
from imprint.core.events import Finding, Severity
from imprint.core.units import align_up, div_up
from imprint.formats.qcow2 import compressed, counts, layout, snapshot_table
from imprint.formats.qcow2.layout import BitmapEntry, BitmapsExtension, EncryptionExtension
from imprint.formats.qcow2.tables import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.formats.qcow2.header import HeaderArea

FINDINGS_MAX: Final = 200
"""Single findings of one image; what there is more is only counted."""

_BITS: Final = 32
"""Of a count in memory, whatever the image's own width is."""


class Findings:
    """Collects findings, a bounded number of them."""

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self._more = 0

    def error(self, where: str, what: str, *, repaired: bool = False) -> None:
        """Note damage."""
        self._add(Finding(Severity.ERROR, where, what, repaired))

    def warning(self, where: str, what: str, *, repaired: bool = False) -> None:
        """Note what costs room or looks odd, but no data."""
        self._add(Finding(Severity.WARNING, where, what, repaired))

    def take(self) -> Iterator[Finding]:
        """All that was noted."""
        yield from self._kept
        if self._more:
            yield Finding(Severity.ERROR, "and more", f"{self._more} further findings")

    def _add(self, finding: Finding) -> None:
        if len(self._kept) < FINDINGS_MAX:
            self._kept.append(finding)
        else:
            self._more += 1


class Census:
    """References to each cluster of the file.

    Attributes:
        references: how many there are, by cluster number.
        findings: references that point where they must not.
        is_sound: whether all tables could be walked to their end, and none of them pointed
            where it must not: only then is what is not referred to really free.
    """

    def __init__(self, storage: Storage, area: HeaderArea) -> None:
        self._storage = storage
        self._area = area
        self._cluster_size = area.cluster_size
        self._cluster_bits = area.header.cluster_bits
        self.references = array.array("I", [0]) * div_up(storage.size, area.cluster_size)
        self._l2_references = array.array("I", [0]) * len(self.references)
        self._l1_bytes = 0
        self.findings = Findings()
        self.is_sound = True

    def take(self) -> None:
        """Walk everything but the refcount structures themselves."""
        header = self._area.header
        self._refer(0, self._cluster_size, "header")
        self._walk_l1(header.l1_table_offset, header.l1_size, "active L1 table")
        self._walk_snapshots()
        self._walk_l2_tables()
        self._walk_encryption()
        self._walk_bitmaps()

    def count_refcount_structures(self) -> array.array[int]:
        """Add the refcount table and its blocks; returns the table."""
        header = self._area.header
        length = header.refcount_table_clusters * self._cluster_size
        available = max(0, self._storage.size - header.refcount_table_offset) // 8 * 8
        self._refer(header.refcount_table_offset, length, "refcount table")
        table = load(self._storage, header.refcount_table_offset, min(length, available))
        for index, entry in enumerate(table):
            if entry:
                where = f"refcount table entry 0x{index:x}"
                if entry % self._cluster_size:
                    self._complain(where, f"expected a multiple of the cluster size: 0x{entry:x}")
                else:
                    self._refer(entry, self._cluster_size, where)
        return table

    def _walk_l1(self, offset: int, size: int, where: str) -> None:
        """Note the L2 tables that an L1 table refers to; they are walked once, at the end."""
        if size == 0:
            return
        # L1 tables do not overlap, so all of them together fit into the file.
        self._l1_bytes += size * 8
        if self._l1_bytes > self._storage.size:
            self._complain(where, "expected L1 tables that do not overlap")
            return
        try:
            l1 = load(self._storage, offset, size * 8)
        except FormatError as error:
            self._complain(where, str(error.args[0]))
            return
        self._refer(offset, size * 8, where)
        for index, entry in enumerate(l1):
            if not entry:
                continue
            name = f"{where} entry 0x{index:x}"
            l2_offset = entry & layout.OFFSET_MASK
            if entry & layout.L1_RESERVED:
                self._complain(name, f"expected reserved bits to be 0, found 0x{entry:x}")
            if l2_offset % self._cluster_size:
                self._complain(name, f"expected a multiple of the cluster size: 0x{l2_offset:x}")
            elif l2_offset and self._refer(l2_offset, self._cluster_size, name):
                self._l2_references[l2_offset >> self._cluster_bits] += 1

    def _walk_l2_tables(self) -> None:
        """Each once, however many L1 tables share it: the work is bounded by the file's size."""
        for cluster, times in enumerate(self._l2_references):
            if times:
                self._walk_l2(cluster << self._cluster_bits, times)

    def _walk_l2(self, offset: int, times: int) -> None:
        """Count what one L2 table refers to, neighbours in one step."""
        where = f"L2 table at 0x{offset:x}"
        try:
            table = load(self._storage, offset, self._cluster_size)
        except FormatError as error:
            self._complain(where, str(error.args[0]))
            return
        step = 2 if self._area.is_extended else 1
        run_start = run_end = 0
        for index in range(0, len(table), step):
            entry = table[index]
            if not entry:
                continue
            if entry & layout.COMPRESSED:
                self._refer_compressed(entry, times, f"{where}, entry 0x{index // step:x}")
                continue
            start = self._check_entry(entry, f"{where}, entry 0x{index // step:x}")
            if not start:
                continue
            if start != run_end:
                self._refer(run_start, run_end - run_start, where, times)
                run_start = start
            run_end = start + self._cluster_size
        self._refer(run_start, run_end - run_start, where, times)

    def _check_entry(self, entry: int, where: str) -> int:
        """Where the entry's cluster is in this file; 0: nowhere, or not to be counted."""
        start = entry & layout.OFFSET_MASK
        reserved = entry & layout.L2_RESERVED
        if self._area.is_extended or self._area.header.version == 2:
            reserved |= entry & layout.ZERO
        if reserved:
            self._complain(where, f"expected reserved bits to be 0, found 0x{entry:x}")
        if start % self._cluster_size:
            self._complain(where, f"expected a multiple of the cluster size, found 0x{start:x}")
            return 0
        if self._area.has_data_file:
            return 0
        if start and start + self._cluster_size > align_up(self._storage.size, self._cluster_size):
            self._complain(where, f"expected a cluster in the file, found 0x{start:x}")
            return 0
        return start

    def _refer_compressed(self, entry: int, times: int, where: str) -> None:
        if self._area.has_data_file:
            self._complain(where, "expected no compressed cluster beside an external data file")
            return
        first, count = compressed.host_clusters(entry, self._cluster_bits)
        self._refer(first << self._cluster_bits, count << self._cluster_bits, where, times)

    def _walk_snapshots(self) -> None:
        header = self._area.header
        try:
            snapshots, length = snapshot_table.read(self._area, self._storage)
        except FormatError as error:
            self._complain("snapshot table", str(error.args[0]))
            return
        self._refer(header.snapshots_offset, length, "snapshot table")
        for snapshot in snapshots:
            entry = snapshot.entry
            name = snapshot.name.decode("utf-8", "replace")
            if entry.l1_table_offset % self._cluster_size:
                self._complain(f"snapshot {name!r}", "expected its L1 table at a cluster's start")
                continue
            self._walk_l1(entry.l1_table_offset, entry.l1_size, f"snapshot {name!r}, L1 table")

    def _walk_encryption(self) -> None:
        data = self._area.extension(layout.EXTENSION_ENCRYPTION)
        if data is not None and len(data) >= EncryptionExtension.SIZE:
            extension = EncryptionExtension.unpack(data)
            self._refer(extension.offset, extension.length, "encryption header")

    def _walk_bitmaps(self) -> None:
        data = self._area.extension(layout.EXTENSION_BITMAPS)
        is_valid = self._area.header.autoclear_features & layout.AUTOCLEAR_BITMAPS
        if data is None or not is_valid or len(data) < BitmapsExtension.SIZE:
            return
        head = BitmapsExtension.unpack(data)
        try:
            directory = self._load_bytes(head.directory_offset, head.directory_size)
            self._refer(head.directory_offset, head.directory_size, "bitmap directory")
            position = 0
            for _ in range(head.nb_bitmaps):
                entry = BitmapEntry.unpack(directory[position : position + BitmapEntry.SIZE])
                size = BitmapEntry.SIZE + entry.extra_data_size + entry.name_size
                position += align_up(size, 8)
                self._walk_bitmap(entry)
        except FormatError as error:
            self._complain("bitmap directory", str(error.args[0]))

    def _walk_bitmap(self, entry: BitmapEntry) -> None:
        table = load(self._storage, entry.table_offset, entry.table_size * 8)
        self._refer(entry.table_offset, entry.table_size * 8, "bitmap table")
        for value in table:
            start = value & layout.OFFSET_MASK
            if start:
                self._refer(start, self._cluster_size, "bitmap")

    def _load_bytes(self, offset: int, length: int) -> bytes:
        table = load(self._storage, offset, min(length, layout.BITMAP_DIRECTORY_BYTES_MAX), "B")
        return table.tobytes()

    def _refer(self, offset: int, length: int, where: str, times: int = 1) -> bool:
        """Count references to each cluster of a range; whether all of it is in the file."""
        if length <= 0:
            return True
        first = offset >> self._cluster_bits
        count = ((offset + length - 1) >> self._cluster_bits) + 1 - first
        inside = min(count, len(self.references) - first)
        if inside > 0:
            try:
                counts.add(self.references, first, inside, times, _BITS)
            except OverflowError:
                self._complain(where, "expected fewer references to one cluster")
        if inside < count:
            self._complain(where, f"expected a range in the file, found 0x{offset:x}+0x{length:x}")
            return False
        return True

    def _complain(self, where: str, what: str) -> None:
        self.is_sound = False
        self.findings.error(where, what)
