"""Files of volumes that were not unmounted, with their journals replayed, against the kernel."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import MIB
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.ext import FILE_SYSTEM
from imprint.filesystems.ext.checksums import checksum
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.ring import Ring
from imprint.storage.memory import MemoryStorage
from imprint.testing import xfs_volume
from imprint.testing.bad_medium import BadMedium, Faults
from imprint.testing.ext_volume import LOG_MAGIC, crash, make
from imprint.testing.oracles import OracleError, run
from imprint.testing.unsettled import State, of_kernel, of_volume, ours, prepare, unsettle
from imprint.testing.volumes import mounted, shut_down

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root]

EXT = [
    ("-t ext4 -b 1024", "data=journal", False),
    ("-t ext4 -b 1024 -O ^64bit -J size=1", "", True),
    ("-t ext4 -b 1024 -O ^metadata_csum,^64bit", "journal_checksum", True),
    ("-t ext4 -b 1024 -O bigalloc -C 8192 -g 2048", "", True),
    ("-t ext3 -b 1024 -J size=1", "data=journal", True),
]
XFS = [
    ((), True),
    ((), False),
    (("-m", "rmapbt=1", "-b", "size=1024"), True),
    (("-m", "reflink=0", "-n", "size=8192", "-i", "size=1024"), True),
]


def ext_crash(path: Path, command: str, option: str, *, is_flushed: bool = True) -> Path:
    options = [option] if option else []
    make(path, command)
    return crash(path, *options, rounds=12, flush_log=is_flushed, before=prepare, more=unsettle)


def xfs_crash(path: Path, *options: str, is_flushed: bool = True) -> Path:
    xfs_volume.make(path, *options)
    with mounted(path) as folder:
        prepare(folder)
    with mounted(path) as folder:
        unsettle(folder)
        shut_down(folder, flush_log=is_flushed)
    return path


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pytsk3")
    return ext_crash(tmp_path_factory.mktemp("ext4") / "disk", "-t ext4 -b 4096", "")


class Journal:
    """Where the blocks of a journal lie that has something to be replayed.

    Attributes:
        content: of the volume.
        commits: where blocks that commit a transaction begin, in order.
        descriptor: where the first block begins that says where copies belong.
        end: where the blocks behind the last commit begin.
        sequence: of the transaction that would come next.
    """

    def __init__(self, path: Path) -> None:
        self.content = bytearray(path.read_bytes())
        volume = MemoryStorage(bytes(self.content))
        geometry = read_geometry(VolumeReader(volume))
        ring, self.size = Ring(volume, geometry), geometry.block_size
        places = [ring.offset(at) for at in range(ring.superblock.start, ring.end)]
        self.commits: list[int] = []
        self.sequence = ring.superblock.sequence
        for place in places:
            head = LOG_MAGIC + struct.pack(">II", 2, self.sequence)
            if self.content[place : place + 12] == head:
                self.commits.append(place)
                self.sequence += 1
        self.descriptor = places[0]
        last = places.index(self.commits[-1])
        self.end = places[last + 1 : last + 4]

    def put(self, place: int, block: bytes | bytearray) -> None:
        self.content[place : place + self.size] = block.ljust(self.size, b"\x11")


def check(path: Path) -> tuple[State, State]:
    """Compare with the kernel, and see that nothing was written; what is told with, and without."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    found, expected = ours(path, replays=True), of_kernel(path)
    differing = {
        name
        for name in {*found.told, *expected.told}
        if found.told.get(name) != expected.told.get(name)
    }
    assert differing == set()
    assert found.attributes == expected.attributes
    assert "/over there/grown, too" in found.told
    assert "/deleted" not in found.told
    (note,) = found.notes
    assert "was replayed in memory, transactions: " in note
    without = ours(path, replays=False)
    assert without.told != found.told
    assert any("(--replay-journal tells it)" in note for note in without.notes)
    assert hashlib.sha256(path.read_bytes()).digest() == digest
    return found, without


