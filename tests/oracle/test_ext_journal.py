"""Maps of ext3 and ext4 that were not unmounted: what is used before and after the log's replay."""

from __future__ import annotations

import os
import re
import shutil
import threading
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import pytest

from imprint.core.runs import Runs
from imprint.core.units import GIB, MIB
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.ext import FILE_SYSTEM
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.journal import read_log
from imprint.filesystems.ext.replayed import replayed as laid_over
from imprint.filesystems.ext.ring import Ring
from imprint.storage.file import FileStorage
from imprint.testing.ext_volume import crash, make, used_of_dumpe2fs, work
from imprint.testing.oracles import OracleError, run
from imprint.testing.volumes import allocation_of, mounted, shut_down, spoil_unused, tree

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.filesystems.allocation import Allocation

pytestmark = [pytest.mark.root, pytest.mark.oracle("mke2fs", "dumpe2fs", "e2fsck")]


class Case(NamedTuple):
    make: str
    mount: tuple[str, ...] = ()
    is_flushed: bool = True


CASES = [
    Case("-t ext4 -b 4096"),
    Case("-t ext4 -b 1024", ("data=journal",), is_flushed=False),
    Case("-t ext4 -b 1024 -O ^64bit"),
    Case("-t ext4 -b 1024 -O ^metadata_csum", is_flushed=False),
    Case("-t ext4 -b 1024 -O ^metadata_csum,^64bit -J size=1"),
    Case("-t ext4 -b 1024 -O bigalloc -C 8192 -g 2048"),
    Case("-t ext3 -b 1024", ("data=journal",)),
]


def crashed(path: Path, case: Case, rounds: int = 40) -> Path:
    make(path, case.make)
    return crash(path, *case.mount, rounds=rounds, flush_log=case.is_flushed)


def content(path: Path) -> dict[str, str] | None:
    """Every file once it is mounted, which replays the log; or that it cannot be mounted."""
    try:
        with mounted(path) as folder:
            return tree(folder)
    except OracleError:
        return None


def same_when_spoiled(path: Path, allocation: Allocation) -> dict[str, str] | None:
    """Compare a raw copy with one that lacks what is not used."""
    raw, spoiled = path.with_name("raw"), path.with_name("spoiled")
    shutil.copyfile(path, raw)
    shutil.copyfile(path, spoiled)
    assert spoil_unused(spoiled, allocation.used) > 10 * MIB
    expected = content(raw)
    assert content(spoiled) == expected
    if expected is not None:
        run("e2fsck", "-fn", spoiled)
    return expected


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_file_is_there_after_a_crash(tmp_path: Path, case: Case) -> None:
    """Fails if a block is left out that is only known to be used once the log is replayed."""
    frozen = crashed(tmp_path / "disk", case)
    allocation = allocation_of(frozen, FILE_SYSTEM.allocation)
    assert allocation.doubts == ()
    assert "transactions" in allocation.notes[0]

    replayed = tmp_path / "replayed"
    shutil.copyfile(frozen, replayed)
    run("e2fsck", "-fy", "-E", "journal_only", replayed, accept=(0, 1))
    after = used_of_dumpe2fs(replayed)
    if "^metadata_csum" in case.make:  # otherwise dumpe2fs refuses what was not replayed
        before = used_of_dumpe2fs(frozen)
        assert (after - before).total > 0
        assert (before - after).total > 0
        assert allocation.used == before | after
    else:
        assert after - allocation.used == Runs.of([])
    with closing(FileStorage.open(frozen)) as storage:
        assert Runs.of(FILE_SYSTEM.reached(storage)) - allocation.used == Runs.of([])

    files = same_when_spoiled(frozen, allocation)
    assert files is not None
    assert "work/file39" in files


