"""Comparing the tables of a QED with each other and the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.events import Finding, Severity
from imprint.core.tables import read_table
from imprint.core.usage import Usage, findings
from imprint.formats.qed.layout import (
    ENTRY_ABSENT,
    ENTRY_ZERO,
    FEATURE_NEED_CHECK,
    Header,
    read_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage


def check(storage: Storage, *, repair: bool) -> Iterator[Finding]:
    """Everything that can be wrong with tables whose header is sound.

    ``repair`` clears the "need check" mark of an image without errors, and nothing else: which
    of two clusters owns a place cannot be known, and room that is lost does no harm.
    """
    header = read_header(storage)
    usage = Usage(storage, header.cluster_size)
    wrong = 0
    for finding in findings(problems(storage, header, usage)):
        wrong += 1
        yield finding
    if usage.free and not wrong:
        what = f"{usage.free} clusters that nothing refers to"
        yield Finding(Severity.INFO, "the file", what)
    if header.features & FEATURE_NEED_CHECK:
        can_repair = repair and not wrong
        if can_repair:
            features = header.features & ~FEATURE_NEED_CHECK
            storage.write(memoryview(header.replace(features=features).pack()), 0)
            storage.flush()
        yield Finding(
            Severity.WARNING,
            "Header.features at 0x10",
            "the image was not closed properly",
            repaired=can_repair,
        )


def problems(storage: Storage, header: Header, usage: Usage) -> Iterator[tuple[str, str]]:
    """What is wrong with the tables, as where and what; all that they name is taken."""
    usage.take(0, header.header_size * header.cluster_size)
    count, size = header.table_count, header.table_size * header.cluster_size
    problem = usage.take(header.l1_table_offset, size)
    if problem is not None:
        yield "L1 table", problem
    l1 = read_table(storage, header.l1_table_offset, count, "Q", "little")
    for number, offset in enumerate(l1):
        if offset == ENTRY_ABSENT:
            continue
        problem = usage.take(offset, size, whole=True)
        if problem is not None:
            yield f"L1 entry {number}", problem
            continue
        table = read_table(storage, offset, count, "Q", "little")
        for index, entry in enumerate(table):
            if entry in (ENTRY_ABSENT, ENTRY_ZERO):
                continue
            problem = usage.take(entry, header.cluster_size)
            if problem is not None:
                yield f"cluster {number * count + index} of the disk", problem
