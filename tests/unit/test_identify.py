"""Any bytes are a file system that is known, or none; in bounds, and without an error."""

from __future__ import annotations

import json
import lzma
import re
import struct
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from imprint.core.units import KIB
from imprint.filesystems import identify
from imprint.filesystems.identify import HEAD_BYTES, IDENTIFY_BYTES_MAX
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import CountingStorage

if TYPE_CHECKING:
    from pathlib import Path

MARKS = (
    (0, b"XFSB"),
    (0, b"hsqs"),
    (0, b"LUKS\xba\xbe\0\x02"),
    (0, b"\xeb\x58\x90-FVE-FS-"),
    (0, b"\xeb\x3c\x90MSDOS5.0\0\x02\x01\x01\0\x02\xe0\0\x40\x0b\xf0\x09\0"),
    (3, b"NTFS    \0\x02\x08\0\0\0\0\0\0\0\xf8"),
    (3, b"EXFAT   "),
    (32, b"NXSB\0\x10\0\0"),
    (510, b"\x55\xaa"),
    (512, b"LABELONE\x01\0\0\0\0\0\0\0"),
    (1024, b"H+\0\x04"),
    (1024, b"BD"),
    (1024, b"\x10\x20\xf5\xf2"),
    (1080, b"\x53\xef"),
    (4086, b"SWAPSPACE2"),
    (4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    (0x8000, b"\0BEA01\x01"),
    (0x8800, b"\0NSR02\x01"),
    (0x8000, b"\x01CD001\x01"),
    (0x10040, b"_BHRfS_M"),
)


def check(content: bytes | bytearray) -> None:
    counting = CountingStorage(MemoryStorage(content))
    found = identify(counting)
    assert counting.bytes_read <= IDENTIFY_BYTES_MAX
    if found is not None:
        json.dumps([found.kind, found.label, found.uuid, found.version]).encode()


def test_the_label_of_an_ntfs_is_read_with_its_fixups_undone() -> None:
    """Fails if a label that lies across the end of a sector has two wrong bytes in it."""
    disk = bytearray(64 * KIB)
    disk[3:22] = b"NTFS    \0\x02\x08" + bytes(8)
    disk[48] = 1  # the MFT is at cluster 1, which is byte 4096
    disk[64] = 0x100 - 10  # records have 2 to the power of 10 bytes
    record = bytearray(1024)
    record[:24] = b"FILE" + struct.pack("<HH12xH2x", 48, 3, 480)
    record[48:54] = b"\x01\x02" + "D".encode("utf-16-le") + b"\0\0"
    record[480:504] = struct.pack("<II8xIH2x", 0x60, 48, 16, 24)
    record[504:520] = "ABCDEFGH".encode("utf-16-le")
    record[510:512] = b"\x01\x02"  # what every sector of a record ends with on the disk
    disk[4096 + 3 * 1024 : 4096 + 4 * 1024] = record

    found = identify(MemoryStorage(disk))

    assert found is not None
    assert (found.kind, found.label) == ("ntfs", "ABCDEFGH")


@given(
    marks=st.lists(st.sampled_from(MARKS), min_size=1, max_size=4),
    noise=st.lists(st.tuples(st.integers(0, HEAD_BYTES - 64), st.binary(max_size=64)), max_size=9),
    size=st.integers(0, HEAD_BYTES * 2),
    filler=st.sampled_from([0, 1, 0x41, 0xFF]),
)
def test_any_bytes_with_any_signature_are_identified_or_not(
    marks: list[tuple[int, bytes]],
    noise: list[tuple[int, bytes]],
    size: int,
    filler: int,
) -> None:
    """Fails if a field that no tool would write makes a probe raise, or read without end."""
    disk = bytearray([filler]) * size
    for at, content in (*noise, *marks):
        disk[at : at + len(content)] = content[: max(0, size - at)]
    check(disk)


@given(data=st.data())
def test_real_file_systems_with_wrong_bytes_are_identified_or_not(
    corpus: Path, data: st.DataObject
) -> None:
    """Fails if damage to a superblock makes its probe raise, or read without end."""
    images = sorted(corpus.glob("forensics/util-linux+util-linux/tests/ts/blkid/images-fs/*.xz"))
    packed = data.draw(st.sampled_from([image for image in images if image.stat().st_size < 20000]))
    with lzma.open(packed) as file:
        disk = bytearray(file.read(512 * KIB))
    used = [match.start() for match in re.finditer(rb"[^\0]", disk[: 160 * KIB])] or [0]
    for _ in range(data.draw(st.integers(1, 20))):
        at = data.draw(st.sampled_from(used))
        disk[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    check(disk)
