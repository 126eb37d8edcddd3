"""VMDK against qemu-img, both ways, in all five subformats that it writes.

qemu-img leaves out extents that are not ``RW``, and ``ZERO`` ones, without a word: what those
hold is tested by arithmetic in ``tests/formats/vmdk``.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.events import Severity
from imprint.core.formats import Checkable, CreateSpec, parse_options
from imprint.core.units import GIB, KIB, MIB
from imprint.endpoints.gate import FolderGate
from imprint.endpoints.location import parse
from imprint.endpoints.open import Access
from imprint.endpoints.target import TargetGate
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile
from imprint.testing import oracles
from imprint.testing.disks import Write, fill, random_writes, writes

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Target
    from imprint.core.image import Image, WritableImage

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

VMDK = formats.get("vmdk")
SUBFORMATS = (
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "streamOptimized",
)
SIZE = 33 * MIB + 5 * 512
FEW = settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DISKS = writes(SIZE, length_max=2 * MIB)


def ours(path: Path, size: int, **options: str) -> Target:
    """A new image of ours, not committed yet; one of that name goes, with its files."""
    for old in path.parent.glob(f"{path.stem}*.vmdk"):
        old.unlink()
    gate = TargetGate(Access(), parse(str(path)))
    spec = CreateSpec(size, gate, parse_options("vmdk", VMDK.options, options))
    return VMDK.create(PendingFile.create(path, may_replace=True), spec)


def theirs(path: Path, disk: bytes, subformat: str) -> None:
    """An image that qemu-img made of ``disk``."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    oracles.convert(raw, path, "vmdk", options={"subformat": subformat})


def opened(path: Path) -> Image:
    return VMDK.open(FileStorage.open(path), FolderGate())


def edited(path: Path) -> WritableImage:
    return VMDK.edit(FileStorage.open(path, writable=True), FolderGate())


def assert_equal(path: Path, disk: bytes) -> None:
    """qemu-img reads ``disk`` from the image and finds nothing wrong; nor do we."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(disk)
    assert oracles.info(path, "vmdk")["virtual-size"] == len(disk)
    assert oracles.is_equal(raw, path, first_format="raw", second_format="vmdk")
    with opened(path) as image:
        assert image.read_at(0, image.size) == disk
    storage = FileStorage.open(path)
    assert isinstance(VMDK, Checkable)
    findings = VMDK.check(storage, FolderGate(), repair=False)
    assert [item for item in findings if item.severity is not Severity.INFO] == []
    storage.close()


@pytest.mark.parametrize("subformat", SUBFORMATS)
@FEW
@given(drawn=DISKS)
def test_we_read_what_qemu_wrote(tmp_path: Path, drawn: list[Write], subformat: str) -> None:
    """Fails if any grain is read from the wrong place, or a hole is called data."""
    path = tmp_path / "disk.vmdk"
    disk = oracles.paint(SIZE, drawn)
    theirs(path, disk, subformat)
    with opened(path) as image:
        assert image.size == SIZE
        assert image.read_at(0, SIZE) == disk
        assert image.info().options["subformat"] == subformat
        if "Flat" not in subformat:
            assert oracles.our_data(image) == oracles.qemu_data(path, "vmdk")


@pytest.mark.parametrize("subformat", SUBFORMATS)
@FEW
@given(drawn=DISKS)
def test_qemu_reads_what_we_wrote(tmp_path: Path, drawn: list[Write], subformat: str) -> None:
    """Fails if our tables, markers or descriptors are inconsistent, or the bytes differ."""
    path = tmp_path / "disk.vmdk"
    disk = oracles.paint(SIZE, drawn)
    target = ours(path, SIZE, subformat=subformat)
    fill(target, disk)
    target.commit()
    assert_equal(path, disk)
    if "parse" not in subformat:
        return
    # It counts clusters and looks for entries behind the end of the file.
    assert oracles.qemu_img("check", path).exit_code == 0


@pytest.mark.parametrize("subformat", SUBFORMATS[:4])
@FEW
@given(drawn=DISKS, changes=writes(SIZE, length_max=3 * MIB, with_zeros=True))
def test_qemu_reads_what_we_changed(
    tmp_path: Path, drawn: list[Write], changes: list[Write], subformat: str
) -> None:
    """Fails if editing an image of QEMU's puts two grains into one place, or loses bytes."""
    path = tmp_path / "disk.vmdk"
    theirs(path, oracles.paint(SIZE, drawn), subformat)
    cid = oracles.info(path, "vmdk")["format-specific"]["data"]["cid"]
    image = edited(path)
    for offset, length, byte in changes:
        if byte:
            image.write(memoryview(bytes([byte]) * length), offset)
        else:
            image.zero(offset, length)
    image.commit()
    assert_equal(path, oracles.paint(SIZE, drawn + changes))
    # Whoever builds upon it has to see that it has changed.
    assert (oracles.info(path, "vmdk")["format-specific"]["data"]["cid"] != cid) == bool(changes)


