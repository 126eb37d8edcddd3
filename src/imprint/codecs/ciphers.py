"""Ciphers over runs of disk sectors, as dm-crypt, LUKS and QEMU name them.

Every sector is encrypted by itself, under an initialisation vector (IV) that is made of its
number, so that a disk can be read from anywhere. A cipher is written ``MODE-IVGEN[:HASH]``:
``xts-plain64``, ``cbc-essiv:sha256``, ``ecb``.

Speed. The block cipher runs at gigabytes per second and Python takes some microseconds for
each call, so what counts is calls per sector. Measured with AES-256, sectors of 512 bytes,
runs of 64 KiB to 1 MiB, ``cryptography`` 50, one core of a machine with VAES:

* CBC decryption, 2500 MiB/s: one call for the run, then all first blocks are corrected.
* ECB, 6000 MiB/s: one call for the run.
* XTS, 165 MiB/s, and CBC encryption, 145 MiB/s: one context for each sector, since a
  context of ``cryptography`` takes a new IV only by being made anew. XTS made of ECB calls
  and arithmetic on long integers ran at 110 to 235 MiB/s, depending on the run's length:
  not enough to pay for its code.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from imprint.core.errors import UnsupportedFeatureError

if TYPE_CHECKING:
    from collections.abc import Callable

SECTOR_SIZE: Final = 512
"""Of LUKS1, of QEMU, and of everything else unless it says otherwise."""

_BLOCK_SIZE: Final = 16
_AES_KEY_SIZES: Final = (16, 24, 32)
# Those whose digest is as long as an AES key, of what dm-crypt and QEMU both know.
_ESSIV_HASHES: Final = ("md5", "sha256")


class SectorCipher(Protocol):
    """A cipher with its key. Thread-safe; works in place.

    ``view`` is contiguous bytes, a multiple of ``sector_size`` long; ``sector`` is the
    number of its first sector, counted in units of ``sector_size``.
    """

    @property
    def sector_size(self) -> int:
        """Bytes that are encrypted under one IV."""

    def encrypt(self, view: memoryview, sector: int) -> None:
        """Replace plain bytes by what is stored."""

    def decrypt(self, view: memoryview, sector: int) -> None:
        """Replace stored bytes by plain ones."""


def sector_cipher(
    key: bytes,
    *,
    algorithm: str,
    mode: str,
    name: str,
    sector_size: int = SECTOR_SIZE,
    iv_step: int = 1,
) -> SectorCipher:
    """The cipher that ``algorithm`` and ``mode`` spell.

    Args:
        key: for XTS, both halves: 32 bytes are AES-128, 64 are AES-256.
        algorithm: ``aes``; others are known by name only, to be refused.
        mode: ``xts-plain64``, ``cbc-essiv:sha256``, ``ecb`` …; without an IV generator,
            ``plain``, as dm-crypt reads it.
        name: of the image, for errors.
        sector_size: a multiple of 16 bytes.
        iv_step: by how much the numbers that IVs are made of differ from one sector to the
            next: LUKS2 counts 512 bytes there, however large its sectors are.

    Raises:
        UnsupportedFeatureError: if there is no such cipher here, or not with such a key.
    """
    assert sector_size > 0
    assert sector_size % _BLOCK_SIZE == 0
    check_cipher(algorithm, mode, len(key), name=name)
    chaining, _, generator = mode.partition("-")
    if chaining == "ecb":
        return _EcbCipher(key, sector_size)
    if chaining == "xts" and key[: len(key) // 2] == key[len(key) // 2 :]:
        # IEEE 1619 wants independent halves and OpenSSL insists; no tool makes such a key.
        raise UnsupportedFeatureError("expected an XTS key of two different halves", name=name)
    ivs = _iv_generator(generator or "plain", key, iv_step)
    return (_XtsCipher if chaining == "xts" else _CbcCipher)(key, ivs, sector_size)


def check_cipher(algorithm: str, mode: str, key_size: int, *, name: str) -> None:
    """Refuse what :func:`sector_cipher` would, before there is a key.

    Raises:
        UnsupportedFeatureError: as said there.
    """
    chaining, _, generator = mode.partition("-")
    if algorithm != "aes":
        raise UnsupportedFeatureError(f"expected the cipher aes, found {algorithm!r}", name=name)
    if chaining not in ("xts", "cbc", "ecb"):
        raise UnsupportedFeatureError(
            f"expected the cipher mode xts, cbc or ecb, found {mode!r}", name=name
        )
    sizes = (32, 64) if chaining == "xts" else _AES_KEY_SIZES
    if key_size not in sizes:
        listed = ", ".join(str(size) for size in sizes)
        raise UnsupportedFeatureError(
            f"expected a key of {listed} bytes for {algorithm}-{mode}, found {key_size}", name=name
        )
    if chaining == "ecb" or generator in ("", "plain", "plain64", "plain64be"):
        return
    kind, _, hash_name = generator.partition(":")
    if kind != "essiv":
        raise UnsupportedFeatureError(
            f"expected an IV of plain, plain64, plain64be or essiv, found {generator!r}", name=name
        )
    if hash_name not in _ESSIV_HASHES:
        raise UnsupportedFeatureError(
            f"expected essiv with the hash {' or '.join(_ESSIV_HASHES)}, found {generator!r}",
            name=name,
        )


class _EcbCipher:
    """Each block by itself; the sector's number is not used."""

    def __init__(self, key: bytes, sector_size: int) -> None:
        self._cipher = Cipher(AES(key), modes.ECB())  # noqa: S305 - what the image is in
        self.sector_size = sector_size

    def encrypt(self, view: memoryview, sector: int) -> None:
        del sector
        view[:] = self._cipher.encryptor().update(view)

    def decrypt(self, view: memoryview, sector: int) -> None:
        del sector
        view[:] = self._cipher.decryptor().update(view)


