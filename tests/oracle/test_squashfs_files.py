"""SquashFS: names, facts and contents against mksquashfs, unsquashfs and the kernel."""

from __future__ import annotations

import os
import random
import shutil
import struct
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import FormatError, ImagingError, UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.core.units import KIB, MIB
from imprint.filesystems.squashfs.layout import Superblock
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import Told, digest, of_folder, of_tree, opened, told
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.oracle("mksquashfs", "unsquashfs")

COMPRESSORS = ("gzip", "lzma", "lzo", "lz4", "xz", "zstd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that Unix has, of many shapes."""
    top = tmp_path_factory.mktemp("squashfs") / "tree"
    top.mkdir()
    dice = random.Random(5)
    words = b"".join(dice.choices([b"disk ", b"image ", b"block\n", b"\0\0\0\0"], k=60_000))
    (top / "text").write_bytes(words)
    (top / "noise").write_bytes(dice.randbytes(300_001))
    (top / "mixed").write_bytes(dice.randbytes(200_000) + words[:200_000] + bytes(70_000))
    (top / "whole blocks").write_bytes(words[: 128 * KIB])
    (top / "empty").touch()
    (top / "zeros").write_bytes(bytes(700_000))
    with (top / "sparse").open("wb") as file:
        file.seek(3 * MIB)
        file.write(b"in the middle")
        file.truncate(5 * MIB + 17)
    os.link(top / "text", top / "hard")
    (top / "short").symlink_to("target")
    (top / "long").symlink_to("x/" * 450)
    os.mkfifo(top / "fifo")
    (top / "many").mkdir(mode=0o2750)
    for number in range(300):
        (top / "many" / f"name {number} of some length").write_bytes(words[: number * 17])
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "a" / "b" / "c" / "noise").write_bytes(dice.randbytes(5))
    with open(os.fsencode(top) + b"/no \xff\xfe text", "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"named by bytes")
    (top / "text").chmod(0o4751)
    for at, path in enumerate(sorted(top.rglob("*"))):
        os.utime(path, (0, 1_000_000_000 + at), follow_symlinks=False)
    os.utime(top / "empty", (0, 4_000_000_000))
    return top


def make(folder: Path, path: Path, *options: str) -> Path:
    run("mksquashfs", folder, path, "-quiet", "-no-progress", "-processors", "1", *options)
    return path


def by_unsquashfs(path: Path, target: Path) -> dict[str, Told]:
    run("unsquashfs", "-quiet", "-no-progress", "-d", target, path)
    return of_folder(target)


@pytest.mark.parametrize("block", ["4K", "1M"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_every_compressor_is_told_as_unsquashfs_tells_it(
    tmp_path: Path, folder: Path, compressor: str, block: str
) -> None:
    """Fails if a name, a fact or a byte of any file differs."""
    if compressor == "lzo":
        pytest.importorskip("lzallright")
    path = make(folder, tmp_path / "volume", "-comp", compressor, "-b", block)
    found = told(path)
    assert len(found) > 300
    assert found == of_folder(folder)
    if block == "4K":
        assert found == by_unsquashfs(path, tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [
        ("-no-fragments",),
        ("-always-use-fragments", "-no-exports"),
        ("-noI", "-noD", "-noF"),
        ("-noI",),
        ("-noD",),
        ("-noF", "-always-use-fragments"),
        ("-no-duplicates", "-no-sparse", "-no-hardlinks"),
        ("-comp", "xz", "-Xbcj", "x86", "-Xdict-size", "50%"),
        ("-comp", "gzip", "-Xwindow-size", "8", "-Xcompression-level", "1"),
        ("-comp", "lz4", "-Xhc", "-nopad"),
    ],
    ids=" ".join,
)
def test_every_way_to_lie_is_told_as_unsquashfs_tells_it(
    tmp_path: Path, folder: Path, options: tuple[str, ...]
) -> None:
    """Fails if stored blocks, ends in fragments, or holes are taken for something else."""
    path = make(folder, tmp_path / "volume", *options)
    found = told(path)
    assert len(found) > 300
    assert found == by_unsquashfs(path, tmp_path / "out")


@pytest.mark.root
def test_it_is_told_as_the_kernel_tells_it(tmp_path: Path, folder: Path) -> None:
    """Fails if owners, devices, or numbers of inodes differ from those of another driver."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, symlinks=True, copy_function=shutil.copy2, ignore=_fifos)
    os.mknod(copy / "character", 0o20644, os.makedev(5, 6))
    os.mknod(copy / "block", 0o60600, os.makedev(8, 300))
    for at, name in enumerate(("empty", "text", "character", "many")):
        os.chown(copy / name, 70_000 + at, 80_000 - at)
    path = make(copy, tmp_path / "volume")
    with mounted(path, "ro") as point, opened(path) as files:
        assert of_tree(files) == of_folder(point)
        for name in ("text", "many", "many/name 250 of some length", "a/b/c"):
            assert find_path(files, name).inode == (point / name).stat().st_ino
        assert files.notes == []


def _fifos(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "fifo"]


def test_ends_and_types_beside_files_are_told(tmp_path: Path, folder: Path) -> None:
    """Fails if a fifo or a hard link is lost, or two names of a file have two numbers."""
    with opened(make(folder, tmp_path / "volume")) as files:
        entries = {entry.name: entry for entry in files.children(files.root())}
        assert entries["fifo"].type.value == "fifo"
        assert entries["text"].inode == entries["hard"].inode
        assert entries["text"].links == entries["hard"].links == 2
        assert files.content(entries["long"]).size == 900


def test_stored_blocks_are_the_volumes_and_holes_are_holes(tmp_path: Path, folder: Path) -> None:
    """Fails if what lies in the volume is decoded, or zeros that are not stored are read."""
    with opened(make(folder, tmp_path / "volume", "-no-fragments")) as files:
        entries = {entry.name: entry for entry in files.children(files.root())}
        content = files.content(entries["sparse"])
        kinds = [extent.kind for extent in content.extents(0, content.size)]
        assert kinds == [Kind.HOLE, Kind.ENCODED, Kind.HOLE]
        noise = entries["noise"]
        assert noise.is_plain
        extents = list(files.content(noise).extents(0, noise.size))
        assert {extent.kind for extent in extents} == {Kind.DATA}
        assert sum(extent.length for extent in extents) == noise.size
        assert sum(length for _, length in noise.extents) == noise.size
        assert not entries["text"].is_plain
    with opened(make(folder, tmp_path / "other", "-noF", "-always-use-fragments")) as files:
        small = find_path(files, "many/name 3 of some length")
        assert small.is_plain
        ((offset, length),) = small.extents
        assert length == small.size
        (extent,) = files.content(small).extents(0, small.size)
        assert (extent.kind, extent.storage_offset) == (Kind.DATA, offset)


def test_others_than_version_4_are_refused(tmp_path: Path, folder: Path) -> None:
    """Fails if old layouts are read by these rules; byte 28 is the version, 20 the compressor."""
    (folder.parent / "one").mkdir(exist_ok=True)
    whole = make(folder.parent / "one", tmp_path / "volume").read_bytes()
    for at, value in ((28, b"\3"), (0, b"sqsh"), (20, b"\x09"), (4, b"\xff" * 4)):
        content = bytearray(whole)
        content[at : at + len(value)] = value
        with pytest.raises(UnsupportedFeatureError):
            tree("squashfs", MemoryStorage(bytes(content)))
    with pytest.raises(FormatError, match="at most the volume's"):
        tree("squashfs", MemoryStorage(whole[:120]))


def test_a_missing_library_is_advice(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if LZO without its module is a crash, or an empty file system."""
    path = make(folder, tmp_path / "volume", "-comp", "lzo")
    monkeypatch.setitem(sys.modules, "lzallright", None)
    with pytest.raises(UnsupportedFeatureError) as failure, opened(path):
        pass
    assert failure.value.advice is not None
    assert "imprint[browse]" in failure.value.advice
    assert failure.value.name == str(path)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_random_damage_gives_files_notes_or_one_error(
    tmp_path: Path, folder: Path, compressor: str
) -> None:
    """Fails if hostile bytes raise anything else, or do not end."""
    path = make(folder / "many", tmp_path / "volume", "-comp", compressor, "-b", "8K")
    whole = path.read_bytes()
    block = Superblock.unpack(whole)
    tables = (0, 16, 32, 64, block.inode_table, block.folder_table, block.bytes_used - 200)
    dice = random.Random(3)
    for _ in range(12):
        content = bytearray(whole)
        for _ in range(3):
            at = min(dice.choice(tables) + dice.randrange(100), len(content) - 4)
            content[at : at + 4] = dice.choice((bytes(4), b"\xff" * 4, dice.randbytes(4)))
        try:
            with closing(tree("squashfs", MemoryStorage(bytes(content)))) as files:
                for entry in list(files.children(files.root()))[::20]:
                    digest(files.content(entry))
        except ImagingError:
            continue


def test_a_folder_in_itself_and_a_number_of_two_inodes_are_notes(tmp_path: Path) -> None:
    """Fails if a file is told with the content of another that claims its number."""
    top = tmp_path / "top"
    (top / "in").mkdir(parents=True)
    (top / "one").write_bytes(b"1" * 5000)
    (top / "two").write_bytes(b"2" * 5000)
    path = make(top, tmp_path / "volume", "-noI", "-no-fragments", "-no-xattrs")
    content = bytearray(path.read_bytes())
    table = Superblock.unpack(content).inode_table + 2
    (first,) = (at for at in range(table, table + 400) if is_file(content, at, 2))
    struct.pack_into("<I", content, first + 12, 3)
    with closing(tree("squashfs", MemoryStorage(bytes(content)))) as files:
        names = {entry.name for entry in files.children(files.root())}
        assert len(names) == 2
        assert ["found two" in note for note in files.notes] == [True]


def is_file(content: bytearray, at: int, number: int) -> bool:
    """Whether a basic inode of a file begins there."""
    return content[at : at + 2] == b"\2\0" and content[at + 12 : at + 16] == bytes(
        [number, 0, 0, 0]
    )
