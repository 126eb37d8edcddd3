"""Volumes of which a sector cannot be read: whatever is missing or other than it was has a note."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import FormatError, ReadError
from imprint.core.units import KIB
from imprint.filesystems.sleuthkit import SleuthKit
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.memory import MemoryStorage
from imprint.testing import ntfs_volume
from imprint.testing.faults import FaultyStorage
from imprint.testing.oracles import run
from imprint.testing.small_udf import KINDS, small_udf

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Entry

SECTOR: Final = 512
TRIED: Final = 24
"""Sectors of each: a process is started for each of them."""


class Watched(MemoryStorage):
    """Knows which of its sectors were wanted."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.sectors: set[int] = set()

    def readinto(self, buffer: memoryview, offset: int) -> None:
        self.sectors.update(range(offset // SECTOR, -(-(offset + len(buffer)) // SECTOR)))
        super().readinto(buffer, offset)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for number in range(30):
        (folder / f"folder {number % 6}").mkdir(exist_ok=True)
        name = folder / f"folder {number % 6}" / f"file {number}"
        name.write_bytes(bytes([number]) * 1500 * (number % 5))
    return folder


def looked_into(volume: Source, kind: str) -> tuple[dict[str, Entry], dict[str, bytes], set[str]]:
    """Entries, and contents that can be read, by path; then the notes."""
    contents: dict[str, bytes] = {}
    with closing(tree(kind, volume)) as files:
        entries = {entry.path: entry for entry in walk(files)}
        for path, entry in entries.items():
            if entry.type is Type.FILE:
                try:
                    content = files.content(entry)
                    buffer = bytearray(content.size)
                    content.readinto(memoryview(buffer), 0)
                except (FormatError, ReadError):
                    continue
                contents[path] = bytes(buffer)
        return entries, contents, set(files.notes)


def check(raw: bytes, kind: str, *, most: int) -> None:
    """Make one sector after the other unreadable, of those that tell something."""
    watched = Watched(raw)
    entries, contents, notes = looked_into(watched, kind)
    assert len(contents) >= 4
    wanted = [n for n in sorted(watched.sectors) if any(raw[n * SECTOR : (n + 1) * SECTOR])]
    for number in random.Random(kind).sample(wanted, min(most, len(wanted))):
        faulty = FaultyStorage(watched, bad=[(number * SECTOR, SECTOR)], verbs=["read"])
        try:
            found, read, more = looked_into(faulty, kind)
        except (FormatError, ReadError):
            continue  # nothing was told
        same = found == entries and all(contents[path] == data for path, data in read.items())
        assert same or more - notes, f"sector {number}"


@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize("inode_bytes", ["128", "256"])
def test_of_ext_nothing_is_missing_in_silence(
    tmp_path: Path, source: Path, inode_bytes: str
) -> None:
    """Fails if zeros are taken for inodes or names that could not be read."""
    path = tmp_path / "volume"
    run("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-I", inode_bytes, "-d", source, path, "4M")
    check(path.read_bytes(), "ext4", most=TRIED)


@pytest.mark.oracle("xorriso")
def test_of_hfsplus_nothing_is_missing_in_silence(tmp_path: Path, source: Path) -> None:
    """Fails if zeros are taken for records of the catalogue."""
    path = tmp_path / "disc"
    run("xorriso", "-as", "mkisofs", "-quiet", "-hfsplus", "-R", "-o", path, source)
    content = path.read_bytes()
    check(content[content.index(b"H+\0\4") - KIB :], "hfsplus", most=TRIED)


@pytest.mark.parametrize("kind", KINDS)
def test_of_udf_nothing_is_missing_in_silence(kind: str) -> None:
    """Fails if an older state of a file is told, or a copy is not looked for."""
    check(small_udf(kind), "udf", most=100)


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_a_node_of_a_large_folder_of_ntfs_hides_no_other(tmp_path: Path) -> None:
    """Fails if names of other nodes are missing, or those of one that is damaged without a word."""
    count, node = 8_000, 4 * KIB
    path = ntfs_volume.make(tmp_path / "volume")
    with ntfs_volume.ntfs_mounted(path) as folder:
        (folder / "large").mkdir()
        for number in range(count):
            (folder / "large" / f"a name that takes some room {number}").touch()
    volume = MemoryStorage(path.read_bytes())
    with closing(SleuthKit(volume, "ntfs")) as files:
        large = find_path(files, "/large")
        assert len(list(files.children(large))) == count
    start, _ = max(large.extents, key=lambda extent: extent[1])
    most = node // 100  # names of 27 characters and more, with what is beside them
    torn = bytearray(volume.content)
    torn[start + 5 * node + 510] ^= 0xFF
    for damaged in (
        FaultyStorage(volume, bad=[(start + 5 * node, SECTOR)], verbs=["read"]),
        MemoryStorage(bytes(torn)),
    ):
        with closing(SleuthKit(damaged, "ntfs")) as files:
            found = list(files.children(large))
            assert count - most <= len(found) < count
            assert [note.partition(": ")[0] for note in files.notes] == ["/large"]
