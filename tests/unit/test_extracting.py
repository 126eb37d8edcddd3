"""Extraction of hostile trees: nothing leaves the folder, nothing is lost in silence, it ends."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import (
    Cancelled,
    CorruptImageError,
    ReadError,
    RefusedError,
    TargetBusyError,
    UsageError,
)
from imprint.core.extent import Extent, Kind
from imprint.endpoints.browsing import BrowsedVolume, Browser
from imprint.endpoints.extracted_folders import OPEN_MAX, TargetFolders
from imprint.endpoints.extracting import Extractor
from imprint.endpoints.extraction import Extraction, Wishes
from imprint.filesystems.tree import Entry, Times, Type
from imprint.filters.cutoff import filled_up
from imprint.filters.readonly import ReadOnlyStorage
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Source, Traits
    from imprint.endpoints.extraction import Xattrs

MIB = 1 << 20
ALL = Wishes(recursive=True)


@dataclass
class Tree:
    """A file system that says what it is told to say."""

    entries: list[Entry] = field(default_factory=list)
    contents: dict[str, Source] = field(default_factory=dict)
    loops: dict[str, list[Entry]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    broken: frozenset[str] = frozenset()
    xattrs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    numbers: int = 2

    def root(self) -> Entry:
        return Entry("/", 2, Type.DIRECTORY, 0)

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        own = "" if folder.path == "/" else folder.path
        for entry in self.entries:
            if entry.path.rpartition("/")[0] == own and (deleted or not entry.is_deleted):
                yield entry
        yield from self.loops.get(folder.path, ())

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        name = entry.path if stream is None else f"{entry.path}:{stream}"
        if name in self.broken:
            raise CorruptImageError("its blocks cannot be followed", name=name)
        return self.contents.get(name) or MemoryStorage(name.encode("utf-8", "surrogatepass"))

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        return self.xattrs.get(entry.path, {})

    def close(self) -> None:
        """Nothing to close."""

    def add(self, path: str, kind: Type = Type.FILE, **facts: object) -> None:
        self.numbers += 1
        values: dict[str, object] = {
            "inode": self.numbers,
            "size": len(path.encode("utf-8", "surrogatepass")),
            **facts,
        }
        self.entries.append(Entry(path, type=kind, **values))  # type: ignore[arg-type]


class Bad(ReadOnlyStorage):
    """Two spans, of which some bytes cannot be read; then a hole."""

    name = "bad"
    size = 3 * MIB

    def __init__(self, start: int, end: int) -> None:
        self._start, self._end = start, end

    @property
    def traits(self) -> Traits:
        raise AssertionError

    def readinto(self, buffer: memoryview, offset: int) -> None:
        if offset < self._end and offset + len(buffer) > self._start:
            raise ReadError("medium error", name=self.name, offset=offset)
        buffer[:] = b"x" * len(buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(0, 2 * MIB, Kind.DATA, self, 0)
        yield Extent(2 * MIB, MIB, Kind.HOLE)

    def close(self) -> None:
        """Nothing to close."""


def extract(
    tree: Tree,
    target: Path,
    wishes: Wishes = ALL,
    paths: Iterable[str] = ("/",),
    kind: str = "test",
) -> Extraction:
    disk = MemoryStorage(bytes(4096))
    browser = Browser(disk, _refuse)
    volume = BrowsedVolume("", kind, None, disk, "disk")
    browser._trees[""] = tree
    report = Extraction()
    folders = TargetFolders(target)
    try:
        extractor = Extractor(folders, wishes, report, _ignore)
        for path in paths:
            extractor.add(browser, volume, path)
    finally:
        folders.close()
        browser.close()
    return report


def _refuse(name: str) -> bytes:
    raise AssertionError(name)


def _ignore(count: int) -> None:
    del count


def listed(folder: Path) -> set[str]:
    """Everything below a folder, links not followed."""
    found = set()
    for path, folders, files in os.walk(folder):
        found |= {os.path.relpath(f"{path}/{name}", folder) for name in folders + files}
    return found


def test_names_that_lead_elsewhere_stay_in_the_folder(tmp_path: Path) -> None:
    """Fails if a name like ``..`` writes outside, or makes the extraction fail."""
    tree = Tree()
    for name in ("..", ".", "", "a\0b", "c\nd", "\ud800", "x" * 300):
        tree.add(f"/{name}")
    tree.add("/dir", Type.DIRECTORY)
    tree.add("/dir/..", Type.DIRECTORY)
    tree.add("/dir/../evil")
    report = extract(tree, tmp_path / "out" / "deep")
    assert listed(tmp_path) - {"out", "out/deep"} == {
        f"out/deep/{name}" for name in listed(tmp_path / "out" / "deep")
    }
    assert {"%2E.", "%2E", "a%00b", "c%0Ad", "%ED%A0%80", "dir/%2E./evil"} <= listed(
        tmp_path / "out" / "deep"
    )
    assert report.files == 8
    assert report.renamed.count == 8
    assert report.is_whole


@pytest.mark.parametrize("target", ["/", "..", "../outside", "/etc", "."])
def test_nothing_is_written_through_a_link_of_the_image(tmp_path: Path, target: str) -> None:
    """Fails if a link and then a folder of the same name lead out of the target folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = Tree()
    tree.add("/a", Type.LINK, target=target)
    tree.add("/a", Type.DIRECTORY)
    tree.add("/a/evil")
    tree.add("/b", Type.LINK, target=f"{target}/evil")
    tree.add("/b")
    report = extract(tree, tmp_path / "out")
    assert str((tmp_path / "out" / "a").readlink()) == target
    assert listed(outside) == set()
    assert (tmp_path / "out" / "a%~2" / "evil").read_bytes() == b"/a/evil"
    assert (tmp_path / "out" / "b%~2").read_bytes() == b"/b"
    assert report.renamed.count == 2


