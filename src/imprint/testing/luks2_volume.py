"""LUKS2 volumes for tests of damage, where ``cryptsetup`` would be too slow."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import TYPE_CHECKING, Final

from imprint.codecs.ciphers import sector_cipher
from imprint.codecs.luks import keys
from imprint.core.units import KIB

if TYPE_CHECKING:
    from imprint.codecs.ciphers import SectorCipher

HEADER_BYTES: Final = 16 * KIB
DATA_AT: Final = 40 * KIB
SECTOR: Final = 4 * KIB
CHECKSUM_AT: Final = 448

_AREA_AT: Final = 32 * KIB
_KEY: Final = bytes(range(64))
_SALT: Final = b"salt" * 8


def luks2_volume(plain: bytes, passphrase: bytes) -> bytearray:
    """A volume with both headers and one slot, whose key derivation takes no time.

    Args:
        plain: whole sectors of 4 KiB.
        passphrase: of the slot.
    """
    slot_key = keys.derive("sha256", passphrase, _SALT, 2, 64)
    material = bytearray(keys.split_stripes(_KEY, 8, "sha256"))
    _cipher(slot_key, 512).encrypt(memoryview(material), 0)
    disk = bytearray(plain)
    _cipher(_KEY, SECTOR).encrypt(memoryview(disk), 0)
    volume = bytearray(DATA_AT) + disk
    volume[_AREA_AT : _AREA_AT + len(material)] = material
    text = json.dumps(_json(), separators=(",", ":")).encode()
    for at, magic in ((0, b"LUKS\xba\xbe"), (HEADER_BYTES, b"SKUL\xba\xbe")):
        struct.pack_into(">6sHQQ48s32s", volume, at, magic, 2, HEADER_BYTES, 3, b"", b"sha256")
        volume[at + 168 : at + 204] = b"202265fe-9842-4c2d-ac9b-aba1b05deb63"
        struct.pack_into(">Q", volume, at + 256, at)
        volume[at + 4 * KIB : at + 4 * KIB + len(text)] = text
    seal_luks2(volume)
    return volume


def seal_luks2(volume: bytearray) -> None:
    """Make the checksums of both headers right."""
    for at in (0, HEADER_BYTES):
        if len(volume) >= at + HEADER_BYTES:
            place = slice(at + CHECKSUM_AT, at + CHECKSUM_AT + 64)
            volume[place] = bytes(64)
            digest = hashlib.sha256(volume[at : at + HEADER_BYTES]).digest()
            volume[place] = digest.ljust(64, b"\0")


def _cipher(key: bytes, size: int) -> SectorCipher:
    return sector_cipher(
        key, algorithm="aes", mode="xts-plain64", name="test", sector_size=size, iv_step=size // 512
    )


def _json() -> dict[str, object]:
    def text(data: bytes) -> str:
        return base64.b64encode(data).decode()

    kdf = {"type": "pbkdf2", "hash": "sha256", "iterations": 2, "salt": text(_SALT)}
    area = {"type": "raw", "offset": str(_AREA_AT), "size": "4096", "key_size": 64}
    return {
        "keyslots": {
            "0": {
                "type": "luks2",
                "key_size": 64,
                "af": {"type": "luks1", "stripes": 8, "hash": "sha256"},
                "area": {**area, "encryption": "aes-xts-plain64"},
                "kdf": kdf,
            }
        },
        "tokens": {},
        "segments": {
            "0": {
                "type": "crypt",
                "offset": str(DATA_AT),
                "size": "dynamic",
                "iv_tweak": "0",
                "encryption": "aes-xts-plain64",
                "sector_size": SECTOR,
            }
        },
        "digests": {
            "0": {
                **kdf,
                "keyslots": ["0"],
                "segments": ["0"],
                "digest": text(keys.derive("sha256", _KEY, _SALT, 2, 32)),
            }
        },
        "config": {"json_size": "12288", "keyslots_size": "8192"},
    }
