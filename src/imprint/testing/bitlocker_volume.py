"""A BitLocker volume for tests, made by its specification: there is no tool that makes one.

``dislocker`` judges it in ``tests/oracle``.

Source: libyal, "BitLocker Drive Encryption (BDE) format specification".
"""

from __future__ import annotations

import hashlib
import struct
import uuid
import zlib
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from imprint.codecs.ciphers import sector_cipher
from imprint.core.units import KIB

SECTOR: Final = 512
METADATA_AT: Final = (256 * KIB, 512 * KIB, 768 * KIB)
METADATA_BYTES: Final = 64 * KIB
HEADER_AT: Final = 336 * KIB
HEADER_BYTES: Final = 8 * KIB

_METHOD: Final = 0x8004  # AES-XTS with 128 bits
_PASSWORD: Final = 0x2000
_RECOVERY: Final = 0x0800
_ROUNDS: Final = 1 << 20
_MASTER_KEY: Final = bytes(range(32))
_VOLUME_KEY: Final = bytes(range(100, 132))
_BOOT_GUID: Final = uuid.UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le


def bitlocker_volume(plain: bytes, *, password: str, recovery: str) -> bytes:
    """Encrypt a volume, whose places of metadata are lost: they read as zeros.

    Args:
        plain: at least 1 MiB, whole sectors, beginning with the boot sector of an NTFS.
        password: that unlocks it.
        recovery: eight groups of six digits, each a multiple of 11, with dashes.
    """
    volume = bytearray(plain)
    volume[HEADER_AT : HEADER_AT + HEADER_BYTES] = plain[:HEADER_BYTES]
    cipher = sector_cipher(_VOLUME_KEY, algorithm="aes", mode="xts-plain64", name="test")
    cipher.encrypt(memoryview(volume), 0)
    boot = bytearray(SECTOR)
    boot[:3], boot[3:11] = b"\xeb\x58\x90", b"-FVE-FS-"
    struct.pack_into("<HB", boot, 11, SECTOR, 8)
    struct.pack_into("<Q", boot, 40, len(plain) // SECTOR)
    struct.pack_into("<16s3Q", boot, 160, _BOOT_GUID, *METADATA_AT)
    boot[510:] = b"\x55\xaa"
    volume[:SECTOR] = boot
    block = _metadata(len(plain), password, recovery)
    for at in METADATA_AT:
        volume[at : at + METADATA_BYTES] = block.ljust(METADATA_BYTES, b"\0")
    return bytes(volume)


def expected_plain(plain: bytes) -> bytes:
    """What is to be read of a volume that was made of ``plain``."""
    found = bytearray(plain)
    for at, length in (*((at, METADATA_BYTES) for at in METADATA_AT), (HEADER_AT, HEADER_BYTES)):
        found[at : at + length] = bytes(length)
    return bytes(found)


def _metadata(size: int, password: str, recovery: str) -> bytes:
    digest = hashlib.sha256(password.encode("utf-16-le")).digest()
    groups = [int(group) // 11 for group in recovery.split("-")]
    secrets = (
        (_PASSWORD, hashlib.sha256(digest).digest(), b"s" * 16),
        (_RECOVERY, hashlib.sha256(struct.pack("<8H", *groups)).digest(), b"r" * 16),
    )
    entries = b"".join(_protector(*secret) for secret in secrets)
    entries += _entry(3, 5, _wrapped(_MASTER_KEY, _VOLUME_KEY, _METHOD, 9))
    entries += _entry(0xF, 0xF, struct.pack("<QQ", HEADER_AT, HEADER_BYTES))
    entries += bytes(-len(entries) % 16)
    length = 48 + len(entries)
    dataset = struct.pack("<4I16sIIQ", length, 1, 48, length, b"V" * 16, 10, _METHOD, 1 << 56)
    head = struct.pack("<8sHHHHQII", b"-FVE-FS-", (64 + length) // 16, 2, 4, 4, size, 0, 16)
    head += struct.pack("<4Q", *METADATA_AT, HEADER_AT)
    block = head + dataset + entries
    return block + struct.pack("<HHI", 8, 1, zlib.crc32(block))


def _protector(kind: int, initial: bytes, salt: bytes) -> bytes:
    """The master key, locked by a secret."""
    last = bytes(32)
    for count in range(_ROUNDS):
        last = hashlib.sha256(last + initial + salt + count.to_bytes(8, "little")).digest()
    stretch = struct.pack("<I16s", 0x1000, salt)
    nested = _entry(0, 3, stretch) + _entry(0, 5, _wrapped(last, _MASTER_KEY, 0x2003, kind))
    return _entry(2, 8, kind.to_bytes(16, "little") + bytes(10) + struct.pack("<H", kind) + nested)


def _wrapped(key: bytes, secret: bytes, method: int, counter: int) -> bytes:
    nonce = struct.pack("<QI", 1 << 56, counter)
    plain = struct.pack("<4HI", 12 + len(secret), 0, 1, 1, method) + secret
    sealed = AESCCM(key, tag_length=16).encrypt(nonce, plain, None)
    return nonce + sealed[-16:] + sealed[:-16]


def _entry(kind: int, value: int, data: bytes) -> bytes:
    return struct.pack("<4H", 8 + len(data), kind, value, 1) + data
