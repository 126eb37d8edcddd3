"""A maker of VHDX files that shares nothing with the driver: the specification's tables, packed."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import google_crc32c
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1 << 20
NONE, SEVEN = uuid.UUID(int=0), uuid.UUID(int=7)
BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
ITEMS = {
    "parameters": uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b"),
    "size": uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8"),
    "id": uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746"),
    "logical": uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f"),
    "physical": uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556"),
    "locator": uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"),
}
VHDX_LOCATOR = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913")


def sealed(data: bytes) -> bytes:
    """With the CRC-32C of it all at byte 4."""
    data = data[:4] + bytes(4) + data[8:]
    return data[:4] + struct.pack("<I", google_crc32c.value(data)) + data[8:]


def locator(values: dict[str, str]) -> bytes:
    """A parent locator."""
    head = VHDX_LOCATOR.bytes_le + struct.pack("<HH", 0, len(values))
    table, text = b"", b""
    for key, value in values.items():
        at = 20 + 12 * len(values) + len(text)
        one, two = key.encode("utf-16-le"), value.encode("utf-16-le")
        table += struct.pack("<IIHH", at, at + len(one), len(one), len(two))
        text += one + two
    return head + table + text


@dataclass
class Maker:
    """What the file shall be: header section, log at 1 MiB, metadata at 2, BAT at 3, blocks at 4.

    Attributes:
        entries: of the BAT, interleaved as they stand in the file.
        blocks: MiB from 4 on.
    """

    size: int
    entries: Sequence[int] = ()
    blocks: Sequence[bytes] = ()
    block_size: int = MIB
    sector: int = 512
    parent: dict[str, str] | None = None
    data_guid: uuid.UUID = SEVEN
    log_guid: uuid.UUID = NONE
    log: bytes = b""
    extra_regions: Sequence[tuple[uuid.UUID, int, int, int]] = ()
    extra_items: Sequence[tuple[uuid.UUID, bytes, int]] = ()
    sequences: tuple[int, int] = (4, 5)
    patches: dict[int, bytes] = field(default_factory=dict)

    def header(self, sequence: int) -> bytes:
        """One of the two."""
        guids = uuid.UUID(int=1).bytes_le + self.data_guid.bytes_le + self.log_guid.bytes_le
        rest = struct.pack("<HHIQ", 0, 1, MIB, MIB)
        return sealed(
            (struct.pack("<4sIQ", b"head", 0, sequence) + guids + rest).ljust(4096, b"\0")
        )

    def regions(self) -> bytes:
        """The region table."""
        listed = [(BAT, 3 * MIB, MIB, 1), (METADATA, 2 * MIB, MIB, 1), *self.extra_regions]
        table = struct.pack("<4sIII", b"regi", 0, len(listed), 0)
        for guid, offset, length, required in listed:
            table += guid.bytes_le + struct.pack("<QII", offset, length, required)
        return sealed(table.ljust(65536, b"\0"))

    def metadata(self) -> bytes:
        """The metadata region."""
        flags = 2 if self.parent is not None else 0
        items = [
            (ITEMS["parameters"], struct.pack("<II", self.block_size, flags), 4),
            (ITEMS["size"], struct.pack("<Q", self.size), 6),
            (ITEMS["id"], uuid.UUID(int=9).bytes_le, 6),
            (ITEMS["logical"], struct.pack("<I", self.sector), 6),
            (ITEMS["physical"], struct.pack("<I", 4096), 6),
            *self.extra_items,
        ]
        if self.parent is not None:
            items.append((ITEMS["locator"], locator(self.parent), 4))
        table = b"metadata" + struct.pack("<HH", 0, len(items)) + bytes(20)
        body = b""
        for guid, value, item_flags in items:
            place = struct.pack("<IIII", 65536 + len(body), len(value), item_flags, 0)
            table += guid.bytes_le + place
            body += value
        return table.ljust(65536, b"\0") + body

    def build(self) -> bytes:
        """The file."""
        parts = {
            0: b"vhdxfile",
            64 << 10: self.header(self.sequences[0]),
            128 << 10: self.header(self.sequences[1]),
            192 << 10: self.regions(),
            256 << 10: self.regions(),
            MIB: self.log,
            2 * MIB: self.metadata(),
            3 * MIB: struct.pack(f"<{len(self.entries)}Q", *self.entries),
        }
        parts.update({(4 + at) * MIB: block for at, block in enumerate(self.blocks)})
        parts.update(self.patches)
        file = bytearray((4 + len(self.blocks)) * MIB)
        for at, data in parts.items():
            file[at : at + len(data)] = data
        return bytes(file)


@pytest.fixture
def maker() -> Callable[..., Maker]:
    """:class:`Maker` itself: a fixture, since test folders are no packages."""
    return Maker


@dataclass
class LogEntry:
    """A log entry: sectors as ``(offset, 4096 bytes)``, runs of zeros as ``(offset, length)``."""

    guid: uuid.UUID
    sequence: int
    tail: int
    sectors: Sequence[tuple[int, bytes]] = ()
    zeros: Sequence[tuple[int, int]] = ()
    flushed: int = 0
    last: int = 0
    sector_sequence: int | None = None

    def build(self) -> bytes:
        """As it stands in the log."""
        number = self.sequence if self.sector_sequence is None else self.sector_sequence
        descriptors, data = b"", b""
        for offset, length in self.zeros:
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, length, offset, self.sequence)
        for offset, sector in self.sectors:
            ends = sector[-4:] + sector[:8]
            descriptors += b"desc" + ends + struct.pack("<QQ", offset, self.sequence)
            data += b"data" + struct.pack("<I", number >> 32) + sector[8:-4]
            data += struct.pack("<I", number & 0xFFFFFFFF)
        count = len(self.sectors) + len(self.zeros)
        before = -(-(64 + 32 * count) // 4096) * 4096
        length = before + len(data)
        head = struct.pack("<4sIIIQII", b"loge", 0, length, self.tail, self.sequence, count, 0)
        head += self.guid.bytes_le + struct.pack("<QQ", self.flushed, self.last)
        return sealed((head + descriptors).ljust(before, b"\0") + data)


@pytest.fixture
def log_entry() -> Callable[..., LogEntry]:
    """:class:`LogEntry` itself."""
    return LogEntry
