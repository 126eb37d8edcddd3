"""What Btrfs uses, against btrfs-progs and the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.runs import Runs
from imprint.core.units import GIB, KIB, MIB
from imprint.filesystems.btrfs import FILE_SYSTEM
from imprint.storage.file import FileStorage
from imprint.testing.btrfs_volume import (
    can_make,
    checked,
    chunks_of_dump_tree,
    field_of_dump_super,
    make,
    populate,
    scrub_errors,
    used_by_dump_tree,
)
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of, fill, mounted, spoil_unused, tree

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.filesystems.allocation import Allocation

pytestmark = [pytest.mark.oracle("mkfs.btrfs", "btrfs"), pytest.mark.root]

RESERVED: Final = Runs.of([(0, MIB), (64 * MIB, 4 * KIB)])

OPTIONS: Final = {
    "default": ((), "compress=zstd"),
    "small nodes, data twice": (("-n", "4096", "-m", "single", "-d", "dup"), "compress=lzo"),
    "mixed": (("-M", "-n", "4096"), "compress=zlib"),
    "large nodes, old cache": (("-n", "65536", "-R", "^free-space-tree"), "space_cache=v1"),
    "sha256, RAID0 of one": (("--csum", "sha256", "-O", "^no-holes", "-d", "raid0"), "autodefrag"),
    "blake2b": (("--csum", "blake2"), "nodatacow"),
    "nothing new": (("-O", "^skinny-metadata,^extref,^no-holes"), "discard"),
    "quota": (("-R", "quota"), "noatime"),
    "block-group-tree": (("-O", "block-group-tree"), "noatime"),
    "squota": (("-O", "squota"), "noatime"),
}
NEW_FEATURES: Final = {"block-group-tree", "squota"}


def reached_of(path: Path) -> Runs:
    storage = FileStorage.open(path)
    try:
        return Runs.of(FILE_SYSTEM.reached(storage))
    finally:
        storage.close()


def check_against_dump_tree(path: Path, found: Allocation) -> None:
    """Used is what the extent tree has, and nodes of former commits, which are kept while whole."""
    expected = used_by_dump_tree(path) | RESERVED
    assert len(expected - found.used) == 0
    more = found.used - expected
    node_size = field_of_dump_super(path, "nodesize")
    chunks = [chunk for chunk in chunks_of_dump_tree(path) if chunk.kind]
    with path.open("rb") as file:
        for start, length in more:
            for at in range(start, start + length, node_size):
                file.seek(at + 48)
                address = int.from_bytes(file.read(8), "little")
                assert any(
                    at - place == address - chunk.start < chunk.length
                    for chunk in chunks
                    for place in chunk.places
                )


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_is_missing_when_all_that_is_left_out_is_garbage(name: str, tmp_path: Path) -> None:
    """Fails if an extent, or one of its copies, is called free that btrfs or a file needs."""
    if name in NEW_FEATURES and not can_make(name):
        pytest.skip(f"this mkfs.btrfs has no {name}")
    options, mount_option = OPTIONS[name]
    path = make(tmp_path / "volume", *options)
    with mounted(path, mount_option) as folder:
        populate(folder)
        before = tree(folder)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert (found.doubts, found.notes) == ((), ())
    check_against_dump_tree(path, found)
    reached = reached_of(path)
    assert len(reached - found.used) == 0
    # But for caches of free space and trees being deleted, files and trees have all there is.
    assert reached | RESERVED == used_by_dump_tree(path) | RESERVED
    assert spoil_unused(path, found.used) > 150 * MIB
    checked(path)
    assert scrub_errors(path) == {}
    with mounted(path, "ro") as folder:
        assert tree(folder) == before


def test_the_identity_may_have_been_changed(tmp_path: Path) -> None:
    """Fails if nodes are refused that keep the identity of when they were made."""
    path = make(tmp_path / "volume")
    run("btrfstune", "-m", path)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert len(reached_of(path) - found.used) == 0


@pytest.mark.oracle("btrfs-convert", "mkfs.ext4")
def test_one_that_was_ext4_is_told_as_well(tmp_path: Path) -> None:
    """Fails if chunks in unusual places are refused, or superblocks inside of them dropped."""
    path = tmp_path / "volume"
    with path.open("wb") as file:
        file.truncate(256 * MIB)
    run("mkfs.ext4", "-q", "-b", "4096", path)
    with mounted(path) as folder:
        fill(folder, size=6 * MIB)
        before = tree(folder)
    run("btrfs-convert", path)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert len(reached_of(path) - found.used) == 0
    assert len(used_by_dump_tree(path) - found.used) == 0
    spoil_unused(path, found.used)
    checked(path)
    with mounted(path, "ro") as folder:
        after = tree(folder)
    assert {name: after[name] for name in before} == before


def test_a_snapshot_whose_deletion_was_interrupted_is_kept_as_far_as_it_is_there(
    tmp_path: Path,
) -> None:
    """Fails if what is left of it is dropped, or what is gone is missed."""
    path = make(tmp_path / "volume", "-n", "4096")
    with mounted(path) as folder:
        subvolume = folder / "subvolume"
        run("btrfs", "subvolume", "create", subvolume)
        for number in range(3000):
            (subvolume / f"file{number}").write_bytes(b"x" * 1500)
        run("btrfs", "filesystem", "sync", folder)
        run("btrfs", "subvolume", "delete", "--commit-after", subvolume)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert len(reached_of(path) - found.used) == 0
    spoil_unused(path, found.used)
    checked(path)
    with mounted(path) as folder:
        run("btrfs", "filesystem", "sync", folder)  # it wakes up who deletes
        run("btrfs", "subvolume", "sync", folder)
        assert list(folder.iterdir()) == []
    checked(path)


def test_the_third_superblock_of_a_large_one_is_kept(tmp_path: Path) -> None:
    """Fails if a copy is dropped that the kernel and repair tools read."""
    path = make(tmp_path / "volume", "-K", size=257 * GIB)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert found.used.covers(256 * GIB, 4 * KIB)
    assert found.used.total < 64 * MIB
    run("btrfs", "inspect-internal", "dump-super", "-s", "2", path)
