"""What is known of a file system from its first structures."""

from __future__ import annotations

import uuid
from dataclasses import dataclass


@dataclass(frozen=True)
class FileSystem:
    """A file system, or what else fills a partition: swap, an encrypted volume, a RAID member.

    Attributes:
        kind: by the name that ``blkid`` has for it: ``ext4``, ``vfat``, ``crypto_LUKS`` …
        label: what the user called it.
        uuid: its identity, in the form that is usual for the kind.
        version: of the kind, where kinds differ that share a name: ``FAT32``, ``2`` of LUKS.
        size: that it says to have, in bytes; ``None``: it is not told.
        doubt: what else it may be, a sentence without a full stop.
    """

    kind: str
    label: str | None = None
    uuid: str | None = None
    version: str | None = None
    size: int | None = None
    doubt: str | None = None


def text(raw: bytes, encoding: str = "utf-8") -> str | None:
    """A label of fixed length: up to the first zero, without blanks at its end."""
    label = raw.decode(encoding, errors="replace").partition("\0")[0].rstrip()
    return label or None


def uuid_text(raw: bytes) -> str | None:
    """A UUID of 16 bytes in network order; zeros mean that there is none."""
    return str(uuid.UUID(bytes=raw)) if any(raw) else None


def serial_text(serial: int) -> str | None:
    """The serial number of a FAT or exFAT volume, as DOS shows it."""
    return f"{serial >> 16:04X}-{serial & 0xFFFF:04X}" if serial else None
