"""VHD against qemu-img, which calls it vpc.

QEMU is trusted for dynamic images and, where it is told the format, for fixed ones. It is not
asked about differencing images, which it reads as if they had no parent, nor about the size of
fixed ones that it has to find by itself, which it takes for raw.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprint import formats
from imprint.core.events import Severity
from imprint.core.formats import Checkable, CreateSpec, SizeChoosing, parse_options
from imprint.core.image import WritableImage
from imprint.core.units import GIB, MIB
from imprint.formats.vhd import geometry
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile
from imprint.testing import oracles
from imprint.testing.disks import Write, random_writes, writes
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.formats import SizePolicy

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

VHD = formats.get("vhd")
OPENER = DictOpener()
SIZE = 12 * MIB + 5 * 512
FEW = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DISKS = writes(SIZE, length_max=3 * MIB)
KINDS = st.sampled_from(["dynamic", "fixed"])


def ours(path: Path, size: int, **options: str) -> WritableImage:
    """A new image of ours, not committed yet."""
    spec = CreateSpec(size, OPENER, parse_options("vhd", VHD.options, options))
    image = VHD.create(PendingFile.create(path, may_replace=True), spec)
    assert isinstance(image, WritableImage)
    return image


def theirs(path: Path, disk: bytes, subformat: str) -> None:
    """An image that qemu-img made of ``disk``, of just that size."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    oracles.convert(raw, path, "vpc", options={"subformat": subformat, "force_size": "on"})


def assert_equal(path: Path, disk: bytes) -> None:
    """qemu-img reads ``disk`` from the image, and has the same size for it."""
    assert oracles.info(path, "vpc")["virtual-size"] == len(disk)
    assert oracles.content(path, "vpc") == disk
    storage = FileStorage.open(path)
    assert formats.detect(storage) == "vhd"
    assert isinstance(VHD, Checkable)
    findings = list(VHD.check(storage, OPENER, repair=False))
    assert [found for found in findings if found.severity is not Severity.INFO] == []
    with VHD.open(storage, OPENER) as image:
        assert image.read_at(0, image.size) == disk


@FEW
@given(drawn=DISKS, subformat=KINDS)
def test_we_read_what_qemu_wrote(tmp_path: Path, drawn: list[Write], subformat: str) -> None:
    """Fails if any block is read from the wrong place, or a hole is called data."""
    path = tmp_path / "disk.vhd"
    disk = oracles.paint(SIZE, drawn)
    theirs(path, disk, subformat)
    storage = FileStorage.open(path)
    assert formats.detect(storage) == "vhd"
    with VHD.open(storage, OPENER) as image:
        assert image.size == SIZE
        assert image.read_at(0, SIZE) == disk
        if subformat == "dynamic":  # QEMU tells nothing of the holes in a fixed image
            assert oracles.our_data(image) == oracles.qemu_data(path, "vpc")
        assert image.info().options["subformat"] == subformat


@FEW
@given(drawn=DISKS, subformat=KINDS, block_size=st.sampled_from(["2M", "512K", "64K", "16M"]))
def test_qemu_reads_what_we_wrote(
    tmp_path: Path, drawn: list[Write], subformat: str, block_size: str
) -> None:
    """Fails if our tables are inconsistent, or the bytes differ."""
    path = tmp_path / "disk.vhd"
    image = ours(path, SIZE, subformat=subformat, block_size=block_size)
    oracles.write_all(image, drawn)
    image.commit()
    assert_equal(path, oracles.paint(SIZE, drawn))


@FEW
@given(drawn=DISKS, subformat=KINDS, changes=writes(SIZE, length_max=5 * MIB, with_zeros=True))
def test_qemu_reads_what_we_changed(
    tmp_path: Path, drawn: list[Write], subformat: str, changes: list[Write]
) -> None:
    """Fails if editing an image of QEMU's loses blocks, or the footer that follows them."""
    path = tmp_path / "disk.vhd"
    theirs(path, oracles.paint(SIZE, drawn), subformat)
    with oracles.edited(VHD, path) as image:
        oracles.write_all(image, changes)
    assert_equal(path, oracles.paint(SIZE, drawn + changes))


