"""NTFS volumes for tests: made by mkfs.ntfs, aged by ntfs-3g, changed by hand, read by others."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.filesystems.ntfs import FILE_SYSTEM
from imprint.storage.memory import MemoryStorage
from imprint.testing.ext_volume import populate
from imprint.testing.oracles import run
from imprint.testing.volumes import attached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import Allocation

VOLUME_BYTES: Final = 64 * MIB
SMALL_BYTES: Final = 8 * MIB
RECORD: Final = 1024
STRIDE: Final = 512

ATTRIBUTES_END: Final = 0xFFFFFFFF
_COMPRESSED: Final = 0x800


def make(path: Path, *options: str, size: int = VOLUME_BYTES) -> Path:
    """Make a file system in a new sparse file."""
    with path.open("wb") as file:
        file.truncate(size)
    run("mkfs.ntfs", "-q", "-F", "-f", *options, path)
    return path


def small_volume(path: Path) -> bytes:
    """What an :class:`Editor` can change: 2047 clusters of 4 KiB."""
    return make(path, size=SMALL_BYTES).read_bytes()


def map_of(content: bytes | bytearray) -> Allocation:
    """The map of a volume in memory."""
    return FILE_SYSTEM.allocation(MemoryStorage(bytes(content)))


def reached_in(content: bytes | bytearray) -> Runs:
    """What its records lead to."""
    return Runs.of(FILE_SYSTEM.reached(MemoryStorage(bytes(content))))


@contextlib.contextmanager
def ntfs_mounted(path: Path, *options: str) -> Iterator[Path]:
    """Mount a volume by ntfs-3g."""
    with tempfile.TemporaryDirectory() as folder, attached(path) as device:
        run("ntfs-3g", "-o", ",".join(("compression", *options)), device, folder)
        try:
            yield Path(folder)
        finally:
            run("umount", folder)


def age(folder: Path) -> None:
    """Fill a mounted one, with what only NTFS has too: compressed files and named streams."""
    populate(folder)
    packed = folder / "packed"
    packed.mkdir()
    with contextlib.suppress(OSError):  # clusters are too large
        os.setxattr(packed, "system.ntfs_attrib_be", struct.pack(">I", _COMPRESSED))
    for number in range(5):
        text = b"".join(b"line %d of file %d\n" % (line, number) for line in range(8000))
        (packed / f"file{number}").write_bytes(text)
    os.setxattr(folder / "packed", "user.stream", bytes(range(256)) * 100)


def crowd(folder: Path) -> None:
    """Fill a small one to its last cluster; then the MFT and a file have to be in many pieces."""
    names = []
    with contextlib.suppress(OSError):
        for number in range(10_000):
            name = folder / f"file{number}"
            names.append(name)
            name.write_bytes(b"x" * 1000)
    for name in names[:-1:2]:
        name.unlink()
    with contextlib.suppress(OSError):
        for number in range(10_000):
            (folder / f"empty{number}").touch()
    for name in names[1:-1:4]:
        name.unlink()
    with (folder / "pieces").open("wb", buffering=0) as file:
        for number in range(1000):
            file.write(number.to_bytes(2, "little") * 256)


def used_of_blkls(path: Path, unit: int) -> Runs:
    """What The Sleuth Kit calls allocated, in bytes."""
    lines = run("blkls", "-e", "-l", "-f", "ntfs", path).stdout
    return Runs.of(
        (int(item) * unit, unit) for item in re.findall(r"^(\d+)\|a", lines, re.MULTILINE)
    )


def free_of_ntfsinfo(path: Path) -> tuple[int, int]:
    """All clusters and free ones, as ntfs-3g counts them."""
    told = run("ntfsinfo", "-f", "-m", path).stdout
    count = re.search(r"Volume Size in Clusters: (\d+)", told)
    free = re.search(r"Free Clusters: (\d+)", told)
    assert count is not None
    assert free is not None
    return int(count[1]), int(free[1])


class Editor:
    """Changes structures of a small volume in memory; records have 1 KiB, and the MFT one run.

    Attributes:
        content: of the volume.
        unit: bytes of a cluster.
    """

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.unit = 512 * self.content[13]
        self._mft: int = int.from_bytes(content[48:56], "little")
        self._mirror: int = int.from_bytes(content[56:64], "little")

    def record_at(self, number: int, *, is_copy: bool = False) -> int:
        """Where a record is."""
        return (self._mirror if is_copy else self._mft) * self.unit + number * RECORD

    def attribute_at(self, number: int, kind: int, *, index: int = 0) -> int:
        """Where an attribute begins in its record: the ``index``-th of its type."""
        at = self.record_at(number)
        position = int.from_bytes(self.content[at + 20 : at + 22], "little")
        while True:
            place = at + position
            found = int.from_bytes(self.content[place : place + 4], "little")
            length = int.from_bytes(self.content[place + 4 : place + 8], "little")
            if found == kind:
                if index == 0:
                    return position
                index -= 1
            assert found != ATTRIBUTES_END, "no such attribute"
            assert length, "no end of attributes"
            position += length

    def end_of(self, number: int) -> int:
        """Where in a record its attributes end."""
        return self.attribute_at(number, ATTRIBUTES_END)

    def value_at(self, number: int, kind: int) -> int:
        """Where in the volume the value of a resident attribute begins."""
        at = self.record_at(number) + self.attribute_at(number, kind)
        return at + int.from_bytes(self.content[at + 20 : at + 22], "little")

    def cluster_of(self, number: int, kind: int = 0x80) -> int:
        """Where in the volume the first run of an attribute begins, in bytes."""
        at = self.record_at(number) + self.attribute_at(number, kind)
        at += int.from_bytes(self.content[at + 32 : at + 34], "little")
        low, high = self.content[at] & 15, self.content[at] >> 4
        place = self.content[at + 1 + low : at + 1 + low + high]
        return int.from_bytes(place, "little", signed=True) * self.unit

    def protect(self, at: int, size: int) -> None:
        """Write the update sequence of a structure anew, after its last bytes were changed."""
        offset, count = struct.unpack_from("<HH", self.content, at + 4)
        assert count == size // STRIDE + 1
        number = self.content[at + offset : at + offset + 2]
        for index in range(1, count):
            end = at + index * STRIDE
            place = at + offset + 2 * index
            self.content[place : place + 2] = self.content[end - 2 : end]
            self.content[end - 2 : end] = number

    def put(self, at: int, data: bytes) -> None:
        """Write somewhere."""
        self.content[at : at + len(data)] = data

    def copy_to_mirror(self, number: int) -> None:
        """Make the copy of a record what the record is."""
        at, copy = self.record_at(number), self.record_at(number, is_copy=True)
        self.content[copy : copy + RECORD] = self.content[at : at + RECORD]


RESTART_PAGE: Final = 4 * KIB


def restart_page(*, lsn: int, client: int = 0, flags: int = 0, version: tuple[int, int]) -> bytes:
    """One of the two pages that a log of Windows begins with."""
    page = bytearray(RESTART_PAGE)
    struct.pack_into("<4sHHQIIHhh", page, 0, b"RSTR", 30, 9, 0, 4096, 4096, 48, *version[::-1])
    struct.pack_into("<QHHHHI", page, 48, lsn, 1, 0xFFFF, client, flags, 44)
    struct.pack_into("<H", page, 30, 7)
    for end in range(STRIDE, RESTART_PAGE + 1, STRIDE):
        struct.pack_into("<H", page, end - 2, 7)
    return bytes(page)
