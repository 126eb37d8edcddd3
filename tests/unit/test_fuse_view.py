"""What a mount shows: paths, facts and contents, without a kernel."""

from __future__ import annotations

import errno
import stat
import threading
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError, ReadError, TargetError, UnsupportedFeatureError
from imprint.exports.fuse import trees
from imprint.exports.fuse.contents import Raw
from imprint.exports.fuse.facts import Showing
from imprint.exports.fuse.reading import Reading
from imprint.exports.fuse.trees import ShownTree
from imprint.exports.fuse.view import View
from imprint.filesystems.tree import Entry, Times, Type
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from imprint.core.contracts import Source

TIME: Final = 1_700_000_000_123_456_789


class Made:
    """A tree of entries that a test made."""

    def __init__(self, folders: Mapping[int, Sequence[Entry]]) -> None:
        self.notes: list[str] = []
        self.folders = folders
        self.listed: list[int] = []
        self.xattrs: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []

    def root(self) -> Entry:
        return Entry("/", 2, Type.DIRECTORY, 0, mode=0o755)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        self.listed.append(folder.inode)
        for entry in self.folders[folder.inode]:
            if deleted or not entry.is_deleted:
                yield entry

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        if entry.inode == 666:
            raise ReadError("is on a bad sector", name=entry.path)
        return MemoryStorage(bytes(f"{entry.path}:{stream}", "ascii"))

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        self.asked.append(entry.path)
        return self.xattrs.get(entry.path, {})

    def close(self) -> None:
        pass


def file(path: str, inode: int) -> Entry:
    return Entry(path, inode, Type.FILE, 3)


def folder(path: str, inode: int) -> Entry:
    return Entry(path, inode, Type.DIRECTORY, 0, mode=0o700)


def made(tree: Made, showing: Showing | None = None) -> ShownTree:
    return ShownTree(lambda: (tree, tree.root()), threading.RLock(), showing or Showing(), number=1)


def shown(tree: Made, showing: Showing | None = None) -> View:
    """A view of a disk with one tree, ``p1``."""
    disk = Raw(MemoryStorage(bytes(5000)))
    things: dict[str, Raw | ShownTree] = {"disk.raw": disk, "p1": made(tree, showing)}
    return View(lambda: things, owner=(7, 8), time_ns=TIME, notes={".me": b"hi"})


def names(view: View, path: str) -> list[str]:
    return [name for name, _ in view.entries(path)]


def read(view: View, path: str) -> bytes:
    content = view.content(view.find(path))
    data = bytearray(content.size)
    content.readinto(memoryview(data), 0)
    return bytes(data)


def test_disks_and_trees_stand_side_by_side() -> None:
    """Fails if a mount shows something else than it promises."""
    tree = Made({2: [file("/a", 5)]})
    view = shown(tree)
    assert names(view, "/") == ["disk.raw", "p1"]
    assert tree.listed == []  # nothing is read before somebody looks
    assert names(view, "/p1") == ["a"]
    assert view.facts("/disk.raw")[:7] == (stat.S_IFREG | 0o400, 2, 1, 7, 8, 5000, 10)
    assert stat.S_ISDIR(view.facts("/").mode)
    assert read(view, "/p1/a") == b"/a:None"
    assert read(view, "/.me") == b"hi"


def test_facts_are_those_of_the_image() -> None:
    """Fails if times, sizes or owners are not what the image says."""
    times = Times(modified=TIME, accessed=TIME + 1, changed=TIME + 2)
    entry = Entry(
        "/f", 5, Type.FILE, 10_000, times, 0o4640, 1000, 1001, 2, extents=((0, 4096), (8192, 4096))
    )
    facts = shown(Made({2: [entry]})).facts("/p1/f")
    assert facts == (
        *(stat.S_IFREG | 0o4640, (1 << 48) | 5, 2, 1000, 1001, 10_000, 16),
        *(TIME, TIME + 1, TIME + 2),
    )


def test_what_an_image_does_not_say_is_filled_in() -> None:
    """Fails if a file of FAT is unreadable, of 1970 although one time is known, or looks empty."""
    view = shown(Made({2: [file("/f", 5)._replace(times=Times(created=TIME)), folder("/d", 6)]}))
    facts = view.facts("/p1/f")
    assert facts.mode == stat.S_IFREG | 0o444
    assert (facts.modified, facts.accessed, facts.changed) == (TIME, TIME, TIME)
    assert facts.blocks == 1  # tar takes a file without blocks for a hole
    assert facts.links == 1


