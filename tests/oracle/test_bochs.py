"""Bochs images: bximage makes empty ones, qemu-img reads what the tests put into them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

import imprint
from imprint.core.units import KIB, MIB
from imprint.testing import old_formats, oracles
from imprint.testing.disks import random_writes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize("extent_size", [512, 4 * KIB, 256 * KIB])
@pytest.mark.parametrize("version", [0x10000, 0x20000])
def test_qemu_reads_the_same_disk(tmp_path: Path, extent_size: int, version: int) -> None:
    """Fails if our reader and QEMU's differ, or the map is not exact to the sector."""
    randomness = random.Random(extent_size + version)
    disk = oracles.paint(MIB, random_writes(randomness, MIB, count=12))
    path = tmp_path / "disk.bochs"
    path.write_bytes(old_formats.bochs(disk, extent_size=extent_size, version=version))
    assert oracles.content(path, "bochs") == disk
    with imprint.open(path) as image:
        assert image.info().format == "bochs"
        assert image.read_at(0, image.size) == disk
        sectors = {start // 512 for start in range(0, MIB, 512) if any(disk[start : start + 512])}
        ours = {
            sector
            for offset, length in oracles.our_data(image)
            for sector in range(offset // 512, (offset + length) // 512)
        }
        assert ours == sectors


@pytest.mark.oracle("qemu-img", "bximage")
def test_we_read_what_bximage_made(tmp_path: Path) -> None:
    """Fails if the header that Bochs itself writes is not understood."""
    path = tmp_path / "disk.bochs"
    oracles.run("bximage", "-q", "-func=create", "-hd=32", "-imgmode=growing", path)
    with imprint.open(path) as image:
        assert image.size == oracles.info(path, "bochs")["virtual-size"]
        assert oracles.our_data(image) == []
        assert not any(image.read_at(0, image.size))


@pytest.mark.oracle("bximage")
def test_bximage_commits_what_we_read(tmp_path: Path) -> None:
    """Fails if a sector of an undoable image, or of the one below it, is read wrongly."""
    randomness = random.Random(7)
    base, path = tmp_path / "disk.img", tmp_path / "disk.img.redolog"
    base.write_bytes(randomness.randbytes(MIB))
    written = oracles.paint(MIB, random_writes(randomness, MIB, count=12))
    path.write_bytes(old_formats.bochs(written, subtype=b"Undoable"))
    with imprint.open(path) as image:
        assert image.info().parent == "disk.img"
        found = image.read_at(0, image.size)
    oracles.run("bximage", "-q", "-func=commit", base, path)
    assert found == base.read_bytes()
