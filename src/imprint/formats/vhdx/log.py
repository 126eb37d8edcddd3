"""The log: what has to be replayed before the file can be believed.

An entry is one atomic change: a header, descriptors, and the sectors that they describe. The
entries that count carry the header's log GUID and have consecutive numbers; the newest of
them, the head, names the oldest that is not yet applied, the tail.

Source: [MS-VHDX] section 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.units import align_up
from imprint.filters.overlay import SECTOR_BYTES, OverlayStorage
from imprint.formats.vhdx.header import Headers, read
from imprint.formats.vhdx.layout import (
    FILE_BYTES_MAX,
    DataSector,
    Descriptor,
    EntryHeader,
    Header,
    is_sealed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage

ZERO_SECTORS_MAX: Final = 1 << 18
"""Sectors that all zero descriptors together may name: 1 GiB. They describe metadata only."""

_EFFORT: Final = 4
"""How many times the log's length may be looked at before it is a hostile one."""

_ZERO_SECTOR: Final = bytes(SECTOR_BYTES)


@dataclass(frozen=True)
class Entry:
    """A sound entry of the log; ``data`` is all of it."""

    header: EntryHeader
    data: bytes


@dataclass(frozen=True)
class Replay:
    """What the log says of the file.

    Attributes:
        sectors: their new content by their number, 4 KiB each.
        size: how long the file has to be at least.
    """

    sectors: dict[int, bytes]
    size: int


def view(storage: Storage, headers: Headers) -> Storage:
    """The file as it is after a replay, without writing to it.

    Raises:
        CorruptImageError: as of :func:`replay`.
    """
    if not headers.is_dirty:
        return storage
    found = replay(storage, headers)
    return OverlayStorage(storage, found.sectors, size=found.size)


def replay(storage: Storage, headers: Headers) -> Replay:
    """Find the active sequence and put its changes together.

    A log without any entry of the header's GUID has nothing to say: who opens a file for
    writing may set the GUID first, and be killed then.

    Raises:
        CorruptImageError: if there are entries and no sequence of them is whole.
        TruncatedImageError: if the file is shorter than the log knows it was.
        UnsupportedFeatureError: if it zeroes more than metadata can have.
    """
    header = headers.header
    log = read(storage, header.log_offset, header.log_length)
    sequence = _active(storage.name, log, header)
    if not sequence:
        return Replay({}, storage.size)
    head = sequence[-1].header
    if head.flushed_file_offset > storage.size:
        raise TruncatedImageError(
            f"expected a file of at least {head.flushed_file_offset} bytes, as its log says, "
            f"found {storage.size}",
            name=storage.name,
        )
    if head.last_file_offset > FILE_BYTES_MAX:
        raise CorruptImageError(
            f"the log: expected a file of at most {FILE_BYTES_MAX} bytes, "
            f"found {head.last_file_offset}",
            name=storage.name,
        )
    sectors: dict[int, bytes] = {}
    zeroed = 0
    for entry in sequence:
        for offset, data, length in _changes(entry):
            first = offset // SECTOR_BYTES
            if data:
                sectors[first] = data
                continue
            count = length // SECTOR_BYTES
            zeroed += count
            if zeroed > ZERO_SECTORS_MAX:
                raise UnsupportedFeatureError(
                    f"the log: expected at most {ZERO_SECTORS_MAX} sectors to be zeroed",
                    name=storage.name,
                )
            sectors.update(dict.fromkeys(range(first, first + count), _ZERO_SECTOR))
    return Replay(sectors, max(head.last_file_offset, storage.size))


