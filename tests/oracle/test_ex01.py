"""Ex01 against libewf's Python binding: what is written, and what the tests make themselves."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from imprint.core.extent import Kind
from imprint.core.units import KIB
from imprint.endpoints import copying
from imprint.endpoints.hashing import stored_hashes, verify_disk
from imprint.endpoints.open import open_image
from imprint.endpoints.target import TargetRequest
from imprint.testing import ewf_image

if TYPE_CHECKING:
    from pathlib import Path

DISK = random.Random(4).randbytes(300 * KIB) + bytes(200 * KIB) + b"words " * 30_000 + bytes(224)


@pytest.mark.parametrize("is_bzip2", [False, True], ids=["zlib", "bzip2"])
def test_an_image_by_the_description_is_read(tmp_path: Path, is_bzip2: bool) -> None:
    """Fails if a chunk, a hash, a bad area or a text is not found."""
    path = tmp_path / "disk.Ex01"
    path.write_bytes(ewf_image.ex01(DISK, is_bzip2=is_bzip2, bad=((700, 3),)))
    with open_image(str(path)) as image:
        assert image.read_at(0, image.size) == DISK
        info = image.info()
        assert info.hashes["md5"] == hashlib.md5(DISK, usedforsecurity=False).hexdigest()
        assert info.case["case_number"] == "case 9"
        assert info.case["acquisition_date"] == "2006-03-12T11:44:05Z"
        assert info.case["serial_number"] == "SN-1"
        bad = [extent for extent in image.extents(0, image.size) if extent.kind is Kind.BAD]
        assert [(extent.offset, extent.length) for extent in bad] == [(700 * 512, 3 * 512)]
        assert verify_disk(image, ("sha1",), stored_hashes(image)).ok


def test_libewf_reads_the_same(tmp_path: Path) -> None:
    """Fails if the tests make something that is no Ex01: then the driver may be as wrong."""
    pyewf = pytest.importorskip("pyewf", reason="libewf-python is not here")
    path = tmp_path / "disk.Ex01"
    path.write_bytes(ewf_image.ex01(DISK))
    handle = pyewf.handle()
    handle.open([str(path)])
    assert handle.read_buffer(handle.get_media_size()) == DISK
    assert handle.get_header_values()["case_number"] == "case 9"
    handle.close()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"segment_size": "1M", "compression": "none"},
        {"segment_size": "1M", "compression": "empty-block"},
        {"compression": "best", "chunk_sectors": "1024"},
        {"sector_size": "2048", "media_type": "optical", "tracks": "0,100"},
    ],
)
def test_libewf_reads_what_is_written(tmp_path: Path, options: dict[str, str]) -> None:
    """Fails if libewf finds another disk, other hashes or other case data."""
    pyewf = pytest.importorskip("pyewf", reason="libewf-python is not here")
    disk = DISK + random.Random(5).randbytes(2000 * KIB) + b"ABCDEFGH" * 20_000
    disk += bytes(-len(disk) % 2048)
    (tmp_path / "disk.raw").write_bytes(disk)
    first = tmp_path / "disk.Ex01"
    said = {"case_number": "case 9", "examiner": "m.e.", "description": "Grüße", "model": "X-1"}
    target = TargetRequest(str(first), options={**options, **said})
    copying.run(copying.CopyRequest(str(tmp_path / "disk.raw"), target))
    handle = pyewf.handle()
    handle.open(pyewf.glob(str(first)))
    assert handle.get_media_size() == len(disk)
    assert handle.read_buffer(len(disk)) == disk
    hashes = handle.get_hash_values()
    assert hashes["MD5"] == hashlib.md5(disk, usedforsecurity=False).hexdigest()
    assert hashes["SHA1"] == hashlib.sha1(disk, usedforsecurity=False).hexdigest()
    values = handle.get_header_values()
    assert values["case_number"] == "case 9"
    assert values["examiner_name"] == "m.e."
    assert values["description"] == "Grüße"
    assert values["model"] == "X-1"
    assert handle.get_bytes_per_sector() == int(options.get("sector_size", "512"))
    handle.close()
