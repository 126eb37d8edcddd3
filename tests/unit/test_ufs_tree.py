"""UFS: pointers, names and inodes of every kind, on volumes made by hand."""

from __future__ import annotations

import struct

import pytest

import imprint.filesystems.ufs.orphans
import imprint.filesystems.ufs.tree
from imprint.core.errors import CorruptImageError
from imprint.core.extent import Kind
from imprint.filesystems.blocks import block_size
from imprint.filesystems.tree import Type
from imprint.filesystems.ufs.tree import UfsTree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage
from imprint.testing.small_ufs import (
    BLOCK,
    FILE,
    FRAGMENT,
    FRAGMENTS,
    GONE,
    GROUP,
    INODES,
    LONG_TARGET,
    NS,
    OWNER,
    ROOT,
    SECONDS,
    SMALL,
    SMALL_BYTES,
    SNAPSHOT,
    TARGET,
    UFS_KINDS,
    file_bytes,
    in_block,
    small_ufs,
)

SUPER = 8192
INODES_AT = 16 * FRAGMENT
each_kind = pytest.mark.parametrize("kind", UFS_KINDS, ids=str)
each_version = pytest.mark.parametrize("kind", [UFS_KINDS[0], UFS_KINDS[3]], ids=str)


def opened(content: bytes) -> UfsTree:
    return UfsTree(MemoryStorage(content))


def changed(kind: tuple[int, str, str], at: int, code: str, *values: int) -> bytes:
    """A volume with other numbers somewhere."""
    content = bytearray(small_ufs(*kind))
    struct.pack_into(kind[1] + code, content, at, *values)
    return bytes(content)


def inode_at(kind: tuple[int, str, str], number: int) -> int:
    return INODES_AT + number * 128 * kind[0]


def pointers_at(kind: tuple[int, str, str], number: int) -> tuple[int, str]:
    """Where an inode's pointers are, and of which kind."""
    at = inode_at(kind, number)
    return (at + 40, "I") if kind[0] == 1 else (at + 112, "Q")


def pointers_of(kind: tuple[int, str, str], number: int) -> tuple[int, ...]:
    at, code = pointers_at(kind, number)
    return struct.unpack_from(f"{kind[1]}15{code}", small_ufs(*kind), at)


def size_at(kind: tuple[int, str, str], number: int) -> int:
    return inode_at(kind, number) + (8 if kind[0] == 1 else 16)


def names_of(files: UfsTree) -> set[str]:
    return {entry.name for entry in files.children(files.root())}


ALL = {"file", "short", "long", "small", "a folder of a longer name", "device", "snap"}


