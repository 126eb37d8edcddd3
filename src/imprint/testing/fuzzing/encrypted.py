"""Targets: encryption headers, alone and in images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.codecs.luks import create, parse_header, unlock
from imprint.codecs.luks.layout import MAGIC, Header, KeySlot
from imprint.core.units import KIB
from imprint.testing.fuzzing.images import Steps, made, small_disk
from imprint.testing.fuzzing.target import Place, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSPHRASE: Final = b"pw"

_ROUNDS_MAX: Final = 200
"""A header may demand 20 s of key derivation, which is its good right; here it takes no time."""

_SLOTS_AT: Final = Header.FIELDS["slots"].at
_SLOT_COUNT: Final = 8
_VERSION_1: Final = MAGIC + b"\0\x01"
_PLACES: Final = (
    Place(Header, _VERSION_1),
    *(Place(KeySlot, _VERSION_1, -_SLOTS_AT - KeySlot.SIZE * at) for at in range(_SLOT_COUNT)),
)
_WORDS: Final = (b"aes\0", b"cbc-essiv:sha256\0", b"cbc-plain\0", b"ecb\0", b"sha1\0", b"md5\0")
_LUKS: Final = {"encrypt.format": "luks", "encrypt.iter-time": "1", "cluster_size": "4K"}


def targets() -> Iterator[Target]:
    """All of them."""
    yield Target(
        "luks",
        seeds=lambda: [create(PASSPHRASE, name="disk", iter_time_ms=0)[0]],
        steps=(unlock_volume,),
        places=_PLACES,
        words=_WORDS,
        seal=cap_rounds,
        is_always_sealed=True,
    )
    yield Target(
        "qcow2-encrypted",
        seeds=_qcow2_seeds,
        steps=Steps("qcow2", passphrase=PASSPHRASE).all,
        places=_PLACES,
        words=_WORDS,
        seal=cap_rounds,
        is_always_sealed=True,
    )


def unlock_volume(content: bytes) -> None:
    """Parse the header, then try the passphrase."""

    def read(offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(content), "a read outside the volume"
        return content[offset : offset + length]

    header = parse_header(read, size=len(content), name="volume")
    buffer = bytearray(KIB)
    unlock(header, read, PASSPHRASE).decrypt(memoryview(buffer), 0)


def cap_rounds(content: bytearray) -> None:
    """Let no header demand more than a few rounds of key derivation."""
    start = content.find(MAGIC)
    if start < 0:
        return
    slots = [start + _SLOTS_AT + KeySlot.SIZE * number for number in range(_SLOT_COUNT)]
    iterations = KeySlot.FIELDS["iterations"].at
    places = [start + Header.FIELDS["digest_iterations"].at, *(at + iterations for at in slots)]
    for at in places:
        rounds = int.from_bytes(content[at : at + 4], "big")
        if rounds > _ROUNDS_MAX and at + 4 <= len(content):
            content[at : at + 4] = _ROUNDS_MAX.to_bytes(4, "big")


def _qcow2_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    old = bytearray(made("qcow2", disk, cluster_size="4K"))
    old[32:36] = (1).to_bytes(
        4, "big"
    )  # the method: AES, as before LUKS; of what bytes, is all one
    return [made("qcow2", disk, passphrase=PASSPHRASE, more=_LUKS), bytes(old)]