@pytest.mark.parametrize("wishes", [ALL, Wishes(recursive=True, force=True)])
def test_nothing_is_written_through_a_link_that_was_there(tmp_path: Path, wishes: Wishes) -> None:
    """Fails if links of an earlier extraction lead a later one out of the folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dir").symlink_to(outside)
    tree = Tree()
    tree.add("/dir", Type.DIRECTORY)
    tree.add("/dir/evil")
    with pytest.raises(RefusedError):
        extract(tree, tmp_path / "out", wishes)
    assert listed(outside) == {"file"}
    (tmp_path / "out" / "dir").unlink()
    (tmp_path / "out" / "file").symlink_to(outside / "file")
    other = Tree()
    other.add("/file")
    if wishes.force:
        extract(other, tmp_path / "out", wishes)
        assert not (tmp_path / "out" / "file").is_symlink()
    else:
        with pytest.raises(RefusedError):
            extract(other, tmp_path / "out", wishes)
    assert (outside / "file").read_text() == "mine"


def test_devices_are_never_made(tmp_path: Path) -> None:
    """Fails if an image can put a device node, a pipe or a socket on the system."""
    tree = Tree()
    for kind in (Type.CHARACTER, Type.BLOCK, Type.FIFO, Type.SOCKET, Type.OTHER):
        tree.add(f"/{kind.value}", kind)
    report = extract(tree, tmp_path / "out")
    assert listed(tmp_path / "out") == set()
    assert [item["path"] for item in report.skipped] == [e.path for e in tree.entries]


def test_folders_in_themselves_come_to_an_end(tmp_path: Path) -> None:
    """Fails if a loop is followed for ever."""
    tree = Tree()
    tree.add("/a", Type.DIRECTORY, inode=7)
    tree.loops["/a"] = [Entry("/a/b", 7, Type.DIRECTORY, 0), Entry("/a/root", 2, Type.DIRECTORY, 0)]
    report = extract(tree, tmp_path / "out")
    assert listed(tmp_path / "out") == {"a", "a/b", "a/root"}
    assert not report.is_whole
    assert len(report.notes) == 2


def test_folders_deeper_than_descriptors_reach(tmp_path: Path) -> None:
    """Fails if every folder on the way is kept open, or one is opened by a path."""
    tree = Tree()
    path = ""
    for depth in range(3 * OPEN_MAX):
        path += "/d"
        tree.add(path, Type.DIRECTORY, times=Times(modified=10**18))
        if depth % OPEN_MAX == 0:
            tree.add(f"{path}/e", Type.DIRECTORY)
            tree.add(f"{path}/e/file")
    tree.add(f"{path}/bottom")
    before = len(list(Path("/proc/self/fd").iterdir()))
    report = extract(tree, tmp_path / "out")
    assert report.files == 4
    assert report.folders == 3 * OPEN_MAX + 3
    assert (tmp_path / "out" / f"{path[1:]}/bottom").is_file()
    assert (tmp_path / "out" / "d").stat().st_mtime_ns == 10**18
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_cannot_be_read_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    """Fails if one bad block costs a file, or one file the rest, or nobody hears of it."""
    tree = Tree(broken=frozenset({"/broken"}))
    tree.add("/bad")
    tree.add("/broken")
    tree.add("/good")
    tree.contents["/bad"] = Bad(MIB + 5000, MIB + 9000)
    report = extract(tree, tmp_path / "out")
    assert report.bad.items == [{"path": "/bad", "offset": MIB + 4096, "length": 8192}]
    assert [item["path"] for item in report.failed] == ["/broken"]
    wanted = bytearray(b"x" * 2 * MIB + bytes(MIB))
    wanted[MIB + 4096 : MIB + 12288] = bytes(8192)
    assert (tmp_path / "out" / "bad").read_bytes() == wanted
    assert (tmp_path / "out" / "bad").stat().st_blocks * 512 < 3 * MIB
    assert listed(tmp_path / "out") == {"bad", "good"}
    assert not report.is_whole


def test_a_size_that_no_file_can_have_is_one_failure(tmp_path: Path) -> None:
    """Fails if a hostile size stops the rest, or takes memory."""

    class Huge(Bad):
        size = 1 << 63

    tree = Tree()
    tree.add("/huge")
    tree.add("/small")
    tree.contents["/huge"] = Huge(0, 0)
    report = extract(tree, tmp_path / "out")
    assert report.failed.count == 1
    assert listed(tmp_path / "out") == {"small"}


def test_facts_of_files_are_kept(tmp_path: Path) -> None:
    """Fails if times, modes, links or hard links are others than in the image."""
    tree = Tree()
    times = Times(modified=981173106_123456789, accessed=981173107_000000001)
    tree.add("/dir", Type.DIRECTORY, mode=0o2750, times=times)
    tree.add("/dir/one", mode=0o4640, times=times, links=2, inode=50)
    tree.add("/two", mode=0o4640, times=times, links=2, inode=50)
    tree.add("/link", Type.LINK, target="dir/one", times=times)
    tree.add("/strange", times=Times(modified=-(10**30)))
    report = extract(tree, tmp_path / "out")
    out = tmp_path / "out"
    for name in ("dir", "dir/one", "two", "link"):
        assert (out / name).lstat().st_mtime_ns == times.modified
    assert (out / "dir/one").lstat().st_atime_ns == times.accessed
    assert (out / "dir/one").stat().st_ino == (out / "two").stat().st_ino
    assert stat.S_IMODE((out / "dir").stat().st_mode) == 0o750
    assert stat.S_IMODE((out / "two").stat().st_mode) == 0o640
    assert report.is_whole


@pytest.mark.root
def test_owners_and_special_bits_are_given_on_demand(tmp_path: Path) -> None:
    """Fails if ``--owner`` loses one of them, in an order in which the kernel takes it away."""
    tree = Tree()
    tree.add("/su", mode=0o4755, owner=1234, group=567)
    tree.add("/link", Type.LINK, target="su", owner=1234, group=567)
    extract(tree, tmp_path / "out", Wishes(recursive=True, owner=True))
    facts = (tmp_path / "out" / "su").stat()
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (1234, 567, 0o4755)
    assert (tmp_path / "out" / "link").lstat().st_uid == 1234


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    """Fails if a file of the user's is lost."""
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "file"
    mine.write_text("mine")
    tree = Tree()
    tree.add("/file")
    with pytest.raises(RefusedError):
        extract(tree, tmp_path / "out")
    with pytest.raises(RefusedError):
        extract(tree, tmp_path / "out", Wishes(recursive=True, resume=True))
    assert mine.read_text() == "mine"
    extract(tree, tmp_path / "out", Wishes(recursive=True, force=True))
    assert mine.read_bytes() == b"/file"
    mine.unlink()
    mine.mkdir()
    with pytest.raises(RefusedError):
        extract(tree, tmp_path / "out", Wishes(recursive=True, force=True))


