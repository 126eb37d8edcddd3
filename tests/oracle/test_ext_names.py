"""Folders and inodes of ext that are damaged: what is lost is noted, and the rest is told."""

from __future__ import annotations

import re
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB
from imprint.filesystems.ext.tree import open_tree
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Source

pytestmark = pytest.mark.oracle("mke2fs")

KINDS: Final = ("ext2", "ext4")
"""Without extents an own reader tells them, with extents The Sleuth Kit."""

NAMES: Final = [f"name {number:04}" for number in range(200)]
ENTRY: Final = struct.Struct("<IHBB")
"""Inode, length of the entry, of the name, kind. The name follows."""


def volume(path: Path, kind: str, *options: str) -> bytearray:
    pytest.importorskip("pytsk3")
    source = path / "source" / "folder"
    source.mkdir(parents=True)
    for name in NAMES:
        (source / name).touch()
    run("mke2fs", "-F", "-t", kind, *options, "-d", source.parent, path / "disk", "16M")
    return bytearray((path / "disk").read_bytes())


def told(source: Source, kind: str) -> tuple[list[str], list[str]]:
    with closing(open_tree(source, kind)) as files:
        found = (entry.path for entry in walk(files))
        return sorted(path[8:] for path in found if path.startswith("/folder/")), files.notes


def failing(content: bytes | bytearray, bad: int, length: int) -> Source:
    return BadMedium(MemoryStorage(content), Faults(bad=((bad, length),)))


def beside(content: bytes | bytearray, name: str) -> tuple[list[str], list[str]]:
    """The names before one in its block of 1 KiB, and those from it on."""
    place = content.index(name.encode())
    start = place - place % KIB
    here = [item for item in NAMES if start <= content.index(item.encode()) < start + KIB]
    here.sort(key=lambda item: content.index(item.encode()))
    return here[: here.index(name)], here[here.index(name) :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 4, 18, 2000, 0xFFFF])
def test_names_behind_a_damaged_entry_are_not_lost_in_silence(
    tmp_path: Path, kind: str, length: int
) -> None:
    """Fails if a folder with fewer names than it had looks like a sound one."""
    content = volume(tmp_path, kind, "-b", "1024")
    assert told(MemoryStorage(content), kind) == (NAMES, [])
    name, *lost = [name for part in beside(content, "name 0100") for name in part][3:]
    struct.pack_into("<H", content, content.index(name.encode()) - 4, length)
    names, notes = told(MemoryStorage(content), kind)
    assert names == sorted(set(NAMES) - set(lost))
    assert [note.startswith("/folder: a damaged entry") for note in notes] == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_does_not_go_on_into_the_next_entry(tmp_path: Path, kind: str) -> None:
    """Fails if numbers of the file system are told as the rest of a name."""
    content = volume(tmp_path, kind, "-b", "1024")
    at = content.index(b"name 0100") - ENTRY.size
    number, length, _, what = ENTRY.unpack_from(content, at)
    ENTRY.pack_into(content, at, number, length, 200, what)
    names, notes = told(MemoryStorage(content), kind)
    assert names == [name for name in NAMES if name != "name 0100"]
    assert notes == [f"/folder: inode {number}: its name is longer than its entry"]


def test_the_largest_blocks_say_their_length_in_16_bits(tmp_path: Path) -> None:
    """Fails if an entry that is all of a block of 64 KiB is taken for a damaged one.

    Source: Linux ``ext4_rec_len_from_disk``.
    """
    content = volume(tmp_path, "ext2", "-b", "65536", "-N", "1024")
    assert told(MemoryStorage(content), "ext2") == (NAMES, [])


def test_a_block_that_cannot_be_read_costs_its_own_names_only(tmp_path: Path) -> None:
    """Fails if one bad sector of a folder takes all names behind it away."""
    content = volume(tmp_path, "ext2", "-b", "1024")
    before, behind = beside(content, "name 0100")
    bad = content.index(b"name 0100") // KIB * KIB
    names, notes = told(failing(content, bad, KIB), "ext2")
    assert names == sorted(set(NAMES) - {*before, *behind})
    assert notes == [f"/folder: cannot read at 0x{bad:x}"]


