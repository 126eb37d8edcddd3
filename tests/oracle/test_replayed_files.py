"""Files of volumes that were not unmounted, with their journals replayed, against the kernel."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import MIB
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.ring import Ring
from imprint.storage.memory import MemoryStorage
from imprint.testing import xfs_volume
from imprint.testing.bad_medium import BadMedium, Faults
from imprint.testing.ext_volume import crash, make
from imprint.testing.oracles import OracleError, run
from imprint.testing.unsettled import State, of_kernel, of_volume, ours, prepare, unsettle
from imprint.testing.volumes import mounted, shut_down

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root]

EXT = [
    ("-t ext4 -b 4096", "", True),
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


@pytest.mark.oracle("mke2fs", "fls")
def test_without_the_option_the_disk_is_told_as_it_stands(tmp_path: Path) -> None:
    """Fails if something of the journal is in what examiners take for the disk."""
    pytest.importorskip("pytsk3")
    path = ext_crash(tmp_path / "disk", "-t ext4 -b 4096", "")
    _, without = check(path)
    lines = run("fls", "-r", "-p", "-u", path).stdout.splitlines()
    names = {f"/{line.split(':', 1)[1].strip()}" for line in lines}
    left_out = {"/lost+found", "/$OrphanFiles"}
    assert set(without.told) == {name for name in names if name not in left_out}
    assert set(without.told) == set(of_kernel(path, "ro", "noload").told)


@pytest.mark.oracle("mkfs.xfs")
@pytest.mark.parametrize(("options", "is_flushed"), XFS)
def test_files_of_xfs_are_those_that_its_mount_shows(
    tmp_path: Path, options: tuple[str, ...], is_flushed: bool
) -> None:
    """Fails if an inode, a fork or a block in the log is put back wrongly, or in another order."""
    path = xfs_crash(tmp_path / "disk", *options, is_flushed=is_flushed)
    _, without = check(path)
    assert set(without.told) == set(of_kernel(path, "ro", "norecovery", "nouuid").told)


@pytest.mark.oracle("mke2fs", "debugfs")
def test_what_the_journal_has_is_not_read_from_its_place(tmp_path: Path) -> None:
    """Fails if a bad sector costs files of which the journal has a copy."""
    pytest.importorskip("pytsk3")
    path = ext_crash(tmp_path / "disk", "-t ext4 -b 4096", "")
    found, _ = check(path)
    root = int(run("debugfs", "-R", "blocks <2>", path).stdout.split()[0]) * 4096
    volume = BadMedium(MemoryStorage(path.read_bytes()), Faults(bad=((root, 512),)))
    assert of_volume(volume, replays=True).told == found.told
    assert any("cannot read" in note for note in of_volume(volume, replays=False).notes)


@pytest.mark.oracle("mke2fs")
def test_a_journal_that_the_kernel_refuses_is_refused(tmp_path: Path) -> None:
    """Fails if files are told by a transaction that was not written as it should be."""
    path = ext_crash(tmp_path / "disk", "-t ext4 -b 4096", "")
    volume = MemoryStorage(path.read_bytes())
    ring = Ring(volume, read_geometry(VolumeReader(volume)))
    content = bytearray(path.read_bytes())
    content[ring.offset(ring.superblock.start + 1) + 100] ^= 1  # the first copy
    path.write_bytes(content)
    with pytest.raises(CorruptImageError, match="wrong checksums") as caught:
        ours(path, replays=True)
    assert caught.value.advice is not None
    with pytest.raises(OracleError):
        of_kernel(path)


@pytest.mark.oracle("mke2fs")
def test_a_journal_elsewhere_is_refused(tmp_path: Path) -> None:
    """Fails if a volume passes for one without a journal since that is on another device."""
    path = ext_crash(tmp_path / "disk", "-t ext4 -b 4096 -O ^metadata_csum", "")
    content = bytearray(path.read_bytes())
    content[1024 + 0xE0 : 1024 + 0xE4] = bytes(4)
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
