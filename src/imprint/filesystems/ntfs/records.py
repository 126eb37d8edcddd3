"""Records of the MFT: their update sequence, their attributes, and lists of runs."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.filesystems.ntfs.layout import (
    ATTRIBUTES_END,
    FILE_MARK,
    IN_USE,
    STRIDE,
    Extents,
)
from imprint.filesystems.probes.microsoft import MftAttribute, MftRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.ntfs.geometry import Geometry

HOLE: Final = -1
"""In place of a cluster: the run is not allocated, and reads as zeros."""

_FIXUPS: Final = struct.Struct("<4xHH")
_HEAD: Final = struct.Struct("<IIBBH")
"""Of an attribute: type, length, whether its value is in clusters, length and offset of its name.

As numbers and not as a structure: a volume has millions of them.
"""


class Attribute(NamedTuple):
    """An attribute, or the part of one that a record has.

    Attributes:
        kind: its type.
        name: mostly empty.
        is_resident: whether its value is here, and not in clusters.
        data: all of it, from its head on.
        what: for errors.
    """

    kind: int
    name: str
    is_resident: bool
    data: memoryview
    what: str


class Record(NamedTuple):
    """A record that is in use.

    Attributes:
        number: of the record.
        head: its head.
        data: all of it, the update sequence undone.
    """

    number: int
    head: MftRecord
    data: memoryview


def unprotected(data: bytearray, mark: bytes, what: str, name: str) -> memoryview:
    """Put back the last two bytes of each 512, which a structure keeps in its update sequence.

    Raises:
        CorruptImageError: if the structure has another mark, or was not written as a whole.
    """
    if data[:4] != mark:
        raise CorruptImageError(
            f"{what}: expected the mark {mark.decode()}, found 0x{data[:4].hex()}", name=name
        )
    offset, count = _FIXUPS.unpack_from(data)
    end = offset + 2 * count
    if count != len(data) // STRIDE + 1 or end > STRIDE - 2 or offset % 2:
        raise CorruptImageError(
            f"{what}: expected an update sequence of {len(data) // STRIDE + 1} numbers, "
            f"found {count} at {offset}",
            name=name,
        )
    number = data[offset : offset + 2]
    for at in range(STRIDE - 2, len(data), STRIDE):
        if data[at : at + 2] != number:
            raise CorruptImageError(
                f"{what}: expected 0x{number.hex()} at the end of each {STRIDE} bytes, found "
                f"0x{data[at : at + 2].hex()} at {at}: it was not written as a whole",
                name=name,
            )
        offset += 2
        data[at : at + 2] = data[offset : offset + 2]
    return memoryview(data)


def parse_record(data: bytearray, number: int, geometry: Geometry) -> Record | None:
    """A record from its bytes; ``None`` if it is not in use.

    Raises:
        CorruptImageError: if its head makes no sense.
    """
    what = f"MFT record {number}"
    view = unprotected(data, FILE_MARK, what, geometry.where)
    head = MftRecord.unpack(view)
    if not head.flags & IN_USE:
        return None
    if not MftRecord.SIZE <= head.attributes_offset < head.used <= len(view):
        raise CorruptImageError(
            f"{what}: expected attributes inside of it, found them from {head.attributes_offset} "
            f"to {head.used}",
            name=geometry.where,
        )
    return Record(number, head, view)


def attributes(record: Record, geometry: Geometry) -> Iterator[Attribute]:
    """All that a record has.

    Raises:
        CorruptImageError: if one of them goes beyond the record.
    """
    data, position = record.data, record.head.attributes_offset
    while position + 4 <= record.head.used:
        kind = int.from_bytes(data[position : position + 4], "little")
        if kind == ATTRIBUTES_END:
            return
        what = f"attribute 0x{kind:x} of MFT record {record.number}"
        if position + MftAttribute.SIZE > record.head.used:
            break
        _, length, is_elsewhere, name_length, name_offset = _HEAD.unpack_from(data, position)
        end = position + length
        if (
            length < MftAttribute.SIZE
            or end > record.head.used
            or name_offset + 2 * name_length > length
            or is_elsewhere > 1
        ):
            raise CorruptImageError(
                f"{what}: expected it to end inside of the record, found {length} bytes",
                name=geometry.where,
            )
        part = data[position:end]
        name = ""
        if name_length:
            text = bytes(part[name_offset : name_offset + 2 * name_length])
            name = text.decode("utf-16-le", errors="replace")
        yield Attribute(kind, name, is_elsewhere == 0, part, what)
        position = end
    raise CorruptImageError(
        f"MFT record {record.number}: expected the end of its attributes, found none",
        name=geometry.where,
    )


def resident_value(attribute: Attribute, geometry: Geometry) -> bytes:
    """The value of an attribute that is in its record.

    Raises:
        CorruptImageError: if it goes beyond the attribute.
    """
    head = MftAttribute.unpack(attribute.data)
    end = head.value_offset + head.value_length
    if head.value_offset < MftAttribute.SIZE or end > len(attribute.data):
        raise CorruptImageError(
            f"{attribute.what}: expected a value of {head.value_length} bytes inside of it",
            name=geometry.where,
        )
    return bytes(attribute.data[head.value_offset : end])


def extents_of(attribute: Attribute, geometry: Geometry) -> tuple[Extents, list[tuple[int, int]]]:
    """The head of a value that is in clusters, and its ``(first cluster or HOLE, count)``.

    Raises:
        CorruptImageError: if they are not in the volume, or not as many as the head says.
    """
    head = Extents.unpack(attribute.data, where=geometry.where)
    runs = runs_of(bytes(attribute.data[head.runs_offset :]), attribute.what, geometry)
    count = sum(count for _, count in runs)
    if (
        head.lowest < 0
        or head.runs_offset < Extents.SIZE
        or head.highest - head.lowest + 1 != count
    ):
        raise CorruptImageError(
            f"{attribute.what}: expected runs for clusters {head.lowest} to {head.highest} of "
            f"its value, found {count} clusters",
            name=geometry.where,
        )
    return head, runs


def runs_of(pairs: bytes, what: str, geometry: Geometry) -> list[tuple[int, int]]:
    """Decode a list: each run begins with the widths of its length and of the way to it.

    Args:
        pairs: the list; what follows its end mark does not matter.
        what: has it, for errors.
        geometry: of the volume.

    Raises:
        CorruptImageError: if it does not end, or leads out of the volume.
    """
    runs: list[tuple[int, int]] = []
    position = cluster = 0
    while position < len(pairs):
        widths = pairs[position]
        if widths == 0:
            return runs
        middle = position + 1 + (widths & 15)
        end = middle + (widths >> 4)
        count = int.from_bytes(pairs[position + 1 : middle], "little", signed=True)
        place = HOLE
        if end > middle:
            cluster += int.from_bytes(pairs[middle:end], "little", signed=True)
            place = cluster  # before Windows 2000, holes were at -1
        is_inside = HOLE < place <= geometry.cluster_count - count or place == HOLE
        if count <= 0 or end > len(pairs) or end - position > 17 or not is_inside:
            break
        runs.append((place, count))
        position = end
    raise CorruptImageError(
        f"{what}: expected runs of clusters below {geometry.cluster_count}, found "
        f"0x{pairs[position : position + 17].hex()}",
        name=geometry.where,
    )