@pytest.mark.parametrize("subformat", ["monolithicSparse", "monolithicFlat"])
@FEW
@given(drawn=DISKS, size=st.integers(1, 800).map(lambda count: count * 64 * KIB + 512))
def test_qemu_reads_what_we_resized(
    tmp_path: Path, drawn: list[Write], size: int, subformat: str
) -> None:
    """Fails if tables that were added are not where the directory says, or bytes come back."""
    path = tmp_path / "disk.vmdk"
    disk = oracles.paint(SIZE, drawn)
    theirs(path, disk, subformat)
    image = edited(path)
    image.resize(size)
    image.write(memoryview(b"\x5a" * 512), size - 512)
    image.commit()
    assert_equal(path, oracles.paint(size, [*drawn, Write(size - 512, 512, 0x5A)]))
    oracles.qemu_io(path, "vmdk", f"write -P 0x77 {size // 2} 512")
    with opened(path) as again:
        assert again.read_at(size // 2, 512) == b"\x77" * min(512, size - size // 2)


@pytest.mark.parametrize("kind", ["Sparse", "Flat"])
def test_qemu_reads_a_split_disk_that_we_resized(tmp_path: Path, kind: str) -> None:
    """Fails if the last file does not grow to 2047 MiB, or what is added is not zeros."""
    path, step = tmp_path / "disk.vmdk", 2047 * MIB
    oracles.create(path, 3 * GIB, "vmdk", options={"subformat": f"twoGbMaxExtent{kind}"})
    oracles.qemu_io(path, "vmdk", "write -P 1 0 1M", f"write -P 2 {step - 4096} 8k")
    oracles.qemu_io(path, "vmdk", f"write -P 3 {3 * GIB - 512} 512")
    reads = ["read -P 1 0 1M", "read -P 0 1M 64k", f"read -P 2 {step - 4096} 4k"]
    sizes = {3 * GIB + 512: 2, 7 * GIB: 4, 2 * GIB: 1, 4 * GIB: 3, step: 1, 9 * GIB: 5}
    for size, count in sizes.items():  # QEMU's first file has 2 GiB, ours have 2047 MiB
        image = edited(path)
        image.resize(size)
        if size == 4 * GIB:
            reads.append("read -P 0 2G 2047M")
        if size == step:
            reads = ["read -P 1 0 1M", "read -P 0 1M 64k", f"read -P 2 {step - 4096} 4k"]
        if size == 7 * GIB:
            image.write(memoryview(b"\x04" * MIB), 2 * step - MIB // 2)
        if size == 9 * GIB:  # what was cut off has not come back
            reads += [f"read -P 0 {step} 1M", f"read -P 0 {3 * GIB - 512} 512"]
            reads += [f"read -P 0 {2 * step - MIB} 2M"]
        image.commit()
        image.close()
        assert len(list(tmp_path.glob("disk-*.vmdk"))) == count
        assert oracles.info(path, "vmdk")["virtual-size"] == size
        oracles.qemu_io(path, "vmdk", *reads, writable=False)
        storage = FileStorage.open(path)
        assert isinstance(VMDK, Checkable)
        assert list(VMDK.check(storage, FolderGate(), repair=False)) == []
        storage.close()
    oracles.qemu_io(path, "vmdk", f"write -P 9 {9 * GIB - 70000} 70000")
    with opened(path) as again:
        assert again.read_at(9 * GIB - 70001, 70001) == b"\0" + b"\x09" * 70000


def test_we_read_what_qemu_changed_in_our_image(tmp_path: Path) -> None:
    """Fails if QEMU takes a place for free that we use, or the other way round."""
    path = tmp_path / "disk.vmdk"
    image = ours(path, SIZE)
    for index in (9, 2, 5, 32):
        image.write(memoryview(bytes([index]) * 1000), index * MIB)
    image.zero(2 * MIB, MIB)
    image.commit()
    oracles.qemu_io(path, "vmdk", "write -P 0xaa 3M 1M", "write -P 0xbb 4000K 200K", "flush")
    drawn = [(index * MIB, 1000, index) for index in (9, 5, 32)]
    drawn += [(3 * MIB, MIB, 0xAA), (4000 * KIB, 200 * KIB, 0xBB)]
    assert_equal(path, oracles.paint(SIZE, drawn))


@pytest.mark.parametrize("zeroed", ["on", "off"])
def test_overlays_agree(tmp_path: Path, zeroed: str) -> None:
    """Fails if a parent shows through, or does not, where QEMU sees it otherwise."""
    base, path = tmp_path / "base.vmdk", tmp_path / "over.vmdk"
    randomness = random.Random(21)
    below = random_writes(randomness, SIZE, count=12)
    theirs(base, oracles.paint(SIZE, below), "monolithicSparse")
    gate = TargetGate(Access(), parse(str(path)))
    options = parse_options("vmdk", VMDK.options, {"zeroed_grain": zeroed})
    parent = opened(base)
    spec = CreateSpec(SIZE, gate, options, Reference("base.vmdk", "vmdk"), parent)
    image = VMDK.create(PendingFile.create(path, may_replace=True), spec)
    above = random_writes(randomness, SIZE, count=6)
    for offset, length, byte in above:
        image.write(memoryview(bytes([byte]) * length), offset)
    image.zero(5 * MIB, 7 * MIB + 1000)
    image.commit()
    drawn = [*below, *above, Write(5 * MIB, 7 * MIB + 1000, 0)]
    assert_equal(path, oracles.paint(SIZE, drawn))
    assert oracles.info(path)["backing-filename"] == "base.vmdk"
    parent.close()


def test_we_read_an_overlay_of_qemu_and_see_a_changed_parent(tmp_path: Path) -> None:
    """Fails if the parent is not found, or nobody hears that it has changed since."""
    base, path = tmp_path / "base.vmdk", tmp_path / "over.vmdk"
    theirs(base, oracles.paint(SIZE, [(MIB, MIB, 1)]), "monolithicSparse")
    oracles.create(path, SIZE, "vmdk", backing=base, backing_format="vmdk")
    oracles.qemu_io(path, "vmdk", "write -P 2 1500K 64K")
    expected = oracles.paint(SIZE, [(MIB, MIB, 1), (1500 * KIB, 64 * KIB, 2)])
    with opened(path) as image:
        assert image.read_at(0, SIZE) == expected
        assert image.info().notes == ()
    below = edited(base)
    below.write(memoryview(b"\x03"), 30 * MIB)
    below.commit()
    with opened(path) as image:
        assert "has changed since" in image.info().notes[0]


def test_a_disk_of_many_extents_is_whole(tmp_path: Path) -> None:
    """Fails if bytes at the border of two files are lost, or extents beyond the 64th."""
    for kind in ("Sparse", "Flat"):
        path = tmp_path / f"disk{kind}.vmdk"
        size = 150 * GIB
        border = 4192256 * 512
        target = ours(path, size, subformat=f"twoGbMaxExtent{kind}")
        places = (border - 700, 3 * border - 1, 70 * border - 5, size - 999)
        for index, at in enumerate(places, 1):
            target.write(memoryview(bytes([index]) * 999), at)
        target.commit()
        assert len(list(tmp_path.glob(f"disk{kind}*.vmdk"))) == 1 + 76  # ceil(150 GiB / 2047 MiB)
        reads = [f"read -P {index} {at} 999" for index, at in enumerate(places, 1)]
        oracles.qemu_io(path, "vmdk", *reads, writable=False)
        with opened(path) as image:
            for index, at in enumerate(places, 1):
                assert image.read_at(at - 3, 1005)[:1002] == bytes(3) + bytes([index]) * 999


@pytest.mark.parametrize("size", [512, 64 * KIB, MIB + 512])
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_sizes_of_all_kinds_are_written(tmp_path: Path, size: int, subformat: str) -> None:
    """Fails if the last grain, which the disk does not fill, is missing in the file."""
    path = tmp_path / "disk.vmdk"
    target = ours(path, size, subformat=subformat)
    target.write(memoryview(b"\x0f" * 512), size - 512)
    target.commit()
    assert_equal(path, oracles.paint(size, [(size - 512, 512, 0x0F)]))
