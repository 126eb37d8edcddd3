"""Which files lie where, against bytes that are found by searching, debugfs, and ``ifind``."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError, PassphraseError, UnsupportedFeatureError
from imprint.core.events import Finding
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.endpoints.files_on import FileHit, Part, files_on
from imprint.filesystems import isolated
from imprint.filesystems.sleuthkit import SleuthKit
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import READERS
from imprint.filesystems.walking import walk
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing import ntfs_volume
from imprint.testing.faults import FaultyStorage
from imprint.testing.oracles import run
from imprint.testing.volumes import make_disk, mounted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.core.contracts import Source

pytest.importorskip("pytsk3")

SIZES = {"small": 3000, "folder/large": 300_000, "folder/deep/middle": 20_000, "with space": 9000}
FILES = {
    name: random.Random(name).randbytes(size)  # no two have a block in common
    for name, size in SIZES.items()
}


def refuse(name: str) -> bytes:
    raise PassphraseError("is not looked into", name=name)


def hits(source: Source, ranges: Runs) -> list[FileHit]:
    """All answers, which have to cover what was asked for, and nothing else."""
    found = list(files_on(source, ranges, refuse))
    assert Runs.union(hit.ranges for hit in found) == ranges
    return found


def named(found: list[FileHit]) -> dict[str, Runs]:
    return {hit.path: hit.ranges for hit in found if hit.path is not None}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the files."""
    folder = tmp_path / "tree"
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def empty(path: Path, size: int = 8 * MIB) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def make_ext(path: Path, tree: Path) -> None:
    run("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-d", tree, empty(path))


def make_ext2(path: Path, tree: Path) -> None:
    run("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-d", tree, empty(path))


def make_fat(path: Path, tree: Path) -> None:
    run("mkfs.vfat", empty(path))
    for item in sorted(tree.iterdir()):
        run("mcopy", "-s", "-i", path, item, "::")


def make_iso(path: Path, tree: Path) -> None:
    run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-o", path, tree)


def make_ntfs(path: Path, tree: Path) -> None:
    with ntfs_volume.ntfs_mounted(ntfs_volume.make(path)) as folder:
        shutil.copytree(tree, folder, dirs_exist_ok=True)


def make_xfs(path: Path, tree: Path) -> None:
    run("mkfs.xfs", "-q", empty(path, 300 * MIB))
    with mounted(path) as folder:
        shutil.copytree(tree, folder, dirs_exist_ok=True)


def each(volume: bytes) -> dict[str, int]:
    """Where each file begins: its bytes are nowhere else."""
    return {name: volume.index(content) for name, content in FILES.items()}


@pytest.mark.oracle("mke2fs", "mkfs.vfat", "mcopy", "xorriso")
@pytest.mark.parametrize("make", [make_ext, make_fat, make_iso])
def test_each_file_is_found_where_its_bytes_are(
    tmp_path: Path, tree: Path, make: Callable[[Path, Path], None]
) -> None:
    """Fails if a place is said to be another file's, or no file's."""
    path = tmp_path / "volume"
    make(path, tree)
    check_places(path, {f"/{name}": at for name, at in each(path.read_bytes()).items()})


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g", "mkfs.xfs")
@pytest.mark.parametrize("make", [make_ntfs, make_xfs])
def test_each_file_that_a_driver_wrote_is_found_where_its_bytes_are(
    tmp_path: Path, tree: Path, make: Callable[[Path, Path], None]
) -> None:
    """Fails if the runs of NTFS or XFS are taken for others."""
    path = tmp_path / "volume"
    make(path, tree)
    with path.open("rb") as file:
        content = file.read(128 * MIB)
    check_places(path, {f"/{name}": at for name, at in each(content).items()})


