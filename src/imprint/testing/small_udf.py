"""A UDF of a few blocks, made by hand: of each kind of partition, with all that files may have.

Few tools write most of it. Linux 6.1 tells all of it as it is put here, but for the streams and for
what a chain of entries in a virtual partition leads to, of which it knows nothing.

Source: ECMA-167, 3rd edition; OSTA UDF 1.50 and 2.60.
"""

from __future__ import annotations

import binascii
import struct
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB
from imprint.filesystems.udf import layout
from imprint.filesystems.udf.layout import (
    Anchor,
    Descriptors,
    ExtendedFileEntry,
    FileEntry,
    FileSet,
    Indirect,
    LogicalVolume,
    MetadataMap,
    PartitionDescriptor,
    PartitionMap,
    Primary,
    SpaceBitmap,
    SparingTable,
    Tag,
    VatHead,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BLOCK: Final = 512
KINDS: Final = ("plain", "virtual 1.50", "virtual 2.00", "sparable", "metadata")
START: Final = 264
"""The block that the partition begins at."""

META: Final = 32
"""Blocks for what is not data of files; where they are depends on the kind."""

DATA: Final = 40
"""Block of the partition that data of files begin at."""

BLOCKS: Final = 360
PACKET: Final = 8
EMBEDDED: Final = b"stands in the entry"
STREAM: Final = b"another content"
GONE: Final = b"was deleted"
TARGET: Final = "/folder/../größe"
CONTENT: Final = bytes(range(256)) * 4 + bytes(2 * BLOCK) + b"behind a hole" * 60
"""Of the file: two blocks, a hole of two, then a block and what is in another one."""

NAMES: Final = ("chained", "file", "folder", "größe", "link", "日本")
ZONE: Final = 90
"""Minutes east of UTC."""

STAMP: Final = struct.pack("<Hh8B", 1 << 12 | ZONE, 2009, 2, 14, 1, 1, 30, 12, 34, 56)
STAMP_NS: Final = 1_234_567_890_123_456_000
_REVISIONS: Final = {"virtual 1.50": 0x150, "virtual 2.00": 0x200, "metadata": 0x250}
_ROOT, _ROOT_NAMES = 2, 3
_FILE, _FOLDER, _FOLDER_NAMES, _LINK, _WIDE, _STREAMS, _STREAM, _GONE, _LATIN = range(4, 13)
_CHAIN, _CHAINED, _MORE = 13, 15, 16
_BITMAP: Final = 60
_MAIN, _MIRROR, _MIRRORED, _BITMAP_FILE = 61, 62, 64, 63
_SPARED: Final = 340
_TABLE: Final = 350


def small_udf(kind: str = "plain") -> bytes:
    """A root with what :data:`NAMES` says; the folder holds the root again."""
    disc = _Disc(kind)
    disc.volume()
    disc.files()
    disc.partition()
    return bytes(disc.content)


def tagged(id_: int, location: int, body: bytes, length: int | None = None) -> bytes:
    """A descriptor with its tag; ``body`` has room for that. ``length``: of it, if not all."""
    covered = body[Tag.SIZE : length]
    tag = struct.pack(
        "<HHBxHHHI", id_, 3, 0, 1, binascii.crc_hqx(covered, 0), len(covered), location
    )
    return tag[:4] + bytes([sum(tag) & 0xFF]) + tag[5:] + body[Tag.SIZE :]


def seal_udf(content: bytearray) -> None:
    """Put right all tags of blocks that look as if they had one."""
    for start in range(0, len(content) - BLOCK + 1, BLOCK):
        id_, version = struct.unpack_from("<HH", content, start)
        if version != 3 or id_ not in (*range(10), *range(256, 267)):
            continue
        at, end = start, start + BLOCK
        while at + 38 <= end and content[at : at + 2] == content[start : start + 2]:
            names = content[at + 19] + int.from_bytes(content[at + 36 : at + 38], "little")
            size = (38 + names + 3) & ~3 if id_ == layout.NAME else BLOCK
            tag = Tag.unpack(content[at:end])
            length = min(tag.crc_length, end - at - Tag.SIZE)
            crc = binascii.crc_hqx(content[at + 16 : at + 16 + length], 0)
            struct.pack_into("<HH", content, at + 8, crc, length)
            content[at + 4] = (sum(content[at : at + 16]) - content[at + 4]) & 0xFF
            at += size


class _Disc:
    """What is being made."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.content = bytearray(BLOCKS * BLOCK)
        self.meta = 1 if kind in _REVISIONS else 0
        """Number of the partition that entries and folders are in."""

    def put(self, block: int, data: bytes) -> None:
        self.content[block * BLOCK : block * BLOCK + len(data)] = data

    def volume(self) -> None:
        """All that is outside of the partition."""
        for number, mark in enumerate((b"BEA01", b"NSR03", b"TEA01")):
            at = 32 * KIB + number * 2 * KIB
            self.content[at : at + 7] = b"\0" + mark + b"\1"
        anchor = Anchor(
            length=16 * BLOCK, location=100, reserve_length=16 * BLOCK, reserve_location=120
        ).pack()
        places = (256,) if self.kind.startswith("virtual") else (256, BLOCKS - 1)
        for place in places:
            self.put(place, tagged(layout.ANCHOR, place, anchor.ljust(512, b"\0")))
        for first in (100, 120):
            for number, (id_, body) in enumerate(self._descriptors()):
                self.put(first + number, tagged(id_, first + number, body))

    def _descriptors(self) -> Iterable[tuple[int, bytes]]:
        bitmap = {} if self.meta else {"free_bitmap": BLOCK, "free_bitmap_block": _BITMAP}
        contents = bytearray(
            PartitionDescriptor(
                sequence=1,
                access=2 if self.kind.startswith("virtual") else 4,
                start=START,
                length=BLOCKS - START,
                **bitmap,
            ).pack()
        )
        contents[24:31] = b"\x02+NSR03"
        contents[20] = 1  # allocated
        maps = list(self._maps())
        joined = b"".join(maps)
        logical = bytearray(
            LogicalVolume(
                sequence=1,
                volume_id=b"\x08small".ljust(127, b"\0") + b"\6",
                block_size=BLOCK,
                domain=layout.DOMAIN,
                file_set=long_ad(BLOCK, 0, self.meta),
                maps_length=len(joined),
                map_count=len(maps),
            ).pack()
        )
        struct.pack_into("<H", logical, 240, _REVISIONS.get(self.kind, 0x200))
        primary = Primary(
            sequence=1, volume_set_id=b"\x080123456789abcdef".ljust(127, b"\0") + b"\x11"
        )
        yield layout.PRIMARY, primary.replace(recorded=STAMP).pack()
        yield layout.LOGICAL_VOLUME, (bytes(logical) + joined).ljust(512, b"\0")
        yield layout.PARTITION, bytes(contents)
        yield layout.TERMINATING, bytes(512)

    def _maps(self) -> Iterable[bytes]:
        if self.kind != "sparable":
            yield struct.pack("<BBHH", 1, 6, 1, 0)
        if self.kind == "plain":
            return
        word = self.kind.partition(" ")[0].capitalize()
        row = PartitionMap(type=2, id=f"*UDF {word} Partition".encode())
        if self.kind == "sparable":
            row = row.replace(
                packet_blocks=PACKET,
                table_count=1,
                table_length=BLOCK,
                tables=struct.pack("<4I", _TABLE, 0, 0, 0),
            )
        body = bytearray(row.pack())
        if self.kind == "metadata":
            there = MetadataMap(file=_MAIN, mirror=_MIRROR, bitmap=_BITMAP_FILE).pack()
            body[40:52] = there[40:52]
            struct.pack_into("<IHB", body, 52, 1, 1, 1)
        body[1] = 64
        struct.pack_into("<HxxxxxxH", body, 28, _REVISIONS.get(self.kind, 0x200), 1)
        yield bytes(body)

    def files(self) -> None:
        """Entries, names and data."""
        self._meta(0, layout.FILE_SET, FileSet(root=long_ad(BLOCK, _ROOT, self.meta)).pack())
        entries = {
            "chained": _CHAIN,
            "file": _FILE,
            "folder": _FOLDER,
            "größe": _LATIN,
            "link": _LINK,
            "日本": _WIDE,
        }
        self._folder(_ROOT, _ROOT_NAMES, entries, {"gone": _GONE})
        self._folder(_FOLDER, _FOLDER_NAMES, {"again": _ROOT}, {})
        first, second = long_ad(2 * BLOCK, DATA, 0), long_ad(2 * BLOCK | 2 << 30, 0, 0)
        more = long_ad(BLOCK | 3 << 30, _MORE, self.meta)
        self._entry(_FILE, 5, 1, len(CONTENT), first + second + more, links=2)
        rest = len(CONTENT) - 4 * BLOCK
        third = long_ad(BLOCK, DATA + 4, 0) + long_ad(rest - BLOCK, DATA + 2, 0)
        body = Descriptors(length=len(third)).pack() + third
        self._meta(_MORE, layout.EXTENT_OF_DESCRIPTORS, body)
        self.put(START + DATA, CONTENT[: 2 * BLOCK])
        self.put(START + DATA + 4, CONTENT[4 * BLOCK : 5 * BLOCK])
        self.put(START + DATA + 2, CONTENT[5 * BLOCK :])
        parts = b"\2\0\0\0" + b"".join(
            struct.pack("<BBH", 3, 0, 0)
            if part == ".."
            else struct.pack("<BBH", 5, len(compressed(part)), 0) + compressed(part)
            for part in TARGET[1:].split("/")
        )
        self._entry(_LINK, 12, 3, len(parts), parts)
        self._entry(_LATIN, 5, 3, len(EMBEDDED), EMBEDDED)
        self._entry(_GONE, 5, 1, len(GONE), long_ad(len(GONE), DATA + 6, 0))
        self.put(START + DATA + 6, GONE)
        self._entry(_WIDE, 5, 3, 0, b"", streams=_STREAMS)
        names = self._names(_STREAMS, {"more": _STREAM}, {})
        self._entry(_STREAMS, 13, 3, len(names), names)
        self._entry(_STREAM, 5, 3, len(STREAM), STREAM)
        self._entry(_CHAIN, 5, 3, 3, b"old", strategy=4096)
        body = Indirect(next=long_ad(BLOCK, _CHAINED, self.meta)).pack()
        self._meta(_CHAIN + 1, layout.INDIRECT, body)
        self._entry(_CHAINED, 5, 3, len(EMBEDDED), EMBEDDED, strategy=4096, is_plain=True)

    def _folder(
        self, block: int, there: int, entries: Mapping[str, int], gone: Mapping[str, int]
    ) -> None:
        names = self._names(there, entries, gone)
        self._entry(block, 4, 0, len(names), struct.pack("<II", len(names), there))
        self._put_meta(there, names)

    def _names(self, there: int, entries: Mapping[str, int], gone: Mapping[str, int]) -> bytes:
        found = self._name(there, 8 | 2, b"", _ROOT)
        for name, block in entries.items():
            flags = 2 if block in (_FOLDER, _ROOT) else 0
            found += self._name(there, flags, compressed(name), block)
        for name, block in gone.items():
            found += self._name(there, 4, compressed(name), block)
        return found

    def _name(self, there: int, flags: int, name: bytes, block: int) -> bytes:
        head = struct.pack("<16xHBB", 1, flags, len(name)) + long_ad(BLOCK, block, self.meta)
        body = head + b"\0\0" + name
        return tagged(layout.NAME, there, body.ljust((len(body) + 3) & ~3, b"\0"))

    def _entry(
        self,
        block: int,
        type_: int,
        form: int,
        size: int,
        tail: bytes,
        *,
        links: int = 1,
        streams: int | None = None,
        strategy: int = 4,
        is_plain: bool = False,
    ) -> None:
        """An entry in the newer form, but where it ``is_plain``."""
        kind: type[FileEntry | ExtendedFileEntry] = FileEntry if is_plain else ExtendedFileEntry
        facts: dict[str, object] = {"accessed": STAMP, "modified": STAMP, "changed": STAMP}
        if not is_plain:
            facts["created"] = STAMP
        if streams is not None:
            facts["streams"] = long_ad(BLOCK, streams, self.meta)
        attributes = _file_times() if is_plain else b""
        fixed = kind(
            strategy=strategy,
            type=type_,
            flags=form | layout.SETGID,
            owner=70_000,
            group=0xFFFFFFFF,
            permissions=0b00111_00101_00100,
            links=links,
            size=size,
            attributes_length=len(attributes),
            descriptors_length=len(tail),
            **facts,
        ).pack()
        body = bytearray(fixed)
        struct.pack_into("<H", body, 24, 1)
        if not is_plain:
            struct.pack_into("<Q", body, 64, size)
        id_ = layout.FILE if is_plain else layout.EXTENDED_FILE
        self._meta(block, id_, bytes(body) + attributes + tail)

    def _meta(self, block: int, id_: int, body: bytes) -> None:
        self._put_meta(block, tagged(id_, block, body))

    def _put_meta(self, block: int, data: bytes) -> None:
        """Where a block of the partition of entries is, and where its copy is."""
        if self.kind.startswith("virtual"):
            self.put(START + META - 1 - block, data)
        elif self.kind == "metadata":
            self.put(START + (block + 16 if block < META // 2 else block - 16), data)
            self.put(START + _MIRRORED + block, data)
        elif self.kind == "sparable" and block < PACKET:
            self.put(START + block, b"defective" * 50)
            self.put(_SPARED + block, data)
        else:
            self.put(START + block, data)

    def partition(self) -> None:
        """What tells where blocks are, and which of them are free."""
        bits = SpaceBitmap(bits=META).pack() + bytes([0, 0b00001000, 0, 0])
        if not self.meta:
            bits = SpaceBitmap(bits=64).pack() + bytes([0, 0b1000, 0, 0, 0, 0b01000000, 0, 0])
            self.put(START + _BITMAP, tagged(layout.BITMAP, _BITMAP, bits))
        if self.kind == "sparable":
            head = SparingTable(id=b"*UDF Sparing Table", count=2, sequence=1).pack()
            pairs = struct.pack("<4I", 0, _SPARED, 0xFFFFFFFF, _SPARED + PACKET)
            self.put(_TABLE, tagged(0, _TABLE, head + pairs))
        elif self.kind == "metadata":
            half = META // 2 * BLOCK
            main = struct.pack("<4I", half, 16, half, 0)
            self._direct(_MAIN, 250, META * BLOCK, main)
            self._direct(_MIRROR, 251, META * BLOCK, struct.pack("<2I", META * BLOCK, _MIRRORED))
            data = tagged(layout.BITMAP, 0, bits)
            self._direct(_BITMAP_FILE, 252, len(data), data, form=3)
        elif self.kind.startswith("virtual"):
            table = struct.pack(f"<{META}I", *(META - 1 - number for number in range(META)))
            if self.kind == "virtual 2.00":
                table, type_ = VatHead(length=VatHead.SIZE).pack() + table, 248
            else:
                table, type_ = table + b"\0" + layout.VAT_NAME.ljust(31, b"\0") + b"\xff" * 4, 0
            place = BLOCKS - 1 - START
            self._direct(place, type_, len(table), struct.pack("<2I", len(table), place - 1))
            self.put(BLOCKS - 2, table)

    def _direct(self, block: int, type_: int, size: int, tail: bytes, form: int = 0) -> None:
        """An entry in the partition itself."""
        body = FileEntry(
            strategy=4, type=type_, flags=form, size=size, descriptors_length=len(tail)
        ).pack()
        self.put(START + block, tagged(layout.FILE, block, body + tail))


def _file_times() -> bytes:
    """Extended attributes with the creation."""
    times = struct.pack("<IB3xIII", 5, 1, 32, 12, 1) + STAMP
    return tagged(262, 0, struct.pack("<16xII", 24, 24)) + times


def long_ad(word: int, block: int, partition: int) -> bytes:
    """A long allocation descriptor."""
    return layout.LONG_AD.pack(word, block, partition)


def compressed(text: str) -> bytes:
    """As UDF writes names."""
    if max(text) < "\x80" or text.isascii() or all(char < "\u0100" for char in text):
        return b"\x08" + text.encode("latin-1")
    return b"\x10" + text.encode("utf-16-be")