@FEW
@given(drawn=DISKS, size=st.integers(1, 400).map(lambda count: count * 64 * 1024))
def test_qemu_reads_what_we_resized(tmp_path: Path, drawn: list[Write], size: int) -> None:
    """Fails if the table that was moved, or the size, is not where QEMU looks."""
    path = tmp_path / "disk.vhd"
    disk = oracles.paint(SIZE, drawn)
    theirs(path, disk, "dynamic")
    with oracles.edited(VHD, path) as image:
        image.resize(size)
    assert_equal(path, disk[:size].ljust(size, b"\0"))


def test_a_table_that_outgrew_its_sector_is_where_qemu_looks(tmp_path: Path) -> None:
    """Fails if a table that had to move behind the blocks is lost."""
    path = tmp_path / "disk.vhd"
    disk = oracles.paint(SIZE, random_writes(random.Random(1), SIZE))
    theirs(path, disk, "dynamic")
    with oracles.edited(VHD, path) as image:
        image.resize(1 * GIB)
        image.write(memoryview(b"\x55" * 1000), GIB - 1000)
    oracles.qemu_io(path, "vpc", f"read -P 0x55 {GIB - 1000} 1000", writable=False)
    assert oracles.info(path, "vpc")["virtual-size"] == GIB
    assert oracles.content(path, "vpc")[:SIZE] == disk


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_we_read_what_qemu_changed_in_our_image(tmp_path: Path, subformat: str) -> None:
    """Fails if QEMU puts new blocks over ours, or writes a footer that we do not follow."""
    path = tmp_path / "disk.vhd"
    image = ours(path, SIZE, subformat=subformat)
    for index in (9, 2, 5, 7):
        image.write(memoryview(bytes([index]) * 1000), index * MIB)
    image.flush()
    image.zero(2 * MIB, 2 * MIB)
    image.commit()
    oracles.qemu_io(path, "vpc", "write -P 0xaa 3M 1M", "write -P 0xbb 11000K 200K", "flush")
    drawn = [(index * MIB, 1000, index) for index in (9, 5, 7)]
    drawn += [(3 * MIB, MIB, 0xAA), (11000 * 1024, 200 * 1024, 0xBB)]
    assert_equal(path, oracles.paint(SIZE, drawn))


@pytest.mark.parametrize(
    "size",
    [
        512,
        34816,
        MIB,
        20 * MIB + MIB // 2,
        100 * MIB + 512,
        3 * GIB,
        31 * GIB,
        126 * GIB,
        130 * GIB,
    ],
)
def test_sizes_by_geometry_are_those_of_qemu(tmp_path: Path, size: int) -> None:
    """Fails if our rounding up to cylinders gives another disk than everybody else's."""
    theirs_path, our_path = tmp_path / "theirs.vhd", tmp_path / "ours.vhd"
    oracles.create(theirs_path, size, "vpc")
    ours(our_path, size, force_size="off").commit()
    expected = oracles.info(theirs_path, "vpc")["virtual-size"]
    assert oracles.info(our_path, "vpc")["virtual-size"] == expected
    for path in (theirs_path, our_path):
        with VHD.open(FileStorage.open(path), OPENER) as image:
            assert image.size == expected


