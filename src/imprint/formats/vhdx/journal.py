"""Changing the file so that it is old or new at any moment: headers by turns, tables by the log."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import align_down
from imprint.filters.overlay import SECTOR_BYTES
from imprint.formats.vhdx.header import Headers, check_log
from imprint.formats.vhdx.layout import (
    ALIGNMENT,
    HEADER_OFFSETS,
    NO_GUID,
    DataSector,
    Descriptor,
    EntryHeader,
    Header,
    sealed,
)
from imprint.formats.vhdx.log import descriptor_bytes, replay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.core.contracts import Storage

_RUN_MAX: Final = 256
"""Sectors in one write: 1 MiB."""


class HeaderPair:
    """The two headers: the one that does not count is overwritten, and counts then."""

    def __init__(self, storage: Storage, headers: Headers) -> None:
        self._storage = storage
        self._slot = headers.slot
        self._sequence = headers.header.sequence
        self.header = headers.header

    def update(self, **changes: Any) -> None:  # noqa: ANN401 - as of Structure.replace
        """Change members of the header; all that was written before is durable as well.

        If it fails, the old header counts, or the new one: the next update writes to the
        same place again, so that one of the two is sound whatever happens.
        """
        self._sequence += 1
        header = self.header.replace(sequence=self._sequence, **changes)
        other = 1 - self._slot
        self._storage.write(memoryview(seal_header(header)), HEADER_OFFSETS[other])
        self._storage.flush()
        self._slot, self.header = other, header

    def renumber(self) -> None:
        """Give both headers the numbers of a new image, however often they have changed.

        Nobody may need the log any more: both say the same then, so that either may count.
        The one that does not is written first, and is sound while the other one is written.
        """
        for _ in HEADER_OFFSETS:
            other = 1 - self._slot
            numbered = self.header.replace(sequence=other + 1)
            self._storage.write(memoryview(seal_header(numbered)), HEADER_OFFSETS[other])
            self._storage.flush()
            self._slot = other
        self._slot = len(HEADER_OFFSETS) - 1
        self._sequence = self._slot + 1
        self.header = self.header.replace(sequence=self._sequence)


class Journal:
    """Writes sectors of tables through the log.

    1. The entry is written, and flushed with the data that the tables will refer to.
    2. A header that has the entry's GUID: from now on the change counts; flush.
    3. The sectors are written to their place; flush.
    4. A header without a GUID: the log may be used again; flush.
    """

    def __init__(self, storage: Storage, headers: HeaderPair) -> None:
        """Raises CorruptImageError if the log cannot be written."""
        check_log(storage, headers.header, HEADER_OFFSETS[0])
        self._storage = storage
        self._headers = headers
        self._begun: tuple[bytes, Mapping[int, bytes]] | None = None

    @property
    def sectors_max(self) -> int:
        """How many sectors one entry can hold: they change together, or not at all."""
        count = self._headers.header.log_length // SECTOR_BYTES
        while descriptor_bytes(count) + count * SECTOR_BYTES > self._headers.header.log_length:
            count -= 1
        return count

    def commit(self, sectors: Mapping[int, bytes]) -> None:
        """Change sectors of the file, by their offset; durable when this returns.

        More than ``sectors_max`` of them change in several steps, lower offsets first. An
        error leaves what was begun to the next call.
        """
        self.finish()
        offsets = sorted(sectors)
        size = self.sectors_max
        for start in range(0, len(offsets), size):
            part = {offset: sectors[offset] for offset in offsets[start : start + size]}
            header = self._headers.header
            # Never the same twice, and reproducible where the image's own GUIDs are.
            parent = uuid.UUID(bytes_le=header.data_write_guid)
            log_guid = uuid.uuid5(parent, f"log {header.sequence}").bytes_le
            entry = pack_entry(part, log_guid, header.sequence + 1, self._storage.size)
            self._storage.write(memoryview(entry), header.log_offset)
            self._storage.flush()
            self._begun = (log_guid, part)
            self.finish()

    def finish(self) -> None:
        """Let the entry that was written count, and apply it; also after an error in between."""
        if self._begun is None:
            return
        log_guid, sectors = self._begun
        if self._headers.header.log_guid != log_guid:
            self._headers.update(log_guid=log_guid)
        write_sectors(self._storage, sectors)
        self._headers.update(log_guid=NO_GUID)
        self._begun = None

    def clear(self) -> None:
        """Remove what entries have left in the log, durably, and number the headers anew.

        It is the end of a new image: how often its tables were written does not show.
        """
        self.finish()
        header = self._headers.header
        self._storage.zero(header.log_offset, header.log_length)
        self._storage.flush()
        self._headers.renumber()


def write_sectors(storage: Storage, sectors: Mapping[int, bytes]) -> None:
    """Write sectors to their offsets, neighbours at once; durable when this returns."""
    run: list[bytes] = []
    start = 0
    for offset in sorted(sectors):
        is_next = offset == start + SECTOR_BYTES * len(run)
        if run and (not is_next or len(run) == _RUN_MAX):
            storage.write(memoryview(b"".join(run)), start)
            run = []
        if not run:
            start = offset
        run.append(sectors[offset])
    if run:
        storage.write(memoryview(b"".join(run)), start)
    storage.flush()


def pack_entry(sectors: Mapping[int, bytes], log_guid: bytes, number: int, size: int) -> bytes:
    """One log entry for whole sectors, by their offset in a file of ``size`` bytes."""
    descriptors, data = [], []
    for offset, sector in sectors.items():
        assert len(sector) == SECTOR_BYTES
        descriptors.append(
            Descriptor(
                signature=b"desc",
                trailing=sector[-4:],
                leading=sector[:8],
                offset=offset,
                sequence=number,
            ).pack()
        )
        data.append(
            DataSector(
                signature=b"data",
                sequence_high=number >> 32,
                data=sector[8:-4],
                sequence_low=number & 0xFFFFFFFF,
            ).pack()
        )
    before = descriptor_bytes(len(sectors))
    header = EntryHeader(
        signature=b"loge",
        length=before + SECTOR_BYTES * len(sectors),
        tail=0,
        sequence=number,
        descriptor_count=len(sectors),
        log_guid=log_guid,
        flushed_file_offset=align_down(size, ALIGNMENT),
        last_file_offset=align_down(size, ALIGNMENT),
    )
    head = (header.pack() + b"".join(descriptors)).ljust(before, b"\0")
    return sealed(head + b"".join(data))


def seal_header(header: Header) -> bytes:
    """A header as it stands in the file."""
    return sealed(header.replace(signature=b"head").pack())


def replay_to_file(storage: Storage, headers: Headers) -> HeaderPair:
    """Apply the log to the file itself, durably; gives the headers, now without a log.

    Killed at any moment, the log is still there and is replayed again.

    Raises:
        CorruptImageError: as of :func:`~imprint.formats.vhdx.log.replay`.
    """
    pair = HeaderPair(storage, headers)
    if not headers.is_dirty:
        return pair
    found = replay(storage, headers)
    log_offset, log_end = headers.header.log_offset, headers.header.log_length
    log_end += log_offset
    for number in found.sectors:
        offset = number * SECTOR_BYTES
        in_headers = offset < HEADER_OFFSETS[1] + Header.SIZE
        if in_headers or log_offset <= offset < log_end:
            raise CorruptImageError(
                f"the log: expected changes of tables, found one at 0x{offset:x}",
                name=storage.name,
                offset=offset,
            )
    if found.size > storage.size:
        storage.resize(found.size)
    changed = {number * SECTOR_BYTES: data for number, data in found.sectors.items()}
    write_sectors(storage, changed)
    pair.update(log_guid=NO_GUID)
    return pair
