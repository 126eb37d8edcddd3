"""Values of attributes by the number of their file's record: the MFT first of all."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB
from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.layout import Extents, ListEntry
from imprint.filesystems.ntfs.records import (
    HOLE,
    Attribute,
    Record,
    attributes,
    extents_of,
    parse_record,
    resident_value,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.ntfs.geometry import Geometry

_LIST_BYTES_MAX: Final = 256 * KIB
"""Of an attribute list: Windows makes no larger ones."""

_RUN_COUNT_MAX: Final = 1 << 18
"""Of one value that we have to read: such a file would be in pieces as no file ever was."""


class Value:
    """The value of an attribute, read through its runs or in memory."""

    def __init__(
        self,
        what: str,
        *,
        content: bytes | None = None,
        size: int = 0,
        initialized: int = 0,
        runs: list[tuple[int, int]] | None = None,
    ) -> None:
        """Either ``content``, or ``runs`` of clusters and the sizes in bytes."""
        self.what = what
        self.size = len(content) if content is not None else size
        self.initialized = len(content) if content is not None else min(initialized, size)
        self.runs: list[tuple[int, int]] = []
        self._content = content
        self._starts = [0]
        self.extend(runs or [])

    def extend(self, runs: list[tuple[int, int]]) -> None:
        """Add the runs of its next part."""
        self.runs += runs
        more = accumulate((count for _, count in runs), initial=self._starts[-1])
        self._starts += islice(more, 1, None)

    def read(self, reader: VolumeReader, geometry: Geometry, offset: int, length: int) -> bytearray:
        """Some bytes of it, all inside of its size.

        Raises:
            CorruptImageError: if there are no clusters for them.
        """
        if offset + length > self.size:
            raise CorruptImageError(
                f"{self.what}: expected {offset + length} bytes, found {self.size}",
                name=geometry.where,
            )
        if self._content is not None:
            return bytearray(self._content[offset : offset + length])
        found = bytearray()
        while len(found) < length:
            found += self._piece(reader, geometry, offset + len(found), length - len(found))
        return found

    def _piece(
        self, reader: VolumeReader, geometry: Geometry, offset: int, length: int
    ) -> bytearray:
        unit = geometry.cluster_size
        index = bisect_right(self._starts, offset // unit) - 1
        if index >= len(self.runs) or self.runs[index][0] == HOLE:
            raise CorruptImageError(
                f"{self.what}: expected clusters for byte {offset}, found none",
                name=geometry.where,
            )
        place, count = self.runs[index]
        inside = offset - self._starts[index] * unit
        return reader.read(place * unit + inside, min(length, count * unit - inside), self.what)


class Files:
    """Finds values. Made for reading a few files: each record is read when it is asked for."""

    def __init__(self, reader: VolumeReader, geometry: Geometry) -> None:
        """Find all of the MFT, whose parts may be listed in records of its own.

        Raises:
            CorruptImageError: if it cannot be found.
        """
        self.reader = reader
        self.geometry = geometry
        # All that is known of it until its first record was read.
        unit = geometry.cluster_size
        count = -(-geometry.record_size // unit)
        runs = [(geometry.mft_cluster, count)]
        self.mft = Value("MFT", size=count * unit, initialized=count * unit, runs=runs)
        mft = self.value(layout.RECORD_MFT, layout.DATA)
        if mft is None or not mft.runs or mft.runs[0][0] != geometry.mft_cluster:
            raise CorruptImageError(
                f"MFT: expected it to begin at cluster {geometry.mft_cluster}, as the boot "
                "sector says, found it elsewhere",
                name=geometry.where,
            )
        self.mft = mft

    def record(self, number: int) -> Record:
        """A record that has to be in use.

        Raises:
            CorruptImageError: if it is not.
        """
        record = self._record(number)
        if record is None:
            raise self._corrupt(f"MFT record {number}: expected it in use, found it free")
        return record

    def value(
        self, number: int, kind: int, name: str = "", *, is_whole: bool = True
    ) -> Value | None:
        """An attribute's value; ``None`` if the file has no such attribute.

        Args:
            number: of the file's record.
            kind: the attribute's type.
            name: of the attribute.
            is_whole: or only the first part, if there are several.

        Raises:
            CorruptImageError: if its parts do not fit together.
        """
        found: Value | None = None
        reached = 0
        for attribute in self._parts(number, kind, name):
            if attribute.is_resident:
                content = resident_value(attribute, self.geometry)
                return Value(attribute.what, content=content)
            head, more = extents_of(attribute, self.geometry)
            if head.lowest != reached:
                raise self._corrupt(
                    f"{attribute.what}: expected a part that begins with cluster {reached} of its "
                    f"value, found {head.lowest}"
                )
            if found is None:
                found = _value(attribute, head)
            found.extend(more)
            if len(found.runs) > _RUN_COUNT_MAX:
                raise self._corrupt(f"{attribute.what}: expected fewer runs, found no end of them")
            reached = head.highest + 1
            if number == layout.RECORD_MFT and kind == layout.DATA:
                self.mft = found  # where its next part is may be said in this one
            if not is_whole:
                break
        return found

    def own_extents(self, number: int) -> Iterator[tuple[int, int]]:
        """First cluster and count of all runs that a record has, if it is in use."""
        record = self._record(number)
        for attribute in attributes(record, self.geometry) if record is not None else ():
            if not attribute.is_resident:
                for place, count in extents_of(attribute, self.geometry)[1]:
                    if place != HOLE:
                        yield place, count

    def _record(self, number: int) -> Record | None:
        size = self.geometry.record_size
        data = self.mft.read(self.reader, self.geometry, number * size, size)
        return parse_record(data, number, self.geometry)

    def _parts(self, number: int, kind: int, name: str) -> Iterator[Attribute]:
        """The parts of an attribute, in order."""
        base = self.record(number)
        own = list(attributes(base, self.geometry))
        listed = next((item for item in own if item.kind == layout.ATTRIBUTE_LIST), None)
        if listed is None:
            yield from (item for item in own if item.kind == kind and item.name == name)
            return
        entries = [
            entry
            for entry, entry_name in self._entries(listed)
            if entry.kind == kind and entry_name == name
        ]
        for entry in sorted(entries, key=lambda entry: entry.lowest):
            yield self._listed(entry, base, name)

    def _listed(self, entry: ListEntry, base: Record, name: str) -> Attribute:
        """The part that an entry of an attribute list means."""
        number = entry.reference & layout.REFERENCE_MASK
        record = base if number == base.number else self.record(number)
        is_mine = record is base or record.head.base & layout.REFERENCE_MASK == base.number
        if is_mine and record.head.sequence == entry.reference >> 48:
            for item in attributes(record, self.geometry):
                if item.kind == entry.kind and item.name == name:
                    lowest = 0 if item.is_resident else Extents.unpack(item.data).lowest
                    if lowest == entry.lowest:
                        return item
        raise self._corrupt(
            f"attribute list of MFT record {base.number}: expected a part of attribute "
            f"0x{entry.kind:x} in record {number}, found none"
        )

    def _entries(self, listed: Attribute) -> Iterator[tuple[ListEntry, str]]:
        if listed.is_resident:
            data = resident_value(listed, self.geometry)
        else:
            head, runs = extents_of(listed, self.geometry)
            if head.size > _LIST_BYTES_MAX:
                raise self._corrupt(f"{listed.what}: expected 256 KiB, found {head.size} bytes")
            value = _value(listed, head)
            value.extend(runs)
            data = bytes(value.read(self.reader, self.geometry, 0, head.size))
        position, view = 0, memoryview(data)
        while position + ListEntry.SIZE <= len(data):
            entry = ListEntry.unpack(view[position:])
            start = position + entry.name_offset
            if entry.length < ListEntry.SIZE or entry.lowest < 0:
                raise self._corrupt(f"{listed.what}: expected entries, found {entry}")
            text = data[start : start + 2 * entry.name_length]
            yield entry, text.decode("utf-16-le", errors="replace")
            position += entry.length

    def _corrupt(self, message: str) -> CorruptImageError:
        return CorruptImageError(message, name=self.geometry.where)


def _value(attribute: Attribute, head: Extents) -> Value:
    """One whose runs are added later."""
    return Value(attribute.what, size=head.size, initialized=head.initialized)