def test_another_owner_can_be_named() -> None:
    """Fails if ``--owner`` is forgotten."""
    view = shown(
        Made({2: [file("/f", 5)._replace(owner=1, group=2)]}), Showing(owner=1000, group=100)
    )
    assert view.facts("/p1/f")[3:5] == (1000, 100)


def test_links_are_links_or_texts() -> None:
    """Fails if a link out of the image is followed where the user did not want any."""
    entry = Entry("/l", 5, Type.LINK, 11, mode=0o777, target="/etc/passwd")
    view = shown(Made({2: [entry]}))
    assert stat.S_ISLNK(view.facts("/p1/l").mode)
    assert view.target("/p1/l") == "/etc/passwd"
    view = shown(Made({2: [entry]}), Showing(links_as_text=True))
    assert stat.S_ISREG(view.facts("/p1/l").mode)
    assert view.facts("/p1/l").size == 11
    assert read(view, "/p1/l") == b"/etc/passwd"


def test_a_folder_that_is_listed_in_parts_leaves_the_tree_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fails if the thread of the kernel's first question locks out that of its second one."""
    monkeypatch.setattr(trees, "FOLDER_MAX", 10)  # larger ones are not kept, but listed as asked
    view = shown(Made({2: [file(f"/{number}", 5 + number) for number in range(5000)]}))
    entries = view.entries("/p1")
    assert next(entries)[0] == "0"
    rest: list[str] = []

    def other() -> None:
        view.find("/p1/4000")
        rest.extend(name for name, _ in entries)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    thread.join(30)
    assert len(rest) == 4999


def test_deleted_names_are_in_a_folder_of_their_own() -> None:
    """Fails if deleted names hide others, or the folder with them appears where there are none."""
    tree = Made(
        {
            2: [
                file("/a", 5),
                file("/a", 6)._replace(is_deleted=True),
                file("/.deleted", 7),
                folder("/d", 8),
                folder("/old", 9)._replace(is_deleted=True),
            ],
            8: [file("/d/x", 10)],
            9: [file("/old/y", 11)._replace(is_deleted=True)],
        }
    )
    assert names(shown(tree), "/p1") == ["a", ".deleted", "d"]
    view = shown(tree, Showing(deleted=True))
    assert names(view, "/p1") == ["a", ".deleted", "d", ".deleted~2"]
    assert names(view, "/p1/.deleted~2") == ["a", "old"]
    assert names(view, "/p1/.deleted~2/old") == ["y"]
    assert names(view, "/p1/d") == ["x"]
    assert view.facts("/p1/.deleted~2/a").inode == (1 << 48) | 6
    assert view.facts("/p1/.deleted~2").inode != view.facts("/p1").inode


def test_the_tables_of_a_file_system_are_shown_on_demand() -> None:
    """Fails if a copy of all files has the journal among them."""
    tree = Made({2: [file("/a", 5), file("/$MFT", 6)._replace(type=Type.SYSTEM)]})
    assert names(shown(tree), "/p1") == ["a"]
    assert names(shown(tree, Showing(system=True)), "/p1") == ["a", "$MFT"]


def test_a_folder_in_itself_has_the_same_number_at_every_depth() -> None:
    """Fails if ``find`` cannot see that it goes in circles."""
    view = shown(Made({2: [folder("/d", 5)], 5: [folder("/d/d", 5)]}))
    path = "/p1" + "/d" * 1500
    assert view.facts(path).inode == view.facts("/p1/d").inode


def test_what_is_not_there_is_not_found() -> None:
    """Fails if a wrong path is anything but ``ENOENT`` or ``ENOTDIR``."""
    view = shown(Made({2: [file("/a", 5)]}))
    for path in ("/x", "/p1/x", "/p1/x/y", "/p1/"):
        with pytest.raises(FileNotFoundError):
            view.find(path)
    for path in ("/disk.raw/x", "/p1/a/x", "/p1/a/x/y"):
        with pytest.raises(NotADirectoryError):
            view.find(path)
    with pytest.raises(IsADirectoryError):
        view.content(view.find("/p1"))
    with pytest.raises(ReadError):
        view.content(shown(Made({2: [file("/bad", 666)]})).find("/p1/bad"))


