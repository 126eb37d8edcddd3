"""Keys of a repository: Argon2id by its vectors, a second reader, and who gets what."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from imprint.codecs import argon2
from imprint.core.errors import (
    PassphraseError,
    RepositoryError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.repository.envelope import What, unwrap, wrap
from imprint.repository.key_files import read_secret_file
from imprint.repository.key_objects import COST_DEFAULT, Cost, KeyObject, Origin, Rights
from imprint.repository.keys import Encryption, Secrets, new_secrets, unlock, wrap_key
from imprint.repository.protection import CIPHERS
from imprint.testing.repository_keys import (
    CHEAP,
    ENCRYPTION,
    REPOSITORY_ID,
    SECRETS,
    key_of,
    unlocked,
)
from imprint.testing.rfc_crypto import x25519

if TYPE_CHECKING:
    from pathlib import Path

ID = REPOSITORY_ID


def add_only() -> Secrets:
    return unlocked([key_of(b"host", Rights.ADD)], b"host")


@pytest.mark.parametrize(
    ("passes", "memory_kib", "lanes", "expected"),
    [
        (2, 256, 1, "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"),
        (2, 256, 2, "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"),
        (2, 65536, 1, "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"),
    ],
)
def test_argon2id_is_that_of_the_reference_implementation(
    passes: int, memory_kib: int, lanes: int, expected: str
) -> None:
    """Broken: no other program could derive the key. The vectors of its own tests."""
    found = argon2.derive(
        "argon2id",
        b"password",
        salt=b"somesalt",
        size=32,
        passes=passes,
        memory_kib=memory_kib,
        lanes=lanes,
        name="key",
    )
    assert found.hex() == expected


def test_argon2id_of_the_library_is_that_of_the_rfc() -> None:
    """Broken: the library's OpenSSL would compute something else. RFC 9106, section 5.3."""
    kdf = Argon2id(
        salt=b"\x02" * 16,
        length=32,
        iterations=3,
        lanes=4,
        memory_cost=32,
        ad=b"\x04" * 12,
        secret=b"\x03" * 8,
    )
    expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    assert kdf.derive(b"\x01" * 32).hex() == expected


def second_reader(content: bytes, secret: bytes, public: bytes, cipher: str) -> dict[str, str]:
    """The secrets in a key object, by the format page."""
    key = json.loads(content)
    kdf = key["kdf"]
    derived = Argon2id(
        salt=bytes.fromhex(kdf["salt"]),
        length=32,
        iterations=kdf["passes"],
        lanes=kdf["lanes"],
        memory_cost=kdf["memory_kib"],
    ).derive(secret)
    wrapped = bytes.fromhex(key["wrapped"])
    opened = Cipher(AES(derived), GCM(bytes.fromhex(key["nonce"]), wrapped[-16:])).decryptor()
    opened.authenticate_additional_data(
        f"imprint key 1 {key['rights']} {ID} {cipher} {public.hex()}".encode()
    )
    found: dict[str, str] = json.loads(opened.update(wrapped[:-16]) + opened.finalize())
    return found


@pytest.mark.parametrize("rights", list(Rights))
@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_second_reader_finds_the_secrets(cipher: str, rights: Rights) -> None:
    """Broken: the format page would not be what is written."""
    secrets = new_secrets(cipher)
    key = wrap_key(
        secrets,
        secrets.encryption(ID),
        b"secret",
        rights=rights,
        origin=Origin.FILE,
        label="Büro",
        cost=CHEAP,
    )
    found = second_reader(key.encode(), b"secret", secrets.public, cipher)
    held = {"id", "index"} | ({"private"} if rights is Rights.FULL else set())
    assert set(found) == held
    if rights is Rights.FULL:
        assert x25519(bytes.fromhex(found["private"])) == secrets.public
    written = json.loads(key.encode())
    assert (written["label"], written["rights"], written["source"]) == ("Büro", rights, "file")
    assert set(written) == {
        *("created", "kdf", "label", "nonce", "rights", "source", "version", "wrapped")
    }


