"""VHDX against qemu-img: both must see the same disk, and nothing wrong.

qemu-img reads and writes dynamic and fixed images with sectors of 512 bytes, and replays a
log with ``check -r all``. It refuses parents and sectors of 4096 bytes: these are judged by
arithmetic in ``tests/formats/vhdx``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprint import formats
from imprint.core.events import Severity
from imprint.core.formats import Checkable, CreateSpec, parse_options
from imprint.core.image import WritableImage
from imprint.core.units import GIB, MIB
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile
from imprint.testing import oracles
from imprint.testing.disks import Write, writes
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

VHDX = formats.get("vhdx")
OPENER = DictOpener()
SIZE = 9 * MIB + 5 * 512
FEW = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DISKS = writes(SIZE, length_max=2 * MIB)
SUBFORMATS = st.sampled_from(["dynamic", "fixed"])


def ours(path: Path, size: int, **options: str) -> WritableImage:
    """A new image of ours, not committed yet."""
    spec = CreateSpec(size, OPENER, parse_options("vhdx", VHDX.options, options))
    image = VHDX.create(PendingFile.create(path, may_replace=True), spec)
    assert isinstance(image, WritableImage)
    return image


def theirs(path: Path, disk: bytes, **options: object) -> None:
    """An image that qemu-img made of ``disk``."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    oracles.convert(raw, path, "vhdx", options=options)


def assert_equal(path: Path, disk: bytes) -> None:
    """qemu-img and we read ``disk`` from the image, and find nothing wrong."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    oracles.check(path, "vhdx")
    assert oracles.is_equal(raw, path, first_format="raw", second_format="vhdx")
    assert isinstance(VHDX, Checkable)
    with VHDX.open(FileStorage.open(path), OPENER) as image:
        assert image.read_at(0, image.size) == disk
        found = VHDX.check(FileStorage.open(path), OPENER, repair=False)
        assert [each for each in found if each.severity is not Severity.INFO] == []


@FEW
@given(drawn=DISKS, subformat=SUBFORMATS, data=st.data())
def test_we_read_what_qemu_wrote(
    tmp_path: Path, drawn: list[Write], subformat: str, data: st.DataObject
) -> None:
    """Fails if any block is read from the wrong place, or a state is taken for another."""
    path = tmp_path / "disk.vhdx"
    disk = oracles.paint(SIZE, drawn)
    block_size = data.draw(st.sampled_from([MIB, 2 * MIB, 8 * MIB]))
    theirs(path, disk, subformat=subformat, block_size=block_size)
    with VHDX.open(FileStorage.open(path), OPENER) as image:
        assert image.size == SIZE
        assert image.read_at(0, SIZE) == disk
        assert image.info().options["subformat"] == subformat
        assert image.info().options["block_size"] == block_size


@FEW
@given(drawn=DISKS, subformat=SUBFORMATS, state=st.sampled_from(["on", "off"]))
def test_qemu_reads_what_we_wrote(
    tmp_path: Path, drawn: list[Write], subformat: str, state: str
) -> None:
    """Fails if a checksum, a table or a byte is wrong."""
    path = tmp_path / "disk.vhdx"
    image = ours(path, SIZE, subformat=subformat, block_state_zero=state)
    oracles.write_all(image, drawn)
    image.commit()
    assert_equal(path, oracles.paint(SIZE, drawn))


@FEW
@given(
    drawn=DISKS,
    changes=writes(SIZE, length_max=3 * MIB, with_zeros=True),
    subformat=SUBFORMATS,
)
def test_qemu_reads_what_we_changed(
    tmp_path: Path, drawn: list[Write], changes: list[Write], subformat: str
) -> None:
    """Fails if editing an image of QEMU's leaves it with a double place or wrong bytes."""
    path = tmp_path / "disk.vhdx"
    theirs(path, oracles.paint(SIZE, drawn), subformat=subformat, block_size=MIB)
    with oracles.edited(VHDX, path) as image:
        oracles.write_all(image, changes)
    assert_equal(path, oracles.paint(SIZE, drawn + changes))


