"""Walking through the sections of one segment of version 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.formats.ewf.layout import Descriptor, is_sound

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

SECTIONS_MAX: Final = 1 << 18
"""In one segment: three for each 512 MiB of a disk, at worst."""

LAST: Final = ("done", "next")


@dataclass(frozen=True)
class Section:
    """A section of a segment.

    Attributes:
        kind: its type.
        offset: of its descriptor in the segment, in bytes.
        start: where its data begins.
        end: where its data ends, not behind the end of the file.
        is_cut: whether the file ends before the section does.
    """

    kind: str
    offset: int
    start: int
    end: int
    is_cut: bool = False


@dataclass
class Segment:
    """One file of a set, read as far as its sections make sense.

    Attributes:
        storage: the file.
        number: in the set, from 1.
        sections: in the order of the chain.
        is_whole: whether the chain comes to its end.
        is_last: whether that is the end of the set.
        faults: what is wrong with the chain, one sentence each.
    """

    storage: Storage
    number: int
    sections: list[Section] = field(default_factory=list)
    is_whole: bool = False
    is_last: bool = False
    faults: list[str] = field(default_factory=list)


def read_bytes(storage: Storage, start: int, length: int) -> bytes:
    """Bytes of a file; fewer where it ends.

    Raises:
        ReadError: if they cannot be read.
    """
    buffer = bytearray(max(0, min(length, storage.size - start)))
    storage.readinto(memoryview(buffer), start)
    return bytes(buffer)


def walk(segment: Segment, position: int) -> None:
    """Follow the chain of sections that begins at ``position``.

    ``next`` leads on, since sizes are missing in some files. Where both are there and differ,
    two images may have been put into one file: that is noted as a fault.

    Raises:
        CorruptImageError: if there are more sections than any image has.
    """
    storage, faults = segment.storage, segment.faults
    while True:
        if len(segment.sections) == SECTIONS_MAX:
            raise CorruptImageError(f"expected at most {SECTIONS_MAX} sections", name=storage.name)
        data = read_bytes(storage, position, Descriptor.SIZE)
        if len(data) < Descriptor.SIZE:
            faults.append(f"ends at 0x{storage.size:x}, where a section was expected")
            return
        if not is_sound(data):
            faults.append(f"section descriptor at 0x{position:x}: its checksum is wrong")
            return
        descriptor = Descriptor.unpack(data)
        kind = descriptor.type.split(b"\0", 1)[0].decode("ascii", "replace")
        if kind in LAST:
            segment.sections.append(Section(kind, position, position + len(data), position + 76))
            segment.is_whole, segment.is_last = True, kind == "done"
            return
        end = descriptor.next
        if end < position + Descriptor.SIZE:
            faults.append(f"section {kind} at 0x{position:x}: leads back to 0x{end:x}")
            return
        if descriptor.size not in (0, end - position):
            faults.append(
                f"section {kind} at 0x{position:x}: its size says that it ends at "
                f"0x{position + descriptor.size:x}, the next one is at 0x{end:x}"
            )
        start = position + Descriptor.SIZE
        inside = max(start, min(end, storage.size))
        segment.sections.append(Section(kind, position, start, inside, end > storage.size))
        position = end