def test_an_extraction_goes_on_where_another_was_stopped(tmp_path: Path) -> None:
    """Fails if files that are whole are written again, or a half one is taken for whole."""
    tree = Tree()
    tree.add("/a", times=Times(modified=10**18))
    tree.add("/b")
    tree.add("/c", links=2, inode=60)
    tree.add("/d", links=2, inode=60)
    tree.add("/l", Type.LINK, target="a")
    out = tmp_path / "out"
    extract(tree, out)
    before = {name: (out / name).lstat().st_ino for name in listed(out)}
    (out / ".imprint.partial").write_text("of a run that was killed")
    (out / "a").unlink()
    report = extract(tree, out, Wishes(recursive=True, resume=True))
    assert (report.files, report.kept) == (1, 4)
    after = {name: (out / name).lstat().st_ino for name in listed(out)}
    assert {k: v for k, v in after.items() if k != "a"} == {
        k: v for k, v in before.items() if k != "a"
    }


def test_a_stop_leaves_whole_files_only(tmp_path: Path) -> None:
    """Fails if Ctrl-C leaves a part of a file under its name."""
    tree = Tree()
    tree.add("/a")
    tree.add("/b")
    tree.contents["/b"] = Bad(0, 0)
    disk = MemoryStorage(bytes(4096))
    browser = Browser(disk, _refuse)
    browser._trees[""] = tree
    folders = TargetFolders(tmp_path / "out")

    def watch(count: int) -> None:
        if count == MIB:
            raise Cancelled("interrupted")

    with pytest.raises(Cancelled):
        Extractor(folders, ALL, Extraction(), watch).add(
            browser, BrowsedVolume("", "test", None, disk, "disk"), "/"
        )
    assert listed(tmp_path / "out") == {"a"}
    with pytest.raises(TargetBusyError):
        TargetFolders(tmp_path / "out")
    folders.close()