def with_geometry(path: Path, creator: bytes, cylinders: int) -> None:
    """Let an image's footers name another program, and a geometry of 4 heads and 17 sectors."""
    content = bytearray(path.read_bytes())
    for start in {0, len(content) - 512}:
        if content[start : start + 8] == b"conectix":
            content[start + 28 : start + 32] = creator
            content[start + 56 : start + 60] = struct.pack(">HBB", cylinders, 4, 17)
            content[start + 64 : start + 68] = bytes(4)
            total = sum(content[start : start + 512])
            content[start + 64 : start + 68] = struct.pack(">I", ~total & 0xFFFFFFFF)
    path.write_bytes(content)


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
@pytest.mark.parametrize("creator", [b"vpc ", b"qemu", b"win ", b"qem2"])
def test_each_size_policy_gives_the_disk_that_qemu_has(
    tmp_path: Path, subformat: str, creator: bytes
) -> None:
    """Fails if --size-policy means another size or other bytes than QEMU's force_size_calc."""
    path, raw = tmp_path / "disk.vhd", tmp_path / "theirs.raw"
    disk = oracles.paint(SIZE, random_writes(random.Random(3), SIZE))
    theirs(path, disk, subformat)
    with_geometry(path, creator, 290)  # 10 MB: less than the field says
    source = f"driver=vpc,file.filename={path}"
    assert isinstance(VHD, SizeChoosing)
    policies: tuple[tuple[SizePolicy | None, str], ...] = (
        *((None, ""), ("chs", ",force_size_calc=chs")),
        ("current", ",force_size_calc=current_size"),
    )
    for policy, word in policies:
        oracles.qemu_img("convert", "-O", "raw", "--image-opts", source + word, raw)
        expected = raw.read_bytes()
        with VHD.with_size_policy(policy).open(FileStorage.open(path), OPENER) as image:
            assert image.read_at(0, SIZE) == expected
            assert image.size == len(expected)
            options = image.info().options
            assert (options["size_chs"], options["size_current"]) == (290 * 4 * 17 * 512, SIZE)


@FEW
@given(drawn=DISKS, sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=3))
def test_qemu_reads_a_fixed_image_that_we_resized(
    tmp_path: Path, drawn: list[Write], sizes: list[int]
) -> None:
    """Fails if the footer is not where QEMU looks, or is a part of the disk."""
    path = tmp_path / "disk.vhd"
    disk = oracles.paint(SIZE, drawn)
    theirs(path, disk, "fixed")
    for size in (count * 512 for count in sizes):
        image = VHD.edit(FileStorage.open(path, writable=True), OPENER)
        image.resize(size)
        image.close()
        disk = disk[:size].ljust(size, b"\0")
        assert_equal(path, disk)


@pytest.mark.parametrize("size", [512, MIB - 512, 3 * MIB + 512, 200 * GIB, 2040 * GIB])
def test_sizes_to_the_sector_are_kept(tmp_path: Path, size: int) -> None:
    """Fails if QEMU rounds a disk whose size counts down to a geometry."""
    path = tmp_path / "ours.vhd"
    image = ours(path, size)
    image.write(memoryview(b"\x0f" * 512), size - 512)
    image.commit()
    assert oracles.info(path, "vpc")["virtual-size"] == size
    oracles.qemu_io(path, "vpc", f"read -P 0x0f {size - 512} 512", writable=False)


def test_the_azure_preset_is_fixed_and_whole_mebibytes(tmp_path: Path) -> None:
    """Fails if Azure would refuse the image: size not in MiB, or by geometry."""
    path = tmp_path / "disk.vhd"
    image = ours(path, 5 * MIB + 512, preset="azure")
    image.write(memoryview(b"\x0f" * 512), 5 * MIB)
    image.commit()
    assert path.stat().st_size == 6 * MIB + 512
    disk = oracles.paint(6 * MIB, [(5 * MIB, 512, 0x0F)])
    assert path.read_bytes()[: 6 * MIB] == disk
    assert_equal(path, disk)


def test_geometries_are_between_the_limits_of_the_specification() -> None:
    """Fails if a geometry holds more than it should, or loses more than a cylinder."""
    randomness = random.Random(2)
    for _ in range(300):
        size = randomness.randrange(1, 130 * GIB) // 512 * 512
        found = geometry.below(size)
        assert found.size <= size
        assert found.heads <= 16
        assert found.sectors in (17, 31, 63, 255)
        if size < geometry.CHS_MAX.size:
            assert geometry.above(size).size >= size
