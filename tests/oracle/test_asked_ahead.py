"""Folders that are asked for before they are wanted: the same answers, and no talk that hangs."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError, ReadError
from imprint.core.units import KIB, MIB
from imprint.filesystems import isolated
from imprint.filesystems.sleuthkit import SleuthKit
from imprint.filesystems.sleuthkit_worker import PART_ENTRIES
from imprint.filesystems.tree import Type
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing import ntfs_volume
from imprint.testing.faults import FaultyStorage
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Entry

pytestmark = pytest.mark.oracle("mke2fs")

NESTED = [f"{top}/{middle}/{leaf}" for top in "abc" for middle in "defgh" for leaf in "ijklmn"]


class Unhurried:
    """The same files, by a tree that is never told what comes."""

    def __init__(self, tree: SleuthKit) -> None:
        self._tree = tree
        self.notes = tree.notes
        self.root, self.content, self.close = tree.root, tree.content, tree.close
        self.attributes = tree.attributes

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        return self._tree.children(folder, deleted=deleted)


class Dying(FaultyStorage):
    """Counts how often it could not be read."""

    failures = 0

    def readinto(self, buffer: memoryview, offset: int) -> None:
        try:
            super().readinto(buffer, offset)
        except ReadError:
            self.failures += 1
            raise


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> MemoryStorage:
    """90 folders of folders of folders, with a file or five in each of the last."""
    folder = tmp_path_factory.mktemp("nested")
    for number, name in enumerate(NESTED):
        (folder / "tree" / name).mkdir(parents=True)
        for file in range(number % 5 + 1):
            (folder / "tree" / name / f"file{file}").write_bytes(bytes([number]) * 5000)
    path = folder / "volume"
    run("mke2fs", "-q", "-t", "ext4", "-d", folder / "tree", path, "16M")
    return MemoryStorage(path.read_bytes())


def _walked(volume: Source, *, hurried: bool) -> tuple[list[Entry], list[str]]:
    with closing(SleuthKit(volume, "ext4")) as tree:
        return list(walk(tree if hurried else Unhurried(tree))), tree.notes


def test_all_that_was_put_in_is_told_once(volume: MemoryStorage) -> None:
    """Fails if an answer is taken for that to another question, or is lost."""
    found, notes = _walked(volume, hurried=True)
    files = [entry.path for entry in found if entry.type is Type.FILE]
    expected = [
        f"/{name}/file{file}"
        for number, name in enumerate(NESTED)
        for file in range(number % 5 + 1)
    ]
    assert sorted(files) == sorted(expected)
    assert found == _walked(volume, hurried=False)[0]
    assert notes == []


def test_answers_that_are_not_kept_are_asked_for_again(
    volume: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if what takes too much memory until it is wanted is lost, or told twice."""
    monkeypatch.setattr(isolated, "_AHEAD_BYTES_MAX", 0)
    assert _walked(volume, hurried=True) == _walked(volume, hurried=False)


def test_what_cannot_be_read_is_the_same_note(volume: MemoryStorage) -> None:
    """Fails if the reason why one folder cannot be read is told of another, or of none."""
    entries, _ = _walked(volume, hurried=False)
    lowest = [entry for entry in entries if entry.path.count("/") == 3 and entry.extents]
    folders = [entry for entry in lowest if entry.type is Type.DIRECTORY]
    bad = [entry.extents[0] for entry in folders[5::7]]
    found, notes = _walked(FaultyStorage(volume, bad=bad, verbs=["read"]), hurried=True)
    slowly, expected = _walked(FaultyStorage(volume, bad=bad, verbs=["read"]), hurried=False)
    assert found == slowly
    assert notes == expected
    assert len(notes) == len(bad)


def test_what_cannot_be_read_ahead_is_tried_once(volume: MemoryStorage) -> None:
    """Fails if a failing disk is waited for again for each folder that is beside a bad sector."""
    faulty = Dying(volume, bad=[(8 * MIB, 512)], verbs=["read"])
    with closing(SleuthKit(faulty, "ext4")) as tree:
        before = faulty.failures
        for _ in range(10):
            tree.process.ask_ahead("root", reads=8 * MIB)
            tree.process.ask("root")
        assert faulty.failures == before + 1


