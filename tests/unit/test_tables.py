"""Tables that are held whole: what is written back, and how runs are counted."""

from __future__ import annotations

import random
import struct
from array import array
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import TargetError
from imprint.core.tables import (
    PAGE_BYTES,
    STEP_RUN_MAX,
    WRITE_PAGES_MAX,
    PagedTable,
    run_length,
)
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage, RecordingStorage

if TYPE_CHECKING:
    from imprint.core.tables import ByteOrder, EntryCode

CODES: list[EntryCode] = ["H", "I", "Q"]


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("code", CODES)
def test_what_has_changed_is_in_the_file_and_nothing_else(
    code: EntryCode, byteorder: ByteOrder
) -> None:
    """Fails if a page is forgotten, written elsewhere, or written without a reason."""
    randomness, count = random.Random(1), 9000
    mark = "<" if byteorder == "little" else ">"
    size = struct.calcsize(code)
    per_page = PAGE_BYTES // size
    table = PagedTable(array(code, [7]) * count, byteorder)
    storage = RecordingStorage(bytes(100 + count * size))
    expected = [7] * count
    changed = {0, count - 1, *(randomness.randrange(count) for _ in range(3))}
    for index in changed:
        table.set(index, index + 1)
        expected[index] = index + 1
    table.fill(per_page - 2, 4, 9)
    expected[per_page - 2 : per_page + 2] = [9] * 4
    changed.update((per_page - 2, per_page + 1))
    table.write_back(storage, 100)
    pages = {index // per_page for index in changed}
    assert sum(operation.length for operation in storage.operations) <= len(pages) * PAGE_BYTES
    content = bytes(storage.replay(len(storage.operations)).content)
    found = struct.unpack_from(f"{mark}{count}{code}", content, 100)
    for page in range(-(-count // per_page)):
        piece = found[page * per_page : (page + 1) * per_page]
        before = (0,) * len(piece)
        after = tuple(expected[page * per_page : (page + 1) * per_page])
        assert piece == (after if page in pages else before)
    assert not table.dirty


def test_neighbours_are_written_at_once_and_large_tables_by_pieces() -> None:
    """Fails if each page costs a write, or a table of gigabytes is copied for one."""
    count = (WRITE_PAGES_MAX + 3) * PAGE_BYTES // 8
    table = PagedTable(array("Q", [0]) * count, "little")
    storage = RecordingStorage()
    table.fill(0, count, 1)
    table.write_back(storage, 0)
    one_mib = WRITE_PAGES_MAX * PAGE_BYTES
    assert [item.length for item in storage.operations] == [one_mib, 3 * PAGE_BYTES]
    table.write_all(storage, 0, start=5)
    assert [item.offset for item in storage.operations[2:]] == [40, 40 + one_mib]
    assert sum(item.length for item in storage.operations[2:]) == 8 * (count - 5)


def test_pages_behind_an_error_stay_dirty() -> None:
    """Fails if a page that was not written is not written later either."""
    table = PagedTable(array("I", [0]) * 5000, "big")
    for index in (0, 2048, 4999):
        table.set(index, index + 1)
    storage = MemoryStorage()
    with pytest.raises(TargetError):
        table.write_back(FaultyStorage(storage, fail_at=1), 0)
    table.write_back(storage, 0)
    found = struct.unpack_from(">5000I", storage.content)
    assert [found[index] for index in (0, 2048, 4999)] == [1, 2049, 5000]


def test_resizing_makes_what_is_new_dirty_and_forgets_what_is_gone() -> None:
    """Fails if new entries never reach the file, or pages behind the end are written."""
    table = PagedTable(array("I", [5]) * 3000, "little")
    table.resize(2000, 0)
    assert not table.dirty
    table.resize(2100, 6)
    assert list(table.entries[1998:2002]) == [5, 5, 6, 6]
    assert table.dirty == {1, 2}  # entries 2000 to 2099, 1024 on a page
    table.resize(2048, 0)
    assert table.dirty == {1}
    assert len(table) == 2048


@pytest.mark.parametrize("length", [1, 7, 8, 9, 1023, 1024, 1025, 3000, 5000])
@pytest.mark.parametrize("step", [0, 3])
def test_runs_end_where_entries_stop_to_go_on(length: int, step: int) -> None:
    """Fails if a run is cut off, or counts an entry that is another one."""
    run = [100 + step * index for index in range(length)]
    table = array("I", [1, 2, *run, 50, 50])
    expected = min(length, STEP_RUN_MAX) if step else length
    assert run_length(table, 2, len(table), step=step) == expected
    for limit in (1, length // 2 or 1, length):
        assert run_length(table, 2, limit, step=step) == min(limit, expected)
