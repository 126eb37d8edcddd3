"""VMDK against 7-Zip and libvmdk, where qemu-img is wrong or lenient.

Who is trusted with what: qemu-img leaves out extents that are not ``RW``, and ``ZERO`` ones,
without a word, so what lies behind them moves; 7-Zip and libvmdk agree that a ``RDONLY`` extent
is content, as the specification says. Neither reads ``ZERO`` extents (7-Zip ends before them,
libvmdk refuses), and both ignore ``NOACCESS``: for those there is only arithmetic.
"""

from __future__ import annotations

import random
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from imprint import formats
from imprint.core.errors import ReadError
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.units import KIB, MIB
from imprint.endpoints.gate import FolderGate
from imprint.endpoints.location import parse
from imprint.endpoints.open import Access
from imprint.endpoints.target import TargetGate
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile
from imprint.testing.disks import fill, random_writes
from imprint.testing.oracles import paint

if TYPE_CHECKING:
    from pathlib import Path

VMDK = formats.get("vmdk")
SUBFORMATS = (
    *("monolithicSparse", "monolithicFlat", "streamOptimized"),
    *("twoGbMaxExtentSparse", "twoGbMaxExtentFlat"),
)
SIZE = 34 * MIB + 3 * 512
HEAD = (
    "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n"
    'createType="monolithicFlat"\n\n# Extent description\n'
)
TAIL = '\n# The Disk Data Base\n#DDB\nddb.adapterType = "ide"\n'


def written(folder: Path, subformat: str) -> tuple[Path, bytes]:
    """An image of ours, and its disk."""
    path = folder / "disk.vmdk"
    gate = TargetGate(Access(), parse(str(path)))
    options = parse_options("vmdk", VMDK.options, {"subformat": subformat})
    spec = CreateSpec(SIZE, gate, options)
    target = VMDK.create(PendingFile.create(path, may_replace=False), spec)
    disk = bytearray(paint(SIZE, random_writes(random.Random(31), SIZE)))
    disk[MIB : MIB + 99 * KIB] = random.Random(32).randbytes(99 * KIB)
    disk[-512:] = b"\x77" * 512
    fill(target, bytes(disk))
    target.commit()
    return path, bytes(disk)


def by_7zip(path: Path) -> bytes:
    command = ["7z", "x", "-tvmdk", "-so", str(path)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def by_libvmdk(path: Path) -> bytes:
    pyvmdk: Any = pytest.importorskip("pyvmdk", reason="libvmdk-python is not installed")
    handle = pyvmdk.handle()
    handle.open(str(path))
    handle.open_extent_data_files()
    return bytes(handle.read_buffer_at_offset(handle.get_media_size(), 0))


def lines(folder: Path, *extents: str) -> Path:
    """A descriptor; files A, B and C hold two sectors of their letter."""
    for letter in "ABC":
        (folder / letter).write_bytes(letter.encode() * 1024)
    path = folder / "disk.vmdk"
    path.write_text(HEAD + "\n".join(extents) + TAIL)
    return path


def by_us(path: Path, offset: int = 0, length: int = SIZE) -> bytes:
    with VMDK.open(FileStorage.open(path), FolderGate()) as image:
        return image.read_at(offset, length)


@pytest.mark.oracle("7z")
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_7zip_reads_what_we_wrote(tmp_path: Path, subformat: str) -> None:
    """Fails if we write what only lenient readers accept."""
    path, disk = written(tmp_path, subformat)
    assert by_7zip(path) == disk


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_libvmdk_reads_what_we_wrote(tmp_path: Path, subformat: str) -> None:
    """Fails if we write what only lenient readers accept."""
    path, disk = written(tmp_path, subformat)
    assert by_libvmdk(path) == disk


@pytest.mark.oracle("7z")
def test_a_read_only_extent_is_content(tmp_path: Path) -> None:
    """Fails if an extent is left out because it may not be written, as qemu-img does."""
    path = lines(tmp_path, 'RW 2 FLAT "A" 0', 'RDONLY 2 FLAT "B" 0', 'RW 2 FLAT "C" 0')
    expected = b"A" * 1024 + b"B" * 1024 + b"C" * 1024
    assert by_us(path) == by_7zip(path) == expected
    assert by_libvmdk(path) == expected


def test_zeros_and_forbidden_extents_keep_their_place(tmp_path: Path) -> None:
    """Fails if what lies behind them moves; no other reader that we know gets this right."""
    path = lines(tmp_path, 'RW 2 FLAT "A" 0', "RW 2 ZERO", 'RW 2 FLAT "C" 0')
    assert by_us(path) == b"A" * 1024 + bytes(1024) + b"C" * 1024
    path = lines(tmp_path, 'RW 2 FLAT "A" 0', 'NOACCESS 2 FLAT "B" 0', 'RW 2 FLAT "C" 0')
    assert by_us(path, 2048, 1024) == b"C" * 1024
    with pytest.raises(ReadError):
        by_us(path)
