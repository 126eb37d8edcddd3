"""LUKS1 on-disk structures.

Source: Clemens Fruhwirth, "LUKS1 On-Disk Format Specification", version 1.2.3, figures 1
to 3. All integers are big-endian; offsets of areas count sectors of 512 bytes.
"""

from __future__ import annotations

from typing import Final

from imprint.core.layout import Structure, raw, uint

MAGIC: Final = b"LUKS\xba\xbe"
VERSION_1: Final = 1
VERSION_2: Final = 2

SLOT_COUNT: Final = 8
SLOT_ACTIVE: Final = 0x00AC71F3
SLOT_INACTIVE: Final = 0x0000DEAD

DIGEST_SIZE: Final = 20
SALT_SIZE: Final = 32
STRIPE_COUNT: Final = 4000
"""What every tool writes; the specification's ``LUKS_STRIPES``."""


class Header(Structure, size=592, endian=">"):
    """The partition header ("phdr") at the start of the volume. Text ends at a zero byte."""

    magic: bytes = raw(6, at=0x000, doc="MAGIC")
    version: int = uint(2, at=0x006, doc="VERSION_1")
    cipher_name: bytes = raw(32, at=0x008, doc="'aes'")
    cipher_mode: bytes = raw(32, at=0x028, doc="'xts-plain64'")
    hash_spec: bytes = raw(32, at=0x048, doc="'sha256': for key derivation and stripes")
    payload_offset: int = uint(4, at=0x068, doc="where the disk begins, in sectors")
    key_bytes: int = uint(4, at=0x06C, doc="length of the master key")
    digest: bytes = raw(DIGEST_SIZE, at=0x070, doc="PBKDF2 of the master key")
    digest_salt: bytes = raw(SALT_SIZE, at=0x084, doc="of the digest")
    digest_iterations: int = uint(4, at=0x0A4, doc="of the digest")
    uuid: bytes = raw(40, at=0x0A8, doc="of the volume, as text")
    slots: bytes = raw(384, at=0x0D0, doc="SLOT_COUNT times KeySlot")


class KeySlot(Structure, size=48, endian=">"):
    """One copy of the master key, locked by one passphrase."""

    state: int = uint(4, at=0x00, doc="SLOT_ACTIVE or SLOT_INACTIVE")
    iterations: int = uint(4, at=0x04, doc="of PBKDF2 over the passphrase")
    salt: bytes = raw(SALT_SIZE, at=0x08, doc="of PBKDF2 over the passphrase")
    material_offset: int = uint(4, at=0x28, doc="of the split, encrypted key, in sectors")
    stripes: int = uint(4, at=0x2C, doc="pieces that the key is split into")