def test_a_key_by_hand_is_read() -> None:
    """Broken: what a second implementation writes could not be read."""
    private, salt, nonce = b"\x07" * 32, b"\x08" * 32, b"\x09" * 12
    encryption = Encryption(ID, "aes-256-gcm", x25519(private))
    derived = Argon2id(salt=salt, length=32, iterations=1, lanes=2, memory_cost=16).derive(b"pw")
    held = {"id": "05" * 32, "index": "06" * 32, "private": private.hex(), "new": 1}
    encryptor = Cipher(AES(derived), GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(
        f"imprint key 1 full {ID} aes-256-gcm {x25519(private).hex()}".encode()
    )
    wrapped = encryptor.update(json.dumps(held).encode()) + encryptor.finalize() + encryptor.tag
    kdf = {"name": "argon2id", "memory_kib": 16, "passes": 1, "lanes": 2, "salt": salt.hex()}
    key = {
        "created": "2026-11-22T20:15:00Z",
        "kdf": kdf,
        "label": "",
        "nonce": nonce.hex(),
        "rights": "full",
        "source": "passphrase",
        "version": 1,
        "wrapped": wrapped.hex(),
        "unknown": [],
    }
    parsed = KeyObject.parse(json.dumps(key, indent=2).encode(), "keys/" + "0" * 16)
    found = unlock([parsed], b"pw", encryption, where="repository")
    assert (found.id_key, found.index_key, found.private) == (b"\x05" * 32, b"\x06" * 32, private)
    assert found.protection().can_read


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_repository_is_unlocked_by_any_of_its_keys(cipher: str) -> None:
    """Broken: a second passphrase would be worth nothing."""
    secrets = new_secrets(cipher)
    encryption = secrets.encryption(ID)
    keys = [
        wrap_key(secrets, encryption, secret, rights=Rights.FULL, origin=Origin.FILE, cost=CHEAP)
        for secret in (b"one", b"\0\xff" * 1000, b"three")
    ]
    hidden = wrap(What.SNAPSHOT, b"{}", secrets.protection())
    for key, secret in zip(keys, (b"one", b"\0\xff" * 1000, b"three"), strict=True):
        found = unlock(keys, secret, encryption, where="repository")
        assert found == replace(secrets, unlocked_by=key.name)
        assert unwrap(hidden, What.SNAPSHOT, found.protection()) == b"{}"


def test_the_default_cost_is_that_of_the_rfc() -> None:
    """Broken: passphrases would be cheap to guess. RFC 9106, section 4, second recommendation."""
    assert (COST_DEFAULT.memory_kib, COST_DEFAULT.passes, COST_DEFAULT.lanes) == (64 * 1024, 3, 4)


def test_a_wrong_passphrase_is_said_to_be_wrong() -> None:
    """Broken: the user would look for damage."""
    keys = [key_of(b"right"), key_of(b"other", Rights.ADD)]
    for secret in (b"wrong", b"", b"right\n", b"r" * 100_000):
        with pytest.raises(PassphraseError, match="found another"):
            unlocked(keys, secret)


def test_a_repository_without_keys_is_damaged() -> None:
    """Broken: the user would be asked for passphrases that cannot be right."""
    with pytest.raises(RepositoryError, match="found none"):
        unlocked([], b"right")


def test_an_add_key_gives_what_adding_needs_and_no_more() -> None:
    """Broken: hosts that only add could read all disks."""
    found = add_only()
    assert found.private is None
    assert found.rights is Rights.ADD
    protection = found.protection()
    assert not protection.can_read
    assert protection.name_of(b"chunk") == SECRETS.protection().name_of(b"chunk")
    hidden = wrap(What.SNAPSHOT, b"{}", protection)
    assert unwrap(hidden, What.SNAPSHOT, SECRETS.protection()) == b"{}"


def test_nobody_gets_more_rights_by_changing_the_word() -> None:
    """Broken: a store could make hosts believe they had the private key, or take it from others."""
    for rights, other in ((Rights.ADD, Rights.FULL), (Rights.FULL, Rights.ADD)):
        with pytest.raises(PassphraseError):
            unlocked([replace(key_of(b"pw", rights), rights=other)], b"pw")


@pytest.mark.parametrize(
    "changed",
    [
        {"public": x25519(b"evil" * 8)},
        {"cipher": CIPHERS[1]},
        {"repository": ID[::-1]},
    ],
    ids=["public", "cipher", "id"],
)
def test_a_format_that_was_exchanged_does_not_unlock(changed: dict[str, Any]) -> None:
    """Broken: a store could put its own public key there, and be sent everything."""
    key = key_of(b"host", Rights.ADD)
    with pytest.raises(PassphraseError):
        unlock([key], b"host", replace(ENCRYPTION, **changed), where="repository")


def test_no_secret_is_printed() -> None:
    """Broken: secrets would be in logs."""
    private = SECRETS.private
    assert private is not None
    for secret in (SECRETS.id_key, SECRETS.index_key, private):
        assert secret.hex() not in repr(SECRETS)
        assert repr(secret) not in repr(SECRETS)


@pytest.mark.parametrize("field", ["salt", "nonce", "wrapped"])
def test_every_flipped_bit_locks_a_key(field: str) -> None:
    """Broken: damaged keys would give damaged secrets."""
    key = key_of(b"pw")
    data: bytes = getattr(key, field)
    for bit in range(0, len(data) * 8, 7):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PassphraseError):
            unlocked([replace(key, **{field: bytes(changed)})], b"pw")  # type: ignore[arg-type]


