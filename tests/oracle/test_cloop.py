"""Cloop images: qemu-img reads what the tests made, and we read what cloop's own tool made."""

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


def _disk() -> bytes:
    disk = bytearray(oracles.paint(MIB, random_writes(random.Random(1), MIB, count=12)))
    disk[100_000:400_000] = random.Random(2).randbytes(300_000)
    return bytes(disk)


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize("block_size", [512, 64 * KIB, MIB])
def test_qemu_reads_the_same_disk(tmp_path: Path, block_size: int) -> None:
    """Fails if our reader and QEMU's differ."""
    path, disk = tmp_path / "disk.cloop", _disk()
    path.write_bytes(old_formats.cloop(disk, block_size=block_size))
    assert oracles.content(path, "cloop") == disk
    with imprint.open(path) as image:
        assert image.info().format == "cloop"
        assert image.read_at(0, image.size) == disk


@pytest.mark.oracle("create_compressed_fs")
def test_we_read_what_cloop_made(tmp_path: Path) -> None:
    """Fails if the file that the driver's own tool writes is not understood."""
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.cloop"
    raw.write_bytes(_disk())
    oracles.run("create_compressed_fs", "-B", "65536", raw, path)
    with imprint.open(path) as image:
        assert image.info().format == "cloop"
        assert image.read_at(0, image.size) == _disk()
