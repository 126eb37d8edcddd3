"""How tables stand in the file."""

from __future__ import annotations

import array
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.formats.qcow2.tables import load, store
from imprint.storage.file import FileStorage

if TYPE_CHECKING:
    from pathlib import Path

KIB: Final = 1 << 10
MIB: Final = 1 << 20
TABLE_BYTES: Final = 2 * MIB
ENTRIES: Final = TABLE_BYTES // 8


@pytest.mark.parametrize("entries", [0, 1, 8192, 8193, ENTRIES])
def test_the_empty_end_of_a_table_takes_up_no_room(tmp_path: Path, entries: int) -> None:
    """Fails if an image with large clusters consists of empty tables, or keeps what was there."""
    path = tmp_path / "image"
    path.write_bytes(b"\xff" * TABLE_BYTES + b"behind")
    table = array.array("Q", [*range(1, entries + 1), *([0] * (ENTRIES - entries))])
    with closing(FileStorage.open(path, writable=True)) as storage:
        store(storage, 0, table)
        storage.flush()
        assert load(storage, 0, TABLE_BYTES) == table
    assert path.read_bytes().endswith(b"behind")
    room = path.stat().st_blocks * 512
    assert room <= entries * 8 + 64 * KIB + 16 * KIB
