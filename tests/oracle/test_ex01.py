"""Ex01 against libewf's Python binding: images that the tests make from the description."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from imprint.core.extent import Kind
from imprint.core.units import KIB
from imprint.endpoints.hashing import stored_hashes, verify_disk
from imprint.endpoints.open import open_image
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
