"""F2FS: files whose blocks and names are found in every way, on a volume made by hand."""

from __future__ import annotations

import struct

import pytest

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.filesystems.f2fs.layout import BLOCK
from imprint.filesystems.f2fs.tree import F2fsTree
from imprint.filesystems.tree import Type
from imprint.filesystems.walking import find_path, walk
from imprint.testing.fuzzing.endless import EndlessVolume
from imprint.testing.small_f2fs import MAIN
from imprint.testing.small_f2fs_files import (
    ATTRIBUTES,
    BLOCKS_AT,
    FILE_BYTES,
    PLACES,
    TARGET,
    content_of,
    small_f2fs_files,
)

ENCRYPTED = 4


def opened(content: bytes | None = None) -> F2fsTree:
    return F2fsTree(EndlessVolume(content or small_f2fs_files(), PLACES))


def changed(block: int, at: int, value: bytes) -> bytes:
    """The volume with other bytes in a block."""
    content = bytearray(small_f2fs_files())
    start = PLACES.index(block) * BLOCK + at
    content[start : start + len(value)] = value
    return bytes(content)


def test_names_are_found_in_inodes_and_in_blocks() -> None:
    """Fails if a name is lost, ``.`` is told, or a folder that holds the root is entered twice."""
    files = opened()
    found = {entry.path: entry for entry in walk(files)}
    folder = "/a folder of a longer name"
    assert sorted(found) == sorted(
        ["/", "/file", "/link", folder, f"{folder}/again", f"{folder}/file"]
    )
    assert found["/link"].target == TARGET.decode()
    assert found["/file"].inode == found[f"{folder}/file"].inode == 5
    attributes = {path: files.attributes(entry) for path, entry in found.items()}
    assert attributes.pop("/link") == ATTRIBUTES
    assert not any(attributes.values())
    assert found["/file"].mode == 0o640
    assert found["/file"].times.modified == 10**18 + 5
    assert ["in itself" in note for note in files.notes] == [True]


def test_blocks_are_found_through_every_kind_of_node() -> None:
    """Fails if a position behind direct, indirect or double indirect nodes is wrong."""
    files = opened()
    content = files.content(find_path(files, "file"))
    assert content.size == FILE_BYTES
    data = [extent for extent in content.extents(0, FILE_BYTES) if extent.kind is Kind.DATA]
    assert [extent.offset // BLOCK for extent in data] == list(BLOCKS_AT.values())
    for where, block in BLOCKS_AT.items():
        buffer = bytearray(BLOCK - 100)
        content.readinto(memoryview(buffer), block * BLOCK)
        assert bytes(buffer) == content_of(where)[:-100]


def test_a_node_of_another_place_or_file_is_no_part_of_it() -> None:
    """Fails if nodes may be used twice: then a small volume has files without an end."""
    nodes = PLACES.index(MAIN + 16)
    indirect = PLACES[nodes + 2]  # that of number 7, which tells of number 9
    for number in (7, 6, 12, 10**6):
        files = opened(changed(indirect, 0, struct.pack("<I", number)))
        names = {entry.name for entry in files.children(files.root())}
        assert "file" not in names
        assert ["node" in note for note in files.notes] == [True]


def test_encrypted_files_are_refused_one_by_one() -> None:
    """Fails if the rest is not told, or bytes are given that are not the file's."""
    files = opened(changed(MAIN + 16, 2, bytes([ENCRYPTED])))
    entry = find_path(files, "file")
    assert entry.type is Type.FILE
    with pytest.raises(UnsupportedFeatureError, match="encrypted"):
        files.content(entry)
    assert files.notes == []


def test_encrypted_names_are_those_that_linux_shows_without_a_key() -> None:
    """Fails if folders of phones cannot be entered; base64url of hash, 4 zeros and the name."""
    files = opened(changed(MAIN, 2, bytes([ENCRYPTED])))
    names = {entry.name for entry in files.children(files.root())}
    assert "BwAAAAAAAABmaWxl" in names  # 07 00 00 00, 00 00 00 00, "file"
    assert files.notes == ["/: the names in it are encrypted"]


def test_content_in_an_inode_that_is_longer_than_it_is_an_error() -> None:
    """Fails if what lies behind it is told as content."""
    files = opened(changed(MAIN + 16 + 7, 16, (5000).to_bytes(8, "little")))
    names = {entry.name for entry in files.children(files.root())}
    assert "link" not in names
    assert ["at most" in note for note in files.notes] == [True]


def test_a_root_that_is_no_folder_is_an_error() -> None:
    """Fails if it is taken for an empty one."""
    with pytest.raises(CorruptImageError, match="folder as its root"):
        opened(changed(MAIN, 0, bytes(2)))
