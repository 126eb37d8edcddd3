"""Files of ISO 9660 that are compressed, and names that look like those of folders."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import of_folder, of_tree
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 32 << 10
TEXT = b"".join(b"line %d of a text\n" % number for number in range(40_000))


@pytest.mark.oracle("xorriso")
@pytest.mark.parametrize("block_size", ["32k", "128k"])
def test_compressed_files_are_told_as_they_were(tmp_path: Path, block_size: str) -> None:
    """Fails if size or a byte of a file of zisofs differs; or if damage is taken for content."""
    files, disc = tmp_path / "files", tmp_path / "disc.iso"
    files.mkdir()
    (files / "text").write_bytes(TEXT)
    (files / "whole blocks").write_bytes(TEXT[: 4 * BLOCK])
    (files / "with zeros").write_bytes(TEXT[:BLOCK] + bytes(5 * BLOCK) + TEXT[:99])
    (files / "only zeros").write_bytes(bytes(600_001))
    (files / "noise").write_bytes(random.Random(5).randbytes(100_000))
    (files / "small").write_bytes(b"small")
    (files / "empty").touch()
    run(
        *("xorriso", "-outdev", disc, "-zisofs", f"block_size={block_size}", "-map", files, "/"),
        *("-set_filter_r", "--zisofs", "/", "--", "-commit"),
    )
    expected = {path: told._replace(modified=None) for path, told in of_folder(files).items()}
    content = disc.read_bytes()
    with closing(tree("iso9660", MemoryStorage(content))) as told:
        found = {path: item._replace(modified=None) for path, item in of_tree(told).items()}
        assert found == expected
        place = next(entry for entry in walk(told) if entry.path == "/text").extents[0][0]
    magic = bytes.fromhex("37e45396c9dbd607")  # as Linux has it in fs/isofs/rock.h
    assert content[place : place + 8] == magic
    for at, value in ((4, b"x"), (8, b"\0"), (13, b"\4"), (16, b"\xff\xff\xff\xff")):
        bad = bytearray(content)
        bad[place + at : place + at + len(value)] = value
        with closing(tree("iso9660", MemoryStorage(bad))) as told:
            entry = next(entry for entry in walk(told) if entry.path == "/text")
            with pytest.raises(CorruptImageError):
                told.content(entry).readinto(memoryview(bytearray(100)), 0)


@pytest.mark.oracle("genisoimage")
def test_a_name_of_periods_is_a_name(tmp_path: Path) -> None:
    """Fails if a file is not told since its name without the last period is that of a folder."""
    files, disc = tmp_path / "files", tmp_path / "disc.iso"
    files.mkdir()
    (files / "...").write_bytes(b"dots")
    (files / "end.").write_bytes(b"end")
    run("genisoimage", "-quiet", "-J", "-o", disc, files)
    with closing(tree("iso9660", MemoryStorage(disc.read_bytes()))) as told:
        assert {entry.path for entry in walk(told)} == {"/", "/...", "/end"}
