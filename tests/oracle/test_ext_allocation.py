"""Maps of ext2, ext3, ext4 against dumpe2fs, e2fsck, and what is left when the rest is garbage."""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.runs import Runs
from imprint.core.units import GIB, KIB, MIB, TIB
from imprint.filesystems import collected
from imprint.filesystems.ext import FILE_SYSTEM
from imprint.storage.file import FileStorage
from imprint.testing.ext_volume import make, populate, used_of_dumpe2fs
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of, fill, mounted, spoil_unused, tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("mke2fs", "dumpe2fs", "e2fsck")

MOUNTABLE = [
    "-t ext4 -b 4096 -g 2048",
    "-t ext4 -b 1024",
    "-t ext4 -b 2048 -E stride=16,stripe_width=64",
    "-t ext4 -b 1024 -O ^64bit",
    "-t ext4 -b 4096 -O bigalloc -C 16384 -g 1024",
    "-t ext4 -b 1024 -O bigalloc -C 8192 -g 2048",
    "-t ext4 -b 1024 -O meta_bg,^resize_inode -g 256",
    "-t ext4 -b 1024 -O meta_bg,^resize_inode,^64bit,^flex_bg,^metadata_csum -g 256",
    "-t ext4 -b 1024 -O sparse_super2",
    "-t ext4 -b 1024 -O sparse_super2,^resize_inode -E num_backup_sb=1",
    "-t ext4 -b 1024 -O ^flex_bg",
    "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg",
    "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^64bit",
    "-t ext4 -b 1024 -O ^sparse_super,^resize_inode,^has_journal",
    "-t ext4 -b 1024 -I 128 -E lazy_itable_init=1",
    "-t ext4 -b 1024 -E packed_meta_blocks=1",
    "-t ext4 -b 1024 -O mmp,metadata_csum_seed,orphan_file,fast_commit,stable_inodes",
    "-t ext4 -b 1024 -O inline_data,encrypt,verity,large_dir,ea_inode",
    "-t ext3 -b 1024",
    "-t ext2 -b 4096",
    "-t ext2 -b 1024 -r 0",
]

# This or that kernel does not mount them: files come and go by other tools.
OTHERS = [
    "-t ext4 -b 1024 -O quota,project",
    "-t ext4 -b 1024 -O casefold",
    "-t ext4 -b 8192",
    "-t ext4 -b 65536",
]


def reached(path: Path) -> Runs:
    with closing(FileStorage.open(path)) as storage:
        return Runs.of(FILE_SYSTEM.reached(storage))


def same_as_told(path: Path) -> Runs:
    """Compare with dumpe2fs, block by block; and what inodes lead to is among what is used."""
    allocation = allocation_of(path, FILE_SYSTEM.allocation)
    assert allocation.doubts == ()
    # Boot code, which is no block of any group if blocks have 1 KiB, is kept and never free.
    assert allocation.used == used_of_dumpe2fs(path)
    assert reached(path) - allocation.used == Runs.of([])
    return allocation.used


@pytest.mark.root
@pytest.mark.parametrize("command", MOUNTABLE)
def test_nothing_is_missing_of_a_volume_that_was_used(tmp_path: Path, command: str) -> None:
    """Fails if a block that is in use is left out, or a free one kept."""
    path = make(tmp_path / "disk", command)
    same_as_told(path)
    with mounted(path) as folder:
        populate(folder)
        before = tree(folder)
    run("e2fsck", "-fn", path)

    used = same_as_told(path)
    if "ext4" not in command:  # there is nothing but what inodes lead to, and boot code
        assert (used - reached(path)).clip(KIB, used.end).total == 0

    assert spoil_unused(path, used) > 30 * MIB
    run("e2fsck", "-fn", path)
    with mounted(path, "ro") as folder:
        assert tree(folder) == before


@pytest.mark.oracle("debugfs")
@pytest.mark.parametrize("command", OTHERS)
def test_nothing_is_missing_of_a_volume_that_is_not_mounted_here(
    tmp_path: Path, command: str
) -> None:
    """Fails if a size of block, or a feature, that this kernel does not have is misread."""
    content, copy = tmp_path / "content", tmp_path / "copy"
    content.mkdir()
    copy.mkdir()
    fill(content)
    path = make(tmp_path / "disk", command, "-d", content, size=128 * MIB)
    for name in sorted(content.glob("folder1/*")):
        run("debugfs", "-w", "-R", f"rm folder1/{name.name}", path)
        name.unlink()
    run("e2fsck", "-fp", path, accept=(0, 1))

    spoil_unused(path, same_as_told(path))

    run("e2fsck", "-fn", path)
    run("debugfs", "-R", f"rdump / {copy}", path)
    shutil.rmtree(copy / "lost+found")
    assert tree(copy) == tree(content)


