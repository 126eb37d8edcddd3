"""What XFS uses, against xfs_db, xfs_repair and the kernel."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.filesystems.xfs import FILE_SYSTEM
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of, mounted, spoil_unused, tree
from imprint.testing.xfs_volume import (
    VOLUME_BYTES,
    field_of_xfs_db,
    free_of_xfs_db,
    listed_of_xfs_db,
    make,
    populate,
    reached_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.filesystems.allocation import Allocation

pytestmark = [pytest.mark.oracle("mkfs.xfs", "xfs_db", "xfs_repair"), pytest.mark.root]

OPTIONS: Final = {
    "default": (),
    "1 KiB blocks, owners": ("-b", "size=1024", "-m", "rmapbt=1"),
    "2 KiB blocks, nothing new": ("-b", "size=2048", "-m", "finobt=0,reflink=0,bigtime=0"),
    "64 KiB blocks": ("-b", "size=65536", "-d", "agcount=2"),
    "4 KiB sectors, large inodes": ("-s", "size=4096", "-i", "size=2048"),
    "no sparse inodes": ("-i", "sparse=0", "-m", "inobtcount=0"),
    "large counts, last group short": ("-i", "nrext64=1", "-d", "agsize=20m"),
    "large folders, larger log": ("-n", "size=16384", "-l", "size=8m"),
}


def check_against_xfs_db(path: Path, found: Allocation) -> None:
    """Free is what xfs_db calls free, but for the blocks of the free lists, which are kept."""
    size = field_of_xfs_db(path, "sb 0", "p blocksize")
    group_blocks = field_of_xfs_db(path, "sb 0", "p agblocks")
    groups = field_of_xfs_db(path, "sb 0", "p agcount")
    listed = Runs.of(
        ((group * group_blocks + block) * size, size)
        for group in range(groups)
        for block in listed_of_xfs_db(path, group)
    )
    free = free_of_xfs_db(path, group_blocks, size)
    assert found.unit == size
    assert found.used.complement(path.stat().st_size) == free - listed
    assert listed & free == listed


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_is_missing_when_all_that_is_left_out_is_garbage(name: str, tmp_path: Path) -> None:
    """Fails if a block is called free that xfs_db, xfs_repair or a file needs, or the reverse."""
    size = 128 * MIB if name == "64 KiB blocks" else VOLUME_BYTES  # its log needs them
    path = make(tmp_path / "volume", *OPTIONS[name], size=size)
    with mounted(path) as folder:
        populate(folder, reflink="reflink=0" not in str(OPTIONS[name]))
        before = tree(folder)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert (found.doubts, found.notes) == ((), ())
    check_against_xfs_db(path, found)
    assert reached_of(path) == found.used
    assert spoil_unused(path, found.used) > 0
    run("xfs_repair", "-n", path)
    with mounted(path) as folder:
        assert tree(folder) == before


def test_chunks_of_inodes_that_have_holes_are_walked(tmp_path: Path) -> None:
    """Fails if the holes are taken for inodes, or inodes for holes.

    The disk is filled, and every second file of 19 KiB removed: what is free is in pieces that
    are too short for whole chunks of inodes, of 32 KiB.
    """
    path = make(tmp_path / "volume", "-b", "size=1024", "-d", "agcount=2", size=40 * MIB)
    with mounted(path) as folder:
        files: list[Path] = []
        with contextlib.suppress(OSError):
            while True:
                files.append(folder / f"file{len(files)}")
                files[-1].write_bytes(bytes(19_000))
        os.sync()
        for name in files[::2]:
            name.unlink(missing_ok=True)
        os.sync()
        with contextlib.suppress(OSError):
            for number in range(8000):
                (folder / f"empty{number}").touch()
    found = allocation_of(path, FILE_SYSTEM.allocation)
    check_against_xfs_db(path, found)
    assert reached_of(path) == found.used
    leaves = [("-c", "addr root", "-c", f"addr ptrs[{number}]") for number in (1, 2)]
    text = "".join(
        run(
            "xfs_db", "-r", "-c", f"agi {group}", *words, "-c", "p recs", path, accept=(0, 1)
        ).stdout
        for group in (0, 1)
        for words in (("-c", "addr root"), *leaves)
    )
    assert re.search(",0xff(00)?,32,", text)


def test_version_4_is_told_as_xfs_db_tells_it(tmp_path: Path) -> None:
    """Fails if structures without checksums are read at the wrong places."""
    prototype = tmp_path / "prototype"
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 9000)
    lines = ["/none", "0 0", "d--755 0 0", "sub d--755 0 0"]
    lines += [f"file{number} ---755 0 0 {big}" for number in range(4)]
    lines += ["$", "link l--777 0 0 sub/file1", "$"]
    prototype.write_text("\n".join(lines) + "\n")
    for options in ((), ("-l", "lazy-count=0"), ("-b", "size=512"), ("-l", "version=1")):
        path = make(tmp_path / "volume", "-m", "crc=0", "-p", str(prototype), *options)
        found = allocation_of(path, FILE_SYSTEM.allocation)
        assert (found.doubts, found.notes) == ((), ())
        check_against_xfs_db(path, found)
        reached = reached_of(path)
        assert reached == found.used
        assert reached.total > 4 * 2_304_000
        spoil_unused(path, found.used)
        run("xfs_repair", "-n", path)


def test_an_empty_one_keeps_what_is_behind_its_end(tmp_path: Path) -> None:
    """Fails if the tail of a partition that its file system does not fill is dropped."""
    path = make(tmp_path / "volume")
    end = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(end + 3 * MIB + 512)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.used.covers(end, 3 * MIB + 512)
    assert found.doubts == ()


def test_the_identity_may_have_been_changed(tmp_path: Path) -> None:
    """Fails if structures are refused that keep the identity of when they were made."""
    path = make(tmp_path / "volume")
    run("xfs_admin", "-U", "generate", path)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert reached_of(path) == found.used


@pytest.mark.oracle("partclone.xfs")
def test_no_more_is_kept_than_partclone_keeps_but_for_the_free_lists(tmp_path: Path) -> None:
    """Fails if the map is larger than that of the tool that people use now."""
    path = make(tmp_path / "volume")
    with mounted(path) as folder:
        populate(folder, reflink=True)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    image = tmp_path / "image"
    log = tmp_path / "partclone.log"
    text = run("partclone.xfs", "-c", "-s", path, "-o", image, "-L", log).stderr
    line = next(line for line in text.splitlines() if "Space in use" in line)
    blocks = int(line.split("=")[1].split("Blocks")[0])
    groups = field_of_xfs_db(path, "sb 0", "p agcount")
    listed = sum(len(listed_of_xfs_db(path, group)) for group in range(groups))
    assert found.used.total <= (blocks + listed) * found.unit
