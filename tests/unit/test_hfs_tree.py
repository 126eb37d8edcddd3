"""Classic HFS and MFS: volumes made by hand, and hostile bytes."""

from __future__ import annotations

import contextlib
import random
import struct
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError, FormatError, ImagingError
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.filesystems import identify
from imprint.filesystems.blocks import block_size
from imprint.filesystems.hfs import FILE_SYSTEM
from imprint.filesystems.remains import slack
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.format_faults import bounded_memory
from imprint.testing.small_hfs import (
    CONTENT,
    FINDER,
    FIRST,
    MFS_CONTENT,
    MFS_RESOURCE,
    NAMES,
    RESOURCE,
    SECTOR,
    TIMES,
    small_hfs,
    small_mfs,
)

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.filesystems.tree import FileTree

MASTER = 1024
CATALOG = (FIRST + 4) * SECTOR
INDEX, LEAVES = CATALOG + SECTOR, (CATALOG + 2 * SECTOR, CATALOG + 3 * SECTOR)
S_TO_1970 = (66 * 365 + 17) * 86400
"""From 1904: 66 years, of which 17 are leap years."""


def opened(content: bytes, kind: str = "hfs") -> FileTree:
    return tree(kind, MemoryStorage(content, name="volume"))


def read(source: Source, start: int = 0, end: int | None = None) -> bytes:
    buffer = bytearray((source.size if end is None else end) - start)
    source.readinto(memoryview(buffer), start)
    return bytes(buffer)


def paths(files: FileTree) -> list[str]:
    return sorted(entry.path for entry in walk(files))


def changed(content: bytes, at: int, form: str, *values: int) -> bytes:
    whole = bytearray(content)
    struct.pack_into(form, whole, at, *values)
    return bytes(whole)


def record_at(whole: bytes, name: bytes) -> int:
    """Where the data of a file's or folder's record are: behind its name, at an even place."""
    leaf = LEAVES[0] if name == b"file" else LEAVES[1]
    at = whole.index(bytes([len(name)]) + name, leaf) + 1 + len(name)
    return at + at % 2


def test_what_was_put_there_is_told() -> None:
    """Fails if an index, a further extent, a fork or a time is read as something else."""
    files = opened(small_hfs())
    assert paths(files) == ["/", *(f"/{name}" for name in NAMES)]
    assert files.notes == []
    entry = find_path(files, "file")
    assert (entry.inode, entry.type, entry.size) == (16, Type.FILE, len(CONTENT))
    assert entry.streams == ("rsrc",)
    assert entry.times.modified == (TIMES[0] - S_TO_1970) * 10**9
    assert entry.times.created == (TIMES[1] - S_TO_1970) * 10**9
    base = (FIRST + 20) * SECTOR
    expected = [(0, 1), (2, 1), (4, 2), (6, 1), (9, 2), (12, 2)]
    places = [(base + start * SECTOR, count * SECTOR) for start, count in expected]
    assert list(entry.extents) == places
    assert slack(entry)[0] == (base + 11 * SECTOR - 12, 12)
    assert read(files.content(entry)) == CONTENT
    assert read(files.content(entry), 500, 3000) == CONTENT[500:3000]
    assert read(files.content(entry, "rsrc")) == RESOURCE
    assert files.attributes(entry) == {"user.com.apple.FinderInfo": FINDER + bytes(16)}
    assert files.attributes(files.root()) == {}
    folder = find_path(files, "folder")
    assert folder.type is Type.DIRECTORY
    assert files.content(folder).size == 0
    with pytest.raises(CorruptImageError, match="no stream"):
        files.content(find_path(files, "empty"), "rsrc")
    files.close()


def test_mfs_is_told_as_it_was_put_there() -> None:
    """Fails if a chain, the map's 12 bits, or the second sector of a directory is read wrongly."""
    volume = MemoryStorage(small_mfs(), name="volume")
    found = identify(volume)
    assert found is not None
    assert (found.kind, found.label) == ("mfs", "Old")
    assert block_size("mfs", volume) == KIB
    files = opened(small_mfs(), "mfs")
    assert paths(files) == ["/", "/\\x2e\\x2e", "/empty:\\x2f", "/file"]
    assert files.notes == []
    entry = find_path(files, "file")
    first = 16 * SECTOR
    places = [(first, KIB), (first + 3 * KIB, KIB), (first + 2 * KIB, KIB), (first + 5 * KIB, 2048)]
    assert list(entry.extents) == places
    assert entry.times.modified == (TIMES[0] - S_TO_1970) * 10**9
    assert read(files.content(entry)) == MFS_CONTENT
    assert read(files.content(entry, "rsrc")) == MFS_RESOURCE
    assert files.attributes(entry) == {"user.com.apple.FinderInfo": FINDER + bytes(16)}


