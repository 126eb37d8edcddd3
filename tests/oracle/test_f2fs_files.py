"""F2FS: names, facts and contents against what sload.f2fs was given, and what dump.f2fs reads."""

from __future__ import annotations

import contextlib
import os
import random
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ImagingError
from imprint.core.units import KIB, MIB
from imprint.filesystems import identify
from imprint.filesystems.f2fs.layout import Superblock
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import Told, digest, of_folder, of_tree
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("mkfs.f2fs", "sload.f2fs", "dump.f2fs")

SIZE = 160 * MIB
FEATURES = "extra_attr,inode_checksum,inode_crtime,sb_checksum"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What sload.f2fs can load: files, folders and links."""
    top = tmp_path_factory.mktemp("f2fs") / "tree"
    (top / "a" / "b" / "c").mkdir(parents=True)
    (top / "many").mkdir(mode=0o2750)
    dice = random.Random(7)
    (top / "empty").touch()
    (top / "tiny").write_bytes(b"tiny")
    os.link(top / "tiny", top / "a" / "hard")
    (top / "text").write_bytes(b"".join(dice.choices([b"disk ", b"image\n"], k=120_000)))
    (top / "mixed").write_bytes(
        bytes(150_000) + dice.randbytes(100_000) + b"said again and again\n" * 9000
    )
    (top / "indirect").write_bytes(dice.randbytes(13 * MIB))
    (top / "a" / "b" / "c" / "noise").write_bytes(dice.randbytes(50_000))
    (top / "short").symlink_to("target")
    (top / "long").symlink_to("x/" * 450)
    for number in range(400):
        (top / "many" / f"name {number} of some length").write_bytes(b"%d" % number)
    (top / ("n" * 250)).write_bytes(b"a long name")
    with open(os.fsencode(top) + b"/no \xff\xfe text", "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"named by bytes")
    (top / "tiny").chmod(0o4751)
    os.chown(top / "tiny", 1000, 2000)
    for at, path in enumerate(sorted(top.rglob("*"))):
        os.utime(path, (0, 1_000_000_000 + at), follow_symlinks=False)
    return top


def make(path: Path, folder: Path, *features: str, size: int = SIZE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    run("mkfs.f2fs", "-q", *features, path)
    run("sload.f2fs", "-P", "-f", folder, "-t", "/", path)
    return path


def told(path: Path) -> dict[str, Told]:
    """What we say, which has to be without notes."""
    with closing(FileStorage.open(path)) as volume:
        found = identify(volume)
        assert found is not None
        with closing(tree(found.kind, volume)) as files:
            listed = of_tree(files)
            assert files.notes == []
    return listed


@pytest.mark.root
@pytest.mark.parametrize(
    "features",
    [(), ("-i",), ("-O", FEATURES), ("-O", f"{FEATURES},encrypt,quota", "-s", "2")],
    ids=" ".join,
)
def test_it_is_told_as_it_was_loaded(
    tmp_path: Path, folder: Path, features: tuple[str, ...]
) -> None:
    """Fails if a name, a fact or a byte of any file differs."""
    found = told(make(tmp_path / "volume", folder, *features))
    assert len(found) > 400
    assert found == of_folder(folder)


@pytest.mark.root
def test_a_file_is_read_as_dump_reads_it(tmp_path: Path, folder: Path) -> None:
    """Fails if another reader of the same volume finds another inode of a name, or other bytes."""
    path = make(tmp_path / "volume", folder)
    with closing(FileStorage.open(path)) as volume, closing(tree("f2fs", volume)) as files:
        for name in ("tiny", "a/b/c/noise", "indirect"):
            entry = find_path(files, name)
            with contextlib.chdir(tmp_path):
                run("dump.f2fs", "-i", hex(entry.inode), path, stdin=b"Y\n")
            (dumped,) = (tmp_path / "lost_found").iterdir()
            assert digest(files.content(entry)) == digest(FileStorage.open(dumped))
            dumped.unlink()


def test_random_damage_gives_files_notes_or_one_error(tmp_path: Path, folder: Path) -> None:
    """Fails if hostile nodes, names or tables raise anything else, or do not end."""
    whole = make(tmp_path / "volume", folder / "a", size=64 * MIB).read_bytes()
    block = Superblock.unpack(whole[1024:4096])
    starts = [part * 4096 for part in (block.checkpoint_block, block.nat_block, block.main_block)]
    storage = MemoryStorage(whole)
    dice = random.Random(1)
    with closing(tree("f2fs", storage)) as files:
        starts += [entry.extents[0][0] for entry in walk(files) if entry.extents]
    for _ in range(60):
        at = dice.choice(starts) + dice.choice((dice.randrange(400), dice.randrange(64 * KIB)))
        before = whole[at : at + 4]
        storage.write(memoryview(dice.choice((bytes(4), b"\xff" * 4, dice.randbytes(4)))), at)
        with contextlib.suppress(ImagingError), closing(tree("f2fs", storage)) as files:
            for entry in walk(files):
                with contextlib.suppress(ImagingError):
                    digest(files.content(entry)) if entry.size < MIB else None
        storage.write(memoryview(before), at)
