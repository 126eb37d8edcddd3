"""AFF, AFD and AFM that AFFLIB wrote, and AFF that is damaged."""

from __future__ import annotations

import hashlib
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import FormatError, UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.core.formats import Checkable
from imprint.core.units import KIB
from imprint.endpoints.gate import FolderGate
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.aff_image import aff, segment
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.events import Finding
    from imprint.core.image import Image

DISK = (
    random.Random(1).randbytes(100 * KIB)
    + bytes(200 * KIB)
    + b"abc" * 70_000
    + bytes(100 * KIB + 512)
)


def opened(path: Path) -> Image:
    return formats.get("aff").open(FileStorage.open(path), FolderGate())


def checked(content: bytes) -> list[Finding]:
    format_ = formats.get("aff")
    assert isinstance(format_, Checkable)
    return list(format_.check(MemoryStorage(content), DictOpener(), repair=False))


def converted(tmp_path: Path, name: str, *options: str) -> Path:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(DISK)
    target = tmp_path / name
    command = ["affconvert", "-s", "64k", *options, "-o", str(target), str(raw)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return target


@pytest.mark.oracle("affconvert")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("zlib.aff", ()),
        ("fast.aff", ("-X1",)),
        ("lzma.aff", ("-L",)),
        ("plain.aff", ("-x",)),
    ],
)
def test_what_afflib_writes_is_read(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    """Fails if a way of packing pages is read wrongly; the hashes are AFFLIB's."""
    with opened(converted(tmp_path, name, *options)) as image:
        assert image.read_at(0, image.size) == DISK
        hashes = image.info().hashes
        assert hashes["md5"] == hashlib.md5(DISK, usedforsecurity=False).hexdigest()
        assert hashes["sha1"] == hashlib.sha1(DISK, usedforsecurity=False).hexdigest()
        assert image.info().case["command_line"].startswith("affconvert")


@pytest.mark.oracle("affconvert")
def test_a_folder_of_files_is_one_disk(tmp_path: Path) -> None:
    """Fails if pages in the second or third file of an AFD are missing."""
    folder = converted(tmp_path, "disk.afd", "-a", "afd", "-M", "64k")
    assert len(list(folder.iterdir())) > 1
    (folder / "file_077.aff").write_bytes(aff(b"of another set" * 512))
    with opened(folder / "file_000.aff") as image:
        assert image.info().options["kind"] == "AFD"
        assert image.read_at(0, image.size) == DISK


@pytest.mark.oracle("affconvert")
def test_raw_files_beside_their_description_are_one_disk(tmp_path: Path) -> None:
    """Fails if the raw parts of an AFM are put together wrongly, or one may be missing."""
    target = converted(tmp_path, "disk.afm", "-a", "afm", "-M", "128k")
    assert (tmp_path / "disk.001").exists()
    with opened(target) as image:
        assert image.read_at(0, image.size) == DISK
    (tmp_path / "disk.002").unlink()
    with pytest.raises(FormatError):
        opened(target)


def test_a_page_that_is_missing_is_bad() -> None:
    """Fails if a hole in the evidence reads as zeros in silence."""
    content = aff(DISK, page_size=4096)
    at = content.index(b"page3")
    broken = content[:at] + b"pagX3" + content[at + 5 :]
    with formats.get("aff").open(MemoryStorage(broken), DictOpener()) as image:
        bad = [e for e in image.extents(0, image.size) if e.kind is Kind.BAD]
        assert [(e.offset, e.length) for e in bad] == [(3 * 4096, 4096)]
    assert [finding.where for finding in checked(broken)] == ["disk at 0x3000"]


def test_a_damaged_page_is_named_and_the_rest_is_read() -> None:
    """Fails if damage is found elsewhere, or spreads."""
    content = bytearray(aff(DISK, page_size=4096))
    at = content.index(b"page5") + 5
    content[at + 40 : at + 60] = bytes(20)
    with formats.get("aff").open(MemoryStorage(bytes(content)), DictOpener()) as image:
        assert image.read_at(6 * 4096, 4096) == DISK[6 * 4096 : 7 * 4096]
        with pytest.raises(FormatError, match="page 5"):
            image.read_at(5 * 4096, 1)
    assert [finding.where for finding in checked(bytes(content))] == ["disk at 0x5000"]


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes() -> None:
    """Fails if what is left of an image is lost with its end, or nothing is said about it."""
    content = aff(DISK, page_size=4096, method="none")
    with formats.get("aff").open(MemoryStorage(content[: 50 * KIB]), DictOpener()) as image:
        assert image.info().warnings
        assert image.read_at(0, 8 * 4096) == DISK[: 8 * 4096]
    assert checked(content[: 50 * KIB])


@pytest.mark.parametrize(
    "tail",
    [segment("affkey_aes256", b"x" * 52), segment("page0/aes256", b"x" * 64)],
)
def test_an_encrypted_image_is_refused(tail: bytes) -> None:
    """Fails if ciphertext is taken for a disk."""
    with pytest.raises(UnsupportedFeatureError, match="encrypted"):
        formats.get("aff").open(MemoryStorage(aff(b"x" * 512, tail=tail)), DictOpener())


def test_a_page_that_comes_twice_is_refused() -> None:
    """Fails if an image can show two disks to two readers."""
    with pytest.raises(FormatError, match="once"):
        formats.get("aff").open(
            MemoryStorage(aff(b"x" * 512, tail=segment("page0", b"y"))), DictOpener()
        )