def test_deleted_files_get_a_folder_of_their_own(tmp_path: Path) -> None:
    """Fails if what was deleted is mixed with what is there, or another's content is taken."""
    tree = Tree()
    tree.add("/dir", Type.DIRECTORY)
    tree.add("/dir/alive")
    tree.add("/dir/dead", is_deleted=True, is_allocated=False)
    tree.add("/dir/dead", is_deleted=True, is_allocated=False)
    tree.add("/dir/reused", is_deleted=True, is_allocated=True)
    tree.add("/..", is_deleted=True, is_allocated=False)
    report = extract(tree, tmp_path / "out", Wishes(recursive=True, deleted=True))
    assert listed(tmp_path / "out") == {
        "dir",
        "dir/alive",
        "%~deleted",
        "%~deleted/%2E.",
        "%~deleted/dir",
        "%~deleted/dir/dead",
        "%~deleted/dir/dead%~2",
    }
    assert report.recovered.count == 3
    assert [item["path"] for item in report.skipped] == ["/dir/reused"]


def test_attributes_are_restored_as_far_as_they_give_no_rights(tmp_path: Path) -> None:
    """Fails if one of an image gives rights that nobody asked for, or one that fails is the end."""
    tree = Tree()
    tree.add("/f", mode=0o400)
    tree.add("/dir", Type.DIRECTORY, mode=0o500)
    tree.add("/link", Type.LINK, target="f")
    many = {"user.a": b"1", "user.": b"no name", "security.capability": b"s", "trusted.t": b"t"}
    tree.xattrs = {"/f": many, "/dir": {"user.d": bytes(range(256))}, "/link": {"user.l": b"l"}}
    report = extract(tree, tmp_path / "usual")
    assert (report.files, report.folders, report.links) == (1, 1, 1)
    assert report.is_whole
    assert report.xattrs_left == 2
    assert report.xattrs + report.xattrs_failed.count == 4
    if report.xattrs:  # a file system with attributes
        assert os.listxattr(tmp_path / "usual" / "f") == ["user.a"]
        assert os.getxattr(tmp_path / "usual" / "dir", "user.d") == bytes(range(256))
        # The kernel lets links have none; and what they lead to is not theirs.
        failed = [(item["path"], item["name"]) for item in report.xattrs_failed]
        assert failed == [("/f", "user."), ("/link", "user.l")]
    report = extract(tree, tmp_path / "none", Wishes(recursive=True, xattrs="none"))
    assert (report.xattrs, report.xattrs_left, report.xattrs_failed.count) == (0, 0, 0)


