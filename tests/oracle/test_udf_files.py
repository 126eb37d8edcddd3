"""UDF: names, facts and contents against mkudffs, genisoimage and 7-Zip."""

from __future__ import annotations

import binascii
import contextlib
import itertools
import os
import random
import struct
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ImagingError
from imprint.core.units import KIB, MIB
from imprint.filesystems import identify
from imprint.filesystems.blocks import block_size
from imprint.filesystems.iso9660.tree import IsoTree
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.udf.tree import UdfTree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import bare, digest, of_folder, of_tree, opened, told
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and folders of names that all that write UDF can keep."""
    top = tmp_path_factory.mktemp("udf") / "tree"
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "many").mkdir()
    dice = random.Random(11)
    (top / "empty").touch()
    (top / "tiny").write_bytes(b"tiny")
    (top / "noise").write_bytes(dice.randbytes(300_001))
    (top / "a" / "b" / "c" / "whole block").write_bytes(dice.randbytes(2 * KIB))
    (top / "größe").write_bytes(b"latin")
    (top / "日本語 名前").write_bytes(b"wide")
    (top / ("n" * 100)).write_bytes(b"a long name")
    for number in range(200):
        (top / "many" / f"name {number} of some length").write_bytes(b"%d" % number)
    for at, path in enumerate(sorted(top.rglob("*"))):
        os.utime(path, (0, 1_000_000_000 + at))
    return top


def make(path: Path, folder: Path, *options: str) -> Path:
    run("genisoimage", "-quiet", "-input-charset", "utf-8", *options, "-o", path, folder)
    return path


@pytest.mark.oracle("genisoimage", "7z")
def test_a_disc_is_told_as_it_was_made_and_as_7_zip_tells_it(tmp_path: Path, folder: Path) -> None:
    """Fails if a name, a time or a byte of any file differs."""
    path = make(tmp_path / "disc", folder, "-udf")
    with opened(path) as files:
        assert isinstance(files, UdfTree)
    found = told(path)
    assert len(found) > 200
    assert bare(found) == bare(of_folder(folder))
    for name, item in of_folder(folder).items():
        if item.type is Type.FILE:
            assert found[name].modified == item.modified
    run("7z", "x", "-tudf", f"-o{tmp_path / 'out'}", path)
    assert bare(found) == bare(of_folder(tmp_path / "out"))


@pytest.mark.oracle("genisoimage")
def test_of_a_disc_that_is_both_the_tree_that_says_more_is_told(
    tmp_path: Path, folder: Path
) -> None:
    """Fails if links are told as empty files, a stub instead of the files, or names hidden."""
    copy = tmp_path / "copy"
    run("cp", "-a", folder, copy)
    (copy / "link").symlink_to("a/b")
    path = make(tmp_path / "both", copy, "-udf", "-R", "-J")
    with opened(path) as files:
        assert isinstance(files, IsoTree)
        assert find_path(files, "link").target == "a/b"
        assert bare(of_tree(files)) == bare(of_folder(copy))
        assert files.notes == []
    # A name that only UDF has; the CRC of its descriptor, whose name is behind 38 bytes.
    content = bytearray(path.read_bytes())
    at = content.index(b"\x08tiny") - 38
    content[at + 38 : at + 43] = b"\x08more"
    (length,) = struct.unpack_from("<H", content, at + 10)
    crc = binascii.crc_hqx(content[at + 16 : at + 16 + length], 0)
    struct.pack_into("<H", content, at + 8, crc)
    content[at + 4] = (sum(content[at : at + 16]) - content[at + 4]) & 0xFF
    files = tree("udf", MemoryStorage(bytes(content)))
    assert isinstance(files, IsoTree)
    assert ["as more" in note for note in files.notes] == [True]
    # ISO 9660 shows one file of it only, as on discs that install Windows.
    stub = ("-hide", "[!t]*")
    for options in (("-R", *stub), ()):
        path = make(tmp_path / "other", folder, "-udf", *options)
        with opened(path) as files:
            assert isinstance(files, UdfTree)
            assert bare(of_tree(files)) == bare(of_folder(folder))
            assert files.notes == []


@pytest.mark.oracle("genisoimage")
def test_of_a_disc_whose_udf_is_damaged_the_rest_is_told(tmp_path: Path, folder: Path) -> None:
    """Fails if files are lost that the other tree of the disc has."""
    long = ("-udf", "-J", "-joliet-long")
    content = bytearray(make(tmp_path / "both", folder, *long).read_bytes())
    with opened(tmp_path / "both") as files:
        assert isinstance(files, UdfTree)
        root = files.root().inode + 257
    content[root * 2048 : (root + 1) * 2048] = b"\xff" * 2048
    files = tree("udf", MemoryStorage(bytes(content)))
    assert bare(of_tree(files)) == bare(of_folder(folder))
    assert ["its ISO 9660 is told" in note for note in files.notes] == [True]


@pytest.mark.oracle("mkudffs", "udfinfo")
@pytest.mark.parametrize(
    ("medium", "revisions"),
    [
        ("hd", "1.02 1.50 2.00 2.01"),
        ("dvd", "1.02 1.50 2.00 2.01"),
        ("dvdram", "1.02 2.01"),
        ("dvdrw", "1.50 2.00 2.01"),
        ("dvdr", "1.50 2.00 2.60"),
        ("cdrw", "1.50 2.01"),
        ("cdr", "1.50 2.00 2.01 2.50 2.60"),
        ("bdr", "2.50 2.60"),
    ],
)
def test_every_medium_that_mkudffs_makes_has_a_root(
    tmp_path: Path, medium: str, revisions: str
) -> None:
    """Fails if an anchor, a partition or a table of any of them is not found."""
    sizes = (512, 1024, 2048, 4096) if medium == "hd" else (2048,)
    for revision, size in itertools.product(revisions.split(), sizes):
        path = tmp_path / f"{revision} {size}"
        options = ("-l", "label", "-m", medium, "-r", revision, "-b", str(size))
        run("mkudffs", "--new-file", *options, path, str(8 * MIB // size))
        said = dict(line.split("=", 1) for line in run("udfinfo", path).stdout.splitlines()[:30])
        with opened(path) as files:
            assert isinstance(files, UdfTree)
            root = files.root()
            names = {entry.name for entry in files.children(root) if entry.type is not Type.SYSTEM}
            assert names <= {"lost+found"}
            assert (root.mode, root.owner, root.group) == (0o755, 0, 0)
            assert files.notes == []
        volume = MemoryStorage(path.read_bytes())
        assert block_size("udf", volume) == size == int(said["blocksize"])
        found = identify(volume)
        assert found is not None
        assert found.label == said["label"] == "label"


@pytest.mark.oracle("mkudffs")
def test_a_disc_of_sessions_that_is_still_open_shows_the_last_one(tmp_path: Path) -> None:
    """Fails if its files cannot be listed, as its table is that of another session."""
    path = tmp_path / "disc"
    content = b""
    for start in (0, 320, 640):
        run(
            *("mkudffs", "--new-file", "-m", "cdr", "-r", "2.01", "-b", "2048"),
            *(f"--startblock={start}", f"--uid={start}", path, "300000"),
        )
        content = content.ljust(start * 2048, b"\0") + path.read_bytes()
        path.unlink()
    files = tree("udf", MemoryStorage(content))
    assert files.root().owner == 640
    assert files.notes == []


@pytest.mark.oracle("genisoimage")
def test_random_damage_gives_files_notes_or_one_error(tmp_path: Path, folder: Path) -> None:
    """Fails if hostile bytes raise anything else, or do not end."""
    whole = make(tmp_path / "disc", folder, "-udf").read_bytes()
    storage = MemoryStorage(whole)
    dice = random.Random(3)
    starts = [*range(32, 65), *range(256, 280), *range(460, 480)]
    for _ in range(60):
        at = dice.choice(starts) * 2048 + dice.randrange(300)
        before = whole[at : at + 4]
        storage.write(memoryview(dice.choice((bytes(4), b"\xff" * 4, dice.randbytes(4)))), at)
        with contextlib.suppress(ImagingError):
            files = tree("udf", storage)
            for entry in walk(files, deleted=True):
                with contextlib.suppress(ImagingError):
                    digest(files.content(entry)) if entry.size < MIB else None
        storage.write(memoryview(before), at)
