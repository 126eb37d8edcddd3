"""Folders that are asked for before they are wanted: the same answers, and no talk that hangs."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError
from imprint.filesystems.sleuthkit import SleuthKit
from imprint.filesystems.tree import Type
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Iterator

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