def test_trying_all_keys_takes_bounded_time() -> None:
    """Broken: a store with a hundred keys of 40 s each would take an hour."""
    cost = Cost(memory_kib=1 << 20, passes=64, lanes=1)
    absurd = [replace(key_of(b"%d" % number), cost=cost) for number in range(3)]
    assert unlocked([*absurd, key_of(b"cheap")], b"cheap").private == SECRETS.private
    slow = Cost(memory_kib=1 << 20, passes=65, lanes=1)  # more than one key may take
    with pytest.raises(RepositoryError, match="too long"):
        unlocked([replace(absurd[0], cost=slow)], b"wrong")


def test_a_secret_that_is_empty_or_too_large_makes_no_key(tmp_path: Path) -> None:
    """Broken: everybody could open it; or a device as a key file would never end."""
    for secret in (b"", bytes((1 << 20) + 1)):
        with pytest.raises(PassphraseError, match="1 to 1048576 bytes"):
            key_of(secret)
        path = tmp_path / "file"
        path.write_bytes(secret)
        with pytest.raises(PassphraseError, match="1 to 1048576 bytes"):
            read_secret_file(path)
    path.write_bytes(b"secret\n")
    assert read_secret_file(path) == b"secret\n"
    with pytest.raises(PassphraseError, match="No such file"):
        read_secret_file(tmp_path / "none")


@pytest.mark.parametrize("label", ["a\nb", "\x1b[31m", "x" * 201])
def test_a_label_that_would_be_refused_is_not_written(label: str) -> None:
    """Broken: a key could be added and never be used."""
    with pytest.raises(UsageError, match="label"):
        key_of(b"pw", label=label)


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"cipher": "rot13"}, {"cipher": CIPHERS[0]}, {"cipher": [], "public": ""}]
    + [{"cipher": CIPHERS[0], "public": public} for public in (1, "", "00" * 31, "XX" * 32)],
)
def test_a_format_that_makes_no_sense_is_refused(value: object) -> None:
    """Broken: a damaged `format` would end in a traceback."""
    with pytest.raises(RepositoryError, match=r"^format"):
        Encryption.parse(value, repository=ID, where="format")


@pytest.mark.parametrize("repository", [None, 5, "", ID[:-1], ID.upper(), ID + "\n"])
def test_an_id_that_makes_no_sense_is_refused(repository: object) -> None:
    """Broken: keys could be bound to nothing."""
    with pytest.raises(RepositoryError, match="expected an id"):
        Encryption.parse(ENCRYPTION.encode(), repository=repository, where="format")
    assert Encryption.parse(ENCRYPTION.encode(), repository=ID, where="format") == ENCRYPTION


def test_argon2_that_demands_too_much_is_refused() -> None:
    """Broken: callers that check nothing would run out of memory."""
    sane = {"salt": bytes(16), "size": 32, "passes": 1, "memory_kib": 64, "lanes": 1}
    for more in ({"memory_kib": (1 << 20) + 1}, {"memory_kib": 1 << 20, "passes": 65}):
        with pytest.raises(UnsupportedFeatureError, match="at most"):
            argon2.derive("argon2id", b"pw", name="key", **{**sane, **more})  # type: ignore[arg-type]
    for less in ({"memory_kib": 7}, {"lanes": 17}, {"lanes": 0}, {"salt": bytes(7)}):
        with pytest.raises(UnsupportedFeatureError, match="expected a longer salt"):
            argon2.derive("argon2id", b"pw", name="key", **{**sane, **less})  # type: ignore[arg-type]
