"""Names, ciphers and sealing of a repository, against published vectors and openssl."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from imprint.core.errors import PassphraseError, RepositoryError
from imprint.repository.protection import CIPHERS, NO_NONCE, Aead, Encrypted, Plain, decrypt
from imprint.testing.rfc_crypto import hkdf_sha256, x25519

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.repository.protection import Protection

# RFC 7748, section 6.1: a key pair, another public key, and what is shared.
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

# The vectors of BLAKE3 itself, of bytes that count 0, 1, 2 … 250, 0 …: plain and keyed.
BLAKE3_KEY = bytes.fromhex("77686174732074686520456c7669736820776f726420666f7220667269656e64")
BLAKE3 = {
    0: (
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
    ),
    1: (
        "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b",
    ),
    1024: (
        "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4",
    ),
}


def protection(cipher: str = CIPHERS[0], *, can_read: bool = True) -> Encrypted:
    return Encrypted(
        cipher,
        id_key=BLAKE3_KEY,
        index_key=bytes(range(0x80, 0xA0)),
        public=BOB_PUBLIC,
        private=BOB if can_read else None,
    )


def gcm_decrypt(key: bytes, nonce: bytes, data: bytes) -> bytes:
    """AES-GCM by the block cipher's interface, which is not the one under test."""
    decryptor = Cipher(AES(key), GCM(nonce, data[-16:])).decryptor()
    return decryptor.update(data[:-16]) + decryptor.finalize()


def openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


@pytest.mark.parametrize("length", BLAKE3)
def test_names_are_those_that_blake3_has_published(length: int) -> None:
    """Broken: a second implementation would find no chunk."""
    data = bytes(at % 251 for at in range(length))
    plain, keyed = BLAKE3[length]
    assert Plain().name_of(data).hex() == plain
    assert Plain().name_of(memoryview(data)).hex() == plain
    assert protection().name_of(memoryview(data)).hex() == keyed


def test_the_second_implementation_agrees_with_the_rfcs() -> None:
    """Broken: what these tests compare with would be worth nothing. RFC 7748 6.1, RFC 5869 A.1."""
    assert x25519(BOB) == BOB_PUBLIC
    assert x25519(BOB, ALICE_PUBLIC) == SHARED
    derived = hkdf_sha256(b"\x0b" * 22, bytes(range(13)), bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42)
    assert derived.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_what_was_sealed_by_the_rfcs_is_unsealed() -> None:
    """Broken: packs of a second implementation could not be read."""
    key = hkdf_sha256(SHARED, ALICE_PUBLIC + BOB_PUBLIC, b"imprint seal 1")
    encryptor = Cipher(AES(key), GCM(NO_NONCE)).encryptor()
    sealed = encryptor.update(b"chunk") + encryptor.finalize() + encryptor.tag
    assert protection().unseal(ALICE_PUBLIC).decrypt(NO_NONCE, sealed, None) == b"chunk"


def test_what_is_sealed_can_be_unsealed_by_the_rfcs() -> None:
    """Broken: a second implementation could not read packs."""
    sender, aead = protection(can_read=False).seal()
    key = hkdf_sha256(x25519(BOB, sender), sender + BOB_PUBLIC, b"imprint seal 1")
    assert gcm_decrypt(key, NO_NONCE, aead.encrypt(NO_NONCE, b"chunk", None)) == b"chunk"


@pytest.mark.oracle("openssl")
def test_openssl_derives_the_same_key(tmp_path: Path) -> None:
    """Broken: sealing would be something else than X25519 and HKDF."""
    sender, aead = protection().seal()
    own, peer = tmp_path / "own.der", tmp_path / "peer.der"
    own.write_bytes(bytes.fromhex("302e020100300506032b656e04220420") + BOB)
    peer.write_bytes(bytes.fromhex("302a300506032b656e032100") + sender)
    shared = openssl(
        *("pkeyutl", "-derive", "-keyform", "DER", "-inkey", str(own)),
        *("-peerform", "DER", "-peerkey", str(peer)),
    )
    options = {
        "digest": "SHA256",
        "hexkey": shared.hex(),
        "hexsalt": (sender + BOB_PUBLIC).hex(),
        "info": "imprint seal 1",
    }
    flags = [flag for key, value in options.items() for flag in ("-kdfopt", f"{key}:{value}")]
    key = openssl("kdf", "-keylen", "32", "-binary", *flags, "HKDF")
    assert gcm_decrypt(key, NO_NONCE, aead.encrypt(NO_NONCE, b"chunk", None)) == b"chunk"


