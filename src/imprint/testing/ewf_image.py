"""EWF files made from the format's description, for tests: nothing is shared with the driver.

Source: libewf's document "Expert Witness Compression Format", 0.0.86.
"""

from __future__ import annotations

import bz2
import hashlib
import struct
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC: Final = b"EVF\x09\r\n\xff\0"
SECTOR: Final = 512
PER_CHUNK: Final = 16
_PACKED: Final = 0x8000_0000


def sealed(data: bytes) -> bytes:
    """``data`` and its Adler-32."""
    return data + struct.pack("<I", zlib.adler32(data))


def descriptor(kind: bytes, at: int, length: int | None) -> bytes:
    """A section descriptor at ``at``; ``length`` of the data, ``None``: the last one."""
    following, size = (at, 0) if length is None else (at + 76 + length, 76 + length)
    return sealed(struct.pack("<16sQQ40x", kind, following, size))


def file_header(number: int = 1) -> bytes:
    """What begins a segment."""
    return MAGIC + struct.pack("<BHH", 1, number, 0)


def chunks_of(disk: bytes) -> list[bytes]:
    """The disk cut up."""
    size = PER_CHUNK * SECTOR
    return [disk[at : at + size] for at in range(0, len(disk), size)]


def volume(disk: bytes) -> bytes:
    """The long volume section of a fixed, physical disk."""
    chunks = len(chunks_of(disk))
    start = struct.pack("<IIIIQ12xB", 1, chunks, PER_CHUNK, SECTOR, len(disk) // SECTOR, 3)
    return sealed(start.ljust(1048, b"\0"))


def smart_volume(disk: bytes) -> bytes:
    """The short one."""
    chunks = len(chunks_of(disk))
    start = struct.pack("<IIIII", 1, chunks, PER_CHUNK, SECTOR, len(disk) // SECTOR)
    return sealed(start.ljust(85, b"\0") + b"SMART")


def header(at: int) -> bytes:
    """A header section with a case number."""
    text = b"1\nmain\nc\tn\ta\te\tt\tm\tu\tp\ncase 9\t\t\t\t\t2002 3 4 10 19 59\t\t0\n\n"
    packed = zlib.compress(text)
    return descriptor(b"header", at, len(packed)) + packed


def _with_chunks_in_table(disk: bytes, volume_data: bytes, *, has_footer: bool) -> bytes:
    content = bytearray(file_header())
    content += header(len(content))
    content += descriptor(b"volume", len(content), len(volume_data)) + volume_data
    chunks = [zlib.compress(chunk, 1) for chunk in chunks_of(disk)]
    begin = len(content)
    position = begin + 76 + 24 + 4 * len(chunks) + (4 if has_footer else 0)
    entries = b""
    for chunk in chunks:
        entries += struct.pack("<I", position | _PACKED)
        position += len(chunk)
    table = sealed(struct.pack("<I16x", len(chunks)))
    table += sealed(entries) if has_footer else entries
    content += descriptor(b"table", begin, position - begin - 76) + table + b"".join(chunks)
    return bytes(content + descriptor(b"done", len(content), None))


def e01(disk: bytes, *, is_first_version: bool = False, groups: int = 1) -> bytes:
    """An E01 in one segment.

    Args:
        disk: whole sectors.
        is_first_version: chunks are in the table section, as EnCase 1 does it.
        groups: tables that the chunks are spread over.
    """
    if is_first_version:
        return _with_chunks_in_table(disk, volume(disk), has_footer=True)
    content = bytearray(file_header())
    content += header(len(content))
    content += descriptor(b"volume", len(content), 1052) + volume(disk)
    chunks = chunks_of(disk)
    per_group = -(-len(chunks) // groups)
    for first in range(0, len(chunks), per_group):
        content += sectors(chunks[first : first + per_group], len(content))
    return bytes(content + descriptor(b"done", len(content), None))


def sectors(chunks: list[bytes], at: int) -> bytes:
    """The sections ``sectors``, ``table`` and ``table2`` of some chunks, every second packed."""
    data, entries = b"", b""
    for number, chunk in enumerate(chunks):
        flag = 0 if number % 2 else _PACKED
        entries += struct.pack("<I", at + 76 + len(data) | flag)
        data += zlib.compress(chunk, 1) if flag else sealed(chunk)
    found = descriptor(b"sectors", at, len(data)) + data
    table = sealed(struct.pack("<I16x", len(chunks))) + sealed(entries)
    for kind in (b"table", b"table2"):
        found += descriptor(kind, at + len(found), len(table)) + table
    return found


def s01(disk: bytes) -> bytes:
    """An S01 in one segment."""
    return _with_chunks_in_table(disk, smart_volume(disk), has_footer=False)


def _padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 16) * 16, b"\0")


def _text(tags: str, values: str, pack: Callable[[bytes], bytes]) -> bytes:
    lines = f"1\nmain\n{tags}\n{values}\n\n"
    return pack(b"\xff\xfe" + lines.encode("utf-16-le"))


class Ex01:
    """An Ex01 in one segment, section by section."""

    def __init__(self, *, is_bzip2: bool = False) -> None:
        self.content = bytearray(b"EVF2\r\n\x81\0" + struct.pack("<BBHI", 2, 1, 1 + is_bzip2, 1))
        self.content += bytes(range(16))
        self._is_bzip2 = is_bzip2
        self._previous = 0

    def section(self, kind: int, data: bytes) -> None:
        """Append data and its descriptor."""
        padded = _padded(data)
        self.content += padded
        at = len(self.content)
        self.content += sealed(
            struct.pack(
                "<IIQQII16s12x",
                kind,
                1,
                self._previous,
                len(padded),
                64,
                len(padded) - len(data),
                hashlib.md5(padded, usedforsecurity=False).digest(),
            )
        )
        self._previous = at

    def pack(self, data: bytes) -> bytes:
        """Text, as the segment's header says it is packed."""
        return bz2.compress(data) if self._is_bzip2 else zlib.compress(data)

    def pack_chunk(self, data: bytes) -> bytes:
        """A chunk; EnCase writes bzip2 without what is before and behind its block."""
        return bz2.compress(data)[4:] if self._is_bzip2 else zlib.compress(data)


def ex01(
    disk: bytes, *, is_bzip2: bool = False, bad: tuple[tuple[int, int], ...] = (), tables: int = 2
) -> bytes:
    """An Ex01 of a disk: every third chunk is stored as it is, zeros are a pattern."""
    made = Ex01(is_bzip2=is_bzip2)
    chunks = chunks_of(disk)
    device = f"SN-1\tModel X\t{len(disk) // SECTOR}\tf\t{SECTOR}\t1"
    made.section(1, _text("sn\tmd\tts\tdt\tbp\tph", device, made.pack))
    case = f"case 9\tsomebody\t{len(chunks)}\t{PER_CHUNK}\t1142163845"
    made.section(2, _text("cn\tex\ttb\tsb\ttt", case, made.pack))
    per_table = -(-len(chunks) // tables)
    for first in range(0, len(chunks), per_table):
        data, entries = b"", b""
        start = len(made.content)
        for number, chunk in enumerate(chunks[first : first + per_table]):
            if not any(chunk):
                entries += struct.pack("<QII", 0, 0, 1 | 4)
                continue
            stored = sealed(chunk) if number % 3 == 0 else made.pack_chunk(chunk)
            flags = 2 if number % 3 == 0 else 1
            entries += struct.pack("<QII", start + len(data), len(stored), flags)
            data += _padded(stored)
        made.section(3, data)
        count = len(entries) // 16
        made.section(4, _padded(sealed(struct.pack("<QI4x", first, count))) + sealed(entries))
    if bad:
        listed = b"".join(struct.pack("<QI4x", *run) for run in bad)
        made.section(5, _padded(sealed(struct.pack("<I12x", len(bad)))) + sealed(listed))
    made.section(8, sealed(hashlib.md5(disk, usedforsecurity=False).digest()))
    made.section(9, sealed(hashlib.sha1(disk, usedforsecurity=False).digest()))
    made.section(15, b"")
    return bytes(made.content)


def l01(files: dict[str, bytes]) -> bytes:
    """An L01 of files in one folder called ``case``."""
    data = b"".join(files.values())
    content = bytearray(b"LVF\x09\r\n\xff\0" + struct.pack("<BHH", 1, 1, 0))
    content += header(len(content))
    start = struct.pack("<IIIIQ", 14, 0, PER_CHUNK, SECTOR, 0)
    content += descriptor(b"volume", len(content), 1052) + sealed(start.ljust(1048, b"\0"))
    content += sectors(chunks_of(data), len(content))
    rows, at = [], 0
    for number, (name, file) in enumerate(files.items(), 3):
        md5 = hashlib.md5(file, usedforsecurity=False).hexdigest()
        extent = f"1 {at:x} {len(file):x}"
        rows += ["0\t0", f"\t{name}\t{number}\t1142163845\t{md5}\t{len(file)}\t{extent}"]
        at += len(file)
    lines = [
        *("5", "rec", "tb\tcl", f"{len(data)}\t1", ""),
        *("perm", "0\t1", "p\tn\ts\tpr\tnta\tnti", "0\t0", "1\t\t\t10\t\t", ""),
        *("srce", "0\t1", "p\tn\tid\tev\ttb\tlo\tpo\tah\tgu\taq", "0\t0", "\t" * 9, ""),
        *("sub", "0\t1", "p\tn\tid\tnu\tco\tgu", "0\t0", "\t\t\t\t\t", ""),
        *("entry", f"{len(files) + 1}\t1", "p\tn\tid\twr\tha\tls\tbe"),
        *("0\t1", "1\t\t1\t\t\t\t", f"0\t{len(files)}", "1\tcase\t2\t\t\t\t"),
        *(*rows, "", ""),
    ]
    text = "\n".join(lines).encode("utf-16-le")
    begin = hashlib.md5(text, usedforsecurity=False).digest()
    begin += struct.pack("<QI20x", len(text), 0)
    begin = begin[:24] + struct.pack("<I", zlib.adler32(begin)) + begin[28:]
    content += descriptor(b"ltree", len(content), len(begin + text)) + begin + text
    return bytes(content + descriptor(b"done", len(content), None))
