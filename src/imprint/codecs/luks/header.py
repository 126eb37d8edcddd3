"""LUKS1 headers: reading, checking, unlocking.

What is read comes through a function, so that the same code serves a LUKS device and the
LUKS header that a QCOW2 image keeps in its clusters.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.codecs.luks import keys
from imprint.codecs.luks.layout import (
    DIGEST_SIZE,
    MAGIC,
    SLOT_ACTIVE,
    SLOT_COUNT,
    SLOT_INACTIVE,
    STRIPE_COUNT,
    VERSION_1,
    VERSION_2,
    Header,
    KeySlot,
)
from imprint.core.errors import (
    PassphraseError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.units import div_up

if TYPE_CHECKING:
    from imprint.codecs.ciphers import SectorCipher

SECTOR_SIZE: Final = 512
KEY_BYTES_MAX: Final = 512
"""Of a master key: eight times what the longest cipher takes; 2 MB when it is split."""

ReadAt = Callable[[int, int], bytes]
"""``read(offset, length)`` gives exactly ``length`` bytes of the LUKS volume, or raises."""


@dataclass(frozen=True)
class LuksHeader:
    """A header that makes sense; whether it can be unlocked is another matter.

    Attributes:
        name: of the image, for errors.
        cipher_name: ``aes``.
        cipher_mode: ``xts-plain64``.
        hash_name: ``sha256``: of key derivation and stripes.
        key_size: of the master key, in bytes.
        payload_offset: where the disk begins, in bytes; 0 if it is somewhere else.
        digest: tells the right master key from wrong ones.
        digest_salt: of the digest.
        digest_iterations: of the digest.
        uuid: of the volume.
        slots: the active ones, with their numbers.
    """

    name: str
    cipher_name: str
    cipher_mode: str
    hash_name: str
    key_size: int
    payload_offset: int
    digest: bytes
    digest_salt: bytes
    digest_iterations: int
    uuid: str
    slots: tuple[tuple[int, KeySlot], ...]


def is_luks(head: bytes) -> bool:
    """Whether a volume that begins with ``head`` is LUKS of any version."""
    return head.startswith(MAGIC)


def parse_header(read: ReadAt, *, size: int, name: str) -> LuksHeader:
    """Read and check the header of a volume of ``size`` bytes.

    Ciphers and hashes are only checked when it is unlocked, so that facts about a volume
    can be shown that cannot be read.

    Raises:
        CorruptImageError: if a field contradicts the specification.
        TruncatedImageError: if the volume ends before the header, a key or the disk.
        UnsupportedFeatureError: for LUKS2.
    """
    data = read(0, min(Header.SIZE, size))
    # LUKS2 shares the first 8 bytes, and may be shorter than our header as long as we look.
    if data[: len(MAGIC) + 2] == MAGIC + VERSION_2.to_bytes(2, "big"):
        raise UnsupportedFeatureError("is LUKS2, of which imprint only reads LUKS1", name=name)
    header = Header.unpack(data, where=name)

    def need(field: str, holds: bool, expected: str) -> None:  # noqa: FBT001 - as in require
        header.require(field, holds, expected, where=name)

    need("magic", header.magic == MAGIC, repr(MAGIC))
    need("version", header.version == VERSION_1, "1")
    need("key_bytes", 0 < header.key_bytes <= KEY_BYTES_MAX, f"1 to {KEY_BYTES_MAX}")
    need("digest_iterations", header.digest_iterations > 0, "at least 1")
    payload_offset = header.payload_offset * SECTOR_SIZE
    need("payload_offset", payload_offset == 0 or payload_offset >= Header.SIZE, "0, or 2 or more")
    header.require(
        "payload_offset",
        payload_offset <= size,
        f"a disk that begins inside the volume's 0x{size // SECTOR_SIZE:x} sectors",
        where=name,
        error=TruncatedImageError,
    )
    return LuksHeader(
        name=name,
        cipher_name=_text(header, "cipher_name", name),
        cipher_mode=_text(header, "cipher_mode", name),
        hash_name=_text(header, "hash_spec", name),
        key_size=header.key_bytes,
        payload_offset=payload_offset,
        digest=header.digest,
        digest_salt=header.digest_salt,
        digest_iterations=header.digest_iterations,
        uuid=header.uuid.partition(b"\0")[0].decode("ascii", "replace"),
        slots=_active_slots(header, size, name),
    )


def unlock(header: LuksHeader, read: ReadAt, passphrase: bytes) -> SectorCipher:
    """The cipher of the disk, by the first key slot that ``passphrase`` opens.

    Takes as long as the header demands for each slot, usually some seconds.

    Raises:
        PassphraseError: if it opens none.
        UnsupportedFeatureError: for a cipher or hash that is not here, or a demand for more
            rounds than ``KDF_ITERATIONS_MAX``.
    """
    from imprint.codecs.ciphers import check_cipher, sector_cipher

    check_cipher(header.cipher_name, header.cipher_mode, header.key_size, name=header.name)
    keys.check_hash(header.hash_name, where=header.name)
    _check_rounds(header, "the digest", header.digest_iterations, DIGEST_SIZE)
    for index, slot in header.slots:
        _check_rounds(header, f"key slot {index}", slot.iterations, header.key_size)
    for _, slot in header.slots:
        key = _open_slot(header, slot, read, passphrase)
        if key is not None:
            return sector_cipher(
                key, algorithm=header.cipher_name, mode=header.cipher_mode, name=header.name
            )
    if not header.slots:
        raise PassphraseError("has no active key slot: nothing can unlock it", name=header.name)
    raise PassphraseError("the passphrase is wrong", name=header.name)


def _open_slot(header: LuksHeader, slot: KeySlot, read: ReadAt, passphrase: bytes) -> bytes | None:
    """The master key, or ``None`` if the passphrase is not the slot's."""
    from imprint.codecs.ciphers import sector_cipher

    slot_key = keys.derive(
        header.hash_name, passphrase, slot.salt, slot.iterations, header.key_size
    )
    # The material is encrypted by whole sectors, counted from its own start.
    length = header.key_size * slot.stripes
    material = bytearray(
        read(
            slot.material_offset * SECTOR_SIZE,
            div_up(length, SECTOR_SIZE) * SECTOR_SIZE,
        )
    )
    cipher = sector_cipher(
        slot_key, algorithm=header.cipher_name, mode=header.cipher_mode, name=header.name
    )
    cipher.decrypt(memoryview(material), 0)
    key = keys.join_stripes(bytes(material[:length]), slot.stripes, header.hash_name)
    digest = keys.derive(
        header.hash_name, key, header.digest_salt, header.digest_iterations, DIGEST_SIZE
    )
    return key if hmac.compare_digest(digest, header.digest) else None


