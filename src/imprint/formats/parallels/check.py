"""Comparing the table of a Parallels image with itself, the header and the file's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.events import Finding, Severity
from imprint.formats.parallels.layer import read_image
from imprint.formats.parallels.layout import IN_USE, Header
from imprint.formats.parallels.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage

FINDINGS_MAX: Final = 1000
"""Clusters that are named one by one; a table of garbage would name millions."""


def check(storage: Storage, *, repair: bool) -> Iterator[Finding]:
    """Everything that can be wrong with a table whose header is sound.

    ``repair`` clears the "in use" mark of an image without errors, and nothing else: which
    of two clusters owns a place cannot be known.
    """
    header, bat = read_image(storage)
    slots = Slots(storage, header)
    wrong = 0
    for index, problem in slots.take_all(bat.entries):
        wrong += 1
        if wrong <= FINDINGS_MAX:
            where = f"cluster {index}, table entry at 0x{Header.SIZE + 4 * index:x}"
            yield Finding(Severity.ERROR, where, problem)
    if wrong > FINDINGS_MAX:
        rest = f"and {wrong - FINDINGS_MAX} more clusters without a place of their own"
        yield Finding(Severity.ERROR, "table", rest)
    used = slots.taken.count(1)
    end = slots.position(slots.taken.rfind(1) + 1)
    if used and storage.size < end:
        what = f"expected a file of at least {end} bytes, found {storage.size}"
        yield Finding(Severity.WARNING, "last cluster", what)
    free = len(slots.taken) - used
    if free and not header.extension_sector:  # extensions have clusters that no entry names
        what = f"{free} clusters that nothing refers to; they are used when the image changes"
        yield Finding(Severity.INFO, f"clusters from 0x{slots.base:x} on", what)
    if header.in_use == IN_USE:
        can_repair = repair and not wrong
        if can_repair:
            storage.write(memoryview(header.replace(in_use=0).pack()), 0)
            storage.flush()
        yield Finding(
            Severity.WARNING,
            "Header.in_use at 0x2c",
            "the image is in use, or was not closed properly",
            repaired=can_repair,
        )
