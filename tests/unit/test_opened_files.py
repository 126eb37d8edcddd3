"""Files of a disk for Python programs: folders and trees of any kind, and many threads."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

import pytest

from imprint.endpoints.browsing import BrowsedVolume, Browser
from imprint.endpoints.opened import ContentFile, Files
from imprint.filesystems.tree import Entry, Type
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import FileTree


def _no_secret(name: str) -> bytes:
    raise AssertionError(name)


class Made:
    """A tree of one folder."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.notes: list[str] = []
        self._entries = entries

    def root(self) -> Entry:
        return Entry("/", 2, Type.DIRECTORY, 0)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        yield from self._entries

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        return MemoryStorage(b"")

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        return {}

    def close(self) -> None:
        pass


class Prepared(Browser):
    """The volumes of a disk, with a tree that a test made."""

    def __init__(self, made: FileTree) -> None:
        super().__init__(MemoryStorage(bytes(512)), _no_secret)
        self._made = made

    def tree(self, volume: BrowsedVolume) -> FileTree:
        return self._made


def files(*entries: Entry) -> Files:
    browser = Prepared(Made(entries))
    return Files(browser, BrowsedVolume("", "ext4", None, browser.source, "disk"))


def test_folders_with_a_name_twice_are_listed() -> None:
    """Fails if a damaged folder, or one with deleted names, cannot be sorted: a TypeError."""
    name = Entry("/a", 5, Type.FILE, 3)
    twice = files(name, name._replace(type=Type.OTHER, is_deleted=True), name._replace(path="/0"))
    assert [entry.path for entry in twice.listdir("/", deleted=True)] == ["/0", "/a", "/a"]


def test_others_may_ask_while_somebody_walks() -> None:
    """Fails if a walk that somebody does not go on with keeps all other threads waiting."""
    entries = [Entry(f"/{number}", 5 + number, Type.FILE, 0) for number in range(3000)]
    shared = files(*entries)
    walking = shared.walk()
    assert next(walking).path == "/"
    found: list[str] = []
    other = threading.Thread(target=lambda: found.append(shared.stat("/7").path), daemon=True)
    other.start()
    other.join(30)
    assert found == ["/7"]
    assert len(list(walking)) == 3000


def test_places_are_those_of_a_file_of_python() -> None:
    """Fails if a program that seeks as in any other file gets another error than there."""
    content, other = ContentFile(MemoryStorage(b"abcdef")), io.BytesIO(b"abcdef")
    for offset, whence in ((2, io.SEEK_SET), (1, io.SEEK_CUR), (-1, io.SEEK_END), (9, io.SEEK_SET)):
        assert content.seek(offset, whence) == other.seek(offset, whence)
        assert content.read(2) == other.read(2)
    for wrong in ((-1, io.SEEK_SET), (0, 7)):
        with pytest.raises(ValueError, match="expected"):
            content.seek(*wrong)
        with pytest.raises(ValueError, match=r"negative|whence"):
            other.seek(*wrong)
