"""Files of NTFS that are links, or devices, pipes and sockets of other systems.

Windows, its Linux and its server of NFS keep that in a reparse point, Interix in the content of a
file that has the flag of system files. Pipes and sockets of Interix are such files of no byte and
of one byte, as MS-DOS had them as well: these are left what they seem to be.

Source: Microsoft "[MS-FSCC]: File System Control Codes", 2.1.2.1 (tags), 2.1.2.4 (symbolic links),
2.1.2.5 (mount points), 2.1.2.6 (NFS), 2.1.2.7 (Linux); for Interix ntfs-3g.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.filesystems.tree import Type, text_of

POINT_BYTES_MAX: Final = 16 << 10
"""Of a reparse point: what Windows takes."""

INTERIX_BYTES: Final = range(9, 8 + 2 * 4096 + 1)
"""How long a file is that Interix has made a link or a device."""

_HEAD: Final = struct.Struct("<IHH")
_MOUNT_POINT: Final = 0xA000_0003
_SYMLINK: Final = 0xA000_000C
_LX_SYMLINK: Final = 0xA000_001D
_NODES: Final = {
    0x8000_0023: Type.SOCKET,
    0x8000_0024: Type.FIFO,
    0x8000_0025: Type.CHARACTER,
    0x8000_0026: Type.BLOCK,
}
_NAMES: Final = {_MOUNT_POINT: struct.Struct("<4H"), _SYMLINK: struct.Struct("<4HI")}
"""Offset and length of the name that counts, and of one for people; and flags."""

_RELATIVE: Final = 1
_NT_NAME: Final = "\\??\\"
_LX_LAYOUT: Final = (2).to_bytes(4, "little")
_NFS: Final = 0x8000_0014
_NFS_LINK: Final = b"LNK"
_NFS_NODES: Final = {
    b"CHR": Type.CHARACTER,
    b"BLK": Type.BLOCK,
    b"FIFO": Type.FIFO,
    b"SOCK": Type.SOCKET,
}
_INTERIX: Final = {b"IntxCHR\0": Type.CHARACTER, b"IntxBLK\0": Type.BLOCK}
_INTERIX_DEVICE_BYTES: Final = 24
_INTERIX_LINK: Final = b"IntxLNK\1"


class Special(NamedTuple):
    """What a file is that is no plain one.

    Attributes:
        type: of it.
        target: of a link, as it stands; one that is relative to its place, or to the root of the
            volume, with ``/`` between names.
        has_content: the content is a part of it.
    """

    type: Type
    target: str | None = None
    has_content: bool = False


def of_point(data: bytes) -> Special | None:
    """What a file with this reparse point is; ``None``: what it seems to be.

    Raises:
        CorruptImageError: if it says that it is a link, and not where to.
    """
    tag, length, _ = _HEAD.unpack_from(data) if len(data) >= _HEAD.size else (0, 0, 0)
    body = data[_HEAD.size :]
    if tag in _NODES:
        return Special(_NODES[tag])
    target: str | None
    if tag in _NAMES:
        target = _target_of_windows(tag, body)
    elif tag == _LX_SYMLINK:
        target = text_of(body[4:]) if body[:4] == _LX_LAYOUT else None
    elif tag == _NFS:
        kind = body[:8].rstrip(b"\0")
        if kind in _NFS_NODES:
            return Special(_NFS_NODES[kind])
        target = body[8:].decode("utf-16-le", "replace") if kind == _NFS_LINK else None
    else:
        return None
    if not target or length != len(body):
        raise CorruptImageError("expected in its reparse point where the link leads")
    return Special(Type.LINK, target)


def _target_of_windows(tag: int, body: bytes) -> str | None:
    form = _NAMES[tag]
    if len(body) < form.size:
        return None
    offset, length, _, _, *flags = form.unpack_from(body)
    raw = body[form.size :][offset : offset + length]
    if len(raw) < length:
        return None
    target = raw.decode("utf-16-le", "replace")
    if any(flag & _RELATIVE for flag in flags) and not target.startswith(_NT_NAME):
        return target.replace("\\", "/")
    return target


def of_interix(data: bytes) -> Special | None:
    """What a file is that has the flag of system files, and this content."""
    if data[:8] == _INTERIX_LINK:
        return Special(Type.LINK, data[8:].decode("utf-16-le", "replace"), has_content=True)
    if data[:8] in _INTERIX and len(data) == _INTERIX_DEVICE_BYTES:
        return Special(_INTERIX[data[:8]], has_content=True)
    return None
