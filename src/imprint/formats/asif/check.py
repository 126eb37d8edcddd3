"""Comparing the tables of an ASIF with each other and the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import FormatError
from imprint.core.events import Finding, Severity
from imprint.core.tables import read_table
from imprint.core.usage import Usage, findings
from imprint.formats.asif.layer import AsifLayer, checked_state
from imprint.formats.asif.layout import NUMBER_MASK, STATE_PARTIAL, Header, read_header

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from imprint.core.contracts import Storage


def check(storage: Storage) -> Iterator[Finding]:
    """Everything that can be wrong with the directory that counts, and its tables."""
    header = read_header(storage)
    usage = Usage(storage, header.chunk_size)
    directories = (header.directory_0, header.directory_1)
    end = max(directories) + 8 * (header.table_count + 1)
    usage.take(0, end)
    yield from findings(_problems(storage, header, usage))
    if usage.free:
        what = f"{usage.free} chunks that nothing refers to"
        yield Finding(Severity.INFO, "the file", what)


def _problems(storage: Storage, header: Header, usage: Usage) -> Iterator[tuple[str, str]]:
    size = header.chunk_size
    directory = AsifLayer(storage, header).directory
    count = header.table_count
    piece = 1 << 16  # entries that are looked at in one step: 512 KiB
    for first in range(0, count, piece):
        entries = read_table(
            storage, directory + 8 + 8 * first, min(piece, count - first), "Q", "big"
        )
        if not any(memoryview(entries).cast("B").tobytes().strip(b"\0")):
            continue
        for number, entry in enumerate(entries, first):
            if entry == 0:
                continue
            where = f"table {number}"
            problem = usage.take(entry * size, 8 * header.table_entries, whole=True)
            if problem:
                yield where, problem
                continue
            table = read_table(storage, entry * size, header.table_entries, "Q", "big")
            yield from _wrong_entries(storage, header, usage, number, table)


def _wrong_entries(
    storage: Storage, header: Header, usage: Usage, number: int, table: array[int]
) -> Iterator[tuple[str, str]]:
    group_entries = header.group_chunks + 1
    for start in range(0, len(table), group_entries):
        group = table[start : start + group_entries]
        if not any(group):
            continue
        first = number * header.table_chunks + start // group_entries * header.group_chunks
        bitmap = group[-1] & NUMBER_MASK
        if bitmap and (problem := usage.take(bitmap * header.chunk_size, header.chunk_size)):
            yield f"bitmap of the chunks from {first} on", problem
        for chunk, entry in enumerate(group[:-1], first):
            if entry == 0:
                continue
            where = f"chunk {chunk} of the disk"
            try:
                state = checked_state(entry, chunk, storage.name)
            except FormatError as failure:
                yield where, str(failure.args[0])
                continue
            place = (entry & NUMBER_MASK) * header.chunk_size
            if place and (problem := usage.take(place, header.chunk_size)):
                yield where, problem
            if state == STATE_PARTIAL and not bitmap:
                yield where, "expected a bitmap of its group, found none"