def _active_slots(header: Header, size: int, name: str) -> tuple[tuple[int, KeySlot], ...]:
    """The slots in use, each with sound numbers and its key material inside the volume."""
    active = []
    for index in range(SLOT_COUNT):
        start = index * KeySlot.SIZE
        slot = KeySlot.unpack(header.slots[start : start + KeySlot.SIZE], where=name)

        def need(
            field: str,
            holds: bool,  # noqa: FBT001 - as in require
            expected: str,
            slot: KeySlot = slot,
            at: int = Header.FIELDS["slots"].at + start,
        ) -> None:
            slot.require(field, holds, expected, where=name, at=at)

        if slot.state == SLOT_INACTIVE:
            continue
        need("state", slot.state == SLOT_ACTIVE, f"0x{SLOT_ACTIVE:x} or 0x{SLOT_INACTIVE:x}")
        need("iterations", slot.iterations > 0, "at least 1")
        need("stripes", 0 < slot.stripes <= STRIPE_COUNT, f"1 to 0x{STRIPE_COUNT:x}")
        first = div_up(Header.SIZE, SECTOR_SIZE)
        need("material_offset", slot.material_offset >= first, f"0x{first:x} or more")
        sectors = div_up(header.key_bytes * slot.stripes, SECTOR_SIZE)
        slot.require(
            "material_offset",
            slot.material_offset + sectors <= size // SECTOR_SIZE,
            f"0x{sectors:x} sectors inside the volume's 0x{size // SECTOR_SIZE:x}",
            where=name,
            at=Header.FIELDS["slots"].at + start,
            error=TruncatedImageError,
        )
        active.append((index, slot))
    return tuple(active)


def _check_rounds(header: LuksHeader, what: str, iterations: int, size: int) -> None:
    keys.check_rounds(header.hash_name, iterations, size, what=what, where=header.name)


def _text(header: Header, field: str, name: str) -> str:
    """A text field, up to its zero byte."""
    value, end, _ = getattr(header, field).partition(b"\0")
    header.require(field, bool(end) and value.isascii(), "text that ends in 0", where=name)
    text: str = value.decode("ascii")
    return text
