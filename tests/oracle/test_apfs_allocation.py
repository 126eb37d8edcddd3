"""APFS: maps against The Sleuth Kit's pool reader and apfsck, on containers of macOS and mkapfs."""

from __future__ import annotations

import lzma
import re
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.runs import Runs
from imprint.core.units import GIB, MIB
from imprint.filesystems.apfs import FILE_SYSTEM
from imprint.storage.file import FileStorage
from imprint.testing.apfs_volume import BLOCK, OLD, container
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of, spoil_unused

if TYPE_CHECKING:
    from pathlib import Path

REAL: Final = {
    "with files": "log2timeline+dfvfs/test_data/apfs.raw",
    "empty": "util-linux+util-linux/tests/ts/blkid/images-fs/apfs.img.xz",
}


def real(corpus: Path, name: str, path: Path) -> Path:
    """A copy of a container that macOS made."""
    content = (corpus / "forensics" / REAL[name]).read_bytes()
    path.write_bytes(lzma.decompress(content) if REAL[name].endswith(".xz") else content)
    return path


def make(path: Path, size: int, *options: str) -> Path:
    """A container that mkapfs made in a sparse file."""
    with path.open("wb") as file:
        file.truncate(size)
    run("mkapfs", *options, path)
    return path


def free_of_pstat(path: Path) -> Runs:
    """What The Sleuth Kit calls unallocated in the newest checkpoint, in bytes."""
    listed = run("pstat", path).stdout.partition("Unallocated Container Blocks")[2]
    pairs = re.findall(r"0x([0-9a-f]+)-0x([0-9a-f]+)", listed)
    return Runs.of(
        (int(first, 16) * BLOCK, (int(last, 16) - int(first, 16) + 1) * BLOCK)
        for first, last in pairs
    )


def files_of_tsk(path: Path) -> dict[str, str]:
    """Every file of every volume, and its content."""
    found = {}
    for volume in re.findall(r"APSB Block Number: (\d+)", run("pstat", path).stdout):
        place = ("-P", "apfs", "-B", volume)
        for line in run("fls", *place, "-r", "-p", "-F", path).stdout.splitlines():
            kind, _, name = line.partition("\t")
            number = kind.split()[1].rstrip(":")
            # It ends with 1 where a file has no content at all.
            found[f"{volume} {name}"] = run("icat", *place, path, number, accept=(0, 1)).stdout
    return found


def lacking(path: Path, used: Runs) -> Runs:
    """What is reached and not used."""
    with closing(FileStorage.open(path)) as storage:
        return Runs.of(FILE_SYSTEM.reached(storage)) - used


@pytest.mark.oracle("pstat", "fls", "icat")
@pytest.mark.parametrize("name", REAL)
def test_the_map_of_a_real_container_is_what_another_reader_says(
    name: str, corpus: Path, tmp_path: Path
) -> None:
    """Fails if a block is missed, or a file is not what it was without the free ones."""
    path = real(corpus, name, tmp_path / "apfs")
    found = allocation_of(path, FILE_SYSTEM.allocation)
    size = path.stat().st_size
    assert (found.doubts, found.notes) == ((), ())
    assert found.used == free_of_pstat(path).complement(size)
    assert len(lacking(path, found.used)) == 0
    before = files_of_tsk(path)
    assert any(before.values()) == (name == "with files")
    assert spoil_unused(path, found.used) > size // 2
    assert files_of_tsk(path) == before
    assert free_of_pstat(path) == found.used.complement(size)


@pytest.mark.oracle("pstat", "fls", "icat")
def test_a_system_can_go_back_to_the_checkpoint_before(corpus: Path, tmp_path: Path) -> None:
    """Fails if what only the older checkpoint uses is lost."""
    path = real(corpus, "with files", tmp_path / "apfs")
    used = allocation_of(path, FILE_SYSTEM.allocation).used
    newest = int(re.findall(r"Checkpoint Descriptor Block: (\d+)", run("pstat", path).stdout)[0])
    with path.open("r+b") as file:
        file.seek((newest + 1) * BLOCK)
        file.write(bytes(BLOCK))
    before, free = files_of_tsk(path), free_of_pstat(path)
    assert any(before.values())
    spoil_unused(path, used)
    assert files_of_tsk(path) == before
    assert len(used.complement(path.stat().st_size) - free) == 0


@pytest.mark.oracle("mkapfs", "apfsck", "pstat")
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (130 * MIB, ()),
        (400 * MIB + 2048, ("-s", "-L", "name")),
        (5 * GIB, ("-z",)),
        (40 * GIB, ()),
    ],
)
def test_the_map_of_a_new_container_is_what_another_reader_says(
    size: int, options: tuple[str, ...], tmp_path: Path
) -> None:
    """Fails if a chunk of many is taken for another, or one without a bitmap for a used one."""
    path = make(tmp_path / "apfs", size, *options)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert (found.doubts, found.notes) == ((), ())
    assert found.used.complement(size) == free_of_pstat(path)
    assert len(lacking(path, found.used)) == 0
    if size < GIB // 4:
        assert spoil_unused(path, found.used) > size // 2
    run("apfsck", "-cuw", path)


@pytest.mark.oracle("pstat")
@pytest.mark.parametrize("is_listed", [False, True])
def test_the_container_put_together_by_hand_is_one_to_another_reader(
    is_listed: bool, tmp_path: Path
) -> None:
    """Fails if the container of the other tests is one in our eyes only."""
    path = tmp_path / "apfs"
    path.write_bytes(container(is_listed=is_listed))
    used = allocation_of(path, FILE_SYSTEM.allocation).used
    size = path.stat().st_size
    # On purpose we keep more: what the older checkpoint used, and the end behind the blocks.
    more = Runs.of([(OLD * BLOCK, BLOCK), (size - size % BLOCK, size % BLOCK)])
    assert free_of_pstat(path) - more == used.complement(size)
    assert len(free_of_pstat(path) & more) == 1