@pytest.mark.parametrize(
    "case",
    [
        Case("-t ext4 -b 1024 -J size=1", ("data=journal",)),
        Case("-t ext3 -b 1024 -J size=1", ("data=journal",)),
        Case("-t ext4 -b 1024 -O ^64bit -J size=1"),
        Case("-t ext4 -b 1024 -O ^metadata_csum -J size=1", ("data=journal",)),
    ],
    ids=str,
)
def test_the_log_is_replayed_as_e2fsck_does_it(tmp_path: Path, case: Case) -> None:
    """Fails if escapes, revoked blocks, the ring's end or sizes of tags are misread."""
    frozen = crashed(tmp_path / "disk", case, rounds=100)
    replayed = tmp_path / "replayed"
    shutil.copyfile(frozen, replayed)
    run("e2fsck", "-fy", "-E", "journal_only", replayed, accept=(0, 1))

    with closing(FileStorage.open(frozen)) as storage:
        geometry = read_geometry(VolumeReader(storage))
        ring = Ring(storage, geometry)
        copies = read_log(ring).copies
        size = geometry.block_size
        places = [copy.offset for copy in copies.values()]
        assert places != sorted(places)  # it went round
        if case.mount:
            assert any(copy.is_escaped for copy in copies.values())
        ours = bytes(VolumeReader(laid_over(storage, copies, size)).read(0, storage.size, "all"))
    theirs = replayed.read_bytes()
    # The superblocks of the file system and of the journal are what e2fsck changes itself.
    changed = {1024 // size, ring.offset(0) // size}
    differing = {
        block
        for block in range(len(ours) // size)
        if ours[block * size : (block + 1) * size] != theirs[block * size : (block + 1) * size]
    }
    assert differing <= changed
    assert ours != frozen.read_bytes()


def test_a_log_that_was_damaged_is_doubted(tmp_path: Path) -> None:
    """Fails if what a transaction says is believed although its checksum is another one."""
    frozen = crashed(tmp_path / "disk", Case("-t ext4 -b 1024"))
    with closing(FileStorage.open(frozen)) as storage:
        ring = Ring(storage, read_geometry(VolumeReader(storage)))
        start = ring.offset(ring.superblock.start)
    for block, doubt in (
        (0, "has a wrong checksum"),
        (1, "1 transactions of the journal have blocks with wrong checksums"),
    ):
        damaged = bytearray(frozen.read_bytes())
        damaged[start + block * 1024 + 500] ^= 1
        (tmp_path / "damaged").write_bytes(damaged)
        found = allocation_of(tmp_path / "damaged", FILE_SYSTEM.allocation)
        assert doubt in found.doubts[0]


@pytest.mark.oracle("filefrag")
@pytest.mark.parametrize("command", ["-t ext4 -b 1024", "-t ext4 -b 1024 -O orphan_file"])
def test_files_that_were_deleted_while_open_are_still_there(tmp_path: Path, command: str) -> None:
    """Fails if orphans, in their list or their file, are not reached, or not kept."""
    path, frozen = make(tmp_path / "disk", command), tmp_path / "frozen"
    with mounted(path) as folder:
        name = folder / "orphan"
        with name.open("wb") as file:
            file.write(bytes(range(256)) * 4000)
            file.flush()
            os.fsync(file.fileno())
            told = run("filefrag", "-b1024", "-v", name).stdout
            found = re.search(r"0: +0\.\. +\d+: +(\d+)\.\.", told)
            assert found is not None
            name.unlink()
            shut_down(folder, flush_log=True)
            shutil.copyfile(path, frozen)
    allocation = allocation_of(frozen, FILE_SYSTEM.allocation)
    assert "deleted while they were open" in allocation.notes[-1]
    with closing(FileStorage.open(frozen)) as storage:
        assert Runs.of(FILE_SYSTEM.reached(storage)).covers(int(found[1]) * 1024, 100_000)
    assert allocation.used.covers(int(found[1]) * 1024, 100_000)


@pytest.mark.parametrize("is_flushed", [True, False])
def test_blocks_of_fast_commits_are_kept(tmp_path: Path, is_flushed: bool) -> None:
    """Fails if files are lost that only records behind the log know of."""
    case = Case("-t ext4 -b 1024 -O fast_commit", (), is_flushed)
    frozen = crashed(tmp_path / "disk", case)
    allocation = allocation_of(frozen, FILE_SYSTEM.allocation)
    assert allocation.doubts == ()
    same_when_spoiled(frozen, allocation)
    # Some kernels cannot replay fast commits that they wrote: then e2fsck has to.
    raw, spoiled = tmp_path / "raw", tmp_path / "spoiled"
    shutil.copyfile(frozen, raw)
    shutil.copyfile(frozen, spoiled)
    spoil_unused(spoiled, allocation.used)
    for path in (raw, spoiled):
        run("e2fsck", "-fy", path, accept=(0, 1))
    assert content(raw) == content(spoiled)


@pytest.mark.oracle("mkfs.xfs", "cp")
def test_an_image_of_a_running_system_has_all_its_files(tmp_path: Path) -> None:
    """Fails if what is being written when the image is taken makes the map wrong."""
    host = tmp_path / "host"
    with host.open("wb") as file:
        file.truncate(GIB)
    run("mkfs.xfs", "-q", host)
    snapshots = []
    with mounted(host) as outer:
        path = make(outer / "disk", "-t ext4 -b 1024")
        stop = threading.Event()

        def write(folder: Path, seed: int) -> None:
            place = folder / f"writer{seed}"
            place.mkdir()
            number = 0
            while not stop.is_set():
                work(place, 3, seed=seed + number)
                shutil.rmtree(place / "work")
                (place / f"kept{number}").write_bytes(os.urandom(9000))
                number += 1

        with mounted(path, "commit=1") as folder:
            writers = [threading.Thread(target=write, args=(folder, seed)) for seed in range(2)]
            for writer in writers:
                writer.start()
            try:
                for number in range(4):
                    stop.wait(0.3)
                    # A clone is taken at one moment, as a power cut is.
                    snapshot = outer / f"snapshot{number}"
                    run("cp", "--reflink=always", path, snapshot)
                    snapshots.append(tmp_path / snapshot.name)
                    shutil.copyfile(snapshot, snapshots[-1])
            finally:
                stop.set()
                for writer in writers:
                    writer.join()
    for snapshot in snapshots:
        allocation = allocation_of(snapshot, FILE_SYSTEM.allocation)
        assert allocation.doubts == ()
        assert same_when_spoiled(snapshot, allocation) is not None
