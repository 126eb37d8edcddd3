"""A UFS of a few blocks, made by hand: every kind of pointer, names of every age.

Source: FreeBSD ``sys/ufs/ffs/fs.h``, ``sys/ufs/ufs/dinode.h``, ``sys/ufs/ufs/dir.h``; of Sun:
illumos ``sys/fs/ufs_fs.h``, ``sys/fs/ufs_inode.h``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

FRAGMENT: Final = 1024
BLOCK: Final = 4 * FRAGMENT
FRAGMENTS: Final = 128
INODES: Final = 32

ROOT, FILE, SHORT, LONG, GONE, FOLDER, DEVICE, SNAPSHOT, ORPHAN, SMALL = range(2, 12)
SECONDS: Final = 10**9
NS: Final = 987_654_321
OWNER, GROUP = 70_001, 80_002
TARGET: Final = b"where/it/leads"
LONG_TARGET: Final = b"x/" * 150
SMALL_BYTES: Final = 5000
SF_SNAPSHOT: Final = 0x00200000

UFS_KINDS: Final = (
    (2, "<", "BSD"),
    (2, ">", "BSD"),
    (1, "<", "BSD"),
    (1, ">", "BSD"),
    (1, "<", "Sun"),
    (1, ">", "Sun"),
    (1, "<", "OLD"),
    (1, ">", "OLD"),
)
"""What :func:`small_ufs` can make."""

_SUPER, _HEADER, _INODES_AT, _DATA = 8, 12, 16, 24


def in_block(pointers: int) -> tuple[int, ...]:
    """Numbers of the blocks that the file has, of as many as a block has pointers.

    Direct ones, then one below each of the three blocks of pointers.
    """
    below = pointers * pointers
    return (0, 11, 12 + 3, 12 + pointers + 2 * pointers + 5, 12 + pointers + below + below + 7)


def file_bytes(pointers: int) -> int:
    """Its size: the last block is full but for 96 bytes."""
    return (in_block(pointers)[-1] + 1) * BLOCK - 96


def small_ufs(version: int = 2, order: str = "<", dialect: str = "BSD") -> bytes:
    """A volume of 128 KiB.

    Args:
        version: 1 or 2.
        order: of bytes, as ``struct`` has it.
        dialect: ``BSD``, or of version 1 also ``Sun`` and ``OLD``.
    """
    return _Maker(version, order, dialect).volume()


class _Maker:
    def __init__(self, version: int, order: str, dialect: str) -> None:
        self.version, self.order, self.dialect = version, order, dialect
        self.content = bytearray(FRAGMENTS * FRAGMENT)
        self.next = _DATA
        self.lost = range(0)

    def volume(self) -> bytes:
        self._superblock()
        self._file()
        self._links()
        self._folders()
        self._others()
        self._group()
        return bytes(self.content)

    def put(self, at: int, code: str, *values: int | bytes) -> None:
        struct.pack_into(self.order + code, self.content, at, *values)

    def block(self, content: bytes, fragments: int = 4) -> int:
        """Where some content is now."""
        start, self.next = self.next, self.next + fragments
        self.content[start * FRAGMENT : start * FRAGMENT + len(content)] = content
        return start

    def pointers(self, *values: tuple[int, int]) -> bytes:
        """A block of pointers: index and pointer of each that is not 0."""
        code, width = ("I", 4) if self.version == 1 else ("Q", 8)
        row = [0] * (BLOCK // width)
        for index, pointer in values:
            row[index] = pointer
        return struct.pack(f"{self.order}{len(row)}{code}", *row)

    def inode(
        self,
        number: int,
        mode: int,
        size: int,
        pointers: Sequence[int] = (),
        *,
        links: int = 1,
        flags: int = 0,
        inner: bytes = b"",
        sectors: int = 0,
    ) -> None:
        at = _INODES_AT * FRAGMENT + number * 128 * self.version
        row = (*pointers, *([0] * (15 - len(pointers))))
        if self.version == 2:
            self.put(at, "HHIIIQQ", mode, links, OWNER, GROUP, BLOCK, size, sectors)
            self.put(at + 32, "4q", *(SECONDS + moment for moment in range(4)))
            self.put(at + 64, "4i", *(NS - moment for moment in range(4)))
            self.put(at + 88, "I", flags)
            self.put(at + 112, "15Q", *row)
            start = at + 112
        else:
            self.put(at, "HHHHQ", mode, links, OWNER & 0xFFFF, GROUP & 0xFFFF, size)
            part = NS // 1000 if self.dialect == "Sun" else NS
            self.put(at + 16, "6i", SECONDS, part, SECONDS + 1, part, SECONDS + 2, part)
            self.put(at + 40, "15I", *row)
            self.put(at + 100, "II", flags, sectors)
            if self.dialect == "Sun":
                self.put(at + 4, "HH", 0xFFFF, 0xFFFF)
                self.put(at + 116, "II", OWNER, GROUP)
            elif self.dialect == "BSD":
                self.put(at + 112, "II", OWNER, GROUP)
            start = at + 40
        self.content[start : start + len(inner)] = inner

    def record(self, name: bytes, number: int, kind: int, length: int = 0) -> bytes:
        """A name in a folder; the least that it needs, or of a length."""
        needed = 8 + (len(name) + 4 & ~3)
        if self.dialect == "BSD":
            head = struct.pack(f"{self.order}IHBB", number, length or needed, kind, len(name))
        else:
            head = struct.pack(f"{self.order}IHH", number, length or needed, len(name))
        return (head + name).ljust(needed, b"\0")

    def attribute(self, space: int, name: bytes, value: bytes) -> bytes:
        """An extended attribute of UFS2, in a namespace."""
        head = 7 + len(name)
        head += -head % 8
        padding = -len(value) % 8
        length = head + len(value) + padding
        row = struct.pack(f"{self.order}IBBB", length, space, padding, len(name)) + name
        return row.ljust(head, b"\0") + value + bytes(padding)

    def _superblock(self) -> None:
        at = _SUPER * FRAGMENT
        self.put(at + 8, "4i", _SUPER, _HEADER, _INODES_AT, _DATA)
        self.put(at + 36, "i", FRAGMENTS)
        self.put(at + 44, "4i", 1, BLOCK, FRAGMENT, BLOCK // FRAGMENT)
        self.put(at + 80, "2i", 12, 10)
        self.put(at + 96, "i", 2)
        self.put(at + 116, "2i", BLOCK // (4 * self.version), BLOCK // (128 * self.version))
        self.put(at + 160, "i", 1024)
        self.put(at + 184, "2i", INODES, FRAGMENTS)
        self.put(at + 209, "B", 1)
        if self.version == 2:
            self.put(at + 1080, "q", FRAGMENTS)
        if self.dialect == "BSD":
            self.put(at + 1320, "2i", 60 * self.version, 2)
            self.put(at + 1336, "2q", BLOCK - 1, FRAGMENT - 1)
        elif self.dialect == "Sun":
            self.put(at + 1340, "2q", BLOCK - 1, FRAGMENT - 1)
        self.put(at + 1372, "I", 0x011954 if self.version == 1 else 0x19540119)

    def _file(self) -> None:
        """A block of each kind: with its number in all of its bytes."""
        count = BLOCK // (4 * self.version)
        data = [self.block(bytes([index + 1]) * BLOCK) for index in range(5)]
        single = self.block(self.pointers((3, data[2])))
        double = self.block(self.pointers((2, self.block(self.pointers((5, data[3]))))))
        middle = self.block(self.pointers((0, self.block(self.pointers((7, data[4]))))))
        triple = self.block(self.pointers((1, middle)))
        row = [data[0], *([0] * 10), data[1], single, double, triple]
        self.inode(FILE, 0o100640, file_bytes(count), row, links=2, sectors=88)
        small = self.block(bytes([9]) * BLOCK), self.block(bytes([10]) * FRAGMENT, 1)
        self.next += 3
        self.inode(SMALL, 0o104755, SMALL_BYTES, small, sectors=10)

    def _links(self) -> None:
        self.inode(SHORT, 0o120777, len(TARGET), inner=TARGET)
        place = self.block(LONG_TARGET, 1)
        self.next += 3
        self.inode(LONG, 0o120777, len(LONG_TARGET), [place], sectors=2)

    def _folders(self) -> None:
        first = b"".join(
            (
                self.record(b".", ROOT, 4),
                self.record(b"..", ROOT, 4),
                self.record(b"file", FILE, 8),
                self.record(b"short", SHORT, 10),
                self.record(b"long", LONG, 10),
            )
        )
        gone = self.record(b"gone.bin", GONE, 8, 512 - len(first) - 16)
        first += self.record(b"small", SMALL, 8, 512 - len(first)) + gone
        second = self.record(b"a folder of a longer name", FOLDER, 4)
        second += self.record(b"device", DEVICE, 2, 512 - len(second))
        third = self.record(b"first of its chunk", 0, 8) + self.record(b"snap", SNAPSHOT, 8, 484)
        whole = first.ljust(512, b"\0") + second.ljust(512, b"\0") + third
        self.inode(ROOT, 0o40755, 1536, [self.block(whole)], links=3, sectors=4)
        inside = self.record(b".", FOLDER, 4) + self.record(b"..", ROOT, 4)
        inside += self.record(b"hard", FILE, 8)
        inside += self.record(b"loop", ROOT, 4, 512 - len(inside))
        self.inode(FOLDER, 0o42750, 512, [self.block(inside, 1)], links=2, sectors=2)
        self.next += 3

    def _others(self) -> None:
        self.inode(DEVICE, 0o20644, 0, [0x0506])
        lost = self.block(bytes([11]) * BLOCK)
        self.lost = range(lost, lost + 4)
        self.inode(GONE, 0o100600, BLOCK, [lost], links=0)
        self.inode(ORPHAN, 0o100600, BLOCK, [lost], links=0)
        if self.version == 2:
            rows = self.attribute(1, b"comment", b"to be read") + self.attribute(2, b"list", b"")
            at = _INODES_AT * FRAGMENT + SMALL * 256
            self.put(at + 92, "i", len(rows))
            self.put(at + 96, "Q", self.block(rows, 1))
            self.next += 3
        changed = self.block(bytes([12]) * BLOCK)
        row = [0, 1, changed, 2]
        self.inode(SNAPSHOT, 0o100400, 5 * BLOCK, row, flags=SF_SNAPSHOT, sectors=8)

    def _group(self) -> None:
        at = _HEADER * FRAGMENT
        self.put(at + 4, "I", 0x090255)
        self.put(at + 20, "I", FRAGMENTS)
        self.put(at + 92, "2I", 168, 168 + INODES // 8)
        self.put(at + 120, "I", INODES)
        used = (ROOT, FILE, SHORT, LONG, FOLDER, DEVICE, SNAPSHOT, SMALL)
        for number in used:
            self.content[at + 168 + number // 8] |= 1 << number % 8
        free_at = at + 168 + INODES // 8
        for fragment in (*self.lost, *range(self.next, FRAGMENTS)):
            self.content[free_at + fragment // 8] |= 1 << fragment % 8