def test_questions_that_are_never_asked_harm_nobody(volume: MemoryStorage) -> None:
    """Fails if answers that nobody wants are held for ever, or hold up those that are wanted."""
    entries, _ = _walked(volume, hurried=False)
    folders = [entry for entry in entries if entry.type is Type.DIRECTORY]
    with closing(SleuthKit(volume, "ext4")) as tree:
        for folder in folders:
            tree.process.ask_ahead("folder", folder.inode, 0, False, reads=1 << 62)
        below = [entry.path for entry in tree.children(folders[3])]
    assert below == [
        entry.path for entry in entries if entry.path.rpartition("/")[0] == folders[3].path
    ]


def test_a_library_that_dies_leaves_no_question_open(volume: MemoryStorage) -> None:
    """Fails if somebody waits for ever for an answer of a process that is gone."""
    with closing(SleuthKit(volume, "ext4")) as tree:
        os.kill(tree.process.process.pid, signal.SIGSTOP)
        for inode in range(2, 12):
            tree.process.ask_ahead("folder", inode, 0, False)
        os.kill(tree.process.process.pid, signal.SIGKILL)
        for inode in (2, 5, 11, 40):
            with pytest.raises(CorruptImageError, match="crashed"):
                tree.process.ask("folder", inode, 0, False)


def test_nothing_is_answered_when_the_files_are_closed(volume: MemoryStorage) -> None:
    """Fails if closing waits for questions on their way, or a later one is never answered."""
    tree = SleuthKit(volume, "ext4")
    for inode in range(2, 12):
        tree.process.ask_ahead("folder", inode, 0, False)
    tree.close()
    tree.close()
    with pytest.raises(CorruptImageError, match="closed"):
        tree.process.ask("root")


