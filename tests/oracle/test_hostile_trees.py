"""Damaged and hostile file systems: a listing with notes, or one error, and an end."""

from __future__ import annotations

import os
import random
import shutil
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

import imprint.filesystems.tree
from imprint.core.errors import FormatError, ImagingError, ReadError, UnsupportedFeatureError
from imprint.core.units import KIB, MIB
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Source

ROUNDS: Final = 12
BLOCK: Final = 4 * KIB
XFS_BYTES: Final = 300 * MIB


def looked_into(volume: Source, kind: str) -> tuple[int, list[str]]:
    """How many entries there are, and the notes; every content is read, and may be an error."""
    with closing(tree(kind, volume)) as files:
        count = 0
        for entry in walk(files, deleted=True):
            count += 1
            entry.path.encode("utf-8", "surrogateescape")
            if entry.type is Type.FILE and count < 200:
                try:
                    content = files.content(entry)
                    buffer = bytearray(min(content.size, 64 * KIB))
                    content.readinto(memoryview(buffer), 0)
                except (FormatError, ReadError):
                    pass
        return count, files.notes


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for number in range(30):
        (folder / f"folder {number % 5}").mkdir(exist_ok=True)
        name = folder / f"folder {number % 5}" / f"file {number}"
        name.write_bytes(bytes([number]) * 1000 * number)
    (folder / "link").symlink_to("x" * 100)
    return folder


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory, source: Path) -> bytes:
    path = tmp_path_factory.mktemp("iso") / "disc"
    run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-o", path, source)
    return path.read_bytes()


