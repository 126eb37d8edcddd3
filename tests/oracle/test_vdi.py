"""VDI against qemu-img: both must see the same disk, the same holes, and nothing wrong."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprint import formats
from imprint.core.errors import ImagingError
from imprint.core.formats import Checkable, CreateSpec, parse_options
from imprint.core.image import WritableImage
from imprint.core.units import MIB
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile
from imprint.testing import oracles
from imprint.testing.disks import Write, random_writes, writes
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

VDI = formats.get("vdi")
OPENER = DictOpener()
SIZE = 12 * MIB + 5 * 512
FEW = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DISKS = writes(SIZE, length_max=2 * MIB)


def ours(path: Path, size: int, **options: str) -> WritableImage:
    """A new image of ours, not committed yet."""
    spec = CreateSpec(size, OPENER, parse_options("vdi", VDI.options, options))
    image = VDI.create(PendingFile.create(path, may_replace=True), spec)
    assert isinstance(image, WritableImage)
    return image


def theirs(path: Path, disk: bytes, static: str) -> None:
    """An image that qemu-img made of ``disk``."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    oracles.convert(raw, path, "vdi", options={"static": static})


def assert_equal(path: Path, disk: bytes) -> None:
    """qemu-img reads ``disk`` from the image, finds nothing wrong, and sees our map."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    oracles.check(path, "vdi")
    assert oracles.is_equal(raw, path, first_format="raw", second_format="vdi")
    with VDI.open(FileStorage.open(path), OPENER) as image:
        assert oracles.our_data(image) == oracles.qemu_data(path, "vdi")
        assert image.read_at(0, image.size) == disk


@FEW
@given(drawn=DISKS, static=st.sampled_from(["on", "off"]))
def test_we_read_what_qemu_wrote(tmp_path: Path, drawn: list[Write], static: str) -> None:
    """Fails if any block is read from the wrong place, or a hole is called data."""
    path = tmp_path / "disk.vdi"
    disk = oracles.paint(SIZE, drawn)
    theirs(path, disk, static)
    with VDI.open(FileStorage.open(path), OPENER) as image:
        assert image.size == SIZE
        assert image.read_at(0, SIZE) == disk
        assert oracles.our_data(image) == oracles.qemu_data(path, "vdi")
        assert image.info().options["subformat"] == ("fixed" if static == "on" else "dynamic")


@FEW
@given(drawn=DISKS, static=st.sampled_from(["on", "off"]))
def test_qemu_reads_what_we_wrote(tmp_path: Path, drawn: list[Write], static: str) -> None:
    """Fails if our tables are inconsistent, or the bytes differ."""
    path = tmp_path / "disk.vdi"
    image = ours(path, SIZE, static=static)
    oracles.write_all(image, drawn)
    image.commit()
    assert_equal(path, oracles.paint(SIZE, drawn))


@FEW
@given(drawn=DISKS, changes=writes(SIZE, length_max=3 * MIB, with_zeros=True), data=st.data())
def test_qemu_reads_what_we_changed(
    tmp_path: Path, drawn: list[Write], changes: list[Write], data: st.DataObject
) -> None:
    """Fails if editing an image of QEMU's leaves it with a gap, a double slot or wrong bytes."""
    path = tmp_path / "disk.vdi"
    theirs(path, oracles.paint(SIZE, drawn), data.draw(st.sampled_from(["on", "off"])))
    with oracles.edited(VDI, path) as image:
        oracles.write_all(image, changes)
    assert_equal(path, oracles.paint(SIZE, drawn + changes))


@FEW
@given(drawn=DISKS, size=st.integers(1, 400).map(lambda count: count * 64 * 1024))
def test_qemu_reads_what_we_resized(tmp_path: Path, drawn: list[Write], size: int) -> None:
    """Fails if a map that was moved, or blocks that were, are not where the header says."""
    path = tmp_path / "disk.vdi"
    disk = oracles.paint(SIZE, drawn)
    theirs(path, disk, "off")
    with oracles.edited(VDI, path) as image:
        image.resize(size)
    assert_equal(path, disk[:size].ljust(size, b"\0"))