@pytest.mark.oracle("debugfs")
@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_of_orphans_has_no_attributes(tmp_path: Path, kind: str) -> None:
    """Fails if a sound volume has a note, for a folder that is in no inode."""
    volume(tmp_path, kind)
    run("debugfs", "-w", "-R", 'rm "/folder/name 0100"', tmp_path / "disk")
    content = (tmp_path / "disk").read_bytes()
    with closing(open_tree(MemoryStorage(content), kind)) as files:
        found = [(entry.path, files.attributes(entry)) for entry in walk(files, deleted=True)]
        assert ("/$OrphanFiles", {}) in found
        assert ("/folder/name 0100", {}) in found
        assert files.notes == []


@pytest.mark.parametrize("feature", ["bigalloc", "meta_bg,^resize_inode", "inline_data"])
def test_what_is_not_looked_for_is_not_said_to_be_nothing(tmp_path: Path, feature: str) -> None:
    """Fails if nothing says that deleted names are not told."""
    content = volume(tmp_path, "ext4", "-O", feature)
    with closing(open_tree(MemoryStorage(content), "ext4")) as files:
        found = [entry.path for entry in walk(files, deleted=True)]
        assert set(NAMES) < {path.rpartition("/")[2] for path in found}
        assert ["deleted names are not told" in note for note in files.notes] == [True]


@pytest.mark.oracle("debugfs")
def test_a_bad_sector_costs_only_the_inodes_in_it(tmp_path: Path) -> None:
    """Fails if files lack whose inodes are beside one that cannot be read."""
    content = volume(tmp_path, "ext2", "-b", "1024", "-I", "256")
    disk = tmp_path / "disk"
    found = run("debugfs", "-R", 'imap "/folder/name 0100"', disk).stdout
    match = re.search(r"block (\d+), offset 0x([0-9a-f]+)", found)
    assert match is not None
    bad = (int(match[1]) * KIB + int(match[2], 16)) // 512 * 512
    names, notes = told(failing(content, bad, 512), "ext2")
    assert len(names) == len(NAMES) - 2  # two of 256 bytes are in it
    assert "name 0100" not in names
    assert ["cannot read at" in note for note in notes] == [True] * 2


@pytest.mark.oracle("debugfs")
def test_a_file_whose_blocks_cannot_be_followed_is_told(tmp_path: Path) -> None:
    """Fails if a name lacks, or a link leads nowhere, for a damaged pointer to a block."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(bytes(range(256)) * 200)
    (source / "link").symlink_to("x" * 70)
    disk = tmp_path / "disk"
    run("mke2fs", "-F", "-t", "ext2", "-b", "1024", "-d", source, disk, "8M")
    run("debugfs", "-w", "-R", "sif /large block[IND] 99999999", disk)
    run("debugfs", "-w", "-R", "sif /link block[0] 99999999", disk)
    with closing(open_tree(MemoryStorage(disk.read_bytes()), "ext2")) as files:
        found = {entry.path: entry for entry in walk(files)}
        assert found["/large"].size == 51200
        assert (found["/link"].target, found["/link"].size) == (None, 70)
        assert sorted(note.partition(":")[0] for note in files.notes) == ["/large", "/link"]
        for path in ("/large", "/link"):
            with pytest.raises(CorruptImageError, match="99999999"):
                files.content(found[path])


@pytest.mark.oracle("debugfs")
@pytest.mark.parametrize("options", [("-t", "ext3"), ("-t", "ext4")], ids=["own", "library"])
def test_a_journal_that_was_not_replayed_is_noted(tmp_path: Path, options: tuple[str, str]) -> None:
    """Fails if nothing says that the last changes of a file system lack."""
    pytest.importorskip("pytsk3")
    disk = tmp_path / "disk"
    run("mke2fs", "-F", *options, disk, "16M")
    for command, count in (("features", 0), ("features needs_recovery", 1)):
        run("debugfs", "-w", "-R", command, disk)
        with closing(open_tree(MemoryStorage(disk.read_bytes()), options[1])) as files:
            assert sum("journal" in note for note in files.notes) == count