class Sparse(MemoryStorage):
    """A large volume of which only the blocks are kept that are not zeros."""

    def __init__(self, blocks: dict[int, bytes], length: int) -> None:
        super().__init__()
        self.blocks = blocks
        self._length = length

    @property
    def size(self) -> int:
        return self._length

    def readinto(self, buffer: memoryview, offset: int) -> None:
        position, end = offset, offset + len(buffer)
        while position < end:
            at = position % BLOCK
            part = self.blocks.get(position // BLOCK, bytes(BLOCK))[at : at + end - position]
            buffer[position - offset : position - offset + len(part)] = part
            position += len(part)


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory, source: Path) -> dict[int, bytes]:
    path = tmp_path_factory.mktemp("xfs") / "volume"
    with path.open("wb") as file:
        file.truncate(XFS_BYTES)
    run("mkfs.xfs", "-q", path)
    with mounted(path) as folder:
        shutil.copytree(source, folder, symlinks=True, dirs_exist_ok=True)
        for number in range(400):
            (folder / "folder 1" / f"one of many names {number}").touch()
    blocks = {}
    with path.open("rb") as file:
        for number in range(XFS_BYTES // BLOCK):
            block = file.read(BLOCK)
            if any(block):
                blocks[number] = block
    return blocks


def damaged(content: bytes, seed: int, start: int, end: int) -> bytes:
    noise = random.Random(seed)
    changed = bytearray(content)
    for _ in range(noise.choice((1, 10, 100, 1000))):
        changed[noise.randrange(start, end)] = noise.choice((0, 1, 2, 255, noise.randrange(256)))
    return bytes(changed)


@pytest.mark.oracle("xorriso")
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_damaged_disc_gives_files_notes_or_one_error(seed: int, iso: bytes) -> None:
    """Fails if a damaged record, name or date raises what no caller expects."""
    end = iso.index(bytes([5]) * 1000)
    for number in range(20):
        changed = damaged(iso, seed * 100 + number, 32 * KIB, end)
        try:
            looked_into(MemoryStorage(changed), "iso9660")
        except ImagingError as failure:
            str(failure).encode()


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs")
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_damaged_xfs_gives_files_notes_or_one_error(seed: int, xfs: dict[int, bytes]) -> None:
    """Fails if a damaged inode or block raises what no caller expects."""
    names = [
        number
        for number, block in xfs.items()
        if block[:2] == b"IN" or block[:3] in (b"XDB", b"XDD", b"XFS")
    ]
    noise = random.Random(seed)
    for number in range(5):
        changed = dict(xfs)
        for chosen in noise.sample(names, min(3, len(names))):
            changed[chosen] = damaged(changed[chosen], seed * 100 + number, 200, BLOCK)
        try:
            looked_into(Sparse(changed, XFS_BYTES), "xfs")
        except ImagingError as failure:
            str(failure).encode()


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs", "xorriso")
def test_the_undamaged_ones_have_all(xfs: dict[int, bytes], iso: bytes) -> None:
    """Fails if the tests above look at nothing."""
    assert looked_into(Sparse(xfs, XFS_BYTES), "xfs") == (1 + 5 + 30 + 1 + 400, [])
    assert looked_into(MemoryStorage(iso), "iso9660") == (1 + 5 + 30 + 1, [])


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs")
def test_names_without_files_are_noted_and_no_more_than_can_be_kept(
    xfs: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a folder of names that lead nowhere takes memory for each of them."""
    monkeypatch.setattr(imprint.filesystems.tree, "NOTES_MAX", 20)
    changed = {}
    for number, block in xfs.items():
        inodes = bytearray(block)
        for at in range(0, BLOCK, 512):
            if inodes[at : at + 2] == b"IN" and inodes[at + 2] >> 4 == 8:  # a regular file
                inodes[at : at + 2] = b"--"
        changed[number] = bytes(inodes)
    told, notes = looked_into(Sparse(changed, XFS_BYTES), "xfs")
    assert told < 40
    assert len(notes) == 21
    assert "in use" in notes[0]
    assert notes[-1] == "/: there is more that could not be followed"


@pytest.mark.oracle("xorriso")
def test_folders_of_a_disc_in_a_circle_come_to_an_end(iso: bytes) -> None:
    """Fails if a folder that says to be its parent is walked for ever."""
    changed = bytearray(iso)
    (root,) = struct.unpack_from("<I", iso, 16 * 2048 + 156 + 2)
    at = root * 2048
    while changed[at]:
        if changed[at + 25] & 2:
            struct.pack_into("<I", changed, at + 2, root)
        at += changed[at]
    count, notes = looked_into(MemoryStorage(bytes(changed)), "iso9660")
    assert count == 7
    assert len(notes) == 5


@pytest.mark.oracle("xorriso")
def test_a_disc_that_is_cut_off_tells_what_is_left(iso: bytes) -> None:
    """Fails if files whose bytes are missing cannot be listed, or read as zeros."""
    end = iso.index(bytes([10]) * 1000)
    cut = MemoryStorage(iso[:end])
    count, _ = looked_into(cut, "iso9660")
    assert count == 37
    with closing(tree("iso9660", cut)) as files:
        last = next(entry for entry in walk(files) if entry.name == "file 29")
        with pytest.raises(ImagingError):
            files.content(last)
    with closing(tree("iso9660", FaultyStorage(MemoryStorage(iso), bad=[(end, 2048)]))) as files:
        assert len(list(walk(files))) == 37


@pytest.mark.parametrize("kind", ["xfs", "iso9660", "udf", "apfs", "ntfs", "vfat", "ufs"])
def test_noise_is_one_error(kind: str) -> None:
    """Fails if what is no file system is an empty one, or crashes."""
    if kind == "apfs":
        pytest.importorskip("pyfsapfs")
    elif kind not in ("xfs", "iso9660", "udf", "ufs"):
        pytest.importorskip("pytsk3")
    for content in (os.urandom(MIB), bytes(MIB), b""):
        with pytest.raises(FormatError):
            tree(kind, MemoryStorage(content))


def test_kinds_that_nothing_lists_are_refused() -> None:
    """Fails if swap is a crash."""
    with pytest.raises(UnsupportedFeatureError, match="files of swap cannot be listed"):
        tree("swap", MemoryStorage(bytes(KIB)))
