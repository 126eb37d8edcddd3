"""Ways through file trees, over one that is written down here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import NotFoundError, ReadError
from imprint.filesystems import walking
from imprint.filesystems.tree import Entry, Type, shown
from imprint.filesystems.walking import find_path, paired, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


class Written:
    """A file tree: for each folder's inode, what is in it."""

    def __init__(self, folders: dict[int, list[Entry]]) -> None:
        self.folders = folders
        self.notes: list[str] = []
        self.asked: list[int] = []

    def root(self) -> Entry:
        return Entry("/", 1, Type.DIRECTORY, 0)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        self.asked.append(folder.inode)
        for entry in self.folders.get(folder.inode, []):
            if deleted or not entry.is_deleted:
                prefix = "" if folder.path == "/" else folder.path
                yield entry._replace(path=f"{prefix}/{entry.path}")

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        raise AssertionError

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        raise AssertionError

    def close(self) -> None:
        pass


def folder(name: str, inode: int, *, subvolume: int = 0) -> Entry:
    return Entry(name, inode, Type.DIRECTORY, 0, subvolume=subvolume)


def file(name: str, inode: int = 99) -> Entry:
    return Entry(name, inode, Type.FILE, 0)


def link(name: str, target: str) -> Entry:
    return Entry(name, 98, Type.LINK, len(target), target=target)


def paths(tree: Written) -> list[str]:
    return [entry.path for entry in walk(tree)]


def test_folders_come_before_what_is_in_them_and_by_name() -> None:
    """Fails if an order changes that outputs rely upon."""
    tree = Written({1: [folder("b", 3), file("z"), folder("a", 2)], 2: [file("x")], 3: [file("y")]})
    assert paths(tree) == ["/", "/b", "/z", "/a", "/a/x", "/b/y"]
    start = next(tree.children(tree.root()))
    assert [entry.path for entry in walk(tree, start)] == ["/b", "/b/y"]


def test_a_folder_in_itself_is_told_and_not_entered() -> None:
    """Fails if a file system of which folders are in a circle is walked for ever."""
    tree = Written({1: [folder("a", 2)], 2: [folder("b", 3)], 3: [folder("up", 1), folder("a", 2)]})
    assert paths(tree) == ["/", "/a", "/a/b", "/a/b/up", "/a/b/a"]
    assert tree.asked == [1, 2, 3]
    assert len(tree.notes) == 2


def test_the_same_number_in_another_subvolume_is_another_folder() -> None:
    """Fails if a subvolume is left out since its folders are numbered like those of others."""
    tree = Written({1: [folder("a", 2, subvolume=7), folder("b", 2, subvolume=8)], 2: [file("x")]})
    assert paths(tree) == ["/", "/a", "/b", "/a/x", "/b/x"]


def test_deleted_folders_are_entered_if_they_are_nobody_elses() -> None:
    """Fails if what is in another folder now is told under the name of a deleted one."""
    gone = folder("gone", 2)._replace(is_deleted=True, is_allocated=False)
    taken = folder("taken", 3)._replace(is_deleted=True, is_allocated=True)
    tree = Written({1: [gone, taken, folder("new", 3)], 2: [file("x")], 3: [file("y")]})
    assert paths(tree) == ["/", "/new", "/new/y"]
    found = [entry.path for entry in walk(tree, deleted=True)]
    assert found == ["/", "/gone", "/taken", "/new", "/gone/x", "/new/y"]
    assert tree.notes == []