def test_groups_without_a_bitmap_are_among_those_compared(tmp_path: Path) -> None:
    """Fails if the tests above are about groups with bitmaps only."""
    path = make(tmp_path / "disk", MOUNTABLE[1])
    assert "BLOCK_UNINIT" in run("dumpe2fs", path).stdout


@pytest.mark.parametrize(
    "command",
    [
        "-t ext4",
        "-t ext4 -O meta_bg,^resize_inode",
        "-t ext4 -O bigalloc",
        "-t ext4 -O sparse_super2",
        "-t ext4 -O ^flex_bg -E lazy_itable_init=1",
        "-t ext4 -b 2048 -O ^metadata_csum,uninit_bg",
    ],
)
def test_a_volume_of_many_groups_is_as_dumpe2fs_says(tmp_path: Path, command: str) -> None:
    """Fails if descriptors that fill many blocks, or places above 32 bits, are misread."""
    path = make(tmp_path / "disk", command, size=300 * GIB)
    allocation = allocation_of(path, FILE_SYSTEM.allocation)
    assert allocation.doubts == ()
    assert allocation.used == used_of_dumpe2fs(path)


def test_blocks_above_32_bits_are_found(tmp_path: Path) -> None:
    """Fails if the high halves of descriptors are not read: 9 TiB have 4.5 * 2^30 blocks."""
    path = tmp_path / "disk"
    try:
        make(path, "-t ext4 -b 2048 -O bigalloc -C 1048576 -N 100000", size=9 * TIB)
    except OSError:
        pytest.skip("files cannot be that large here")
    used = same_as_told(path)
    assert used.clip(8 * TIB, 9 * TIB).total > 0


def test_bad_blocks_and_what_lies_behind_the_file_system_are_kept(tmp_path: Path) -> None:
    """Fails if a tail that belongs to somebody else is lost, or a bad block is written to."""
    path, bad = tmp_path / "disk", tmp_path / "bad"
    bad.write_text("9000\n9001\n12345\n")
    make(path, "-t ext4 -b 1024 -l", bad)
    with path.open("r+b") as file:
        file.truncate(64 * MIB + 5000)
    allocation = allocation_of(path, FILE_SYSTEM.allocation)
    assert allocation.used.covers(9000 * KIB, 2 * KIB)
    assert allocation.used.covers(12345 * KIB, KIB)
    assert allocation.used.covers(64 * MIB, 5000)
    assert allocation.used.covers(0, 2 * KIB)
    assert Runs.of([(9000 * KIB, 2 * KIB), (12345 * KIB, KIB)]) - reached(path) == Runs.of([])


@pytest.mark.root
def test_a_volume_that_was_enlarged_is_read_as_well(tmp_path: Path) -> None:
    """Fails if room for descriptors to grow, or groups that resize2fs made, are misread."""
    path = make(tmp_path / "disk", "-t ext4 -b 1024 -E resize=2000000", size=24 * MIB)
    with mounted(path) as folder:
        fill(folder, size=4 * MIB)
        before = tree(folder)
    with path.open("r+b") as file:
        file.truncate(96 * MIB)
    run("e2fsck", "-fp", path, accept=(0, 1))
    run("resize2fs", path)
    spoil_unused(path, same_as_told(path))
    run("e2fsck", "-fn", path)
    with mounted(path, "ro") as folder:
        assert tree(folder) == before


@pytest.mark.root
def test_a_map_of_too_many_pieces_keeps_more_and_never_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a block is lost when gaps are closed to bound what a map takes."""
    path = make(tmp_path / "disk", "-t ext4 -b 1024 -g 256")
    with mounted(path) as folder:
        populate(folder)
    exact = same_as_told(path)
    monkeypatch.setattr(collected, "RUN_COUNT_MAX", len(exact) // 4)
    coarse = allocation_of(path, FILE_SYSTEM.allocation)
    assert coarse.doubts == ()
    assert exact - coarse.used == Runs.of([])
    assert len(coarse.used) < len(exact) // 2


@pytest.mark.oracle("partclone.extfs")
@pytest.mark.root
def test_no_more_is_kept_than_partclone_keeps(tmp_path: Path) -> None:
    """Fails if images get larger than those of the tool that everybody uses."""
    path = make(tmp_path / "disk", "-t ext4 -b 4096 -g 2048")
    with mounted(path) as folder:
        fill(folder)
    used = allocation_of(path, FILE_SYSTEM.allocation).used
    image = tmp_path / "image"
    told = run("partclone.extfs", "-c", "-s", path, "-o", image, "-L", tmp_path / "log")
    blocks = re.search(r"Space in use:.*= (\d+) Blocks", told.stdout + told.stderr)
    assert blocks is not None
    assert used.total <= int(blocks[1]) * 4096