def test_the_map_is_the_bitmap_and_all_outside_of_the_blocks() -> None:
    """Fails if a block is taken for free that is not; 40 blocks are taken, behind four sectors."""
    volume = MemoryStorage(small_hfs())
    found = FILE_SYSTEM.allocation(volume)
    assert found.doubts == ()
    end = (FIRST + 64) * SECTOR
    assert found.used == Runs.of([(0, 44 * SECTOR), (end, volume.size - end)])
    assert found.unit == block_size("hfs", volume) == SECTOR
    reached = Runs.of(FILE_SYSTEM.reached(volume))
    assert len(reached - found.used) == 0
    assert reached.covers((FIRST + 29) * SECTOR, 2 * SECTOR)


def test_what_speaks_against_the_map_is_a_doubt_or_an_error() -> None:
    """Fails if a map is relied upon that a crash has left behind the times."""
    volume = small_hfs()
    cases = {
        "free blocks": changed(volume, MASTER + 34, ">H", 25),
        "not unmounted": changed(volume, MASTER + 10, ">H", 0),
        "needs to be checked": changed(volume, MASTER + 10, ">H", 0x900),
    }
    for expected, content in cases.items():
        doubts = FILE_SYSTEM.allocation(MemoryStorage(content)).doubts
        assert expected in " ".join(doubts), expected
    for at, value in ((14, 0xFFFF), (14, 4), (18, 0xFFFF), (22, 0), (0, 0)):
        with pytest.raises(CorruptImageError):
            FILE_SYSTEM.allocation(MemoryStorage(changed(volume, MASTER + at, ">H", value)))


def test_a_volume_that_was_not_unmounted_has_a_note() -> None:
    """Fails if nobody hears that the catalog may be behind the times."""
    files = opened(changed(small_hfs(), MASTER + 10, ">H", 0))
    assert len(paths(files)) == 5
    assert [note for note in files.notes if "not unmounted" in note] == files.notes != []


def test_leaves_in_a_circle_and_indexes_of_themselves_come_to_an_end() -> None:
    """Fails if a chain of leaves, or a way down, is followed for ever."""
    whole = small_hfs()
    for content in (
        changed(whole, LEAVES[1], ">I", 2),
        changed(whole, LEAVES[1], ">I", 3),
        changed(whole, LEAVES[0], ">I", 0xFFFFFFFF),
        changed(whole, LEAVES[0], ">I", 1),
    ):
        files = opened(content)
        assert "/file" in paths(files)
    for target in (1, 0, 99, 0xFFFFFFFF):
        looped = bytearray(whole)
        for pointer in (14 + 38, 14 + 42 + 38):
            struct.pack_into(">I", looped, INDEX + pointer, target)
        with pytest.raises(CorruptImageError):
            opened(bytes(looped))


def test_a_folder_that_is_in_itself_is_entered_once() -> None:
    """Fails if a walk does not end; 6 bytes into a folder's record is its number."""
    whole = small_hfs()
    at = record_at(whole, b"folder")
    files = opened(changed(whole, at + 6, ">I", 2))
    assert "/folder" not in paths(files)
    assert "two" in files.notes[0]
    at = record_at(whole, b"in a/ folder")
    looped = changed(changed(whole, at, ">B", 1), at + 6, ">I", 17)
    files = opened(looped)
    assert "/folder/in a: folder" in paths(files)
    assert ["in itself" in note for note in files.notes] == [True]


def test_two_files_of_one_number_are_not_told_both() -> None:
    """Fails if one is read as the other, or many of them may have all extents of a large one."""
    whole = small_hfs()
    at = record_at(whole, b"in a/ folder")
    files = opened(changed(whole, at + 20, ">I", 16))
    assert paths(files) == ["/", *(f"/{name}" for name in NAMES[:3])]
    (note,) = files.notes
    assert "two" in note
    assert read(files.content(find_path(files, "file"))) == CONTENT


def test_two_files_of_one_number_and_one_leaf_keep_what_is_theirs() -> None:
    """Fails if the fork or the type of one is told as that of the other."""
    whole = small_hfs()
    at = whole.index(b"\x05empty", LEAVES[0]) + 6
    files = opened(changed(whole, at + at % 2 + 20, ">I", 16))
    assert read(files.content(find_path(files, "file"), "rsrc")) == RESOURCE
    assert read(files.content(find_path(files, "file"))) == CONTENT
    assert files.content(find_path(files, "empty")).size == 0


@pytest.mark.parametrize("record", [0, 1, 2])
def test_names_of_damaged_records_do_not_vanish_in_silence(record: int) -> None:
    """Fails if a folder with fewer names than it had looks like a sound one.

    The offset of a record stands 2 bytes in front of that of the one before, at the node's end.
    """
    content = changed(small_hfs(), LEAVES[1] + SECTOR - 2 - 2 * record, ">H", 0x4000)
    files = opened(content)
    found = paths(files)
    assert {"/", "/empty", "/file"} <= set(found) < {"/", *(f"/{name}" for name in NAMES)}
    assert files.notes
    assert all("node 3" in note for note in files.notes)
    with pytest.raises(CorruptImageError):
        list(FILE_SYSTEM.reached(MemoryStorage(content)))