@each_kind
def test_names_and_facts_are_told_whoever_made_it(kind: tuple[int, str, str]) -> None:
    """Fails if a name is lost, or a fact is read where another system has it."""
    files = opened(small_ufs(*kind))
    assert block_size("ufs", MemoryStorage(small_ufs(*kind))) == FRAGMENT
    found = {entry.path: entry for entry in walk(files)}
    folder = "/a folder of a longer name"
    assert set(found) == {"/", *(f"/{name}" for name in ALL), f"{folder}/hard", f"{folder}/loop"}
    assert found["/file"].inode == found[f"{folder}/hard"].inode == FILE
    assert found["/file"].links == 2
    assert found["/device"].type is Type.CHARACTER
    assert (found["/small"].mode, found[folder].mode) == (0o4755, 0o2750)
    owner = (OWNER & 0xFFFF, GROUP & 0xFFFF) if kind[2] == "OLD" else (OWNER, GROUP)
    assert (found["/small"].owner, found["/small"].group) == owner
    version, _, dialect = kind
    part = {"BSD": NS, "Sun": NS // 1000 * 1000, "OLD": 0}[dialect]
    times = found["/small"].times
    assert times.accessed == SECONDS * 10**9 + part - (version - 1)
    assert times.modified == (SECONDS + 1) * 10**9 + part
    assert times.created == ((SECONDS + 3) * 10**9 + NS - 3 if version == 2 else None)
    assert found["/short"].target == TARGET.decode()
    assert found["/long"].target == LONG_TARGET.decode()
    assert ["in itself" in note for note in files.notes] == [True]


@each_kind
def test_blocks_are_found_through_every_level_of_pointers(kind: tuple[int, str, str]) -> None:
    """Fails if a position behind one, two or three levels is wrong, or a hole is none."""
    count = BLOCK // (4 * kind[0])
    files = opened(small_ufs(*kind))
    entry = find_path(files, "file")
    assert entry.size == file_bytes(count)
    assert not entry.is_plain
    content = files.content(entry)
    data = [part for part in content.extents(0, content.size) if part.kind is Kind.DATA]
    assert [part.offset // BLOCK for part in data] == list(in_block(count))
    for number, block in enumerate(in_block(count), 1):
        buffer = bytearray(BLOCK - 96)
        content.readinto(memoryview(buffer), block * BLOCK)
        assert set(buffer) == {number}
    small = find_path(files, "small")
    assert small.is_plain
    assert sum(length for _, length in small.extents) == -(-SMALL_BYTES // FRAGMENT) * FRAGMENT


@each_kind
def test_what_was_deleted_is_told_when_it_is_asked_for(kind: tuple[int, str, str]) -> None:
    """Fails if a name that is left is not found, or told where nobody asks for it."""
    files = opened(small_ufs(*kind))
    found = {entry.path: entry for entry in walk(files, deleted=True) if entry.is_deleted}
    assert set(found) == {
        "/gone.bin",
        "/first of its chunk",
        "/$OrphanFiles",
        "/$OrphanFiles/OrphanFile-10",
    }
    assert found["/gone.bin"].inode == GONE
    for path in ("/gone.bin", "/$OrphanFiles/OrphanFile-10"):
        assert not found[path].is_allocated
        buffer = bytearray(BLOCK)
        files.content(found[path]).readinto(memoryview(buffer), 0)
        assert set(buffer) == {11}
    lost = found["/first of its chunk"]
    assert lost.type is (Type.FILE if kind[2] == "BSD" else Type.OTHER)
    assert files.content(lost).size == 0


@each_version
def test_a_snapshot_is_the_file_system_but_for_what_has_changed(
    kind: tuple[int, str, str],
) -> None:
    """Fails if blocks that it shares are zeros, or those that were free are not."""
    raw = small_ufs(*kind)
    files = opened(raw)
    entry = find_path(files, "snap")
    content = files.content(entry)
    buffer = bytearray(content.size)
    content.readinto(memoryview(buffer), 0)
    assert buffer[:BLOCK] == raw[:BLOCK]
    assert not any(buffer[BLOCK : 2 * BLOCK])
    assert set(buffer[2 * BLOCK : 3 * BLOCK]) == {12}
    assert not any(buffer[3 * BLOCK : 4 * BLOCK])
    assert buffer[4 * BLOCK :] == raw[4 * BLOCK : 5 * BLOCK]
    (extent,) = entry.extents
    assert extent == (pointers_of(kind, SNAPSHOT)[2] * FRAGMENT, BLOCK)


@pytest.mark.parametrize("order", ["<", ">"])
def test_extended_attributes_have_their_namespace(order: str) -> None:
    """Fails if a name or a value is cut off, or has what fills it up."""
    files = opened(small_ufs(2, order))
    found = files.attributes(find_path(files, "small"))
    assert found == {"user.comment": b"to be read", "system.list": b""}
    assert files.attributes(find_path(files, "file")) == {}
    kind = (2, order, "BSD")
    place = struct.unpack_from(f"{order}Q", small_ufs(*kind), inode_at(kind, SMALL) + 96)[0]
    files = opened(changed(kind, place * FRAGMENT, "I", 4096))
    assert files.attributes(find_path(files, "small")) == {}
    assert ["extended attributes" in note for note in files.notes] == [True]


@each_version
def test_a_block_of_pointers_in_itself_comes_to_an_end(kind: tuple[int, str, str]) -> None:
    """Fails if a file may have blocks of pointers twice, and so no end."""
    at, code = pointers_at(kind, FILE)
    _, double, triple = pointers_of(kind, FILE)[12:]
    files = opened(changed(kind, triple * FRAGMENT, code, triple))
    entry = find_path(files, "file")
    assert len(entry.extents) == 4
    assert ["pointers that end" in note for note in files.notes] == [True]
    with pytest.raises(CorruptImageError, match="pointers that end"):
        files.content(entry)
    files = opened(changed(kind, at + 14 * struct.calcsize(code), code, double))
    assert len(find_path(files, "file").extents) == 4


@each_version
def test_a_block_of_pointers_is_one_files_only(kind: tuple[int, str, str]) -> None:
    """Fails if many files may have the same one, so that a small volume takes for ever."""
    at, code = pointers_at(kind, SMALL)
    content = bytearray(changed(kind, size_at(kind, SMALL), "Q", file_bytes(512)))
    struct.pack_into(
        kind[1] + code, content, at + 12 * struct.calcsize(code), pointers_of(kind, FILE)[12]
    )
    files = opened(bytes(content))
    assert names_of(files) == ALL
    assert [f"one of inode {FILE}" in note for note in files.notes] == [True]


@each_version
def test_a_file_that_cannot_be_followed_is_a_note(kind: tuple[int, str, str]) -> None:
    """Fails if the others in its folder are not told."""
    files = opened(changed(kind, size_at(kind, SMALL), "Q", 1 << 63))
    assert names_of(files) == ALL
    assert [f"found {1 << 63}" in note for note in files.notes] == [True]
    files = opened(changed(kind, inode_at(kind, SMALL), "H", 0))
    assert names_of(files) == ALL - {"small"}
    assert ["expected one in use" in note for note in files.notes] == [True]


@each_version
def test_names_behind_a_broken_one_are_found(kind: tuple[int, str, str]) -> None:
    """Fails if what is in the next 512 bytes of a folder is lost with it."""
    root = pointers_of(kind, ROOT)[0] * FRAGMENT
    for length in (0, 3, 7, 0xFFFC):
        files = opened(changed(kind, root + 4, "H", length))
        assert names_of(files) == {"a folder of a longer name", "device", "snap"}
        assert ["one behind the other" in note for note in files.notes] == [True]
    files = opened(changed(kind, root + 24, "I", INODES))
    assert names_of(files) == ALL - {"file"}


@each_version
def test_a_folder_that_cannot_be_read_is_a_note(kind: tuple[int, str, str]) -> None:
    """Fails if a bad sector in a folder is no note, or ends the listing of others."""
    place = pointers_of(kind, ROOT)[0] * FRAGMENT
    volume = FaultyStorage(MemoryStorage(small_ufs(*kind)), bad=[(place, 512)])
    files = UfsTree(volume)
    assert [entry.name for entry in files.children(files.root(), deleted=True)] == ["$OrphanFiles"]
    assert len(files.notes) == 1


def test_a_root_that_is_no_folder_is_an_error() -> None:
    """Fails if it is taken for an empty one."""
    with pytest.raises(CorruptImageError, match="folder as its root"):
        opened(changed((2, "<", "BSD"), inode_at((2, "<", "BSD"), ROOT), "H", 0o100644))
    with pytest.raises(CorruptImageError, match="expected an inode"):
        opened(changed((2, "<", "BSD"), SUPER + 184, "I", 0))


def test_a_file_system_that_is_larger_than_its_volume_is_told_as_far_as_it_goes() -> None:
    """Fails if an image that is cut off is refused as a whole."""
    kind = (1, "<", "BSD")
    content = changed(kind, SUPER + 36, "i", 3 * FRAGMENTS)
    cut = bytearray(content)
    struct.pack_into("<i", cut, SUPER + 44, 3)
    files = opened(bytes(cut))
    assert names_of(files) == ALL
    assert files.notes == []


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ((2, "<", "BSD"), {209: ("B", 0), 1312: ("I", 0x40), 211: ("B", 0x80)}),
        ((2, ">", "BSD"), {209: ("B", 0), 1312: ("I", 0x100), 211: ("B", 0x80), 1248: ("H", 257)}),
        ((1, ">", "Sun"), {4: ("I", 2), 1324: ("I", 4000)}),
    ],
    ids=["gjournal", "NetBSD", "Solaris"],
)
def test_what_may_be_in_a_log_only_is_a_note(
    kind: tuple[int, str, str], places: dict[int, tuple[str, int]]
) -> None:
    """Fails if the newest files of a file system that was in use are missing without a word."""
    assert opened(small_ufs(*kind)).notes == []
    content = bytearray(small_ufs(*kind))
    for at, (code, value) in places.items():
        struct.pack_into(kind[1] + code, content, SUPER + at, value)
    files = opened(bytes(content))
    assert ["only in its log" in note for note in files.notes] == [True]
    assert names_of(files) == ALL


@each_version
def test_large_files_of_many_names_do_not_take_for_ever(
    kind: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if pointers are followed for each name that a hostile folder has of one file."""
    monkeypatch.setattr(imprint.filesystems.ufs.tree, "_AGAIN_MAX", 8)
    files = opened(small_ufs(*kind))
    (first,) = (entry for entry in walk(files) if entry.name == "file")
    (second,) = (entry for entry in walk(files) if entry.name == "hard")
    (folder,) = (entry for entry in walk(files) if entry.name.startswith("a folder"))
    assert len(first.extents) == len(second.extents) == 5
    (third,) = (entry for entry in files.children(folder) if entry.name == "hard")
    assert third.extents == ()
    data = files.content(third).extents(0, third.size)
    assert sum(part.kind is Kind.DATA for part in data) == 5


@each_kind
def test_folders_that_share_their_names_do_not_take_for_ever(
    kind: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if names are looked at again and again for as many folders as say to have them."""
    monkeypatch.setattr(imprint.filesystems.ufs.orphans, "_LOOKED_AT_MAX", 2)
    files = opened(small_ufs(*kind))
    found = {entry.path for entry in walk(files, deleted=True)}
    assert "/$OrphanFiles" in found
    assert "/$OrphanFiles/OrphanFile-10" not in found
    assert "/$OrphanFiles: expected fewer names" in files.notes