def _active(name: str, log: bytes, header: Header) -> list[Entry]:
    """The sequence that has to be replayed, oldest entry first."""
    entries, seen = _entries(log, header.log_guid)
    effort = _EFFORT * len(log) // SECTOR_BYTES
    for head in sorted(entries.values(), key=lambda entry: -entry.header.sequence):
        at = head.header.tail
        sequence: list[Entry] = []
        while effort > 0:
            effort -= 1
            entry = entries.get(at)
            if entry is None:
                break
            if sequence and entry.header.sequence != sequence[-1].header.sequence + 1:
                break
            sequence.append(entry)
            if entry is head:
                return sequence
            at = (at + entry.header.length) % len(log)
    if seen:
        raise CorruptImageError(
            "the log has to be replayed: expected a whole sequence of entries, found none",
            name=name,
            offset=header.log_offset,
        )
    return []


def _entries(log: bytes, log_guid: bytes) -> tuple[dict[int, Entry], bool]:
    """All sound entries by their place, and whether there are any, sound or not."""
    found: dict[int, Entry] = {}
    seen = False
    effort = _EFFORT * len(log)
    at = 0
    while at < len(log):
        step = SECTOR_BYTES
        if log.startswith(b"loge", at):
            header = EntryHeader.unpack(log[at : at + EntryHeader.SIZE])
            if header.log_guid == log_guid:
                seen = True
                effort -= header.length
                if _is_plausible(header, len(log)) and effort > 0:
                    end = at + header.length
                    data = log[at:end] + log[: max(0, end - len(log))]
                    entry = Entry(header, data)
                    if is_sealed(data) and _is_whole(entry):
                        found[at] = entry
                        step = header.length
        at += step
    return found, seen


def _is_plausible(header: EntryHeader, log_length: int) -> bool:
    """Whether an entry's header makes sense by itself."""
    return (
        0 < header.length <= log_length
        and header.length % SECTOR_BYTES == 0
        and header.tail < log_length
        and header.tail % SECTOR_BYTES == 0
        and header.sequence > 0
        and descriptor_bytes(header.descriptor_count) <= header.length
    )


def _is_whole(entry: Entry) -> bool:
    """Whether all descriptors and sectors carry the entry's number: a torn one does not."""
    header, data = entry.header, entry.data
    sector_at = descriptor_bytes(header.descriptor_count)
    for descriptor in _descriptors(entry):
        if descriptor.sequence != header.sequence or descriptor.offset % SECTOR_BYTES:
            return False
        if descriptor.offset > FILE_BYTES_MAX:
            return False
        if descriptor.signature == b"zero":
            length = int.from_bytes(descriptor.leading, "little")
            if length % SECTOR_BYTES or length > FILE_BYTES_MAX:
                return False
            continue
        if descriptor.signature != b"desc" or sector_at + SECTOR_BYTES > header.length:
            return False
        sector = DataSector.unpack(data[sector_at : sector_at + SECTOR_BYTES])
        number = sector.sequence_high << 32 | sector.sequence_low
        if sector.signature != b"data" or number != header.sequence:
            return False
        sector_at += SECTOR_BYTES
    return True


def _changes(entry: Entry) -> Iterator[tuple[int, bytes, int]]:
    """Offset in the file, a sector's content (empty: zeros), and length of each change."""
    sector_at = descriptor_bytes(entry.header.descriptor_count)
    for descriptor in _descriptors(entry):
        if descriptor.signature == b"zero":
            yield descriptor.offset, b"", int.from_bytes(descriptor.leading, "little")
            continue
        middle = entry.data[sector_at + 8 : sector_at + SECTOR_BYTES - 4]
        yield descriptor.offset, descriptor.leading + middle + descriptor.trailing, SECTOR_BYTES
        sector_at += SECTOR_BYTES


def _descriptors(entry: Entry) -> Iterator[Descriptor]:
    for index in range(entry.header.descriptor_count):
        at = EntryHeader.SIZE + Descriptor.SIZE * index
        yield Descriptor.unpack(entry.data[at : at + Descriptor.SIZE])


def descriptor_bytes(count: int) -> int:
    """What an entry's header and so many descriptors take up, in whole sectors."""
    return align_up(EntryHeader.SIZE + Descriptor.SIZE * count, SECTOR_BYTES)
