"""Dirty bitmaps that QEMU keeps while it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError, UsageError
from imprint.core.runs import Runs
from imprint.core.units import GIB, KIB, MIB
from imprint.formats.qcow2 import bitmaps, dirty, header
from imprint.storage.file import FileStorage
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

WRITES = [(0, 4 * KIB), (1 * MIB + 512, 512), (3 * MIB, 2 * MIB), (5 * GIB - 64 * KIB, 64 * KIB)]


def with_bitmap(path: Path, *options: str) -> Path:
    """A disk of 5 GiB with a bitmap, and writes to it since."""
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "5G")
    run("qemu-img", "bitmap", "--add", *options, path, "since")
    for offset, length in WRITES:
        run("qemu-io", "-c", f"write -q {offset} {length}", path)
    return path


def written(path: Path, name: str = "since") -> Runs:
    storage = FileStorage.open(path)
    try:
        return dirty.written(storage, name)
    finally:
        storage.close()


@pytest.mark.parametrize("granularity", [4 * KIB, 64 * KIB, 1 * MIB])
def test_what_qemu_wrote_is_told(granularity: int, tmp_path: Path) -> None:
    """Fails if something that was written would not be read again."""
    path = with_bitmap(tmp_path / "disk.qcow2", "-g", str(granularity))
    assert written(path) == Runs.of(WRITES).widened(granularity)


def test_a_bitmap_without_writes_is_empty(tmp_path: Path) -> None:
    """Fails if a disk that nobody wrote to counts as changed."""
    path = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "100M")
    run("qemu-img", "bitmap", "--add", path, "since")
    assert written(path) == Runs.of([])


def test_a_bitmap_that_records_nothing_is_refused(tmp_path: Path) -> None:
    """Fails if what was written while it was switched off counts as unchanged."""
    path = with_bitmap(tmp_path / "disk.qcow2")
    run("qemu-img", "bitmap", "--disable", path, "since")
    with pytest.raises(UnsupportedFeatureError, match="record"):
        written(path)


def test_a_bitmap_that_was_not_saved_is_refused(tmp_path: Path) -> None:
    """Fails if what a machine wrote that lost its power counts as unchanged."""
    path = with_bitmap(tmp_path / "disk.qcow2")
    storage = FileStorage.open(path, writable=True)
    bitmaps.mark_in_use(header.read(storage), storage)
    storage.close()
    with pytest.raises(UnsupportedFeatureError, match="saved"):
        written(path)


def test_an_unknown_bitmap_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    """Fails if a wrong name reads as: nothing was written."""
    path = with_bitmap(tmp_path / "disk.qcow2")
    with pytest.raises(UsageError, match="since"):
        written(path, "other")


@pytest.mark.parametrize(("field", "value"), [("table_size", 7), ("table_offset", 1 << 40)])
def test_a_damaged_bitmap_is_refused(field: str, value: int, tmp_path: Path) -> None:
    """Fails if a table elsewhere is taken for the bitmap's."""
    path = with_bitmap(tmp_path / "disk.qcow2")
    storage = FileStorage.open(path, writable=True)
    (bitmap,) = bitmaps.directory(header.read(storage), storage)
    storage.write(memoryview(bitmap.entry.replace(**{field: value}).pack()), bitmap.offset)
    storage.commit()
    storage.close()
    with pytest.raises(CorruptImageError, match="bitmap table"):
        written(path)