def test_a_large_folder_is_shown_whole_and_never_kept_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fails if a folder of a million names takes all memory, or some of its names are lost."""
    monkeypatch.setattr(trees, "FOLDER_MAX", 10)
    tree = Made({2: [file(f"/{number}", 100 + number) for number in range(95)]})
    view = shown(tree)
    assert names(view, "/p1") == [str(number) for number in range(95)]
    tree.listed.clear()
    for number in range(95):
        assert view.facts(f"/p1/{number}").inode == (1 << 48) | (100 + number)
    assert len(tree.listed) <= 10
    with pytest.raises(FileNotFoundError):
        view.facts("/p1/x")


def test_folders_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a mount keeps every folder that anybody has looked into."""
    monkeypatch.setattr("imprint.exports.fuse.view.ENTRIES_MAX", 20)
    folders = {2: [folder(f"/{number}", 10 + number) for number in range(5)]}
    inside = {10 + number: [file(f"/{number}/f{i}", i) for i in range(8)] for number in range(5)}
    tree = Made({**folders, **inside})
    view = shown(tree)
    for _ in range(2):
        for number in range(5):
            assert len(names(view, f"/p1/{number}")) == 8
    assert tree.listed.count(10) == 2


def test_what_is_shown_may_become_something_else() -> None:
    """Fails if names of a tree that is gone are still there, or a disk becomes another file."""
    trees = [
        made(Made({2: [folder("/d", 5)], 5: [file("/d/a", 6)]})),
        made(Made({2: [file("/b", 7)]})),
    ]
    disk = Raw(MemoryStorage(bytes(10)))
    things: dict[str, Raw | ShownTree] = {"p1": trees[0], "p2": trees[0], "d": disk}
    asked: list[str] = []

    def now() -> Mapping[str, Raw | ShownTree]:
        asked.append("now")
        return things

    view = View(now, owner=(7, 8), time_ns=TIME, notes={})
    assert [*names(view, "/p1"), *names(view, "/p1/d"), *names(view, "/p2")] == ["d", "a", "d"]
    inodes = {name: facts.inode for name, facts in view.entries("/")}
    held = view.find("/p1/d/a")
    things = {"new": disk, "p1": trees[1], "d": disk}
    assert names(view, "/p1") == ["b"]
    for path in ("/p1/d/a", "/p1/d", "/p2", "/p2/d"):
        with pytest.raises(FileNotFoundError):
            view.find(path)
    assert view.content(held).size == len("/d/a:None")
    after = {name: facts.inode for name, facts in view.entries("/")}
    assert after["d"] == inodes["d"]
    assert after["new"] not in inodes.values()
    asked.clear()  # the kernel wants an attribute of a disk with each write
    with pytest.raises(OSError, match="data"):
        view.attribute("/d", "security.capability")
    assert not asked


def test_attributes_are_told_as_far_as_the_kernel_takes_them() -> None:
    """Fails if an attribute is lost, or asked for again for each of its values."""
    tree = Made({2: [file("/f", 5)._replace(streams=("both",)), file("/many", 6)]})
    tree.xattrs["/f"] = {"user.both": b"x", "user.empty": b"", "security.long": bytes(65537)}
    tree.xattrs["/many"] = {f"user.{number:0200}": b"" for number in range(1000)}
    view = shown(tree)
    assert view.attributes("/p1/f") == ["user.both", "user.empty", "security.long"]
    assert view.attribute("/p1/f", "user.both") == b"/f:both"
    assert view.attribute("/p1/f", "user.empty") == b""
    with pytest.raises(OSError, match="too long") as caught:
        view.attribute("/p1/f", "security.long")
    assert caught.value.errno == errno.E2BIG
    assert tree.asked == ["/f"]
    told = view.attributes("/p1/many")
    assert len(told) == (64 << 10) // (len("user.") + 200 + 1)


def test_streams_are_attributes() -> None:
    """Fails if alternate data streams of NTFS cannot be read."""
    entry = file("/f", 5)._replace(streams=("Zone.Identifier",))
    view = shown(Made({2: [entry]}))
    assert view.attributes("/p1/f") == ["user.Zone.Identifier"]
    assert view.attribute("/p1/f", "user.Zone.Identifier") == b"/f:Zone.Identifier"
    for name in ("user.x", "Zone.Identifier", "security.capability"):
        with pytest.raises(OSError, match="data") as caught:
            view.attribute("/p1/f", name)
        assert caught.value.errno == errno.ENODATA


def test_a_folder_can_be_read_from_any_place() -> None:
    """Fails if a name is lost or told twice where the kernel's buffer was full."""
    view = shown(Made({2: [file(f"/{number}", 10 + number) for number in range(6)]}))
    reading = Reading(lambda: view.entries("/p1"), view.facts("/p1"))
    expected = [".", "..", *map(str, range(6))]

    def read(offset: int, count: int) -> list[str]:
        found: list[str] = []
        for position, name, _ in reading.after(offset):
            assert position == offset + len(found) + 1
            if len(found) == count:
                break  # it did not fit
            found.append(name)
            reading.has_taken(position)
        return found

    assert [*read(0, 3), *read(3, 2), *read(5, 9), *read(8, 1)] == expected
    assert read(3, 2) == expected[3:5]
    assert read(0, 9) == expected
    assert read(7, 1) == expected[7:]


