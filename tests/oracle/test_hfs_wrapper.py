"""HFS+ in a wrapper of classic HFS, as Macs of 1998 made it, against The Sleuth Kit."""

from __future__ import annotations

import struct
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.filesystems import identify
from imprint.filesystems.blocks import block_size
from imprint.filesystems.hfsplus import FILE_SYSTEM
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import digest, of_folder, of_tree
from imprint.testing.hfs_volume import hfs_mounted
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of, spoil_unused
from imprint.testing.volumes import tree as read_folder

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("hformat", "xorriso", "fls", "tsk_recover")

MASTER: Final = 1024
FIRST: Final = 200
"""Block of the wrapper where HFS+ begins: behind the trees that hformat makes."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    for number in range(20):
        (top / "sub" / f"file {number}").write_bytes(bytes([number + 1]) * 777 * number)
    return top


@pytest.fixture
def inside(tmp_path: Path, folder: Path) -> bytes:
    """HFS+ without a wrapper."""
    disc = tmp_path / "disc"
    run("xorriso", "-as", "mkisofs", "-quiet", "-hfsplus", "-R", "-o", disc, folder)
    content = disc.read_bytes()
    start = content.index(b"H+\0\4") - MASTER
    block, count = struct.unpack_from(">II", content, start + MASTER + 40)
    return content[start : start + block * count]


@pytest.fixture
def wrapped(tmp_path: Path, inside: bytes) -> Path:
    """The same in a wrapper; TN1150 tells which fields and bits say so."""
    path = tmp_path / "wrapped"
    with hfs_mounted(path, tmp_path, size=len(inside) + MIB, label="Where are my files?"):
        pass
    whole = bytearray(path.read_bytes())
    (unit,) = struct.unpack_from(">I", whole, MASTER + 20)
    (start,) = struct.unpack_from(">H", whole, MASTER + 28)
    count = -(-len(inside) // unit)
    struct.pack_into(">2sHH", whole, MASTER + 124, b"H+", FIRST, count)
    (free,) = struct.unpack_from(">H", whole, MASTER + 34)
    struct.pack_into(">H", whole, MASTER + 34, free - count)
    for block in range(FIRST, FIRST + count):
        whole[3 * 512 + block // 8] |= 0x80 >> block % 8
    at = start * 512 + FIRST * unit
    whole[at : at + len(inside)] = inside
    path.write_bytes(whole)
    return path


def test_the_volume_inside_is_identified_and_told(
    wrapped: Path, folder: Path, inside: bytes
) -> None:
    """Fails if the wrapper's single file is shown, or the places of files are those inside."""
    pytest.importorskip("pytsk3")
    content = wrapped.read_bytes()
    start = content.index(inside)
    volume, alone = MemoryStorage(content), MemoryStorage(inside)
    found, other = identify(volume), identify(alone)
    assert found is not None
    assert other is not None
    assert (found.kind, found.label, found.uuid) == ("hfsplus", other.label, other.uuid)
    told = run("blkid", "-p", "-o", "value", "-s", "TYPE", wrapped).stdout.strip()
    assert told == found.kind
    assert block_size("hfsplus", volume) == block_size("hfsplus", alone)
    with closing(tree("hfsplus", volume)) as files, closing(tree("hfsplus", alone)) as expected:
        told_here = of_tree(files)
        assert told_here == of_tree(expected)
        assert {path: item.content for path, item in told_here.items()} == {
            path: item.content for path, item in of_folder(folder).items()
        }
        lines = run("fls", "-r", "-p", "-F", "-u", wrapped).stdout.splitlines()
        names = {"/" + line.partition(":\t")[2] for line in lines}
        files_told = {
            entry.path: entry for entry in walk(files) if entry.type is not Type.DIRECTORY
        }
        assert names == set(files_told)
        for entry in files_told.values():
            for offset, length in entry.extents:
                assert start <= offset < offset + length <= start + len(inside)
            if entry.is_plain and len(entry.extents) == 1:
                offset = entry.extents[0][0]
                assert digest(MemoryStorage(content[offset : offset + entry.size])) == digest(
                    files.content(entry)
                )


def test_the_map_is_that_of_the_volume_inside_and_all_of_the_wrapper(
    wrapped: Path, inside: bytes, tmp_path: Path
) -> None:
    """Fails if a block is left out that is used, or counted from the wrong start."""
    content = wrapped.read_bytes()
    start, size = content.index(inside), len(inside)
    found = allocation_of(wrapped, FILE_SYSTEM.allocation)
    alone = FILE_SYSTEM.allocation(MemoryStorage(inside))
    around = Runs.of([(0, start), (start + size, len(content) - start - size)])
    assert found.used == alone.used.shifted(start) | around
    reached = Runs.of(FILE_SYSTEM.reached(MemoryStorage(content)))
    assert len(reached - found.used) == 0
    assert reached.clip(start, start + size).total >= 777 * 190
    recovered = []
    for name in ("before", "after"):
        run("tsk_recover", "-a", wrapped, tmp_path / name)
        recovered.append(read_folder(tmp_path / name))
        spoil_unused(wrapped, found.used)
    assert recovered[0] == recovered[1] != {}


def test_a_wrapper_that_is_cut_short_tells_what_is_left_or_one_error(
    wrapped: Path, inside: bytes
) -> None:
    """Fails if a place behind the end is read, or the wrapper's blocks are taken for it."""
    pytest.importorskip("pytsk3")
    content = wrapped.read_bytes()
    start = content.index(inside)
    before, within = (MemoryStorage(content[:size]) for size in (start, start + len(inside) - 2048))
    with pytest.raises(CorruptImageError, match="inside of the volume"):
        FILE_SYSTEM.allocation(before)
    with pytest.raises(CorruptImageError, match="total_blocks"):
        FILE_SYSTEM.allocation(within)
    assert block_size("hfsplus", before) is None
    with closing(tree("hfsplus", within)) as files:
        assert len(list(walk(files))) > 20