@FEW
@given(drawn=DISKS, size=st.integers(1, 300).map(lambda count: count * 64 * 1024))
def test_qemu_reads_what_we_resized(tmp_path: Path, drawn: list[Write], size: int) -> None:
    """Fails if blocks behind the new end stay, or the tail of the last one comes back."""
    path = tmp_path / "disk.vhdx"
    disk = oracles.paint(SIZE, drawn)
    theirs(path, disk, block_size=MIB)
    with oracles.edited(VHDX, path) as image:
        image.resize(size)
    assert_equal(path, disk[:size].ljust(size, b"\0"))


def test_a_table_that_outgrew_its_region_is_where_qemu_looks(tmp_path: Path) -> None:
    """Fails if the BAT moves and the region tables, or the interleaved entries, do not follow."""
    path = tmp_path / "disk.vhdx"
    image = ours(path, 100 * GIB)
    image.write(memoryview(b"\x11" * 1000), 99 * GIB)
    image.flush()
    image.resize(300 * GIB)
    image.write(memoryview(b"\x22" * 1000), 5 * MIB)
    image.write(memoryview(b"\x33" * 1000), 299 * GIB)
    image.commit()
    oracles.check(path, "vhdx")
    reads = ("read -P 0x11 99G 1000", "read -P 0x22 5M 1000", "read -P 0x33 299G 1000")
    oracles.qemu_io(path, "vhdx", *reads, "read -P 0 200G 4M", writable=False)
    assert oracles.info(path, "vhdx")["virtual-size"] == 300 * GIB


def test_we_read_what_qemu_changed_in_our_image(tmp_path: Path) -> None:
    """Fails if QEMU cannot write through the log that we made, or takes a place that we use."""
    path = tmp_path / "disk.vhdx"
    image = ours(path, SIZE)
    for index in (7, 2, 5):
        image.write(memoryview(bytes([index]) * 1000), index * MIB)
    image.flush()
    image.zero(2 * MIB, MIB)
    image.commit()
    oracles.qemu_io(path, "vhdx", "write -P 0xaa 3M 1M", "write -P 0xbb 4000K 200K", "flush")
    drawn = [(index * MIB, 1000, index) for index in (7, 5)]
    drawn += [(3 * MIB, MIB, 0xAA), (4000 * 1024, 200 * 1024, 0xBB)]
    assert_equal(path, oracles.paint(SIZE, drawn))


@pytest.mark.parametrize("size", [512, MIB - 512, MIB, MIB + 512, 70 * GIB])
def test_sizes_of_all_kinds_are_the_same_for_both(tmp_path: Path, size: int) -> None:
    """Fails if a disk that is no whole number of blocks has another size for one of us."""
    path = tmp_path / "disk.vhdx"
    image = ours(path, size)
    image.write(memoryview(b"\x0f" * 512), size - 512)
    image.commit()
    assert oracles.info(path, "vhdx")["virtual-size"] == size
    oracles.check(path, "vhdx")
    oracles.qemu_io(path, "vhdx", f"read -P 0x0f {size - 512} 512", writable=False)
    oracles.create(path, size, "vhdx")
    with VHDX.open(FileStorage.open(path), OPENER) as opened:
        assert opened.size == size


@pytest.mark.parametrize("block_size", ["1M", "64M", "256M"])
def test_blocks_of_all_sizes_are_found_by_qemu(tmp_path: Path, block_size: str) -> None:
    """Fails if the chunk ratio is wrong: entries behind the first 4 GiB would be off by one."""
    path = tmp_path / "disk.vhdx"
    image = ours(path, 13 * GIB, block_size=block_size)
    if block_size == "1M":
        for index in range(3):
            image.write(memoryview(bytes([7 + index]) * 512), (4 * index + 4) * GIB - 512)
            image.write(memoryview(bytes([70 + index]) * 512), (4 * index + 4) * GIB)
    image.commit()
    if block_size != "1M":
        for index in range(3):
            at = (4 * index + 4) * GIB
            qemu = (f"write -P {7 + index} {at - 512} 512", f"write -P {70 + index} {at} 512")
            oracles.qemu_io(path, "vhdx", *qemu)
    with VHDX.open(FileStorage.open(path), OPENER) as opened:
        for index in range(3):
            border = (4 * index + 4) * GIB
            expected = bytes([7 + index]) * 512 + bytes([70 + index]) * 512
            assert opened.read_at(border - 512, 1024) == expected
            oracles.qemu_io(path, "vhdx", f"read -P {7 + index} {border - 512} 512", writable=False)
            oracles.qemu_io(path, "vhdx", f"read -P {70 + index} {border} 512", writable=False)
