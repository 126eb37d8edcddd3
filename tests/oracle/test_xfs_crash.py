"""XFS that was not unmounted: nothing is missing once the kernel has recovered it."""

from __future__ import annotations

import os
import random
import threading
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.runs import Runs
from imprint.core.units import GIB, KIB, MIB
from imprint.filesystems.xfs import FILE_SYSTEM
from imprint.filesystems.xfs.geometry import Reader, read_geometry
from imprint.filesystems.xfs.log import Log
from imprint.storage.file import FileStorage
from imprint.testing.oracles import OracleError, run
from imprint.testing.volumes import (
    allocation_of,
    fill,
    mounted,
    shut_down,
    spoil_unused,
    tree,
    work,
)
from imprint.testing.xfs_volume import change, field_of_xfs_db, log_of_xfs_db, make, reached_of

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.filesystems.allocation import Allocation

pytestmark = [
    pytest.mark.oracle("mkfs.xfs", "xfs_db", "xfs_repair", "xfs_logprint"),
    pytest.mark.root,
]

SECTOR: Final = 512
AGF_CRC_AT: Final = 216


def crashed(path: Path, *options: str, flush_log: bool = True) -> Path:
    """A volume that stopped while files were made and removed, some of them synchronised."""
    make(path, *options)
    with mounted(path) as folder:
        work(folder, files=120)
        shut_down(folder, flush_log=flush_log)
    return path


def ends_of_xfs_logprint(path: Path) -> tuple[int, int]:
    """Tail and head of the log, in sectors of it; the log is not clean."""
    start, length = log_of_xfs_db(path)
    log = path.with_name("log")
    with path.open("rb") as file:
        file.seek(start)
        log.write_bytes(file.read(length))
    text = run("xfs_logprint", "-f", "-t", log).stdout
    line = next(line for line in text.splitlines() if "log tail:" in line)
    words = line.split()
    assert words[-1] == "<DIRTY>"
    return int(words[words.index("tail:") + 1]), int(words[words.index("head:") + 1])


def our_ends(path: Path) -> tuple[int, int]:
    """Tail and head as we find them."""
    storage = FileStorage.open(path)
    try:
        reader = Reader(storage)
        last, head = Log(reader, read_geometry(reader)).find_last()
    finally:
        storage.close()
    assert last is not None
    return last.header.tail_lsn & 0xFFFFFFFF, head


def check_recovery(path: Path, raw: Path) -> Allocation:
    """Recovering what is left of ``path`` gives all that recovering ``raw``, a copy, gives."""
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert reached_of(path) - found.used == Runs.of([])
    assert spoil_unused(path, found.used) > 0
    with mounted(raw) as folder:
        expected = tree(folder)
    with mounted(path) as folder:
        assert tree(folder) == expected
    assert len(expected) > 20
    run("xfs_repair", "-n", path)
    return found


@pytest.mark.parametrize("options", [(), ("-m", "rmapbt=1", "-b", "size=1024")])
@pytest.mark.parametrize("flush_log", [True, False])
def test_nothing_is_missing_after_a_crash(
    options: tuple[str, ...], flush_log: bool, tmp_path: Path
) -> None:
    """Fails if blocks are left out that only the log knows to be used."""
    path = crashed(tmp_path / "volume", *options, flush_log=flush_log)
    raw = tmp_path / "raw"
    run("cp", path, raw)
    assert our_ends(path) == ends_of_xfs_logprint(path)
    found = check_recovery(path, raw)
    assert "replayed" in found.notes[0]


def test_trees_of_several_levels_are_replayed(tmp_path: Path) -> None:
    """Fails if blocks are missed that trees got, or gave back, while the log was not written."""
    path = make(tmp_path / "volume", "-b", "size=1024", "-d", "agcount=2")
    with mounted(path) as folder:
        small = [folder / f"small{number}" for number in range(2400)]
        for name in small:
            name.write_bytes(bytes(800))
        os.sync()
        for name in small[: 2 * 700 : 2]:
            name.unlink()
        with small[-1].open("rb") as file:
            os.fsync(file.fileno())
        shut_down(folder, flush_log=True)
    raw = tmp_path / "raw"
    run("cp", path, raw)
    check_recovery(path, raw)
    assert field_of_xfs_db(raw, "agf 0", "p bnolevel") > 1


@pytest.mark.parametrize("missing", [-1, -3])
def test_a_record_that_was_written_in_part_was_never_written(missing: int, tmp_path: Path) -> None:
    """Fails if the head is found elsewhere than the kernel finds it."""
    path = crashed(tmp_path / "volume")
    start, _ = log_of_xfs_db(path)
    _, head = ends_of_xfs_logprint(path)
    change(path, start + (head + missing) * SECTOR, bytes(SECTOR), sealed=None)
    raw = tmp_path / "raw"
    run("cp", path, raw)
    assert our_ends(path) == ends_of_xfs_logprint(path)
    assert our_ends(path)[1] < head
    check_recovery(path, raw)


