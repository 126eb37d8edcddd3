"""ASIF against what macOS 26 writes: an empty image, its few bytes that are not zero.

The rows below are those of ``diskutil image create blank --format ASIF --fs none``, of
10 GB; only the UUIDs are other ones. No program here writes or reads the format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.core.extent import Extent, Kind
from imprint.core.formats import Checkable
from imprint.core.units import MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from imprint.core.events import Finding

ASIF = formats.get("asif")
SIZE: Final = 10_000_000_000
ROWS: Final = {
    0x000000: "73686477 00000001 00000200 00000000 0000000000000200 0000000000041400",
    0x000020: "0f1e2d3c4b5a69788796a5b4c3d2e1f0 00000000012a05f2 0000080000000000",
    0x000040: "00100000 0200 0000 00000000ffffffff",
    0x041248: "0000000000000001",
    0x041400: "0000000000000001",
    0x082448: "0000000000000001",
    0x120030: "c000000000000002 0000000000000003",
    0x200000: "6d657461 00000001 00000200 00000000 00000200",
    0x200200: b"<plist><dict><key>internal metadata</key><dict>\n\t\t<key>stable uuid</key>\n\t\t"
    b"<string>00112233-4455-6677-8899-aabbccddeeff</string>\n".hex(),
    0x3FFE00: "05",
}


def image() -> bytearray:
    content = bytearray(4 * MIB)
    for at, row in ROWS.items():
        data = bytes.fromhex(row)
        content[at : at + len(data)] = data
    return content


def findings(storage: MemoryStorage) -> list[Finding]:
    assert isinstance(ASIF, Checkable)
    return list(ASIF.check(storage, DictOpener(), repair=False))


def test_an_empty_image_of_macos_is_one_hole() -> None:
    """Fails if the geometry that macOS uses is computed otherwise here."""
    storage = MemoryStorage(bytes(image()), name="disk.asif")
    assert formats.detect(storage) == "asif"
    with ASIF.open(storage, DictOpener()) as disk:
        assert disk.size == SIZE
        assert disk.traits.grain == MIB
        assert list(disk.extents(0, SIZE)) == [Extent(0, SIZE, Kind.HOLE)]
        info = disk.info()
        assert info.uuid == "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
        # Its place is computed through all tables: the last chunk of 4 PiB.
        assert info.options["stable_uuid"] == "00112233-4455-6677-8899-aabbccddeeff"
        assert info.notes == ()


def test_such_an_image_is_sound() -> None:
    """Fails if the check objects to what macOS does."""
    assert findings(MemoryStorage(bytes(image()))) == []


def test_data_in_its_first_chunk_are_found() -> None:
    """Fails if tables, bitmaps or sectors are looked up in another place than described."""
    content = image() + bytes(3 * MIB)
    content[0x41408:0x41410] = (4).to_bytes(8, "big")  # table 0 is in chunk 4
    content[4 * MIB : 4 * MIB + 8] = (3 << 62 | 5).to_bytes(8, "big")
    at = 4 * MIB + 8 * 2048  # behind the entries of 4 * 512 chunks: their bitmap
    content[at : at + 8] = (6).to_bytes(8, "big")
    content[5 * MIB : 6 * MIB] = b"\xaa" * MIB
    content[6 * MIB] = 0b00010100  # sectors 1 and 2
    storage = MemoryStorage(bytes(content), name="disk.asif")
    with ASIF.open(storage, DictOpener()) as disk:
        expected = bytes(512) + b"\xaa" * 1024 + bytes(MIB)
        assert disk.read_at(0, len(expected)) == expected
        assert [item.kind for item in disk.extents(0, 4096)] == [Kind.HOLE, Kind.DATA, Kind.HOLE]
    assert findings(storage) == []
