"""UDF that is damaged, or hostile: nothing is left out in silence, and there is an end."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError
from imprint.core.units import MIB
from imprint.filesystems.udf import tree as udf_tree
from imprint.filesystems.udf.folders import names_of
from imprint.filesystems.udf.layout import FileEntry
from imprint.filesystems.udf.tree import UdfTree
from imprint.filesystems.walking import find_path
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage
from imprint.testing.small_udf import BLOCK, CONTENT, EMBEDDED, NAMES, START, seal_udf, small_udf

if TYPE_CHECKING:
    from imprint.filesystems.tree import FileTree


def read(files: FileTree, path: str) -> bytes:
    content = files.content(find_path(files, path))
    buffer = bytearray(content.size)
    content.readinto(memoryview(buffer), 0)
    return bytes(buffer)


def test_a_folder_that_only_looks_like_names_is_given_up() -> None:
    """Fails if each of some million places is taken for a name of 40,000 bytes, and summed up."""
    tag = bytearray(struct.pack("<HHBBHHHI", 257, 3, 0, 0, 0, 0x1234, 40_000, 0))
    tag[4] = sum(tag) & 0xFF
    place = bytes(tag) + struct.pack("<HBB16sH2x", 1, 0, 10, b"", 40_000)
    content = MemoryStorage(bytes(4) + place * (4 * MIB // len(place)))
    with pytest.raises(CorruptImageError, match="too much that is none"):
        list(names_of([content], content.size))


def test_descriptors_are_not_read_for_each_of_very_many_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fails if a list takes hours where a large file has many names, or a content is lost by it."""
    files = UdfTree(MemoryStorage(small_udf()))
    known = {entry.name: entry for entry in files.children(files.root())}
    monkeypatch.setattr(udf_tree, "_AGAIN_BYTES_MAX", 0)
    again = {entry.name: entry for entry in files.children(files.root())}
    assert again["file"] == known["file"]
    assert files.notes == []
    monkeypatch.setattr(udf_tree, "_AGAIN_BYTES_MAX", -1)
    again = {entry.name: entry for entry in files.children(files.root())}
    assert known["file"].extents
    assert again.pop("file").extents == ()
    assert all(entry == known[name] for name, entry in again.items())
    assert read(files, "file") == CONTENT
    assert ["names of a few large files" in note for note in files.notes] == [True]


def test_a_mirror_that_is_cut_off_hides_nothing() -> None:
    """Fails if a folder is not told since the copy of its blocks cannot be found."""
    content = bytearray(small_udf("metadata"))
    at = (START + 62) * BLOCK + FileEntry.SIZE  # the mirror's only descriptor
    assert struct.unpack_from("<I", content, at) == (32 * BLOCK,)
    struct.pack_into("<I", content, at, BLOCK)
    seal_udf(content)
    files = UdfTree(MemoryStorage(bytes(content)))
    assert sorted(entry.name for entry in files.children(files.root())) == sorted(NAMES)


def test_a_change_that_cannot_be_read_is_not_left_out_in_silence() -> None:
    """Fails if what a file was before is told as what it is."""
    place = (START + 14) * BLOCK  # behind the entry of strategy 4096, to which it leads
    volume = MemoryStorage(small_udf())
    files = UdfTree(FaultyStorage(volume, bad=[(place, BLOCK)], verbs=["read"]))
    assert read(files, "chained") == b"old"
    (note,) = (note for note in files.notes if note.startswith("/chained: "))
    assert "a change may be" in note
    place = (START + 14 + 16) * BLOCK  # of its first copy
    volume = MemoryStorage(small_udf("metadata"))
    files = UdfTree(FaultyStorage(volume, bad=[(place, BLOCK)], verbs=["read"]))
    assert read(files, "chained") == EMBEDDED