@pytest.mark.oracle("fusermount3")
@pytest.mark.parametrize(
    ("error", "number"),
    [
        (ReadError("bad"), errno.EIO),
        (CorruptImageError("bad"), errno.EIO),
        (UnsupportedFeatureError("new"), errno.EOPNOTSUPP),
        (TargetError("full"), errno.EIO),
        (FileNotFoundError(errno.ENOENT, "x"), errno.ENOENT),
        (ValueError("a defect"), errno.EIO),
    ],
)
def test_every_error_is_a_number(error: Exception, number: int) -> None:
    """Fails if a program is told ``EINVAL`` of a bad sector."""
    from imprint.exports.fuse.driver import errno_of  # loads libfuse

    assert errno_of(error) == number


@pytest.mark.oracle("fusermount3")
def test_a_full_disk_is_told_as_such() -> None:
    """Fails if a guest on a copy-on-write file hears of a broken disk instead of a full one."""
    from imprint.exports.fuse.driver import errno_of

    error = TargetError("cannot be written")
    error.__cause__ = OSError(errno.ENOSPC, "no space left")
    assert errno_of(error) == errno.ENOSPC


class Damaged(Made):
    """One of which a folder cannot be read whole."""

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        yield from super().children(folder, deleted=deleted)
        if folder.path == "/d":
            self.notes.append("/d/x: a sector cannot be read")
            self.notes.append("/elsewhere: is not asked for")


@pytest.mark.parametrize("kept", [trees.FOLDER_MAX, 1])
def test_a_folder_that_cannot_be_read_whole_is_an_error_in_its_end(
    monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Fails if what is missing of it is missing in silence, or what is there with it."""
    monkeypatch.setattr(trees, "FOLDER_MAX", kept)
    tree = Damaged({2: [folder("/d", 6)], 6: [file(f"/d/{name}", 7) for name in "abc"]})
    view = shown(tree)
    for _ in range(2):
        assert view.facts("/p1/d/a").size == 3
        with pytest.raises(ReadError, match="a sector cannot be read"):
            view.facts("/p1/d/lost")
        with pytest.raises(FileNotFoundError):
            view.facts("/p1/lost")
        reading = Reading(lambda: view.entries("/p1/d"), view.facts("/p1/d"))
        told = []
        for position, name, _ in reading.after(0):
            told.append(name)
            reading.has_taken(position)
        assert told == [".", "..", "a", "b", "c"]
        with pytest.raises(ReadError, match="a sector cannot be read"):
            next(reading.after(5))
    assert names(view, "/p1") == ["d"]


def test_a_file_that_nobody_may_read_is_shown_as_one() -> None:
    """Fails if shadow, which has no permissions on some systems, is shown as readable by all."""
    shadow, lost = file("/shadow", 5), file("/lost", 6)._replace(is_deleted=True)
    tree = Made({2: [shadow, lost, folder("/d", 7)._replace(mode=0)]})
    top = ShownTree(
        *(lambda: (tree, tree.root()), threading.RLock(), Showing(deleted=True)),
        number=1,
        has_modes=True,
    )
    view = View(top, owner=(7, 8), time_ns=TIME, notes={})
    assert view.facts("/shadow").mode == stat.S_IFREG
    assert view.facts("/d").mode == stat.S_IFDIR
    assert view.facts("/.deleted/lost").mode == stat.S_IFREG | 0o444


def test_an_attribute_that_cannot_be_read_is_not_said_to_be_missing() -> None:
    """Fails if a file seems to have no access control list because that is damaged."""

    class Unreadable(Made):
        def attributes(self, entry: Entry) -> dict[str, bytes]:
            if entry.path == "/bad":
                self.notes.append("/bad: its extended attributes: a sector cannot be read")
            return super().attributes(entry)

    tree = Unreadable({2: [file("/bad", 5), file("/good", 6)]})
    tree.xattrs["/bad"] = {"user.left": b"1"}
    view = shown(tree)
    for _ in range(2):
        assert view.attributes("/p1/bad") == ["user.left"]
        assert view.attribute("/p1/bad", "user.left") == b"1"
        with pytest.raises(ReadError, match="a sector cannot be read"):
            view.attribute("/p1/bad", "system.posix_acl_access")
        with pytest.raises(OSError, match="data") as caught:
            view.attribute("/p1/good", "system.posix_acl_access")
        assert caught.value.errno == errno.ENODATA
