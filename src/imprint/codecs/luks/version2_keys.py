"""Unlocking LUKS2: key slots of PBKDF2 and Argon2, digests.

Source: "LUKS2 On-Disk Format Specification", version 1.1.2, sections 3.2 (keyslots) and 3.4
(digests); RFC 9106 (Argon2).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from imprint.codecs import argon2
from imprint.codecs.luks import keys
from imprint.codecs.luks.layout import STRIPE_COUNT
from imprint.core.errors import PassphraseError, UnsupportedFeatureError
from imprint.core.units import div_up

if TYPE_CHECKING:
    from imprint.codecs.ciphers import SectorCipher
    from imprint.codecs.luks.header import ReadAt
    from imprint.codecs.luks.version2 import Luks2Header
    from imprint.core.json_object import JsonObject

SLOTS_MAX: Final = 32
_KEY_BYTES_MAX: Final = 512
_SECTOR_SIZE: Final = 512  # of key material


def unlock2(header: Luks2Header, read: ReadAt, passphrase: bytes) -> SectorCipher:
    """The cipher of the disk, by the first key slot that ``passphrase`` opens.

    Takes as long and as much memory as the header demands for each slot, in bounds.

    Raises:
        PassphraseError: if it opens none.
        CorruptImageError: if the slots contradict the specification.
        UnsupportedFeatureError: for a cipher, hash or key derivation that is not here, or
            that demands too much.
    """
    from imprint.codecs.ciphers import sector_cipher

    digest = _digest_of(header)
    slots = [
        item for item in header.json.section("keyslots") if item[0] in digest.texts("keyslots")
    ]
    if not slots or len(slots) > SLOTS_MAX:
        raise PassphraseError("has no key slot: nothing can unlock it", name=header.name)
    refusal: UnsupportedFeatureError | None = None
    for _, slot in slots:
        try:
            key = _open_slot(header, slot, read, passphrase)
        except UnsupportedFeatureError as error:
            refusal = error  # another slot may be of a kind that is here
            continue
        if _is_right(digest, key, header.name):
            return sector_cipher(
                key,
                algorithm=header.cipher_name,
                mode=header.cipher_mode,
                name=header.name,
                sector_size=header.sector_size,
                iv_step=header.iv_step,
            )
    if refusal is not None:
        raise refusal
    raise PassphraseError("the passphrase is wrong", name=header.name)


def _digest_of(header: Luks2Header) -> JsonObject:
    """The digest that tells the right key of the disk."""
    for _, digest in header.json.section("digests"):
        if header.segment in digest.texts("segments"):
            return digest
    raise PassphraseError("has no digest of its key: nothing can unlock it", name=header.name)


def _open_slot(header: Luks2Header, slot: JsonObject, read: ReadAt, passphrase: bytes) -> bytes:
    """What a slot holds if the passphrase is its own; else bytes without sense."""
    from imprint.codecs.ciphers import check_cipher, sector_cipher

    area, splitter = slot.inner("area"), slot.inner("af")
    kinds = (slot.text("type"), area.text("type"), splitter.text("type"))
    if kinds != ("luks2", "raw", "luks1"):
        raise UnsupportedFeatureError(f"LUKS2: a key slot of {kinds!r:.60}", name=header.name)
    key_size = slot.number("key_size", 1, _KEY_BYTES_MAX)
    check_cipher(header.cipher_name, header.cipher_mode, key_size, name=header.name)
    stripes = splitter.number("stripes", 1, STRIPE_COUNT)
    hash_name = splitter.text("hash")
    keys.check_hash(hash_name, where=header.name)
    length = key_size * stripes
    offset = area.number("offset", 0, header.offset)
    area.number("size", length, header.offset - offset)
    area_key_size = area.number("key_size", 1, _KEY_BYTES_MAX)
    algorithm, _, mode = area.text("encryption").partition("-")
    check_cipher(algorithm, mode, area_key_size, name=header.name)
    slot_key = _derive(slot.inner("kdf"), passphrase, area_key_size, header.name)
    material = bytearray(read(offset, div_up(length, _SECTOR_SIZE) * _SECTOR_SIZE))
    cipher = sector_cipher(slot_key, algorithm=algorithm, mode=mode, name=header.name)
    cipher.decrypt(memoryview(material), 0)
    return keys.join_stripes(bytes(material[:length]), stripes, hash_name)


def _is_right(digest: JsonObject, key: bytes, name: str) -> bool:
    expected = digest.data("digest")
    if digest.text("type") != "pbkdf2" or not 0 < len(expected) <= _KEY_BYTES_MAX:
        raise UnsupportedFeatureError("LUKS2: expected a digest by pbkdf2", name=name)
    return hmac.compare_digest(_pbkdf2(digest, key, len(expected), name), expected)


def _derive(kdf: JsonObject, passphrase: bytes, size: int, name: str) -> bytes:
    """The key of a slot."""
    kind = kdf.text("type")
    if kind == "pbkdf2":
        return _pbkdf2(kdf, passphrase, size, name)
    if kind not in argon2.KINDS:
        raise UnsupportedFeatureError(f"LUKS2: key derivation by {kind!r:.40}", name=name)
    return _argon2(kdf, kind, passphrase, size, name)


def _pbkdf2(section: JsonObject, secret: bytes, size: int, name: str) -> bytes:
    hash_name = section.text("hash")
    keys.check_hash(hash_name, where=name)
    iterations = section.number("iterations", 1, 1 << 62)
    keys.check_rounds(hash_name, iterations, size, what="a key", where=name)
    return keys.derive(hash_name, secret, section.data("salt"), iterations, size)


def _argon2(kdf: JsonObject, kind: str, passphrase: bytes, size: int, name: str) -> bytes:
    return argon2.derive(
        kind,
        passphrase,
        salt=kdf.data("salt"),
        size=size,
        passes=kdf.number("time", 1, 1 << 32),
        memory_kib=kdf.number("memory", 1, 1 << 32),
        lanes=kdf.number("cpus", 1, argon2.LANES_MAX),
        name=name,
    )
