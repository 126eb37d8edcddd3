"""Small VMDKs that claim to be large: tables, files and parents that stand for many."""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
import zlib
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import ImagingError, ReferenceRefusedError, UnsupportedFeatureError
from imprint.core.formats import Checkable
from imprint.core.units import MIB
from imprint.endpoints.gate import FolderGate
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VMDK = formats.get("vmdk")
HANG_S = 15.0
"""Far above what anything here takes on a busy machine."""

HEAD = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n"


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    began = time.monotonic()
    with bounded_memory(200 * MIB):
        yield
    assert time.monotonic() - began < HANG_S


def survive(content: bytes | bytearray) -> list[str]:
    """Open, look, check and write; what the check has found."""
    storage = MemoryStorage(content)
    found: list[str] = []
    with bounded():
        with contextlib.suppress(ImagingError), VMDK.open(storage, DictOpener()) as image:
            for _ in itertools.islice(image.extents(0, image.size), 1000):
                pass
            image.read_at(image.size // 2, 1 << 20)
        assert isinstance(VMDK, Checkable)
        with contextlib.suppress(ImagingError):
            found = [item.what for item in VMDK.check(storage, DictOpener(), repair=False)]
        with contextlib.suppress(ImagingError), VMDK.edit(storage, DictOpener()) as image:
            image.write(memoryview(b"x" * 100), 0)
    return found


def hosted(capacity: int, directory: bytes, rest: bytes, *, version: int, flags: int) -> bytes:
    """A header whose directory begins in sector 1, and what follows it."""
    fields = (b"KDMV", version, flags, capacity, 128, 0, 0, 512, 0, 1, 128)
    head = struct.pack("<4sIIQQQQIQQQ", *fields) + b"\0\n \r\n" + struct.pack("<H", flags >> 16 & 1)
    return head.ljust(512, b"\0") + directory + rest


@pytest.mark.parametrize(("version", "flags"), [(1, 1), (3, 0x30001), (3, 0x10001)])
@pytest.mark.parametrize("is_shared", [True, False])
def test_one_table_does_not_stand_for_millions(version: int, flags: int, is_shared: bool) -> None:
    """Fails if each of its mentions is looked at: 32 TiB of disk in a file of 4 MiB."""
    count = 1 << 20
    table = 1 + count * 4 // 512
    entry = struct.pack("<I", table)
    directory = entry * count if is_shared else entry.ljust(count * 4, b"\0")
    packed = zlib.compress(bytes(65536))
    stored = struct.pack("<QI", 0, len(packed)) + packed if flags & 0x20000 else packed
    rest = struct.pack("<I", table + 4) * 512 + stored.ljust(65536, b"\0")
    found = survive(hosted(count * 65536, directory, rest, version=version, flags=flags))
    assert not is_shared or found == []  # it is not even opened
    if not is_shared and version == 3:
        assert any("place of its own" in what for what in found)


def test_more_tables_than_the_file_can_hold_are_an_error() -> None:
    """Fails if a directory is read, or allocated, that the file does not have."""
    content = hosted(1 << 45, b"\xff" * 4096, b"", version=1, flags=1)
    with bounded(), pytest.raises(ImagingError):
        VMDK.open(MemoryStorage(content), DictOpener())


@pytest.mark.parametrize("lenient", [True, False])
def test_thousands_of_files_are_a_disk_or_an_error(tmp_path: Path, lenient: bool) -> None:
    """Fails if a descriptor of 1 MiB keeps us busy, or leaves files open."""
    path = tmp_path / "disk.vmdk"
    (tmp_path / "x").write_bytes(bytes(512))
    lines = [f'RW 1 FLAT "{"x" if number < 50 else number}" 0\n' for number in range(6000)]
    path.write_text(HEAD + "".join(lines))
    storage = FileStorage.open(path)
    with bounded():
        try:
            with VMDK.open(storage, FolderGate(lenient=lenient)) as image:
                assert image.size == 6000 * 512
                assert image.read_at(0, 100) == bytes(100)
                with pytest.raises(ReferenceRefusedError):
                    image.read_at(40_000, 1)
        except ReferenceRefusedError:
            assert not lenient
    storage.close()


@pytest.mark.parametrize("names", [("disk",), ("disk", "other"), ("disk", "b", "c", "d")])
def test_parents_in_a_circle_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Fails if an image that is its own parent is followed for ever."""
    (tmp_path / "x").write_bytes(bytes(512))
    for index, name in enumerate(names):
        parent = names[(index + 1) % len(names)]
        text = HEAD.replace("=ffffffff", f'=00000001\nparentFileNameHint="{parent}.vmdk"')
        (tmp_path / f"{name}.vmdk").write_text(text + "RW 1 ZERO\n")
    storage = FileStorage.open(tmp_path / "disk.vmdk")
    with bounded(), pytest.raises(ReferenceRefusedError, match="loop"):
        VMDK.open(storage, FolderGate())
    storage.close()


@pytest.mark.parametrize("kind", ["VMFSRDM", "VMFSRAW"])
def test_a_mapped_device_is_named_and_never_opened(tmp_path: Path, kind: str) -> None:
    """Fails if a descriptor can have a device of the host read, or hides which one it wants."""
    device = tmp_path / "disk-rdm.vmdk"
    device.write_bytes(bytes(1024))
    path = tmp_path / "disk.vmdk"
    path.write_text(HEAD + f'createType="vmfsRawDeviceMap"\nRW 2 {kind} "disk-rdm.vmdk"\n')
    storage = FileStorage.open(path)
    for gate in (FolderGate(), FolderGate(lenient=True)):
        with pytest.raises(UnsupportedFeatureError, match=rf"device, disk-rdm.vmdk \({kind}\)"):
            VMDK.open(storage, gate)
    storage.close()
