"""L01 against libewf's Python binding: images that the tests make from the description."""

from __future__ import annotations

import hashlib
import random
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from imprint.core.errors import CorruptImageError
from imprint.endpoints.open import open_image
from imprint.formats.ewf.l01 import LogicalImage
from imprint.testing import ewf_image

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "notes.txt": b"what was found\n" * 700,
    "empty": b"",
    "Größe.bin": random.Random(3).randbytes(20_000),
}


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "files.L01"
    path.write_bytes(ewf_image.l01(FILES))
    return path


def test_files_are_listed_and_read(image: Path) -> None:
    """Fails if a file has another name, time, hash or content."""
    with closing(open_image(str(image))) as opened:
        assert isinstance(opened, LogicalImage)
        entries = list(opened.entries())
        assert [entry.path for entry in entries] == ["case", *(f"case/{name}" for name in FILES)]
        assert entries[0].is_folder
        for entry, content in zip(entries[1:], FILES.values(), strict=True):
            found = bytearray(entry.size)
            opened.file(entry).readinto(memoryview(found), 0)
            assert found == content
            assert entry.md5 == md5(content)
            assert entry.times == {"modified": 1142163845}
        assert any("notes.txt" in note for note in opened.info().notes)


def test_a_tree_with_a_wrong_bit_is_refused(image: Path) -> None:
    """Fails if names and places are taken from a damaged tree."""
    content = bytearray(image.read_bytes())
    content[content.index("notes.txt".encode("utf-16-le"))] ^= 1
    image.write_bytes(content)
    with pytest.raises(CorruptImageError, match="tree"):
        open_image(str(image))


def test_libewf_lists_the_same(image: Path) -> None:
    """Fails if the tests make something that is no L01: then the driver may be as wrong."""
    pyewf: Any = pytest.importorskip("pyewf", reason="libewf-python is not here")
    handle = pyewf.handle()
    handle.open([str(image)])
    (folder,) = handle.get_root_file_entry().sub_file_entries
    assert folder.name == "case"
    found = {entry.name: entry for entry in folder.sub_file_entries}
    assert set(found) == set(FILES)
    for name, content in FILES.items():
        assert found[name].size == len(content)
        assert found[name].get_hash_value_md5() == md5(content)
        if content:
            assert found[name].read_buffer(len(content)) == content
    handle.close()
