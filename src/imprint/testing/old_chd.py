"""CHDs of versions 1 to 4, made by their description: no program writes them any more."""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_NO_CRC: Final = 0x10
_GEOMETRY: Final = b"CYLS:%d,HEADS:1,SECS:1,BPS:512\0"


def old_chd(
    disk: bytes,
    version: int,
    *,
    hunk_size: int = 4096,
    compress: bool = True,
    parent: bytes | None = None,
    without_crc: Sequence[int] = (),
) -> bytes:
    """Hunks that are in ``parent`` at any place, or came before, are only referred to.

    Args:
        disk: whole sectors.
        version: 1 to 4.
        hunk_size: in bytes.
        compress: whether hunks are deflated, where that makes them smaller.
        parent: the disk of another image, of the same version.
        without_crc: hunks that shall have no checksum.
    """
    hunks = [
        disk[at : at + hunk_size].ljust(hunk_size, b"\0") for at in range(0, len(disk), hunk_size)
    ]
    known = _hunks_of(parent or b"", hunk_size)
    start = {1: 76, 2: 80, 3: 120, 4: 108}[version]
    body, rows = bytearray(), bytearray()
    position = start + (16 if version > 2 else 8) * len(hunks)
    seen: dict[bytes, int] = {}
    for index, hunk in enumerate(hunks):
        packed = _deflated(hunk) if compress else hunk
        kind, offset, stored = 1, position + len(body), packed
        if len(packed) >= hunk_size:
            kind, stored = 2, hunk
        if version > 2:
            if hunk == hunk[:8] * (hunk_size // 8):
                kind, offset, stored = 3, int.from_bytes(hunk[:8], "big"), b""
            elif hunk in seen:
                kind, offset, stored = 4, seen[hunk], b""
            elif hunk in known:
                kind, offset, stored = 5, known[hunk], b""
            length = len(stored)
            flags = kind | (_NO_CRC if index in without_crc else 0)
            crc = 0 if flags & _NO_CRC else zlib.crc32(hunk)
            rows += struct.pack(">QIHBB", offset, crc, length & 0xFFFF, length >> 16, flags)
        else:
            rows += struct.pack(">Q", len(stored) << 44 | offset)
        seen.setdefault(hunk, index)
        body += stored
    end = position + len(body)
    head = _header(disk, version, hunk_size, codec=int(compress), metadata=end, parent=parent)
    if version < 3:
        return head + rows + body
    text = _GEOMETRY % (len(disk) // 512)
    return head + rows + body + struct.pack(">4sIQ", b"GDDD", len(text), 0) + text


def _header(
    disk: bytes,
    version: int,
    hunk_size: int,
    *,
    codec: int,
    metadata: int,
    parent: bytes | None,
) -> bytes:
    count = -(-len(disk) // hunk_size)
    flags = 0 if parent is None else 1
    md5, sha1 = hashlib.md5(disk).digest(), hashlib.sha1(disk).digest()  # noqa: S324
    parent_md5 = bytes(16) if parent is None else hashlib.md5(parent).digest()  # noqa: S324
    parent_sha1 = bytes(20) if parent is None else hashlib.sha1(parent).digest()  # noqa: S324
    size = {1: 76, 2: 80, 3: 120, 4: 108}[version]
    head = struct.pack(">8sIIII", b"MComprHD", size, version, flags, codec)
    if version < 3:
        sectors = len(disk) // 512
        head += struct.pack(">IIIII", hunk_size // 512, count, sectors, 1, 1) + md5 + parent_md5
        return head + (struct.pack(">I", 512) if version > 1 else b"")
    head += struct.pack(">IQQ", count, len(disk), metadata)
    if version == 3:
        return head + md5 + parent_md5 + struct.pack(">I", hunk_size) + sha1 + parent_sha1
    # The digest with metadata is what MAME makes of them; here they have no checksum's flag.
    overall, parent_overall = hashlib.sha1(sha1).digest(), bytes(20)  # noqa: S324
    if parent is not None:
        parent_overall = hashlib.sha1(parent_sha1).digest()  # noqa: S324
    return head + struct.pack(">I", hunk_size) + overall + parent_overall + sha1


def _hunks_of(disk: bytes, hunk_size: int) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for number in range(len(disk) // hunk_size):
        found.setdefault(disk[number * hunk_size : (number + 1) * hunk_size], number)
    return found


def _deflated(data: bytes) -> bytes:
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush()
