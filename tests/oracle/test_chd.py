"""CHD against chdman of MAME, which wrote the images and reads those of the tests."""

from __future__ import annotations

import hashlib
import math
import random
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, Literal

import pytest

import imprint
from imprint import formats
from imprint.core.errors import ReferenceRefusedError
from imprint.core.formats import Checkable
from imprint.core.units import MIB
from imprint.storage.file import FileStorage
from imprint.testing import old_formats, oracles
from imprint.testing.old_chd import old_chd
from imprint.testing.opener import DictOpener
from imprint.testing.program import Program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("chdman")

CHD = formats.get("chd")
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


def _changed(disk: bytes) -> bytes:
    """Something else, something moved by some sectors, and much that is as it was."""
    changed = bytearray(disk)
    changed[100:5000] = bytes(range(100)) * 49
    changed[300 * 512 : 400 * 512] = disk[703 * 512 : 803 * 512]
    return bytes(changed)


@pytest.mark.parametrize("codecs", ["zlib", "lzma,zlib,huff,flac"])
@pytest.mark.parametrize("hunk_size", ["4096", "2048"])
def test_a_child_reads_from_its_parent(tmp_path: Path, codecs: str, hunk_size: str) -> None:
    """Fails if a place in the parent is misread, or the parent is not found by its SHA-1."""
    disk = _disk()
    parent = _make(tmp_path, disk, "-c", "zlib", "-hs", hunk_size).rename(tmp_path / "base.chd")
    raw, path = tmp_path / "child.raw", tmp_path / "child.chd"
    raw.write_bytes(_changed(disk))
    oracles.run(
        "chdman", "createhd", "-i", raw, "-op", parent, "-o", path, "-c", codecs, "-hs", hunk_size
    )
    assert path.stat().st_size < parent.stat().st_size / 4
    with imprint.open(path) as image:
        assert image.read_at(0, SIZE) == _changed(disk)
        info = image.info()
        assert info.hashes == {"sha1": hashlib.sha1(_changed(disk)).hexdigest()}
        assert info.parent == _overall_sha1(parent)
    parent.unlink()
    with pytest.raises(ReferenceRefusedError, match=_overall_sha1_of_child(path)):
        imprint.open(path)


def test_a_child_without_compression_reads_from_its_parent(tmp_path: Path) -> None:
    """Fails if a hunk that was never written reads as zeros and not from the parent."""
    disk = _disk()
    parent = _make(tmp_path, disk, "-c", "zlib").rename(tmp_path / "base.chd")
    raw, path = tmp_path / "child.raw", tmp_path / "child.chd"
    raw.write_bytes(_changed(disk))
    oracles.run("chdman", "createhd", "-i", raw, "-op", parent, "-o", path, "-c", "none")
    with imprint.open(path) as image:
        assert image.read_at(0, SIZE) == _changed(disk)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("version", [3, 4])
def test_chdman_reads_old_versions_as_we_do(tmp_path: Path, version: int, compress: bool) -> None:
    """Fails if the old images that the tests make are none, or are read otherwise here."""
    disk, raw = _disk(), tmp_path / "disk.raw"
    path, child = tmp_path / "disk.chd", tmp_path / "child.chd"
    path.write_bytes(old_chd(disk, version, compress=compress, without_crc=(3, 4)))
    oracles.run("chdman", "extracthd", "-i", path, "-o", raw)
    assert raw.read_bytes() == disk
    child.write_bytes(old_chd(_changed(disk), version, compress=compress, parent=disk))
    oracles.run("chdman", "extracthd", "-f", "-i", child, "-ip", path, "-o", raw)
    assert raw.read_bytes() == _changed(disk)
    for name, expected in ((path, disk), (child, _changed(disk))):
        with imprint.open(name) as image:
            assert image.info().options["version"] == version
            assert image.read_at(0, SIZE) == expected
            assert image.read_at(70_001, 9000) == expected[70_001:79_001]
            assert image.info().hashes["sha1"] == hashlib.sha1(expected).hexdigest()


def test_verify_compares_the_digest_that_chdman_has_stored(tmp_path: Path) -> None:
    """Fails if the image's own SHA-1 is not compared with its content."""
    path = _make(tmp_path, _disk(), "-c", "zlib")
    imprint_ = Program(tmp_path)
    result = imprint_.ok("verify", path, "--json").json
    assert result["expected"] == {"sha1": hashlib.sha1(_disk()).hexdigest()}
    assert result["hashes"]["sha1"] == result["expected"]["sha1"]
    content = bytearray(path.read_bytes())
    content[64] ^= 1  # the first byte of the SHA-1 itself
    path.write_bytes(content)
    assert imprint_("verify", path, "--json").exit_code == 1


def test_check_finds_nothing_in_what_chdman_wrote(tmp_path: Path) -> None:
    """Fails if the check objects to a sound map."""
    path = _make(tmp_path, _disk(), "-c", "lzma,zlib,huff,flac")
    assert isinstance(CHD, Checkable)
    with closing(FileStorage.open(path)) as storage:
        assert list(CHD.check(storage, DictOpener(), repair=False)) == []


def _overall_sha1(path: Path) -> str:
    """As chdman shows it: of the disk and its metadata."""
    shown = oracles.run("chdman", "info", "-i", path).stdout
    return next(line.split()[-1] for line in shown.splitlines() if line.startswith("SHA1:"))


def _overall_sha1_of_child(path: Path) -> str:
    """Of the parent, as the child's header has it."""
    return path.read_bytes()[104:124].hex()
