"""Checking the structure of a set: all but the chunks themselves, which ``verify`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import CorruptImageError
from imprint.core.events import Finding, Severity
from imprint.formats.ewf.chunks import EntryCache, TableGroup
from imprint.formats.ewf.layout import MAGIC_E01
from imprint.formats.ewf.opening import gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.formats.ewf.chunks import Group
    from imprint.formats.ewf.evidence import Evidence


def check(storage: Storage, opener: Opener, *, magic: bytes = MAGIC_E01) -> Iterator[Finding]:
    """Compare checksums of all structures, tables with their copies, and places with files.

    ``magic`` says which version it is.

    Raises:
        CorruptImageError: if nothing can be made of the image.
    """
    evidence = gather(storage, opener, is_incomplete=True, magic=magic)
    try:
        yield from findings(evidence)
    finally:
        for other in evidence.storages[1:]:
            other.close()


def findings(evidence: Evidence) -> Iterator[Finding]:
    """What is wrong with a set that was read."""
    name = evidence.name
    for fault in evidence.faults:
        yield Finding(Severity.ERROR, name, fault)
    for number in evidence.missing:
        yield Finding(Severity.ERROR, name, f"segment {number} is missing")
    for group in evidence.groups:
        if isinstance(group, TableGroup):
            yield from _table_findings(group)
            yield from _place_findings(evidence, group, group.end)
        else:
            yield from _place_findings(evidence, group, group.storage.size)


def _table_findings(group: TableGroup) -> Iterator[Finding]:
    """Whether both copies of a table are sound, and say the same."""
    where = f"{group.storage.name}: table at 0x{group.copies[0].start:x}"
    sound = []
    for copy in group.copies:
        try:
            table, is_sound = group.read(copy)
        except CorruptImageError as error:
            yield Finding(Severity.ERROR, where, str(error.args[0]))
            continue
        if is_sound:
            sound.append(table)
        else:
            yield Finding(
                Severity.ERROR, where, f"the checksum of the copy at 0x{copy.start:x} is wrong"
            )
    if any(table != sound[0] for table in sound[1:]):
        yield Finding(Severity.ERROR, where, "table and table2 differ, though both are sound")


def _place_findings(evidence: Evidence, group: Group, end: int) -> Iterator[Finding]:
    """Whether all chunks lie inside their file, one behind the other."""
    cache = EntryCache()
    before = 0
    for index in range(group.count):
        chunk = group.first + index
        where = f"chunk {chunk} at 0x{chunk * evidence.geometry.chunk_size:x}"
        try:
            place = group.place(index, cache)
        except CorruptImageError as error:
            if not isinstance(group, TableGroup):  # else it was told with the table
                yield Finding(Severity.ERROR, where, str(error.args[0]))
            return
        if place.pattern:
            continue
        if not before <= place.offset < end:
            yield Finding(
                Severity.ERROR,
                where,
                f"expected a place from 0x{before:x} to 0x{end:x}, found 0x{place.offset:x}",
            )
        else:
            before = place.offset
