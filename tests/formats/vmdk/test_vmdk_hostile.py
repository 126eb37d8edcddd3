"""Images made to hurt: any bytes are a disk or one error, in bounded time and memory."""

from __future__ import annotations

import contextlib
import random
import struct
import time
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import ImagingError, ReferenceRefusedError
from imprint.core.formats import Checkable
from imprint.core.units import MIB
from imprint.endpoints.gate import FolderGate
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

VMDK = formats.get("vmdk")

TEXT = b"""# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=12345678
parentCID=ffffffff
createType="custom"
RW 16 FLAT "a.img" 0
RW 16 SPARSE "b.vmdk"
NOACCESS 3 ZERO
RDONLY 8 ZERO
ddb.adapterType = "ide"
"""


def cowd() -> bytes:
    header = struct.pack("<4s7I", b"COWD", 1, 3, 64, 16, 4, 1, 37).ljust(2048, b"\0")
    table = struct.pack("<4096I", 37, 53, *([0] * 4094))
    return header + struct.pack("<I", 5).ljust(512, b"\0") + table + b"\x07" * 32 * 512


def sesparse() -> bytes:
    fields = [0xCAFEBABE, 0x200000001, 64, 8, 64, *([0] * 5), 1, 1, 0, 0, 0, 0]
    fields += [2, 1, 3, 64, 0, 0, 0, 0, 67, 8]
    head = struct.pack("<26Q", *fields).ljust(512, b"\0")
    head += struct.pack("<4Q", 0xCAFECAFE, 0, 0, 0).ljust(512, b"\0")
    head += struct.pack("<Q", 1 << 60).ljust(512, b"\0")
    return head + struct.pack("<4096Q", 3 << 60, *([0] * 4095)) + b"\x07" * 4096


def survive(content: bytes) -> None:
    """Open, look, check and write; anything but an imaging error is a failure."""
    files = {"a.img": MemoryStorage(b"\x05" * 16 * 512), "b.vmdk": MemoryStorage(cowd())}
    storage, opener = MemoryStorage(content), DictOpener(files=files)
    began = time.monotonic()
    with bounded_memory(200 * MIB):
        try:
            with VMDK.open(storage, opener) as image:
                image.info()
                image.read_at(0, 65536)
                image.read_at(max(0, image.size - 65536), 65536)
        except ImagingError:
            pass
        assert isinstance(VMDK, Checkable)
        with contextlib.suppress(ImagingError):
            list(VMDK.check(storage, opener, repair=False))
        try:
            with VMDK.edit(storage, opener) as image:
                image.write(memoryview(b"x" * 100), 0)
                image.commit()
        except ImagingError:
            pass
    assert time.monotonic() - began < 10  # far above what it takes: a hang


@pytest.mark.parametrize("content", [TEXT, cowd(), sesparse()], ids=["text", "cowd", "sesparse"])
def test_any_change_is_a_disk_or_an_error(content: bytes) -> None:
    """Fails if a wrong byte or field raises anything else."""
    randomness = random.Random(5)
    survive(content)
    interesting = min(len(content), 2600)
    for _ in range(400):
        changed = bytearray(content)
        at = randomness.randrange(interesting - 8)
        kind = randomness.randrange(4)
        if kind == 0:
            changed[at] = randomness.randrange(256)
        elif kind == 1:
            changed[at // 4 * 4 : at // 4 * 4 + 4] = randomness.choice(
                (b"\xff" * 4, b"\xff\xff\xff\x7f", bytes(4), b"\1\0\0\0", b"\0\0\0\x10")
            )
        elif kind == 2:
            del changed[at : at + randomness.randrange(1, 9)]
        else:
            del changed[at:]
        survive(bytes(changed))


@pytest.mark.parametrize(
    "content",
    [
        b"# Disk DescriptorFile\n" + b"RW 1 ZERO\n" * 100_000,
        b"# Disk DescriptorFile\n" + b"RW 1 ZERO\n" * 30_000,
        b"# Disk DescriptorFile\n" + b"a" * 1_000_000,
        b"# Disk DescriptorFile\nRW 1 FLAT" + b" " * 1_000_000,
        b"# Disk DescriptorFile\nx" + b" " * 1_000_000 + b"y",
        b"# Disk DescriptorFile\n" + b"\xff" * 1_000_000,
        b"# Disk DescriptorFile\n" + b"#" * 2_000_000,
        b"# Disk DescriptorFile\nCID=" + b"9" * 500_000 + b'\nRW 5 FLAT "' + b"x" * 400_000,
    ],
    ids=["too many extents", "extents", "word", "spaces", "gap", "garbage", "long", "names"],
)
def test_a_descriptor_without_end_is_read_in_no_time(content: bytes) -> None:
    """Fails if a text makes us slow, or eat memory."""
    survive(content)


@pytest.mark.parametrize("capacity", [1 << 63, 1 << 50, 1 << 40])
@pytest.mark.parametrize("grain", [1, 128, 1 << 16, 1 << 40])
def test_a_size_that_lies_is_refused(capacity: int, grain: int) -> None:
    """Fails if a table is allocated for what a small file can never hold."""
    fields = (b"KDMV", 1, 3, capacity, grain, 0, 0, 512, 0, 1, 8)
    content = struct.pack("<4sIIQQQQIQQQ", *fields) + b"\0\n \r\n"
    with pytest.raises(ImagingError), bounded_memory(50 * MIB):
        VMDK.open(MemoryStorage(content.ljust(64 * 1024, b"\0")), DictOpener())


@pytest.mark.parametrize("name", ["/etc/hostname", "../x.img", "disk.vmdk", "/dev/zero", "d", ""])
def test_files_elsewhere_are_not_opened(tmp_path: Path, name: str) -> None:
    """Fails if an image can have any file of the system read (CVE-2022-47951)."""
    folder = tmp_path / "d"
    folder.mkdir()
    (tmp_path / "x.img").write_bytes(bytes(512))
    (folder / "d").mkdir()
    path = folder / "disk.vmdk"
    path.write_text(f'# Disk DescriptorFile\nversion=1\nRW 1 FLAT "{name}" 0\n')
    storage = FileStorage.open(path)
    with pytest.raises(ImagingError):
        VMDK.open(storage, FolderGate())
    storage.close()


def test_an_image_that_lies_alone_can_be_looked_at(tmp_path: Path) -> None:
    """Fails if its size cannot be known without its extents, or these read as zeros."""
    path = tmp_path / "disk.vmdk"
    path.write_text('# Disk DescriptorFile\nversion=1\nRW 8 FLAT "a.img" 0\nRW 9 SPARSE "b.vmdk"\n')
    with VMDK.open(FileStorage.open(path), FolderGate(lenient=True)) as image:
        assert image.size == 17 * 512
        for offset in (0, 8 * 512):
            with pytest.raises(ReferenceRefusedError):
                image.read_at(offset, 1)
