"""Btrfs that was not unmounted: what is in its log only is there, whole, in every copy."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import ImagingError
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.filesystems.btrfs import FILE_SYSTEM
from imprint.storage.file import FileStorage
from imprint.testing.btrfs_volume import (
    checked,
    field_of_dump_super,
    forget_others,
    make,
    populate,
    scrub_errors,
    used_by_dump_tree,
)
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of, mounted, spoil_unused, tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.oracle("mkfs.btrfs", "btrfs"), pytest.mark.root]

OPTIONS: Final = {
    "default": ((), "commit=300"),
    "single, small nodes": (("-m", "single", "-n", "4096"), "commit=300,compress=zstd"),
    "mixed": (("-M",), "commit=300"),
    "old": (("-R", "^free-space-tree", "-O", "^no-holes,^skinny-metadata"), "commit=300"),
}


def synchronise(folder: Path, name: str, content: bytes) -> None:
    """Write a file so that it is in the log only."""
    with (folder / name).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def copy_of_running(source: Path, target: Path) -> Path:
    """What a snapshot of a disk would have."""
    run("cp", "--sparse=always", "--reflink=never", source, target)
    return target


def content_of(path: Path) -> dict[str, str]:
    """All files, once the kernel has replayed the log."""
    forget_others()
    with mounted(path) as folder:
        return tree(folder)


@pytest.mark.parametrize("name", OPTIONS)
def test_files_that_are_in_the_log_only_are_kept(name: str, tmp_path: Path) -> None:
    """Fails if nodes of log trees, or extents that only they have, are called free."""
    options, mount_options = OPTIONS[name]
    path, dice = make(tmp_path / "volume", *options), random.Random(1)
    with mounted(path, mount_options) as folder:
        populate(folder)
        run("btrfs", "filesystem", "sync", folder)  # it wakes up who deletes
        run("btrfs", "subvolume", "sync", folder)  # or else that commits, at any time
        run("btrfs", "filesystem", "sync", folder)
        for number in range(60):
            size = dice.choice((100, 5000, 50 * KIB, 300 * KIB))
            synchronise(folder, f"new{number}", dice.randbytes(size))
            synchronise(folder / "subvolume", f"new{number}", dice.randbytes(5000))
        with (folder / "into the gaps").open("r+b") as file:
            for place in range(0, MIB, 128 * KIB):
                file.seek(place)
                file.write(dice.randbytes(5000))
            os.fsync(file.fileno())
        raw = copy_of_running(path, tmp_path / "raw")
    assert field_of_dump_super(raw, "log_root") > 0
    found = allocation_of(raw, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert any("log" in note for note in found.notes)
    assert (found.used - used_by_dump_tree(raw)).total > 60 * 10 * KIB
    storage = FileStorage.open(raw)
    try:
        reached = Runs.of(FILE_SYSTEM.reached(storage))
    finally:
        storage.close()
    assert len(reached - found.used) == 0
    spoiled = copy_of_running(raw, tmp_path / "spoiled")
    assert spoil_unused(spoiled, found.used) > 100 * MIB
    expected = content_of(raw)
    assert sum(name.startswith(("new", "subvolume/new")) for name in expected) == 120
    assert content_of(spoiled) == expected
    assert scrub_errors(spoiled) == {}
    checked(spoiled)


def test_a_copy_made_while_the_disk_is_written_to_is_doubted_or_whole(tmp_path: Path) -> None:
    """Fails if a map is believed that was read from a state that never was, and loses files."""
    path, is_over = make(tmp_path / "volume"), threading.Event()
    with mounted(path, "commit=1") as folder:
        populate(folder)

        def write() -> None:
            dice = random.Random(2)
            while not is_over.is_set():
                number = dice.randrange(60)
                synchronise(folder, f"new{number}", dice.randbytes(dice.randrange(200_000)))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            raws = [copy_of_running(path, tmp_path / f"raw{number}") for number in range(3)]
        finally:
            is_over.set()
            writer.join()
    for raw in raws:
        try:
            found = allocation_of(raw, FILE_SYSTEM.allocation)
        except ImagingError:
            continue
        if found.doubts:
            continue
        spoiled = copy_of_running(raw, tmp_path / "spoiled")
        spoil_unused(spoiled, found.used)
        assert content_of(spoiled) == content_of(raw)


def test_former_commits_are_as_whole_as_on_the_disk_itself(tmp_path: Path) -> None:
    """Fails if the trees that the superblock names for repair are dropped though they are whole."""
    path = make(tmp_path / "volume")
    with mounted(path, "commit=300") as folder:
        populate(folder)
        for number in range(3):
            (folder / f"one more {number}").write_bytes(bytes(9000))
            run("btrfs", "filesystem", "sync", folder)
    look = ("btrfs", "check", "--readonly", "--backup", path)
    before = run(*look, accept=(0, 1))
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert (found.used - used_by_dump_tree(path)).total > MIB + 4 * KIB  # what is reserved
    spoil_unused(path, found.used)
    assert "checking fs roots" in before.stderr
    assert run(*look, accept=(0, 1)) == before


def test_trees_of_a_snapshot_that_was_just_deleted_are_not_kept(tmp_path: Path) -> None:
    """Fails if former commits make an image much larger than what is in it."""
    path = make(tmp_path / "volume", "-n", "4096", "-m", "single")
    with mounted(path) as folder:
        subvolume = folder / "subvolume"
        run("btrfs", "subvolume", "create", subvolume)
        for number in range(12_000):
            (subvolume / f"file{number}").write_bytes(b"x" * 1900)
        run("btrfs", "filesystem", "sync", folder)
        run("btrfs", "subvolume", "delete", subvolume)
        for _ in range(4):
            run("btrfs", "filesystem", "sync", folder)  # it wakes up who deletes
            time.sleep(0.1)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert (found.used - used_by_dump_tree(path)).total < 18 * MIB
    spoil_unused(path, found.used)
    checked(path)


@pytest.mark.oracle("partclone.btrfs")
def test_where_partclone_drops_copies_of_metadata_none_is_dropped(tmp_path: Path) -> None:
    """Fails if something has to be repaired after restoring, onto a disk full of garbage."""
    path = make(tmp_path / "volume")
    with mounted(path) as folder:
        populate(folder)
        expected = tree(folder)
    theirs = make(tmp_path / "theirs")
    spoil_unused(theirs, Runs.of([]))
    log = ("-L", str(tmp_path / "log"))
    text = run("partclone.btrfs", "-b", "-s", path, "-O", theirs, *log).stderr
    assert "Cloned successfully" in text
    found = allocation_of(path, FILE_SYSTEM.allocation)
    spoil_unused(path, found.used)
    assert scrub_errors(theirs)["corrected_errors"] > 0
    assert scrub_errors(path) == {}
    assert content_of(path) == expected
