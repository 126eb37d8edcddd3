"""Encrypted disks: LUKS in a QCOW2 image, and QEMU's older AES.

Only guest data is encrypted. Tables are not, and neither are compressed clusters, which no
writer makes in an encrypted image and QEMU reads as they are.

* LUKS (``crypt_method`` 2): an extension says where a LUKS1 header lies, wholly inside the
  image. Sectors are numbered by *host* offset, so that one view decrypts the whole file.
* AES (``crypt_method`` 1): AES-128-CBC with the passphrase itself as the key. Sectors are
  numbered by *guest* offset. Nothing in the image tells a wrong passphrase from the right
  one, and it is as weak as it sounds: it is read, and never written.

An image whose passphrase nobody has can be opened all the same, since its tables can be
read; it is *locked*, and every attempt to read encrypted data is an error.

Source: QEMU ``docs/interop/qcow2.txt``, "Full disk encryption header pointer" and
``crypt_method``; QEMU ``crypto/block-qcow.c`` for AES.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    CorruptImageError,
    PassphraseError,
    TruncatedImageError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.formats import Option, OptionKind
from imprint.formats.qcow2 import layout
from imprint.formats.qcow2.layout import EncryptionExtension

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.codecs.ciphers import SectorCipher
    from imprint.codecs.luks import LuksHeader, Parameters, ReadAt
    from imprint.core.contracts import Opener, Storage
    from imprint.core.formats import OptionValue
    from imprint.core.info import Value
    from imprint.formats.qcow2.header import HeaderArea

_AES_KEY_BYTES: Final = 16
_SECTOR: Final = 512

# Nothing has a default here: given without ``encrypt.format``, each is an error.
OPTIONS: Final = (
    Option("encrypt.format", "encrypt the disk; asks for a passphrase", choices=("luks",)),
    Option(
        "encrypt.cipher-alg",
        "cipher and length of its key; aes-256 unless said",
        choices=("aes-128", "aes-192", "aes-256"),
    ),
    Option("encrypt.cipher-mode", "xts unless said", choices=("xts", "cbc")),
    Option(
        "encrypt.ivgen-alg",
        "how a sector's number becomes an IV; plain64 unless said",
        choices=("plain64", "plain", "essiv"),
    ),
    Option("encrypt.ivgen-hash-alg", "hash of essiv", choices=("sha256",)),
    Option(
        "encrypt.hash-alg",
        "hash of the key derivation; sha256 unless said",
        choices=("sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160"),
    ),
    Option(
        "encrypt.iter-time",
        "milliseconds that unlocking shall take; 2000 unless said",
        kind=OptionKind.NUMBER,
    ),
)
"""As qemu-img names them, without ``encrypt.key-secret``: passphrases come from the opener."""


def open_data(
    area: HeaderArea, storage: Storage, data: Storage, opener: Opener, *, writable: bool
) -> Storage:
    """What guest clusters are read from and written to: ``data``, or what decrypts it.

    Unlocking takes as long as the image demands, usually some seconds.

    Args:
        area: cluster 0 of the image.
        storage: the image.
        data: where the guest clusters are: the image, or its external data file.
        opener: knows the passphrase.
        writable: the image shall be changed, which a locked one cannot be.

    Raises:
        PassphraseError: if the passphrase is wrong, or missing where ``writable``.
        CorruptImageError: if the LUKS header makes no sense.
        UnsupportedFeatureError: for a cipher that is not here, and for writing AES.
    """
    method = area.header.crypt_method
    if method == layout.CRYPT_NONE:
        return data
    if writable and method == layout.CRYPT_AES:
        raise UnsupportedFeatureError(
            "is encrypted with QEMU's old AES, which is only read",
            name=storage.name,
            advice="convert it with -o encrypt.format=luks",
        )
    from imprint.filters.cipher import CipherStorage

    return CipherStorage(data, _open_cipher(area, storage, opener, writable=writable))


def at_guest_offset(data: Storage, offset: int, host: int) -> Storage:
    """``data`` of an AES image for one run: numbered so that ``host`` is guest ``offset``."""
    from imprint.filters.cipher import CipherStorage

    assert isinstance(data, CipherStorage)
    return data.numbered_from((offset - host) // _SECTOR)


def describe(area: HeaderArea, storage: Storage) -> dict[str, Value]:
    """How the disk is encrypted, in the words of the options; nothing if it is not.

    Raises:
        CorruptImageError: if the LUKS header makes no sense.
        UnsupportedFeatureError: if it is no LUKS1.
    """
    method = area.header.crypt_method
    if method == layout.CRYPT_NONE:
        return {}
    if method == layout.CRYPT_AES:
        return {"encrypt.format": "aes"}
    header, _ = _luks_header(area, storage)
    chaining, _, generator = header.cipher_mode.partition("-")
    kind, _, hash_name = generator.partition(":")
    bits = header.key_size * 8 // (2 if chaining == "xts" else 1)
    found: dict[str, Value] = {
        "encrypt.format": "luks",
        "encrypt.cipher-alg": f"{header.cipher_name}-{bits}",
        "encrypt.cipher-mode": chaining,
        "encrypt.ivgen-alg": kind,
        "encrypt.hash-alg": header.hash_name,
    }
    if hash_name:
        found["encrypt.ivgen-hash-alg"] = hash_name
    return found


def parameters_of(options: Mapping[str, OptionValue]) -> Parameters | None:
    """What a new disk shall be encrypted with; ``None`` if it shall not be.

    Raises:
        UsageError: if the options contradict each other.
    """
    given = {key: value for key, value in options.items() if key.startswith("encrypt.")}
    if "encrypt.format" not in given:
        if given:
            raise UsageError(f"{min(given)} needs encrypt.format=luks")
        return None
    from imprint.codecs.luks import Parameters

    bits = int(str(given.get("encrypt.cipher-alg", "aes-256")).removeprefix("aes-"))
    chaining = given.get("encrypt.cipher-mode", "xts")
    generator = given.get("encrypt.ivgen-alg", "plain64")
    if chaining == "xts" and bits == 192:
        raise UsageError("encrypt.cipher-alg=aes-192 needs encrypt.cipher-mode=cbc")
    if generator == "essiv":
        generator = f"essiv:{given.get('encrypt.ivgen-hash-alg', 'sha256')}"
    elif "encrypt.ivgen-hash-alg" in given:
        raise UsageError("encrypt.ivgen-hash-alg needs encrypt.ivgen-alg=essiv")
    if int(given.get("encrypt.iter-time", 0)) < 0:
        raise UsageError("encrypt.iter-time: expected 0 or more")
    return Parameters(
        cipher_mode=f"{chaining}-{generator}",
        key_size=bits // 8 * (2 if chaining == "xts" else 1),
        hash_name=str(given.get("encrypt.hash-alg", "sha256")),
    )


def header_bytes(parameters: Parameters | None) -> int:
    """Room that the LUKS header takes; 0 if there is none."""
    if parameters is None:
        return 0
    from imprint.codecs.luks.create import header_size

    return header_size(parameters)


def new_data(
    parameters: Parameters, options: Mapping[str, OptionValue], storage: Storage, opener: Opener
) -> tuple[bytes, Storage]:
    """A LUKS header for the new image in ``storage``, and what encrypts its guest clusters.

    The header is to be written at the start of a cluster, and its place to be told by an
    :class:`~imprint.formats.qcow2.layout.EncryptionExtension`.

    Raises:
        PassphraseError: if there is no passphrase.
        UnsupportedFeatureError: for a hash that this system's OpenSSL does not have.
    """
    from imprint.codecs.luks import create
    from imprint.codecs.luks.create import ITER_TIME_MS_DEFAULT
    from imprint.filters.cipher import CipherStorage

    head, cipher = create(
        opener.passphrase(storage.name),
        name=storage.name,
        parameters=parameters,
        iter_time_ms=int(options.get("encrypt.iter-time", ITER_TIME_MS_DEFAULT)),
    )
    return head, CipherStorage(storage, cipher)


def with_place(area: HeaderArea, offset: int, length: int) -> HeaderArea:
    """A copy that says where the LUKS header is."""
    place = EncryptionExtension(offset=offset, length=length).pack()
    return area.with_extension(layout.EXTENSION_ENCRYPTION, place)


def _open_cipher(
    area: HeaderArea, storage: Storage, opener: Opener, *, writable: bool
) -> SectorCipher:
    is_luks = area.header.crypt_method == layout.CRYPT_LUKS
    found = _luks_header(area, storage) if is_luks else None
    try:
        passphrase = opener.passphrase(storage.name)
    except PassphraseError as missing:
        if writable:
            raise
        from imprint.filters.cipher import LockedCipher

        return LockedCipher(missing, _SECTOR)
    if found is not None:
        from imprint.codecs.luks import unlock

        return unlock(*found, passphrase)
    from imprint.codecs.ciphers import sector_cipher

    key = passphrase[:_AES_KEY_BYTES].ljust(_AES_KEY_BYTES, b"\0")
    return sector_cipher(key, algorithm="aes", mode="cbc-plain64", name=storage.name)


def _luks_header(area: HeaderArea, storage: Storage) -> tuple[LuksHeader, ReadAt]:
    """The LUKS header of the image in ``storage``, and how its key material is read."""
    from imprint.codecs.luks import parse_header

    place = _header_place(area, storage)

    def read(offset: int, length: int) -> bytes:
        assert offset + length <= place.length
        buffer = bytearray(length)
        storage.readinto(memoryview(buffer), place.offset + offset)
        return bytes(buffer)

    return parse_header(read, size=place.length, name=storage.name), read


def _header_place(area: HeaderArea, storage: Storage) -> EncryptionExtension:
    """Where the LUKS header lies: inside the file, from the start of a cluster on."""
    data = area.extension(layout.EXTENSION_ENCRYPTION)
    if data is None:
        raise CorruptImageError(
            "expected an encryption header extension beside crypt_method 2, found none",
            name=storage.name,
        )
    place = EncryptionExtension.unpack(data, where=storage.name)
    place.require(
        "offset",
        place.offset > 0 and place.offset % area.cluster_size == 0,
        "a multiple of the cluster size",
        where=storage.name,
    )
    place.require(
        "length",
        place.offset + place.length <= storage.size,
        f"the header to end inside the file's 0x{storage.size:x} bytes",
        where=storage.name,
        error=TruncatedImageError,
    )
    return place
