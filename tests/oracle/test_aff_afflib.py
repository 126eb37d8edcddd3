"""AFF, AFD and AFM that AFFLIB wrote."""

from __future__ import annotations

import hashlib
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import FormatError
from imprint.core.extent import Kind
from imprint.core.formats import Gapped
from imprint.core.units import KIB
from imprint.endpoints.gate import FolderGate
from imprint.endpoints.open import open_image
from imprint.storage.file import FileStorage
from imprint.testing.aff_image import aff

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.image import Image

DISK = (
    random.Random(1).randbytes(100 * KIB)
    + bytes(200 * KIB)
    + b"abc" * 70_000
    + bytes(100 * KIB + 512)
)


def opened(path: Path) -> Image:
    return formats.get("aff").open(FileStorage.open(path), FolderGate())


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
    format_ = formats.get("aff")
    assert isinstance(format_, Gapped)
    with format_.open_incomplete(FileStorage.open(target), FolderGate()) as image:
        bad = [e for e in image.extents(0, image.size) if e.kind is Kind.BAD]
        assert [(e.offset, e.length) for e in bad] == [(256 * KIB, 128 * KIB)]
        assert image.read_at(0, 256 * KIB) == DISK[: 256 * KIB]


@pytest.mark.oracle("affconvert")
def test_a_folder_is_opened_by_its_own_name(tmp_path: Path) -> None:
    """Fails if an AFD is not known by the name that AFFLIB's users give it."""
    folder = converted(tmp_path, "disk.afd", "-a", "afd", "-M", "64k")
    with open_image(str(folder)) as image:
        assert image.read_at(0, image.size) == DISK
