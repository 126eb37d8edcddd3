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
_DAMAGED_MARK: Final = b"BAAD"
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
    size, unit = geometry.record_size, geometry.cluster_size
    end = files.mft.initialized // size * size
    for start in range(0, end, _READ_BYTES):
        data = files.mft.read(files.reader, geometry, start, min(_READ_BYTES, end - start))
        if layout.FILE_MARK not in data and _DAMAGED_MARK not in data:
            continue
        for at in range(0, len(data), size):
            mark = data[at : at + 4]
            number = (start + at) // size
            if mark == _DAMAGED_MARK:
                raise CorruptImageError(
                    f"MFT record {number}: expected no damage, found it marked as damaged",
                    name=geometry.where,
                )
            if mark != layout.FILE_MARK or not data[at + _FLAGS_AT] & layout.IN_USE:
                continue
            record = parse_record(data[at : at + size], number, geometry)
            if record is None:
                continue
            for attribute in attributes(record, geometry):
                if attribute.is_resident:
                    continue
                for place, count in extents_of(attribute, geometry)[1]:
                    if place != HOLE:
                        yield place * unit, count * unit