@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize(("command", "option", "is_flushed"), EXT)
def test_files_of_ext_are_those_that_its_mount_shows(
    tmp_path: Path, command: str, option: str, is_flushed: bool
) -> None:
    """Fails if a copy in the journal, an escape or a revoked block is read wrongly."""
    pytest.importorskip("pytsk3")
    check(ext_crash(tmp_path / "disk", command, option, is_flushed=is_flushed))


@pytest.mark.oracle("mke2fs", "fls", "debugfs")
def test_without_the_option_the_disk_is_told_as_it_stands(ext4: Path) -> None:
    """Fails if something of the journal is in what examiners take for the disk, or costs files.

    What the journal has is not read from its place, where there may be a bad sector.
    """
    found, without = check(ext4)
    lines = run("fls", "-r", "-p", "-u", ext4).stdout.splitlines()
    names = {f"/{line.split(':', 1)[1].strip()}" for line in lines}
    left_out = {"/lost+found", "/$OrphanFiles"}
    assert set(without.told) == {name for name in names if name not in left_out}
    assert set(without.told) == set(of_kernel(ext4, "ro", "noload").told)
    root = int(run("debugfs", "-R", "blocks <2>", ext4).stdout.split()[0]) * 4096
    volume = BadMedium(MemoryStorage(ext4.read_bytes()), Faults(bad=((root, 512),)))
    assert of_volume(volume, replays=True).told == found.told
    assert any("cannot read" in note for note in of_volume(volume, replays=False).notes)


@pytest.mark.oracle("mkfs.xfs")
@pytest.mark.parametrize(("options", "is_flushed"), XFS)
def test_files_of_xfs_are_those_that_its_mount_shows(
    tmp_path: Path, options: tuple[str, ...], is_flushed: bool
) -> None:
    """Fails if an inode, a fork or a block in the log is put back wrongly, or in another order."""
    path = xfs_crash(tmp_path / "disk", *options, is_flushed=is_flushed)
    _, without = check(path)
    assert set(without.told) == set(of_kernel(path, "ro", "norecovery", "nouuid").told)


@pytest.mark.oracle("mkfs.xfs", "xfs_db")
def test_a_log_that_is_older_than_the_disk_is_refused(tmp_path: Path) -> None:
    """Fails if old folders are laid over newer ones: the copy was made while it was written to."""
    path = xfs_crash(tmp_path / "disk")
    start, length = xfs_volume.log_of_xfs_db(path)
    log = path.read_bytes()[start : start + length]
    with mounted(path) as folder:
        for number in range(300):
            (folder / "many names" / f"later {number}").touch()
    with path.open("r+b") as file:
        file.seek(start)
        file.write(log)
    with pytest.raises(CorruptImageError, match="newer than its log"):
        ours(path, replays=True)
    with pytest.raises(OracleError):
        of_kernel(path)


@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize("is_copy", [True, False])
def test_a_journal_that_the_kernel_refuses_is_refused(
    tmp_path: Path, ext4: Path, is_copy: bool
) -> None:
    """Fails if files are told by a transaction that was not written as it should be."""
    journal = Journal(ext4)
    journal.content[journal.descriptor + (4096 if is_copy else 0) + 100] ^= 1
    path = tmp_path / "disk"
    path.write_bytes(journal.content)
    with pytest.raises(CorruptImageError, match="wrong checksum") as caught:
        ours(path, replays=True)
    assert caught.value.advice is not None
    with pytest.raises(OracleError):
        of_kernel(path)


@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize("is_stale", [False, True])
def test_what_is_behind_the_end_of_a_journal_does_not_matter(
    tmp_path: Path, ext4: Path, is_stale: bool
) -> None:
    """Fails if a journal is refused for a block of the next transaction that was not all written.

    Or for a transaction of the file system that was there before: it is older than the one before.
    """
    journal = Journal(ext4)
    head = LOG_MAGIC + struct.pack(">II", 1, journal.sequence)
    journal.put(journal.end[0], head + struct.pack(">IIII", 5000, 8, 0, 0) if is_stale else head)
    if is_stale:
        commit = bytearray(journal.content[journal.commits[-1] :][: journal.size])
        commit[8:12] = struct.pack(">I", journal.sequence)
        commit[48:56] = struct.pack(">Q", 1000)
        journal.put(journal.end[2], commit)
    path = tmp_path / "disk"
    path.write_bytes(journal.content)
    found, expected = ours(path, replays=True), of_kernel(path)
    assert found.told == expected.told
    assert found.told == ours(ext4, replays=True).told
    assert any("has a wrong checksum" in note for note in found.notes)
    doubts = FILE_SYSTEM.allocation(MemoryStorage(path.read_bytes())).doubts
    assert any("has a wrong checksum" in doubt for doubt in doubts)