def test_a_map_that_outgrew_its_sector_is_where_qemu_looks(tmp_path: Path) -> None:
    """Fails if QEMU, which packs map and data closely, loses blocks that were evicted."""
    path = tmp_path / "disk.vdi"
    drawn = random_writes(random.Random(1), 128 * MIB, count=4, grain=64 * 1024)
    drawn = [Write(offset, min(length, 3 * MIB), byte) for offset, length, byte in drawn]
    disk = oracles.paint(128 * MIB, drawn)
    theirs(path, disk, "off")
    with oracles.edited(VDI, path) as image:
        image.resize(200 * MIB)
        image.write(memoryview(b"\x55" * 1000), 199 * MIB)
    oracles.check(path, "vdi")
    oracles.qemu_io(path, "vdi", "read -P 0x55 199M 1000", "read -P 0 150M 1M", writable=False)
    assert oracles.content(path, "vdi")[: 128 * MIB] == disk


def test_we_read_what_qemu_changed_in_our_image(tmp_path: Path) -> None:
    """Fails if QEMU takes a slot for free that we use, or the other way round."""
    path = tmp_path / "disk.vdi"
    image = ours(path, SIZE)
    for index in (9, 2, 5, 7):
        image.write(memoryview(bytes([index]) * 1000), index * MIB)
    image.flush()
    image.zero(2 * MIB, MIB)
    image.commit()
    oracles.qemu_io(path, "vdi", "write -P 0xaa 3M 1M", "write -P 0xbb 4000K 200K", "flush")
    drawn = [(index * MIB, 1000, index) for index in (9, 5, 7)]
    drawn += [(3 * MIB, MIB, 0xAA), (4000 * 1024, 200 * 1024, 0xBB)]
    assert_equal(path, oracles.paint(SIZE, drawn))


@pytest.mark.parametrize("size", [512, 1024, MIB - 512, MIB, MIB + 512, 1_000_003, 0])
def test_sizes_of_all_kinds_are_read(tmp_path: Path, size: int) -> None:
    """Fails if a disk that is no whole number of blocks, or sectors, has another size for us."""
    path = tmp_path / "disk.vdi"
    oracles.create(path, size, "vdi")
    with VDI.open(FileStorage.open(path), OPENER) as image:
        assert image.size == oracles.info(path, "vdi")["virtual-size"]


@pytest.mark.parametrize("size", [512, MIB - 512, MIB, 3 * MIB + 512])
def test_sizes_of_all_kinds_are_written(tmp_path: Path, size: int) -> None:
    """Fails if the last block, which the disk does not fill, is missing in the file."""
    path = tmp_path / "disk.vdi"
    image = ours(path, size)
    image.write(memoryview(b"\x0f" * 512), size - 512)
    image.commit()
    assert_equal(path, oracles.paint(size, [(size - 512, 512, 0x0F)]))


def test_what_qemu_finds_wrong_we_find_too(tmp_path: Path) -> None:
    """Fails if our check is satisfied where qemu-img's is not."""
    path = tmp_path / "disk.vdi"
    image = ours(path, SIZE)
    image.write(memoryview(b"\x01" * 3 * MIB), 0)
    image.commit()
    good = path.read_bytes()
    for at, value in ((0x200, 1), (0x200, 77), (0x184, 1), (0x184, 9)):
        path.write_bytes(good[:at] + value.to_bytes(4, "little") + good[at + 4 :])
        with pytest.raises(oracles.OracleError):
            oracles.check(path, "vdi")
        storage = FileStorage.open(path)
        assert isinstance(VDI, Checkable)
        assert list(VDI.check(storage, OPENER, repair=False))
        storage.close()


def test_a_file_that_qemu_has_open_is_not_written(tmp_path: Path) -> None:
    """Fails if two programs could change one image: here, two of ours, with QEMU's locks."""
    path = tmp_path / "disk.vdi"
    oracles.create(path, SIZE, "vdi")
    first = VDI.edit(FileStorage.open(path, writable=True), OPENER)
    with pytest.raises(ImagingError):
        FileStorage.open(path, writable=True)
    refused = oracles.run("qemu-io", "-f", "vdi", "-c", "write 0 512", path, accept=(0, 1))
    assert "lock" in refused.stderr
    first.close()
