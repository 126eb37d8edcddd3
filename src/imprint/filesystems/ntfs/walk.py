"""All that the records of the MFT lead to, found without a look at the bitmap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import MIB
from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.records import HOLE, attributes, extents_of, parse_record
from imprint.filesystems.probes.microsoft import MftRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.ntfs.files import Files

_READ_BYTES: Final = MIB
DAMAGED_MARK: Final = b"BAAD"
_FLAGS_AT: Final = MftRecord.FIELDS["flags"].at


def reached(files: Files) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of the clusters of all files, in bytes of the volume.

    Folders, lists of attributes, security descriptors and the MFT itself are files as well; a
    file that goes on in further records has its clusters named by these, which are met in turn.

    Raises:
        CorruptImageError: if a record or a list of runs makes no sense.
        ReadError: if a part cannot be read.
    """
    geometry = files.geometry
    yield 0, layout.BOOT_BYTES
    unit = geometry.cluster_size
    for number, data in records_in_use(files):
        if data.startswith(DAMAGED_MARK):
            raise CorruptImageError(
                f"MFT record {number}: expected no damage, found it marked as damaged",
                name=geometry.where,
            )
        record = parse_record(data, number, geometry)
        if record is None:
            continue
        for attribute in attributes(record, geometry):
            if attribute.is_resident:
                continue
            for place, count in extents_of(attribute, geometry)[1]:
                if place != HOLE:
                    yield place * unit, count * unit


def records_in_use(files: Files) -> Iterator[tuple[int, bytearray]]:
    """Number and bytes of each record that is in use, or marked as damaged; not yet verified.

    Raises:
        CorruptImageError: if a part of the MFT is not there.
        ReadError: if a part cannot be read.
    """
    geometry = files.geometry
    size = geometry.record_size
    end = files.mft.initialized // size * size
    for start in range(0, end, _READ_BYTES):
        data = files.mft.read(files.reader, geometry, start, min(_READ_BYTES, end - start))
        if layout.FILE_MARK not in data and DAMAGED_MARK not in data:
            continue
        for at in range(0, len(data), size):
            mark = data[at : at + 4]
            is_in_use = mark == layout.FILE_MARK and data[at + _FLAGS_AT] & layout.IN_USE
            if is_in_use or mark == DAMAGED_MARK:
                yield (start + at) // size, data[at : at + size]