def test_streams_become_files_or_attributes(tmp_path: Path) -> None:
    """Fails if an alternate data stream is lost where it was asked for."""
    tree = Tree()
    tree.add("/f", streams=("Zone.Identifier", "big"))
    tree.contents["/f:big"] = MemoryStorage(bytes(70_000))
    assert extract(tree, tmp_path / "none").streams_left == 2
    extract(tree, tmp_path / "files", Wishes(recursive=True, streams="files"))
    assert (tmp_path / "files" / "f:Zone.Identifier").read_bytes() == b"/f:Zone.Identifier"
    report = extract(tree, tmp_path / "xattrs", Wishes(recursive=True, streams="xattrs"))
    named = {item["path"] for item in report.failed}
    if "/f:Zone.Identifier" not in named:  # a file system with attributes
        value = os.getxattr(tmp_path / "xattrs" / "f", "user.Zone.Identifier")
        assert value == b"/f:Zone.Identifier"
    assert "/f:big" in named


def test_streams_of_folders_are_taken_along(tmp_path: Path) -> None:
    """Fails if what a folder has as a stream is lost, or is not counted."""
    tree = Tree()
    tree.add("/dir", Type.DIRECTORY, streams=("note",))
    tree.add("/dir/sub", Type.DIRECTORY, streams=("broken",))
    tree.add("/dir/sub/f")
    tree.broken = frozenset({"/dir/sub:broken"})
    assert extract(tree, tmp_path / "none").streams_left == 2
    report = extract(tree, tmp_path / "files", Wishes(recursive=True, streams="files"))
    assert [item["path"] for item in report.failed] == ["/dir/sub"]
    assert listed(tmp_path / "files") == {"dir", "dir:note", "dir/sub", "dir/sub/f"}
    assert (tmp_path / "files" / "dir:note").read_bytes() == b"/dir:note"
    wishes = Wishes(recursive=True, streams="files", resume=True)
    assert extract(tree, tmp_path / "files", wishes, ["/dir"]).kept == 2
    report = extract(tree, tmp_path / "xattrs", Wishes(recursive=True, streams="xattrs"))
    if "/dir:note" not in {item["path"] for item in report.failed}:
        assert os.getxattr(tmp_path / "xattrs" / "dir", "user.note") == b"/dir:note"


def test_single_files_and_folders(tmp_path: Path) -> None:
    """Fails if a folder is copied without being asked, or a file lands elsewhere."""
    tree = Tree()
    tree.add("/dir", Type.DIRECTORY)
    tree.add("/dir/file")
    tree.add("/dir/sub", Type.DIRECTORY)
    tree.add("/link", Type.LINK, target="dir/file")
    with pytest.raises(UsageError):
        extract(tree, tmp_path / "a", Wishes(), ["/dir"])
    extract(tree, tmp_path / "b", Wishes(), ["/dir/file", "/link"])
    assert listed(tmp_path / "b") == {"file", "file%~2"}
    extract(tree, tmp_path / "c", ALL, ["/dir", "/link"])
    assert listed(tmp_path / "c") == {"dir", "dir/file", "dir/sub", "link"}


