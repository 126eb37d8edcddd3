"""Random histories of files: a capture that trusts what their inodes say is the disk."""

from __future__ import annotations

import fcntl
import functools
import os
import random
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.filesystems.files import Locating
from imprint.filesystems.table import allocator
from imprint.storage.memory import MemoryStorage
from imprint.testing import ext_volume, ntfs_volume, xfs_volume
from imprint.testing.again import Disk
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

MOVE_EXTENTS: Final = 0xC028660F
"""``EXT4_IOC_MOVE_EXT``. Source: Linux ``fs/ext4/ext4.h``."""

OPERATIONS: Final = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "append", "delete", "rename", "truncate", "punch", "link", "flip", "defrag"]
        ),
        st.integers(0, 11),
        st.integers(0, 11),
        st.integers(0, 400_000),
    ),
    min_size=1,
    max_size=12,
)


def operate(folder: Path, operation: tuple[str, int, int, int]) -> None:
    """Do one thing to a file of a small set of names."""
    what, one, two, number = operation
    path, other = folder / f"f{one}", folder / f"f{two}"
    content = random.Random(number).randbytes(number)
    if what == "write" or not path.exists():
        path.write_bytes(content)
    elif what == "append":
        with path.open("ab") as file:
            file.write(content)
    elif what == "delete":
        path.unlink()
    elif what == "rename":
        path.rename(other)
    elif what == "truncate":
        os.truncate(path, number)
    elif what == "punch":
        run("fallocate", "-p", "-o", str(number // 2), "-l", str(number + 4096), path)
    elif what == "link":
        other.unlink(missing_ok=True)
        if one != two:
            os.link(path, other)
    elif what == "flip":
        facts = path.stat()
        with path.open("r+b") as file:
            file.seek(number % max(1, facts.st_size))
            file.write(b"flip")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    elif what == "defrag" and path != other and other.exists():
        _exchange(path, other)


def _exchange(path: Path, other: Path) -> None:
    """Exchange extents of two files, as e4defrag does: EXT4_IOC_MOVE_EXT."""
    with path.open("r+b") as file, other.open("r+b") as donor:
        argument = struct.pack("<IIQQQQ", 0, donor.fileno(), 0, 0, 4, 0)
        with suppress(OSError):
            fcntl.ioctl(file, MOVE_EXTENTS, argument)


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "debugfs", "fallocate")
@settings(max_examples=6, deadline=None)
@given(rounds=st.lists(OPERATIONS, min_size=2, max_size=3))
def test_whatever_is_done_to_files_the_snapshot_is_the_disk(
    rounds: list[list[tuple[str, int, int, int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Fails if any history of a file leads to content of before."""
    place = tmp_path_factory.mktemp("history")
    path = ext_volume.make(place / "disk", "-t ext4 -b 1024", size=16 * MIB)
    disk = Disk(path, "ext")
    for operations in [[("write", number, 0, 50_000) for number in range(6)], *rounds]:
        with mounted(path) as folder:
            for operation in operations:
                operate(folder, operation)
        assert disk.capture().content == path.read_bytes()


@functools.cache
def sound(kind: str) -> tuple[bytes, Runs]:
    """A volume with files that do not change, and what of it is no content of files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk"
        mount: Callable[[Path], AbstractContextManager[Path]] = mounted
        if kind == "ext4":
            ext_volume.make(path, "-t ext4", size=16 * MIB)
        elif kind == "xfs":
            xfs_volume.make(path, size=32 * MIB)
        else:
            ntfs_volume.make(path, size=16 * MIB)
            mount = ntfs_volume.ntfs_mounted
        with mount(path) as root:
            for number in range(40):
                (root / f"file{number}").write_bytes(random.Random(number).randbytes(60_000))
        content = path.read_bytes()
    system = allocator(kind)
    assert isinstance(system, Locating)
    volume = MemoryStorage(content)
    files = Runs.of(run[1:] for run in system.file_runs(volume))
    used = system.allocation(volume).used
    return content, used - files


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "mkfs.xfs", "mkfs.ntfs", "ntfs-3g")
@pytest.mark.parametrize("kind", ["ext4", "xfs", "ntfs"])
@settings(max_examples=8, deadline=None)
@given(
    damage=st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 255)), max_size=12),
    is_first=st.booleans(),
)
def test_whatever_metadata_says_the_snapshot_is_the_disk(
    kind: str,
    damage: list[tuple[int, int]],
    is_first: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Fails if damaged metadata, of this state of the disk or of the last, ends a capture."""
    content, metadata = sound(kind)
    written = [
        place
        for start, length in metadata
        for place in range(start, start + length, 8)
        if any(content[place : place + 8])
    ]
    damaged = bytearray(content)
    for place, bits in damage:
        damaged[written[place % len(written)] + place % 8] ^= bits
    path = tmp_path_factory.mktemp("damaged") / "disk"
    states = [bytes(damaged), content]
    path.write_bytes(states[not is_first])
    disk = Disk(path)
    disk.capture()
    path.write_bytes(states[is_first])
    assert disk.capture().content == states[is_first]
