"""Files that are made past the page cache: the same bytes, whatever the alignment."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import TargetError
from imprint.storage.direct import DirectWriter
from imprint.storage.pending import PendingFile

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def aligned(content: bytes) -> memoryview:
    """The content at the start of a page."""
    view = memoryview(mmap.mmap(-1, len(content)))
    view[:] = content
    return view


def fill(file: PendingFile, data: memoryview, count: int) -> None:
    """Write the same again and again, each behind the one before."""
    for number in range(count):
        file.write(data, number * len(data))


@pytest.mark.parametrize("shift", [0, 1, 512])
@pytest.mark.parametrize("start", [0, 4096, 512, 3])
@pytest.mark.parametrize("length", [MIB, MIB + 1, 256 << 10, 4096, 5])
def test_what_is_written_is_in_the_file(
    tmp_path: Path, start: int, length: int, shift: int
) -> None:
    """Fails if a write that direct I/O refuses is lost, or lands elsewhere."""
    content = random.Random(length).randbytes(shift + length)
    file = PendingFile.create(tmp_path / "disk", may_replace=False)
    file.write(memoryview(b"before"), 0)
    file.write(aligned(content)[shift:], start)
    file.write(memoryview(b"after"), start + length)
    assert file.size == start + length + 5
    found = memoryview(bytearray(length))
    file.readinto(found, start)
    assert found == content[shift:]
    file.commit()
    expected = bytearray(b"before".ljust(start, b"\0"))
    expected[start:] = content[shift:] + b"after"
    assert (tmp_path / "disk").read_bytes() == expected


def test_large_writes_leave_the_cache_alone(tmp_path: Path) -> None:
    """Fails if copies drive out of memory what others have there, where it can be avoided."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        writer = DirectWriter(file.fileno())
        written = writer.write(aligned(bytes(range(256)) * 4096), 0)
        writer.close()
        writer.close()
        if not written:
            pytest.skip("direct I/O is not offered here")
        assert written == MIB
        assert writer.write(aligned(bytes(MIB)), 0) == 0
    assert path.read_bytes() == bytes(range(256)) * 4096


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.oracle("mkfs.ext4", "mount", "umount")
def test_a_full_disk_is_an_error_of_the_target(tmp_path: Path) -> None:
    """Fails if what did not fit is taken for written."""
    image, folder = tmp_path / "small.img", tmp_path / "mnt"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        file_ = PendingFile.create(folder / "disk", may_replace=False)
        data = aligned(random.Random(1).randbytes(MIB))
        with pytest.raises(TargetError, match="no space left"):
            fill(file_, data, 9)
        file_.abort()
        assert not list(folder.glob("disk*"))
    finally:
        subprocess.run(["umount", folder], check=True)