GROUP_READS = bytes.fromhex("02000000 01000600ffffffff 02000700d2040000 04000400ffffffff")
LIST = GROUP_READS + bytes.fromhex("10000700ffffffff 20000400ffffffff")
"""As Linux made it of ``setfacl -m u:1234:rwx`` on a file of mode 0644, which got 0674 by it."""


@pytest.mark.parametrize("xattrs", ["user", "none"])
def test_a_list_that_is_left_out_gives_the_group_nothing(tmp_path: Path, xattrs: Xattrs) -> None:
    """Fails if the group may do what the list permitted a single user."""
    tree = Tree(xattrs={"/f": {"system.posix_acl_access": LIST}})
    tree.xattrs["/damaged"] = {"system.posix_acl_access": LIST[:-1]}
    tree.add("/f", mode=0o674, streams=("s",))
    tree.add("/damaged", mode=0o674)
    extract(tree, tmp_path / "out", Wishes(recursive=True, xattrs=xattrs, streams="files"))
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"f": 0o644, "f:s": 0o644, "damaged": 0o604}


def test_no_permissions_are_permissions_where_there_are_any(tmp_path: Path) -> None:
    """Fails if a file that nobody may read, as shadow of some systems, is one that all may."""
    for kind, mode in (("ext4", 0), ("vfat", 0o666 & ~_umask())):
        tree = Tree()
        tree.add("/shadow", mode=0)
        tree.add("/folder", Type.DIRECTORY, mode=0)
        tree.add("/folder/inner", mode=0o600)
        extract(tree, tmp_path / kind, kind=kind)
        assert (tmp_path / kind / "shadow").stat().st_mode & 0o7777 == mode
        folder = (tmp_path / kind / "folder").stat().st_mode & 0o7777
        assert folder == (0 if kind == "ext4" else 0o777 & ~_umask())
        (tmp_path / kind / "folder").chmod(0o700)
        assert (tmp_path / kind / "folder" / "inner").exists()


def test_nobody_else_reads_what_is_being_written(tmp_path: Path) -> None:
    """Fails if a private file, or what is in a private folder, is open to all for a while."""
    seen: list[int] = []

    class Watched(MemoryStorage):
        def readinto(self, buffer: memoryview, offset: int) -> None:
            super().readinto(buffer, offset)
            private = tmp_path / "out" / "private"
            seen.extend(path.stat().st_mode & 0o077 for path in (private, *private.iterdir()))

    tree = Tree(contents={"/private/key": Watched(b"secret")})
    tree.add("/private", Type.DIRECTORY, mode=0o700)
    tree.add("/private/key", mode=0o600, size=6)
    extract(tree, tmp_path / "out")
    assert len(seen) >= 2
    assert set(seen) == {0}


def test_a_file_that_lacks_bytes_is_not_taken_for_whole(tmp_path: Path) -> None:
    """Fails if zeros in place of what is cut off are told once, and are right the next time."""
    times = Times(modified=1_700_000_000_000_000_000)
    tree = Tree(contents={"/f": filled_up(MemoryStorage(b"abc"), 10, name="f")})
    tree.add("/f", size=10, times=times)
    tree.add("/whole", size=6, times=times)
    first = extract(tree, tmp_path / "out")
    again = extract(tree, tmp_path / "out", Wishes(recursive=True, resume=True))
    for report in (first, again):
        assert list(report.bad) == [{"path": "/f", "offset": 3, "length": 7}]
        assert (tmp_path / "out" / "f").read_bytes() == b"abc" + bytes(7)
    assert (again.files, again.kept) == (0, 2)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