def check_places(path: Path, places: dict[str, int]) -> None:
    with closing(FileStorage.open(path)) as volume:
        for name, at in places.items():
            length = SIZES[name[1:]]
            assert named(hits(volume, Runs.of([(at, length)]))) == {name: Runs.of([(at, length)])}
            inside = Runs.of([(at + length // 2, 7)])
            (hit,) = hits(volume, inside)
            assert (hit.where, hit.part, hit.path, hit.ranges) == ("disk", Part.FILE, name, inside)


@pytest.mark.oracle("mke2fs", "debugfs", "ifind", "ffind")
@pytest.mark.parametrize("make", [make_ext, make_ext2])
def test_every_block_of_ext_has_the_inode_that_debugfs_and_ifind_give_it(
    tmp_path: Path, tree: Path, make: Callable[[Path, Path], None]
) -> None:
    """Fails if a block of a file, also an indirect one, or of a folder, is another inode's."""
    path = tmp_path / "volume"
    make(path, tree)
    owners: dict[int, tuple[str, int]] = {}
    with closing(FileStorage.open(path)) as volume:
        for hit in hits(volume, Runs.whole(volume.size)):
            for start, length in hit.ranges:
                for block in range(start // KIB, (start + length) // KIB):
                    if hit.path is not None and hit.inode is not None:
                        owners[block] = (hit.path, hit.inode)
    told = run("debugfs", "-R", f"icheck {' '.join(map(str, range(1, 8192)))}", path).stdout
    expected = {int(a): int(b) for a, b in re.findall(r"^(\d+)\t(\d+)$", told, re.MULTILINE)}
    users = {block: inode for block, inode in expected.items() if inode == 2 or inode > 10}
    assert len(users) > 300
    assert {block: inode for block, (_, inode) in owners.items()} == users
    names = dict(owners.values())
    for inode in set(users.values()):
        block = next(item for item, owner in users.items() if owner == inode)
        assert run("ifind", "-d", str(block), path).stdout.strip() == str(inode)
        paths = [name for name, number in names.items() if number == inode]
        assert paths == [run("ffind", path, str(inode)).stdout.strip()]


@pytest.mark.oracle("mke2fs", "mkfs.vfat", "mcopy", "sfdisk")
def test_answers_are_in_bytes_of_the_disk_and_name_the_partition(
    tmp_path: Path, tree: Path
) -> None:
    """Fails if the start of a partition is forgotten, or what is in none is not told."""
    make_ext(tmp_path / "ext", tree)
    make_fat(tmp_path / "fat", tree)
    path = tmp_path / "disk"
    volumes = [("linux", tmp_path / "ext"), ("uefi", tmp_path / "fat")]
    starts = make_disk(path, volumes, size=20 * MIB)
    asked, expected = [], {}
    for number, (start, (_, volume)) in enumerate(zip(starts, volumes, strict=True), 1):
        at = start + each(volume.read_bytes())["folder/large"]
        asked.append((at + 1000, 5000))
        expected[f"partition {number}"] = Runs.of(asked[-1:])
    with closing(FileStorage.open(path)) as disk:
        found = hits(disk, Runs.of([*asked, (0, 512)]))
    assert {hit.where: hit.ranges for hit in found if hit.path == "/folder/large"} == expected
    (outside,) = [hit for hit in found if hit.path is None]
    assert (outside.part, outside.ranges) == (Part.OUTSIDE, Runs.of([(0, 512)]))


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs")
def test_content_is_told_from_free_space_where_names_are_not_known(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if what lies in files of XFS is called free, or the other way round."""
    monkeypatch.delitem(READERS, "xfs")  # as of a file system whose names nothing tells
    path = tmp_path / "volume"
    make_xfs(path, tree)
    with closing(FileStorage.open(path)) as volume:
        found = {hit.part: hit.ranges for hit in hits(volume, Runs.whole(volume.size))}
        with path.open("rb") as file:
            data = file.read(128 * MIB)
        for name, at in each(data).items():
            assert found[Part.FILE].covers(at, SIZES[name])
        assert found[Part.METADATA].covers(0, 512)
        assert found[Part.UNUSED].total > 100 * MIB


@pytest.mark.oracle("mke2fs")
def test_a_file_that_was_deleted_is_not_told(tmp_path: Path, tree: Path) -> None:
    """Fails if names of deleted files are told for free space."""
    path = tmp_path / "volume"
    make_ext(path, tree)
    at = each(path.read_bytes())["folder/large"]
    run("debugfs", "-w", "-R", "rm /folder/large", path)
    with closing(FileStorage.open(path)) as volume:
        (hit,) = hits(volume, Runs.of([(at, 4096)]))
    assert (hit.part, hit.path) == (Part.UNUSED, None)


@pytest.mark.oracle("mke2fs")
def test_a_folder_that_cannot_be_read_hides_only_what_is_in_it(tmp_path: Path, tree: Path) -> None:
    """Fails if one bad sector takes the names of all files."""
    path = tmp_path / "volume"
    make_ext(path, tree)
    content = path.read_bytes()
    told = run("debugfs", "-R", "blocks /folder/deep", path).stdout.split()
    bad = int(told[0]) * KIB
    places = each(content)
    asked = Runs.of([(places["folder/large"], 100), (places["folder/deep/middle"], 100)])
    events: list[object] = []
    volume = FaultyStorage(MemoryStorage(content), bad=[(bad, KIB)])
    found = list(files_on(volume, asked, refuse, on_event=events.append))
    assert set(named(found)) == {"/folder/large"}
    (nameless,) = [hit for hit in found if hit.path is None]
    assert (nameless.part, nameless.ranges) == (Part.FILE, asked - found[0].ranges)
    findings = [item for item in events if isinstance(item, Finding)]
    assert any("/folder/deep" in item.what for item in findings)


@pytest.mark.oracle("xorriso")
def test_files_of_hfsplus_lie_where_their_bytes_are(tmp_path: Path, tree: Path) -> None:
    """Fails if the forks of HFS+ are taken for others."""
    path = tmp_path / "volume"
    run("xorriso", "-as", "mkisofs", "-quiet", "-hfsplus", "-R", "-o", path, tree)
    content = path.read_bytes()
    start = content.index(b"H+\0\4") - 1024  # it is a partition beside the ISO file system
    volume = MemoryStorage(content[start:])
    files = {entry.path: entry for entry in walk(SleuthKit(volume, "hfsplus"))}
    for name, at in each(content[start:]).items():
        entry = files[f"/{name}"]
        assert (entry.type, entry.size) == (Type.FILE, SIZES[name])
        assert [start for start, _ in entry.extents] == [at]


@pytest.mark.oracle("mke2fs")
def test_names_are_text_whatever_bytes_they_have(tmp_path: Path) -> None:
    """Fails if a name cannot be written as JSON that others read, or stands for two."""
    folder = tmp_path / "tree"
    folder.mkdir()
    names = [b"\xffraw", "ümlaut".encode(), b"\x1b[31m", b"line\nbreak"]
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:  # noqa: PTH123 - bytes
            file.write(bytes(range(200)) * 10)
    path = empty(tmp_path / "volume")
    run("mke2fs", "-q", "-t", "ext4", "-d", folder, path)
    with closing(FileStorage.open(path)) as volume:
        found = set(named(hits(volume, Runs.whole(volume.size))))
    assert {"/\\xffraw", "/ümlaut"} <= found
    assert len(found) == len(names) + 2  # the root and lost+found
    for path_ in found:
        path_.encode()


@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize("seed", range(40))
def test_damage_gives_answers_or_findings_and_nothing_else(seed: int, volume_bytes: bytes) -> None:
    """Fails if damaged structures raise what no caller expects, or ranges get lost."""
    noise = random.Random(seed)
    content = bytearray(volume_bytes)
    for _ in range(noise.choice((1, 10, 100))):
        at = noise.randrange(1024, 256 * KIB)
        content[at] = noise.randrange(256)
    volume = MemoryStorage(bytes(content))
    for hit in hits(volume, Runs.whole(volume.size)):
        str(hit).encode()


def test_a_crash_of_the_library_is_a_note(volume_bytes: bytes) -> None:
    """Fails if an image that makes the library crash takes the program with it."""
    files = SleuthKit(MemoryStorage(volume_bytes), "ext4")
    root = files.root()
    os.kill(files.process.process.pid, signal.SIGSEGV)
    assert list(files.children(root)) == []
    assert files.notes == ["/: the library has crashed"]
    assert list(walk(files)) == [root]


def test_a_library_that_does_not_come_to_an_end_is_given_up(
    volume_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if an image can make the library, and so the program, work for ever."""
    files = SleuthKit(MemoryStorage(volume_bytes), "ext4")
    monkeypatch.setattr(isolated, "SILENCE_MAX_S", 0.1)
    os.kill(files.process.process.pid, signal.SIGSTOP)
    assert list(files.children(files.root())) == []
    assert files.notes == ["/: the library did not come to an end in 0.1 s"]


def test_what_is_no_file_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if noise, another kind, or a module that is missing, is no clear error."""
    volume = MemoryStorage(random.Random(1).randbytes(MIB))
    with pytest.raises(CorruptImageError, match="cannot be listed"):
        SleuthKit(volume, "ext4")
    with pytest.raises(UnsupportedFeatureError, match="files of xfs"):
        SleuthKit(volume, "xfs")
    monkeypatch.setitem(sys.modules, "pytsk3", None)
    with pytest.raises(UnsupportedFeatureError, match="needs the Python module pytsk3"):
        SleuthKit(volume, "ext4")


@pytest.fixture(scope="module")
def volume_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small ext4."""
    folder = tmp_path_factory.mktemp("ext")
    (folder / "tree").mkdir()
    for number in range(20):
        (folder / "tree" / f"file {number}").write_bytes(bytes([number]) * 3000)
    path = empty(folder / "volume", MIB)
    run("mke2fs", "-q", "-t", "ext4", "-b", "1024", "-d", folder / "tree", path)
    return path.read_bytes()
