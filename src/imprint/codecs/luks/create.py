"""New LUKS1 headers, laid out as QEMU lays them out.

One key slot is in use, the first; the room of the other seven is kept, so that cryptsetup
can add passphrases.
"""

from __future__ import annotations

import secrets
import time
import uuid
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.codecs.luks import keys
from imprint.codecs.luks.layout import (
    DIGEST_SIZE,
    MAGIC,
    SALT_SIZE,
    SLOT_ACTIVE,
    SLOT_COUNT,
    SLOT_INACTIVE,
    STRIPE_COUNT,
    VERSION_1,
    Header,
    KeySlot,
)
from imprint.core.limits import KDF_ITERATIONS_MAX
from imprint.core.units import align_up, div_up

if TYPE_CHECKING:
    from imprint.codecs.ciphers import SectorCipher

SECTOR_SIZE: Final = 512

ITER_TIME_MS_DEFAULT: Final = 2000
ITERATIONS_MIN: Final = 1000
"""Below, a passphrase can be guessed too fast; the least that PKCS #5 recommends."""

_AREA_ALIGNMENT: Final = 4096  # of the header and of each slot's key material
_DIGEST_SHARE: Final = 8  # the digest gets an eighth of a slot's rounds, as from QEMU
_CALIBRATION_S: Final = 0.05  # long enough for the clock, short enough not to be noticed


class Parameters(NamedTuple):
    """What a new volume is encrypted with.

    Attributes:
        cipher_name: as in the header.
        cipher_mode: as in the header.
        key_size: of the master key, in bytes.
        hash_name: of key derivation and stripes.
    """

    cipher_name: str = "aes"
    cipher_mode: str = "xts-plain64"
    key_size: int = 64
    hash_name: str = "sha256"


def check_parameters(parameters: Parameters, *, name: str) -> None:
    """Refuse parameters that :func:`create` could not use.

    Raises:
        UnsupportedFeatureError: for a cipher or a hash that is not here.
    """
    from imprint.codecs.ciphers import check_cipher

    check_cipher(parameters.cipher_name, parameters.cipher_mode, parameters.key_size, name=name)
    keys.check_hash(parameters.hash_name, where=name)


def header_size(parameters: Parameters) -> int:
    """Bytes before the disk: the header and the room of all key slots."""
    return _AREA_ALIGNMENT + SLOT_COUNT * _material_area(parameters)


def create(
    passphrase: bytes,
    *,
    name: str,
    parameters: Parameters | None = None,
    iter_time_ms: int = ITER_TIME_MS_DEFAULT,
) -> tuple[bytes, SectorCipher]:
    """A header for a new random key that ``passphrase`` unlocks, and that key's cipher.

    Args:
        passphrase: any bytes.
        name: of the image, for errors.
        parameters: AES-256-XTS and SHA-256 if not given.
        iter_time_ms: how long unlocking shall take on a machine as fast as this one.

    Returns:
        The header with its key material, :func:`header_size` bytes, and the cipher.

    Raises:
        UnsupportedFeatureError: for a cipher or a hash that is not here.
    """
    from imprint.codecs.ciphers import sector_cipher

    parameters = parameters or Parameters()
    check_parameters(parameters, name=name)
    cipher_name, cipher_mode, key_size, hash_name = parameters
    key = _random_key(key_size)
    iterations = _iterations(parameters, iter_time_ms)
    slot = KeySlot(
        state=SLOT_ACTIVE,
        iterations=iterations,
        salt=secrets.token_bytes(SALT_SIZE),
        material_offset=_AREA_ALIGNMENT // SECTOR_SIZE,
        stripes=STRIPE_COUNT,
    )
    slot_key = keys.derive(hash_name, passphrase, slot.salt, iterations, key_size)
    material = bytearray(keys.split_stripes(key, STRIPE_COUNT, hash_name))
    material.extend(bytes(-len(material) % SECTOR_SIZE))
    sector_cipher(slot_key, algorithm=cipher_name, mode=cipher_mode, name=name).encrypt(
        memoryview(material), 0
    )
    digest_salt = secrets.token_bytes(SALT_SIZE)
    digest_iterations = max(iterations // _DIGEST_SHARE, ITERATIONS_MIN)
    header = Header(
        magic=MAGIC,
        version=VERSION_1,
        cipher_name=cipher_name.encode("ascii"),
        cipher_mode=cipher_mode.encode("ascii"),
        hash_spec=hash_name.encode("ascii"),
        payload_offset=header_size(parameters) // SECTOR_SIZE,
        key_bytes=key_size,
        digest=keys.derive(hash_name, key, digest_salt, digest_iterations, DIGEST_SIZE),
        digest_salt=digest_salt,
        digest_iterations=digest_iterations,
        uuid=str(uuid.uuid4()).encode("ascii"),
        slots=slot.pack() + _unused_slots(parameters),
    )
    area = header.pack().ljust(_AREA_ALIGNMENT, b"\0") + bytes(material)
    return (
        area.ljust(header_size(parameters), b"\0"),
        sector_cipher(key, algorithm=cipher_name, mode=cipher_mode, name=name),
    )


def _material_area(parameters: Parameters) -> int:
    """Room for one slot's key material, in bytes."""
    return align_up(parameters.key_size * STRIPE_COUNT, _AREA_ALIGNMENT)


def _unused_slots(parameters: Parameters) -> bytes:
    """All but the first, each with its place, as tools that fill one later expect."""
    step = _material_area(parameters)
    return b"".join(
        KeySlot(
            state=SLOT_INACTIVE,
            iterations=0,
            salt=bytes(SALT_SIZE),
            material_offset=(_AREA_ALIGNMENT + index * step) // SECTOR_SIZE,
            stripes=STRIPE_COUNT,
        ).pack()
        for index in range(1, SLOT_COUNT)
    )


def _random_key(size: int) -> bytes:
    """Never two equal halves, which XTS must not have. One draw in 2**128 is repeated."""
    while True:
        key = secrets.token_bytes(size)
        if key[: size // 2] != key[size // 2 :]:
            return key


def _iterations(parameters: Parameters, iter_time_ms: int) -> int:
    """Rounds that take ``iter_time_ms`` here, but never too few for safety."""
    count, elapsed_s = ITERATIONS_MIN, 0.0
    while elapsed_s < _CALIBRATION_S:
        count *= 2
        begin_s = time.thread_time()
        keys.derive(parameters.hash_name, b"", bytes(SALT_SIZE), count, parameters.key_size)
        elapsed_s = time.thread_time() - begin_s
    wanted = int(count / elapsed_s * iter_time_ms / 1000)
    pieces = div_up(parameters.key_size, keys.digest_size(parameters.hash_name))
    return max(ITERATIONS_MIN, min(wanted, KDF_ITERATIONS_MAX // pieces))