class _XtsCipher:
    """XTS with the IV as the tweak. Source: IEEE 1619-2018, section 5."""

    def __init__(self, key: bytes, ivs: Callable[[int, int], bytes], sector_size: int) -> None:
        self._aes = AES(key)
        self._ivs = ivs
        self.sector_size = sector_size

    def encrypt(self, view: memoryview, sector: int) -> None:
        size, aes = self.sector_size, self._aes
        for start, iv in _sectors(view, self._ivs, sector, size):
            piece = view[start : start + size]
            Cipher(aes, modes.XTS(iv)).encryptor().update_into(piece, piece)

    def decrypt(self, view: memoryview, sector: int) -> None:
        size, aes = self.sector_size, self._aes
        for start, iv in _sectors(view, self._ivs, sector, size):
            piece = view[start : start + size]
            Cipher(aes, modes.XTS(iv)).decryptor().update_into(piece, piece)


class _CbcCipher:
    """Cipher block chaining within each sector."""

    def __init__(self, key: bytes, ivs: Callable[[int, int], bytes], sector_size: int) -> None:
        self._aes = AES(key)
        self._ivs = ivs
        self.sector_size = sector_size

    def encrypt(self, view: memoryview, sector: int) -> None:
        size, aes = self.sector_size, self._aes
        for start, iv in _sectors(view, self._ivs, sector, size):
            piece = view[start : start + size]
            piece[:] = Cipher(aes, modes.CBC(iv)).encryptor().update(piece)

    def decrypt(self, view: memoryview, sector: int) -> None:
        """Decrypt the run as if it were one sector, then correct each sector's first block.

        CBC adds to a block the stored block before it. Only in a sector's first block is
        that the wrong one, and adding it once more takes it away.
        """
        stride = self.sector_size // 8
        count = len(view) // self.sector_size
        words = view.cast("Q")
        wrong = bytearray(_BLOCK_SIZE * (count + 1))  # its first block: the IV of the run, 0
        last_blocks = memoryview(wrong)[_BLOCK_SIZE:].cast("Q")
        last_blocks[0::2] = words[stride - 2 :: stride]
        last_blocks[1::2] = words[stride - 1 :: stride]
        view[:] = Cipher(self._aes, modes.CBC(bytes(_BLOCK_SIZE))).decryptor().update(view)
        first = bytearray(_BLOCK_SIZE * count)
        first_blocks = memoryview(first).cast("Q")
        first_blocks[0::2] = words[0::stride]
        first_blocks[1::2] = words[1::stride]
        first[:] = _xor(_xor(first, wrong[: len(first)]), self._ivs(sector, count))
        words[0::stride] = first_blocks[0::2]
        words[1::stride] = first_blocks[1::2]


def _sectors(
    view: memoryview, ivs: Callable[[int, int], bytes], sector: int, size: int
) -> zip[tuple[int, bytes]]:
    """Where each sector starts in ``view``, and its IV."""
    count = len(view) // size
    packed = ivs(sector, count)
    return zip(
        range(0, len(view), size),
        (packed[at : at + _BLOCK_SIZE] for at in range(0, len(packed), _BLOCK_SIZE)),
        strict=True,
    )


def _iv_generator(generator: str, key: bytes, step: int) -> Callable[[int, int], bytes]:
    """A function that gives the IVs of ``count`` sectors from ``first`` on, joined.

    Source: the kernel's documentation of dm-crypt, and ``crypt_iv_*_gen`` in its
    ``drivers/md/dm-crypt.c``; QEMU ``crypto/ivgen-*.c`` agrees with it.
    """
    pack = {"plain": _plain_ivs, "plain64": _plain64_ivs, "plain64be": _plain64be_ivs}.get(
        generator
    )
    if pack is None:
        salt = hashlib.new(generator.removeprefix("essiv:"), key).digest()
        cipher = Cipher(AES(salt), modes.ECB())  # noqa: S305 - one block for each sector

        def pack(numbers: range) -> bytes:
            return cipher.encryptor().update(_plain64_ivs(numbers))

    def ivs(first: int, count: int) -> bytes:
        return pack(range(first * step, (first + count) * step, step))

    return ivs


def _plain_ivs(numbers: range) -> bytes:
    """32 bits of the number: disks above 2 TiB repeat their IVs, and have to be read so."""
    return _pack_ivs(array("Q", (number & 0xFFFFFFFF for number in numbers)), 0, "little")


def _plain64_ivs(numbers: range) -> bytes:
    return _pack_ivs(array("Q", numbers), 0, "little")


def _plain64be_ivs(numbers: range) -> bytes:
    return _pack_ivs(array("Q", numbers), 1, "big")


def _pack_ivs(numbers: array[int], word: int, byteorder: str) -> bytes:
    """16 bytes for each number: it is the first or second of two words, the other is 0."""
    if byteorder != sys.byteorder:
        numbers.byteswap()
    words = array("Q", bytes(_BLOCK_SIZE * len(numbers)))
    words[word::2] = numbers
    return words.tobytes()


def _xor(left: bytes | bytearray, right: bytes | bytearray) -> bytes:
    """Of two equally long strings. Long integers do it at about 1 GiB/s, all in C."""
    assert len(left) == len(right)
    value = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return value.to_bytes(len(left), "little")