def test_forks_that_lead_nowhere_are_errors_of_their_own() -> None:
    """Fails if missing or absurd extents make other files vanish, or read as zeros."""
    whole = small_hfs()
    record = record_at(whole, b"file")
    for at, form, value in (
        (26, ">I", 0xFFFFFFFF),  # the size
        (76, ">H", 0xFFFF),  # blocks of the first extent
        (74, ">H", 64),  # its start
    ):
        files = opened(changed(whole, record + at, form, value))
        assert len(paths(files)) == 5
        with bounded_memory(16 * MIB), pytest.raises(CorruptImageError):
            files.content(find_path(files, "file"))
        assert read(files.content(find_path(files, "file"), "rsrc")) == RESOURCE


def test_without_further_extents_all_other_files_are_told() -> None:
    """Fails if a damaged tree of extents takes all files with it."""
    files = opened(changed(small_hfs(), FIRST * SECTOR + SECTOR + 8, ">B", 7))
    assert len(paths(files)) == 5
    assert len(files.notes) == 1
    assert read(files.content(find_path(files, "file"), "rsrc")) == RESOURCE
    with pytest.raises(CorruptImageError, match="extents"):
        files.content(find_path(files, "file"))


def test_a_volume_that_is_cut_short_tells_what_is_left() -> None:
    """Fails if a catalog of which a part is missing tells nothing at all."""
    files = opened(small_hfs()[: LEAVES[1]])
    assert paths(files) == ["/", "/empty", "/file"]
    assert ["inside the volume" in note for note in files.notes] == [True]
    with pytest.raises(CorruptImageError):
        files.content(find_path(files, "file"))


@pytest.mark.parametrize("kind", ["hfs", "mfs"])
def test_any_damage_gives_files_notes_or_one_error(kind: str) -> None:
    """Fails if hostile bytes raise anything else, take long, or lead out of the volume."""
    whole = small_hfs() if kind == "hfs" else small_mfs()
    dice = random.Random(kind)
    ends = {"hfs": (FIRST + 8) * SECTOR, "mfs": 6 * SECTOR}
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(dice.choice((1, 3, 20))):
            at = dice.randrange(MASTER, ends[kind])
            content[at] = dice.choice((0, 1, 2, 0x80, 0xFF, dice.randrange(256)))
        volume = MemoryStorage(bytes(content), name="volume")
        with contextlib.suppress(ImagingError):
            identify(volume)
            files = tree(kind, volume)
            for entry in walk(files):
                assert all(
                    0 <= start < start + size <= volume.size for start, size in entry.extents
                )
                files.attributes(entry)
                for stream in (None, *entry.streams):
                    with contextlib.suppress(FormatError):
                        read(files.content(entry, stream), 0, 0)
        if kind == "hfs":
            with contextlib.suppress(FormatError):
                assert FILE_SYSTEM.allocation(volume).used.end <= volume.size
            with contextlib.suppress(FormatError):
                assert Runs.of(FILE_SYSTEM.reached(volume)).end <= volume.size


@pytest.mark.parametrize("kind", ["hfs", "mfs"])
def test_noise_and_what_is_too_short_are_one_error(kind: str) -> None:
    """Fails if what is no file system is an empty one, or crashes."""
    for content in (random.Random(1).randbytes(MIB), bytes(MIB), b"", small_hfs()[:1100]):
        with pytest.raises(FormatError):
            opened(content, kind)


def test_mfs_of_chains_in_circles_and_absurd_sizes_ends() -> None:
    """Fails if a block is told twice, or a chain is followed for ever."""
    whole = small_mfs()
    blocks = MASTER + 64  # 12 bits each, from number 2 on
    size_at = 4 * SECTOR + 24
    for content in (
        changed(whole, size_at, ">I", 0xFFFFFFFF),
        changed(whole, 4 * SECTOR + 22, ">H", 0xFFFF),
        changed(whole, blocks + 1, ">B", 0x00),  # number 2: free
        changed(whole, blocks + 5, ">B", 0x02),  # number 5: goes on in 2
    ):
        files = opened(content, "mfs")
        entry = find_path(files, "file")
        with bounded_memory(16 * MIB), pytest.raises(CorruptImageError):
            files.content(entry)
        assert read(files.content(entry, "rsrc")) == MFS_RESOURCE
    files = opened(changed(whole, MASTER + 12, ">H", 77), "mfs")
    assert files.notes == ["/: expected 77 files, found 3"]
