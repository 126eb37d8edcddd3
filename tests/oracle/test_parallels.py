"""Parallels images against qemu-img: both must see the same disk, and nothing wrong."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprint import formats
from imprint.core.errors import RefusedError, UnsupportedFeatureError
from imprint.core.formats import Checkable, CreateSpec, parse_options
from imprint.core.image import WritableImage
from imprint.core.units import KIB, MIB
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import PendingFile
from imprint.testing import oracles
from imprint.testing.disks import Write, random_writes, writes
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

PARALLELS = formats.get("parallels")
OPENER = DictOpener()
SIZE = 6 * MIB + 5 * 512
FEW = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DISKS = writes(SIZE, length_max=2 * MIB)
CLUSTERS = st.sampled_from(["64K", "1M"])


def ours(path: Path, size: int, **options: str) -> WritableImage:
    """A new image of ours, not committed yet."""
    spec = CreateSpec(size, OPENER, parse_options("parallels", PARALLELS.options, options))
    image = PARALLELS.create(PendingFile.create(path, may_replace=True), spec)
    assert isinstance(image, WritableImage)
    return image


def assert_equal(path: Path, disk: bytes) -> None:
    """qemu-img reads ``disk`` from the image, finds nothing wrong, and sees our map."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    oracles.check(path, "parallels")
    assert oracles.is_equal(raw, path, first_format="raw", second_format="parallels")
    with PARALLELS.open(FileStorage.open(path), OPENER) as image:
        assert oracles.our_data(image) == oracles.qemu_data(path, "parallels")
        assert image.read_at(0, image.size) == disk


@FEW
@given(drawn=DISKS, cluster_size=CLUSTERS)
def test_we_read_what_qemu_wrote(tmp_path: Path, drawn: list[Write], cluster_size: str) -> None:
    """Fails if any cluster is read from the wrong place, or a hole is called data."""
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.hds"
    disk = oracles.paint(SIZE, drawn)
    raw.write_bytes(disk)
    oracles.convert(raw, path, "parallels", options={"cluster_size": cluster_size})
    with PARALLELS.open(FileStorage.open(path), OPENER) as image:
        assert image.size == SIZE
        assert image.read_at(0, SIZE) == disk
        assert oracles.our_data(image) == oracles.qemu_data(path, "parallels")
    storage = FileStorage.open(path)
    assert isinstance(PARALLELS, Checkable)
    assert not list(PARALLELS.check(storage, OPENER, repair=False))
    storage.close()


@FEW
@given(drawn=DISKS, cluster_size=CLUSTERS)
def test_qemu_reads_what_we_wrote(tmp_path: Path, drawn: list[Write], cluster_size: str) -> None:
    """Fails if our table is inconsistent, or the bytes differ."""
    path = tmp_path / "disk.hds"
    image = ours(path, SIZE, cluster_size=cluster_size)
    for offset, length, byte in reversed(drawn):
        image.write(memoryview(bytes([byte]) * length), offset)
    image.commit()
    image.close()
    assert_equal(path, oracles.paint(SIZE, reversed(drawn)))


def test_both_can_change_what_the_other_made(tmp_path: Path) -> None:
    """Fails if one of us takes a cluster that the other one uses for a free one."""
    path = tmp_path / "disk.hds"
    oracles.create(path, SIZE, "parallels", options={"cluster_size": 64 * KIB})
    disk = bytearray(SIZE)
    for turn in range(6):
        for write in random_writes(random.Random(turn), SIZE, count=3, grain=512):
            disk[write.offset : write.offset + write.length] = bytes([write.byte]) * write.length
            if turn % 2:
                command = f"write -P {write.byte} {write.offset} {write.length}"
                oracles.qemu_io(path, "parallels", command)
                continue
            with PARALLELS.edit(FileStorage.open(path, writable=True), OPENER) as image:
                image.write(memoryview(bytes([write.byte]) * write.length), write.offset)
                start = write.offset // 2
                image.zero(start, 200 * KIB)
                disk[start : start + 200 * KIB] = bytes(200 * KIB)
                image.flush()
        assert_equal(path, bytes(disk))


def test_qemu_reads_what_we_resized(tmp_path: Path) -> None:
    """Fails if header and table disagree after the size was changed."""
    path = tmp_path / "disk.hds"
    image = ours(path, SIZE, cluster_size="64K")
    image.write(memoryview(b"\x11" * SIZE), 0)
    image.resize(SIZE + 40 * MIB)
    image.write(memoryview(b"\x22" * MIB), SIZE + 20 * MIB)
    image.resize(SIZE + 20 * MIB + 512)
    image.commit()
    image.close()
    assert_equal(path, b"\x11" * SIZE + bytes(20 * MIB) + b"\x22" * 512)


def test_a_table_without_room_is_refused_by_name(tmp_path: Path) -> None:
    """Fails if growing overwrites data with the table."""
    path = tmp_path / "disk.hds"
    image = ours(path, 64 * KIB, cluster_size="512")
    image.write(memoryview(b"\x11" * 64 * KIB), 0)
    with pytest.raises(UnsupportedFeatureError, match="room for a table"):
        image.resize(64 * MIB)
    image.commit()
    image.close()
    assert_equal(path, b"\x11" * 64 * KIB)


def test_an_image_that_was_not_closed_is_read_and_repaired(tmp_path: Path) -> None:
    """Fails if it is written as it is, or the mark of a sound image cannot be cleared."""
    path = tmp_path / "disk.hds"
    raw = tmp_path / "disk.raw"
    raw.write_bytes(b"\x55" * MIB)
    oracles.convert(raw, path, "parallels")
    content = bytearray(path.read_bytes())
    content[0x2C:0x30] = b"Ynot"
    storage = MemoryStorage(bytes(content), name="disk.hds")
    image = PARALLELS.open(storage, OPENER)
    assert image.read_at(0, MIB) == b"\x55" * MIB
    assert any("not closed" in note for note in image.info().notes)
    with pytest.raises(RefusedError, match="not closed"):
        PARALLELS.edit(storage, OPENER)
    assert isinstance(PARALLELS, Checkable)
    findings = list(PARALLELS.check(storage, OPENER, repair=True))
    assert [found.repaired for found in findings] == [True]
    PARALLELS.edit(storage, OPENER)
    path.write_bytes(bytes(storage.content))
    assert_equal(path, b"\x55" * MIB)