@pytest.mark.oracle("fsfreeze")
def test_snapshots_of_a_file_system_that_is_written_to_lose_nothing(tmp_path: Path) -> None:
    """Fails if any state that a power cut or a snapshot may leave is read wrongly.

    The volume is a file of another XFS, which clones it in one step while it is written to.
    """
    outer = make(tmp_path / "outer", size=GIB)
    with mounted(outer) as outside:
        inner = make(outside / "inner", size=128 * MIB)
        snapshots = []
        with mounted(inner) as folder:
            fill(folder, size=4 * MIB)
            done = threading.Event()
            writer = threading.Thread(target=keep_writing, args=(folder, done))
            writer.start()
            try:
                for number in range(3):
                    done.wait(0.5)
                    snapshots.append(outside / f"snapshot{number}")
                    run("cp", "--reflink=always", inner, snapshots[-1])
            finally:
                done.set()
                writer.join()
            run("fsfreeze", "--freeze", folder)
            snapshots.append(outside / "frozen")
            run("cp", "--reflink=always", inner, snapshots[-1])
            run("fsfreeze", "--unfreeze", folder)
        for snapshot in snapshots:
            raw = outside / "raw"
            run("cp", "--reflink=always", snapshot, raw)
            assert our_ends(raw) == ends_of_xfs_logprint(raw)
            check_recovery(snapshot, raw)


def keep_writing(folder: Path, done: threading.Event) -> None:
    """Make, share and remove files until told otherwise."""
    dice = random.Random(7)
    living: list[Path] = []
    number = 0
    while not done.is_set():
        number += 1
        place = folder / f"place{dice.randrange(9)}"
        place.mkdir(exist_ok=True)
        name = place / f"{number}"
        name.write_bytes(dice.randbytes(dice.choice((10, 5000, 20_000, 300_000))))
        living.append(name)
        if dice.random() < 0.2:
            with name.open("rb") as file:
                os.fsync(file.fileno())
        if len(living) > 100:
            for old in dice.sample(living, 50):
                old.unlink()
                living.remove(old)


def test_groups_that_are_on_the_disk_only_in_part_are_told_by_the_log(tmp_path: Path) -> None:
    """Fails if trees that contradict each other until they are replayed are believed.

    The kernel writes blocks back one by one. Here it got as far as the headers of free space,
    which it had written before only in the log.
    """
    path = crashed(tmp_path / "volume")
    recovered = tmp_path / "recovered"
    run("cp", path, recovered)
    with mounted(recovered):
        pass
    group_blocks = field_of_xfs_db(path, "sb 0", "p agblocks")
    size = field_of_xfs_db(path, "sb 0", "p blocksize")
    for group in (0, 1):
        header_at = group * group_blocks * size + SECTOR
        with recovered.open("rb") as file:
            file.seek(header_at + 52)
            counts = file.read(8)
        sealed = (header_at, SECTOR, AGF_CRC_AT)
        change(path, header_at + 52, counts, sealed=sealed)
    raw = tmp_path / "raw"
    run("cp", path, raw)
    found = check_recovery(path, raw)
    assert "2 of its 4 groups contradict themselves" in found.notes[0]


def test_a_log_that_does_not_check_leaves_a_doubt(tmp_path: Path) -> None:
    """Fails if changes are believed that were written in part, or to another log."""
    path = crashed(tmp_path / "volume")
    log_at, _ = log_of_xfs_db(path)
    before = allocation_of(path, FILE_SYSTEM.allocation)
    assert before.doubts == ()
    tail, head = ends_of_xfs_logprint(path)
    assert tail < head
    for sector in (tail, (tail + head) // 2, head - 1):
        damaged = tmp_path / "damaged"
        run("cp", path, damaged)
        change(damaged, log_at + sector * SECTOR + 100, b"none", sealed=None)
        found = allocation_of(damaged, FILE_SYSTEM.allocation)
        assert len(found.doubts) == 1
        assert "cannot be replayed" in found.doubts[0]


def test_a_log_that_was_never_written_leaves_a_doubt(tmp_path: Path) -> None:
    """Fails if a log of zeros, as of a copy that left it out, is taken for a clean one."""
    path = make(tmp_path / "volume")
    start, length = log_of_xfs_db(path)
    change(path, start, bytes(length), sealed=None)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert len(found.doubts) == 1
    assert "never written" in found.doubts[0]


@pytest.mark.oracle("xfs_growfs")
def test_a_file_system_that_was_growing_leaves_a_doubt(tmp_path: Path) -> None:
    """Fails if groups are left out that only the log knows of."""
    path = make(tmp_path / "volume")
    with path.open("r+b") as file:
        file.truncate(160 * MIB)
    with mounted(path) as folder:
        run("xfs_growfs", folder)
        (folder / "file").write_bytes(b"1" * MIB)
        shut_down(folder, flush_log=True)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert "grow" in found.doubts[0]


@pytest.mark.oracle("partclone.xfs")
def test_where_partclone_loses_files_none_is_lost(tmp_path: Path) -> None:
    """Fails if we are no better than the tool that reads the trees and not the log."""
    path = make(tmp_path / "volume")
    with mounted(path) as folder:
        for number in range(41):
            with (folder / f"file{number}").open("wb") as file:
                file.write(random.Random(number).randbytes(50 * KIB))
                file.flush()
                os.fsync(file.fileno())
        shut_down(folder, flush_log=True)
    theirs, raw = tmp_path / "theirs", tmp_path / "raw"
    run("cp", path, raw)
    log = ("-L", str(tmp_path / "log"))
    spoil_unused(make(theirs), Runs.of([]))
    text = run("partclone.xfs", "-b", "-s", path, "-O", theirs, *log).stderr
    assert "Cloned successfully" in text
    check_recovery(path, raw)
    with mounted(path) as folder:
        ours = tree(folder)
    try:
        with mounted(theirs) as folder:
            kept = tree(folder)
    except OracleError:
        kept = {}
    assert sum(kept.get(name) == value for name, value in ours.items()) < len(ours) == 41
