"""CHD against chdman of MAME, which wrote the images and reads those of the tests."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import TYPE_CHECKING, Literal

import pytest

import imprint
from imprint.core.errors import UnsupportedFeatureError
from imprint.core.units import MIB
from imprint.testing import old_formats, oracles

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("chdman")

SIZE = MIB


@cache
def _disk() -> bytes:
    """Runs, text, few symbols, noise and sound: something for each codec; repeated hunks."""
    randomness = random.Random(1)
    disk = bytearray(SIZE)
    for step in range(24):
        length = randomness.randrange(1, 40_000)
        piece = (
            bytes([step + 1]) * length,
            randomness.randbytes(length),
            (b"line %d of a text\n" % step * length)[:length],
            bytes(randomness.choices(range(5), k=length)),
        )[step % 4]
        start = randomness.randrange(SIZE - length)
        disk[start : start + length] = piece
    for channel, pitch in ((0, 37.0), (2, 61.0)):  # sound, in little and then big endian
        for at in range(100_000 + channel, 180_000, 4):
            sample = int(12_000 * math.sin(at / pitch)) + randomness.randrange(-30, 30)
            order: Literal["little", "big"] = "little" if at < 140_000 else "big"
            disk[at : at + 2] = sample.to_bytes(2, order, signed=True)
    disk[-65536:] = disk[:65536]
    return bytes(disk)


def _make(folder: Path, disk: bytes, *arguments: str) -> Path:
    raw, path = folder / "disk.raw", folder / "disk.chd"
    raw.write_bytes(disk)
    oracles.run("chdman", "createhd", "-f", "-i", raw, "-o", path, *arguments)
    return path


@pytest.mark.parametrize("codecs", ["none", "zlib", "lzma", "huff", "flac", "lzma,zlib,huff,flac"])
@pytest.mark.parametrize("hunk_size", ["4096", "65536"])
def test_we_read_what_chdman_wrote(tmp_path: Path, codecs: str, hunk_size: str) -> None:
    """Fails if map, codecs or checksums are misread."""
    disk = _disk()
    path = _make(tmp_path, disk, "-c", codecs, "-hs", hunk_size)
    with imprint.open(path) as image:
        info = image.info()
        assert info.format == "chd"
        assert info.options["hunk_size"] == int(hunk_size)
        assert str(info.options["geometry"]).endswith("BPS:512")
        assert image.size == SIZE
        assert image.read_at(0, SIZE) == disk
        assert image.read_at(5000, 10_000) == disk[5000:15_000]


def test_an_empty_disk_is_a_small_file(tmp_path: Path) -> None:
    """Fails if long runs of hunks that are the same as others are misread."""
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.chd"
    with raw.open("wb") as file:
        file.truncate(16 * MIB)
    oracles.run("chdman", "createhd", "-i", raw, "-o", path, "-c", "zlib")
    assert path.stat().st_size < 4096
    with imprint.open(path) as image:
        assert image.size == 16 * MIB
        assert not any(image.read_at(9 * MIB, MIB))


@pytest.mark.parametrize("compress", [False, True])
def test_chdman_reads_the_same_disk(tmp_path: Path, compress: bool) -> None:
    """Fails if the images that the other tests make are none."""
    path, raw, disk = tmp_path / "disk.chd", tmp_path / "disk.raw", _disk()
    path.write_bytes(old_formats.chd(disk, compress=compress))
    oracles.run("chdman", "extractraw", "-i", path, "-o", raw)
    assert raw.read_bytes() == disk
    with imprint.open(path) as image:
        assert image.read_at(0, SIZE) == disk


def test_a_child_is_refused(tmp_path: Path) -> None:
    """Fails if an image with a parent is read as if it had none."""
    disk = _disk()
    parent = _make(tmp_path, disk, "-c", "zlib")
    changed = bytearray(disk)
    changed[100:200] = bytes(100)
    raw, path = tmp_path / "child.raw", tmp_path / "child.chd"
    raw.write_bytes(changed)
    oracles.run("chdman", "createhd", "-i", raw, "-op", parent, "-o", path, "-c", "zlib")
    with pytest.raises(UnsupportedFeatureError, match="no parent"):
        imprint.open(path)