class Held(MemoryStorage):
    """A volume that cannot be read while somebody has the lock."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.lock = threading.Lock()
        self.is_wanted = threading.Event()

    def readinto(self, buffer: memoryview, offset: int) -> None:
        if self.lock.locked():
            self.is_wanted.set()
        with self.lock:
            super().readinto(buffer, offset)


def test_a_tree_that_nobody_has_any_more_waits_for_no_read(volume: MemoryStorage) -> None:
    """Fails if rubbish that is collected under the lock of a volume waits for that lock."""
    held = Held(bytes(volume.content))
    tree = SleuthKit(held, "ext4")
    with held.lock:
        tree.process.ask_ahead("folder", 12, 0, False, reads=0)
        assert held.is_wanted.wait(timeout=30)
        collected = threading.Event()
        process = tree.process.process
        found = [tree]
        del tree

        def forget() -> None:
            found.clear()
            collected.set()

        threading.Thread(target=forget, daemon=True).start()
        assert collected.wait(timeout=30)
    assert process.wait(timeout=30) != 0


def test_a_tree_is_read_although_many_files_are_open(volume: MemoryStorage) -> None:
    """Fails if pipes are waited for in a way that knows no file with a number above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("not so many files can be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    opened = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while opened[-1] < 1100:
            opened.append(os.open(os.devnull, os.O_RDONLY))
        with closing(SleuthKit(volume, "ext4")) as tree:
            assert len(list(tree.children(tree.root()))) == 4  # a, b, c and lost+found
    finally:
        for number in opened:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_question_about_nothing_is_no_failed_read(volume: MemoryStorage) -> None:
    """Fails if what went wrong with one question is told of the next."""
    entries, _ = _walked(volume, hurried=False)
    folder = next(entry for entry in entries if entry.path == "/a/d/i")
    faulty = FaultyStorage(volume, bad=[folder.extents[0]], verbs=["read"])
    with closing(SleuthKit(faulty, "ext4")) as tree:
        assert list(tree.children(folder)) == []
        assert "input/output error" in tree.notes[0]
        with pytest.raises(CorruptImageError):
            tree.process.ask("content", 1_000_000, None)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> MemoryStorage:
    """A folder of 200 KiB, and a file that is a hole."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "tree" / "many").mkdir(parents=True)
    for number in range(800):
        (folder / "tree" / "many" / f"{number:0>200}").touch()
    with (folder / "tree" / "hole").open("wb") as file:
        file.truncate(100_000)
    run("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-d", folder / "tree", folder / "volume", "16M")
    return MemoryStorage((folder / "volume").read_bytes())


def _top(volume: Source) -> dict[str, Entry]:
    with closing(SleuthKit(volume, "ext4")) as tree:
        return {entry.name: entry for entry in tree.children(tree.root())}


def test_a_file_whose_inode_cannot_be_read_is_no_empty_file(
    many: MemoryStorage, tmp_path: Path
) -> None:
    """Fails if zeros are told of it, or the reason is lost as contents are read on the way."""
    names = _top(many)
    with closing(SleuthKit(many, "ext4")) as tree:
        *_, last = tree.children(names["many"])
    (tmp_path / "volume").write_bytes(many.content)
    place = run("debugfs", "-R", f"imap <{last.inode}>", tmp_path / "volume").stdout
    found = re.search(r"block (\d+), offset (0x[0-9a-f]+)", place)
    assert found is not None
    bad = (int(found[1]) * KIB + int(found[2], 16), 1)
    faulty = Dying(many, bad=[bad], verbs=["read"])
    with closing(SleuthKit(faulty, "ext4")) as tree:
        told = []
        for entry in tree.children(names["many"]):
            assert tree.content(names["hole"]).size == 100_000
            told.append(entry.path)
        assert 798 <= len(told) < 800  # inodes of 256 bytes, two in a sector
        assert last.path not in told
        assert len(tree.notes) == 800 - len(told)
        assert all("input/output error" in note for note in tree.notes)
    # Of 255 other inodes of these 64 KiB no more than a few want what is beside that sector.
    assert faulty.failures < 100


def test_a_block_of_a_folder_that_cannot_be_read_hides_no_other_in_silence(
    many: MemoryStorage,
) -> None:
    """Fails if names are left out without a word, or those of 64 KiB for one sector."""
    folder = _top(many)["many"]
    with closing(SleuthKit(many, "ext4")) as tree:
        expected = [entry.path for entry in tree.children(folder)]
    assert len(expected) == 800
    start, length = folder.extents[0]
    assert length == folder.size == 200 * KIB  # four names of 200 characters in each block
    for number in (0, 17, 199):
        faulty = FaultyStorage(many, bad=[(start + number * KIB, 512)], verbs=["read"])
        with closing(SleuthKit(faulty, "ext4")) as tree:
            found = [entry.path for entry in tree.children(folder)]
            assert [path for path in expected if path in set(found)] == found
            assert 796 <= len(found) < 800
            assert len(tree.notes) == 1


def test_a_file_in_a_small_folder_whose_inode_cannot_be_read_is_told_of(
    volume: MemoryStorage, tmp_path: Path
) -> None:
    """Fails if it is an empty file from 1970, or is left out without a word."""
    entries, _ = _walked(volume, hurried=False)
    lost = next(entry for entry in entries if entry.path == "/c/h/n/file4")
    (tmp_path / "volume").write_bytes(volume.content)
    place = run("debugfs", "-R", f"imap <{lost.inode}>", tmp_path / "volume").stdout
    found = re.search(r"block (\d+), offset (0x[0-9a-f]+)", place)
    assert found is not None
    size = 4 * KIB if volume.size // KIB % 4 == 0 and "4096" in _header(tmp_path) else KIB
    bad = (int(found[1]) * size + int(found[2], 16), 1)
    told, notes = _walked(FaultyStorage(volume, bad=[bad], verbs=["read"]), hurried=True)
    missing = {entry.path for entry in entries} - {entry.path for entry in told}
    assert lost.path in missing
    assert [entry for entry in entries if entry.path not in missing] == told
    assert {note.partition(": ")[0] for note in notes} == missing


def _header(folder: Path) -> str:
    return run("dumpe2fs", "-h", folder / "volume").stdout.partition("Block size:")[2][:20]


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_times_of_names_are_told_of_all_once_they_are_wanted(tmp_path: Path) -> None:
    """Fails if what was asked ahead, and nobody took, is told later without them."""
    path = ntfs_volume.make(tmp_path / "volume")
    with ntfs_volume.ntfs_mounted(path) as folder:
        for number in range(2 * PART_ENTRIES):
            (folder / f"{number}").touch()
    with closing(SleuthKit(MemoryStorage(path.read_bytes()), "ntfs")) as tree:
        assert next(iter(tree.children(tree.root()))).named is None
        tree.date_names()
        found = list(tree.children(tree.root()))
        assert len(found) > 2 * PART_ENTRIES
        assert all(entry.named for entry in found)