def test_what_has_no_end_comes_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if paths, folders that wait, or names, are without bound."""
    monkeypatch.setattr(walking, "PENDING_CHARS_MAX", 100)
    tree = Written({1: [folder(f"folder {number}", number + 2) for number in range(50)]})
    assert len(paths(tree)) == 51
    assert tree.notes == ["/: too many folders"]
    monkeypatch.undo()
    monkeypatch.setattr(walking, "PATH_CHARS_MAX", 10)
    tree = Written({number: [folder("abc", number + 1)] for number in range(1, 50)})
    assert len(paths(tree)) == 4
    monkeypatch.setattr(walking, "ENTRIES_MAX", 20)
    tree = Written({1: [file(str(number)) for number in range(100)]})
    assert len(paths(tree)) == 21
    assert tree.notes == ["/: expected an end, found too many files"]


def test_paths_are_found_without_following_links() -> None:
    """Fails if a link leads somewhere although nobody asked for it."""
    tree = Written({1: [folder("a", 2), link("l", "a")], 2: [file("x"), link("y", "../a/x")]})
    assert find_path(tree, "/").path == "/"
    assert find_path(tree, "a/./x").path == "/a/x"
    assert find_path(tree, "//a/../../a//x/").path == "/a/x"
    assert find_path(tree, "/l").type is Type.LINK
    for missing in ("/b", "/l/x", "/a/x/z", "/A"):
        with pytest.raises(NotFoundError) as failure:
            find_path(tree, missing)
        assert failure.value.exit_code == 3
        assert failure.value.name == missing


def test_links_are_followed_inside_of_the_volume() -> None:
    """Fails if a link leads out of the volume, or one of a circle is followed for ever."""
    tree = Written(
        {
            1: [folder("a", 2), link("l", "a/y"), link("c1", "c2"), link("c2", "/c1")],
            2: [file("x"), link("y", "../../../../a/x"), link("abs", "/a"), link("no", "/etc/x")],
        }
    )
    assert find_path(tree, "/l", follow=True).path == "/a/x"
    assert find_path(tree, "/a/abs/abs/x", follow=True).path == "/a/x"
    for wrong in ("/c1", "/a/no", "/a/x/../x"):
        with pytest.raises(NotFoundError):
            find_path(tree, wrong, follow=True)
    growing = Written({1: [link("l", "/".join(["l"] * 40))]})
    with pytest.raises(NotFoundError, match="more than 40"):
        find_path(growing, "/l", follow=True)


def test_deleted_names_are_found_where_no_other_has_the_name() -> None:
    """Fails if a deleted file hides the one that has its name now."""
    gone = file("x", 5)._replace(is_deleted=True)
    tree = Written({1: [gone, file("x", 6), file("y", 7)._replace(is_deleted=True)]})
    assert find_path(tree, "/x", deleted=True).inode == 6
    assert find_path(tree, "/y", deleted=True).inode == 7
    with pytest.raises(NotFoundError):
        find_path(tree, "/y")


def test_two_trees_are_compared_path_by_path() -> None:
    """Fails if a path is left out, told twice, or paired with another."""
    old = Written({1: [folder("a", 2), file("gone")], 2: [file("x"), folder("was", 3)]})
    new = Written({1: [folder("a", 9), file("added")], 9: [file("x"), file("was")]})
    found = [tuple(item and item.path for item in pair) for pair in paired(old, new)]
    assert found == [
        ("/a", "/a"),
        (None, "/added"),
        ("/gone", None),
        ("/a/was", "/a/was"),
        ("/a/x", "/a/x"),
    ]
    assert [pair[1] for pair in paired(None, new)] == [pair[0] for pair in paired(new, None)]


def test_names_of_any_bytes_are_shown_as_text() -> None:
    """Fails if a path cannot be printed."""
    assert shown(b"/\xffn\xc3\xbc".decode("utf-8", "surrogateescape")) == "/\\xffnü"


def test_what_may_be_in_an_unreadable_folder_is_not_said_to_be_missing() -> None:
    """Fails if a file seems not to exist because its folder cannot be read."""

    class Damaged(Written):
        def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
            yield from super().children(folder, deleted=deleted)
            if folder.path == "/bad":
                self.notes.append("/bad: a sector cannot be read")

    tree = Damaged({1: [folder("bad", 2), folder("good", 3)], 2: [file("there", 9)]})
    for _ in range(2):
        assert find_path(tree, "/bad/there").inode == 9
        with pytest.raises(ReadError, match="a sector cannot be read"):
            find_path(tree, "/bad/lost")
        for path in ("/good/lost", "/lost"):
            with pytest.raises(NotFoundError):
                find_path(tree, path)