@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize(
    ("command", "is_mounted"),
    [("-t ext4 -b 1024 -O ^metadata_csum,^64bit", False), ("-t ext4 -b 4096", True)],
)
def test_commits_that_did_not_wait_may_be_wrong_at_the_end_only(
    tmp_path: Path, command: str, is_mounted: bool
) -> None:
    """Fails if half of a journal is left out in silence, as if nothing followed."""
    options = "data=writeback,journal_async_commit"
    path = ext_crash(tmp_path / "disk", command, options)
    journal = Journal(path)
    for index in (-1, -10):  # the last one, then another as well
        content = bytearray(journal.content)
        content[journal.commits[index] + 16] ^= 1
        path.write_bytes(content)
        doubts = FILE_SYSTEM.allocation(MemoryStorage(bytes(content))).doubts
        if index == -1:
            assert ours(path, replays=True).told == of_kernel(path).told
        elif is_mounted:
            found = ours(path, replays=True)
            assert found.told == of_kernel(path).told
            assert any("and is not the last" in note for note in found.notes)
        else:
            with pytest.raises(CorruptImageError, match="and is not the last"):
                ours(path, replays=True)
            with pytest.raises(OracleError):
                of_kernel(path)
        number = journal.sequence + index
        what = f"transaction {number} of the journal has a wrong checksum, and is not the last"
        assert (what in doubts) == (index != -1)


@pytest.mark.oracle("mke2fs")
def test_a_journal_elsewhere_is_refused(ext4: Path) -> None:
    """Fails if a volume passes for one without a journal since that is on another device."""
    content = bytearray(ext4.read_bytes())
    content[1024 + 0xE0 : 1024 + 0xE4] = bytes(4)
    content[2044:2048] = checksum(content[1024:2044]).to_bytes(4, "little")
    with pytest.raises(UnsupportedFeatureError, match="another device"):
        of_volume(MemoryStorage(bytes(content)), replays=True)


@pytest.mark.oracle("mke2fs")
def test_what_fast_commits_changed_is_said_not_to_be_told(tmp_path: Path) -> None:
    """Fails if a file lacks that was synchronised, and nothing says so."""
    pytest.importorskip("pytsk3")
    path = make(tmp_path / "disk", "-t ext4 -b 4096 -O fast_commit")
    with mounted(path) as folder:
        prepare(folder)
    with mounted(path) as folder:
        unsettle(folder)
        run("sync", "-f", folder)
        with (folder / "last").open("wb") as file:
            file.write(b"last")
            file.flush()
            run("sync", "-d", folder / "last")
        shut_down(folder, flush_log=False)
        frozen = tmp_path / "frozen"
        run("cp", path, frozen)
    found = ours(frozen, replays=True)
    assert ("/last" in found.told) != any("fast commits" in note for note in found.notes)


@pytest.mark.oracle("mke2fs", "mkfs.xfs")
def test_nothing_is_said_of_what_was_unmounted(tmp_path: Path) -> None:
    """Fails if the option changes anything where there is nothing to be replayed."""
    pytest.importorskip("pytsk3")
    ext = make(tmp_path / "ext", "-t ext4")
    xfs = xfs_volume.make(tmp_path / "xfs", size=96 * MIB)
    for path in (ext, xfs):
        with mounted(path) as folder:
            prepare(folder)
        found = ours(path, replays=True)
        assert found == ours(path, replays=False)
        assert found.notes == ()