def test_ciphers_are_those_of_their_specifications() -> None:
    """Broken: a cipher's name would mean another. GCM test case 14; RFC 8439, 2.8.2."""
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for "
        b"the future, sunscreen would be it."
    )
    chacha = protection("chacha20-poly1305").index_aead
    nonce, associated = (
        bytes.fromhex("070000004041424344454647"),
        bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
    )
    sealed = chacha.encrypt(nonce, text, associated)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
    zeros = Encrypted(
        "aes-256-gcm", id_key=bytes(32), index_key=bytes(32), public=BOB_PUBLIC
    ).index_aead
    expected = "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    assert zeros.encrypt(NO_NONCE, bytes(16), None).hex() == expected


@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_object_has_a_sender_of_its_own(cipher: str) -> None:
    """Broken: nonces count from 0, and would repeat under one key, which gives it away."""
    own = protection(cipher)
    sealed = [own.seal() for _ in range(8)]
    assert len({sender for sender, _ in sealed}) == 8
    assert len({aead.encrypt(NO_NONCE, bytes(32), None) for _, aead in sealed}) == 8
    for sender, aead in sealed:
        hidden = aead.encrypt(NO_NONCE, b"chunk", b"head")
        assert own.unseal(sender).decrypt(NO_NONCE, hidden, b"head") == b"chunk"


def test_who_may_only_add_cannot_read_what_others_or_itself_has_sealed() -> None:
    """Broken: a host that was broken into would show all disks of the others."""
    host = protection(can_read=False)
    sender, _ = host.seal()
    assert not host.can_read
    with pytest.raises(PassphraseError, match="may only add"):
        host.unseal(sender)


@pytest.mark.parametrize("sender", [b"", bytes(31), bytes(33), bytes(32), b"\x01" + bytes(31)])
def test_a_sender_that_is_no_key_is_refused(sender: bytes) -> None:
    """Broken: points of small order share zeros with everybody; other lengths are no keys."""
    with pytest.raises(RepositoryError, match="sender"):
        protection().unseal(sender)


def test_a_weak_public_key_is_sealed_to_by_nobody() -> None:
    """Broken: a `format` with such a key would make everything readable."""
    weak = Encrypted(CIPHERS[0], id_key=bytes(32), index_key=bytes(32), public=bytes(32))
    with pytest.raises(RepositoryError, match="weak"):
        weak.seal()


def test_a_public_key_of_another_repository_is_refused() -> None:
    """Broken: new packs would be sealed to somebody else."""
    with pytest.raises(RepositoryError, match="another's"):
        Encrypted(
            CIPHERS[0], id_key=bytes(32), index_key=bytes(32), public=ALICE_PUBLIC, private=BOB
        )


def test_an_unknown_cipher_is_refused() -> None:
    """Broken: a typing error would be a traceback."""
    with pytest.raises(RepositoryError, match="aes-256-gcm, chacha20-poly1305, found 'rot13'"):
        protection("rot13")


def test_nothing_is_sealed_in_a_plain_repository() -> None:
    """Broken: a sealed object there would be a traceback instead of an error."""
    plain: Protection = Plain()
    assert (plain.seal(), plain.index_aead) == (None, None)
    assert plain.can_read
    assert not plain.is_encrypted
    with pytest.raises(RepositoryError, match="not encrypted"):
        plain.unseal(ALICE_PUBLIC)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_changed_bytes_are_told_by_an_error_of_ours(cipher: str) -> None:
    """Broken: an exception of `cryptography` would end the program."""
    aead: Aead = protection(cipher).index_aead
    hidden = aead.encrypt(NO_NONCE, b"chunk", b"head")
    assert decrypt(aead, NO_NONCE, hidden, b"head", what="pack") == b"chunk"
    changed = [hidden[:-1], b"", hidden[:4], bytes([hidden[0] ^ 1]) + hidden[1:]]
    for data in changed:
        with pytest.raises(RepositoryError, match=r"pack: .*changed"):
            decrypt(aead, NO_NONCE, data, b"head", what="pack")
    with pytest.raises(RepositoryError, match="changed"):
        decrypt(aead, NO_NONCE, hidden, b"hand", what="pack")


def test_many_threads_use_one_protection() -> None:
    """Broken: workers of a capture would spoil each other's packs."""
    own = protection()

    def seal_and_open(number: int) -> bytes:
        sender, aead = own.seal()
        hidden = aead.encrypt(NO_NONCE, own.name_of(b"%d" % number), None)
        return own.unseal(sender).decrypt(NO_NONCE, hidden, None)

    with ThreadPoolExecutor(4) as pool:
        names = list(pool.map(seal_and_open, range(64)))
    assert names == [own.name_of(b"%d" % number) for number in range(64)]
