"""Signatures of snapshots, against RFC 8032, openssl and ssh-keygen; and what is none."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.errors import PassphraseError, RefusedError, RepositoryError, UsageError
from imprint.repository.signing import (
    SIGNATURES_MAX,
    SigningKey,
    TrustedKey,
    generate_key,
    parse_key,
    parse_trusted,
    read_key,
    read_trusted,
    sign,
    verify,
    write_public,
)

if TYPE_CHECKING:
    from pathlib import Path

SNAPSHOT = bytes(range(32))
OTHER = bytes(range(1, 33))
MESSAGE = b"imprint snapshot 1 " + SNAPSHOT.hex().encode()

# RFC 8032, section 7.1, tests 1 and 2; RFC 8410, section 10.3 says what stands in front.
HEAD = "302e020100300506032b657004220420"
SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
SIGNATURE = (
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970"
    "1cf9b46bd25bf5f0595bbe24655141438e7a100b"
)
SECOND_SECRET = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"


def tool(*arguments: str | Path) -> bytes:
    run = subprocess.run([str(word) for word in arguments], check=False, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


def key_of(secret: str) -> SigningKey:
    der = bytes.fromhex(HEAD + secret)
    pem = subprocess.run(
        ["openssl", "pkey", "-inform", "DER"], input=der, check=True, capture_output=True
    ).stdout
    return parse_key(pem, "key")


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return generate_key(tmp_path / "own.pem")


def trusting(*keys: SigningKey) -> list[TrustedKey]:
    return [TrustedKey(key.public, f"key {number}") for number, key in enumerate(keys)]


@pytest.mark.oracle("openssl")
def test_keys_and_signatures_are_those_of_the_rfc() -> None:
    """Broken: signatures would not be Ed25519."""
    key = key_of(SECRET)
    assert key.public == PUBLIC
    assert key.sign(b"").hex() == SIGNATURE


@pytest.mark.oracle("openssl")
def test_openssl_accepts_our_keys_and_signatures(tmp_path: Path) -> None:
    """Broken: nobody else could verify what a repository holds."""
    own, public = tmp_path / "own.pem", tmp_path / "public.pem"
    key = generate_key(own)
    write_public(key, public)
    assert tool("openssl", "pkey", "-in", own, "-pubout") == public.read_bytes()
    value = json.loads(sign(SNAPSHOT, key))
    assert bytes.fromhex(value["key"]) == key.public
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(MESSAGE)
    signature.write_bytes(bytes.fromhex(value["signature"]))
    tool(
        *("openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public),
        *("-in", message, "-sigfile", signature),
    )


@pytest.mark.oracle("openssl")
def test_keys_and_signatures_of_openssl_are_accepted(tmp_path: Path) -> None:
    """Broken: keys that are kept elsewhere could not be used."""
    own, public, message = (tmp_path / name for name in ("own.pem", "public.pem", "message"))
    tool("openssl", "genpkey", "-algorithm", "ed25519", "-out", own)
    tool("openssl", "pkey", "-in", own, "-pubout", "-out", public)
    message.write_bytes(MESSAGE)
    signature = tool("openssl", "pkeyutl", "-sign", "-rawin", "-inkey", own, "-in", message)
    (trusted,) = read_trusted(public)
    assert trusted == (read_key(own).public, str(public))
    content = json.dumps({"key": trusted.public.hex(), "signature": signature.hex()}).encode()
    assert verify(content, SNAPSHOT, [trusted]).trusted == (trusted,)
    assert json.loads(sign(SNAPSHOT, read_key(own)))["signature"] == signature.hex()


@pytest.mark.oracle("ssh-keygen")
def test_keys_of_ssh_keygen_are_accepted(tmp_path: Path) -> None:
    """Broken: the keys that administrators have already could not be used."""
    own = tmp_path / "id"
    tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@host", "-f", own)
    (trusted,) = read_trusted(tmp_path / "id.pub")
    verdict = verify(sign(SNAPSHOT, read_key(own)), SNAPSHOT, [trusted])
    assert verdict.trusted == (trusted,)


@pytest.mark.oracle("ssh-keygen", "openssl")
def test_keys_that_are_encrypted_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    """Broken: they would end in a traceback, or in signatures that nobody can verify."""
    locked, rsa, ec, ed = (tmp_path / name for name in ("locked", "rsa", "ec", "ed"))
    tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked)
    with pytest.raises(PassphraseError, match="not encrypted"):
        read_key(locked)
    tool("openssl", "genpkey", "-algorithm", "ed25519", "-out", ed)
    tool("openssl", "pkey", "-in", ed, "-aes256", "-passout", "pass:x", "-out", locked)
    with pytest.raises(PassphraseError, match="not encrypted"):
        read_key(locked)
    tool("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", rsa)
    tool("openssl", "genpkey", "-algorithm", "x25519", "-out", ec)
    tool("openssl", "pkey", "-in", ec, "-pubout", "-out", tmp_path / "ec.pub")
    for path in (rsa, ec, tmp_path / "rsa.pub"):
        with pytest.raises(PassphraseError, match="Ed25519 private key"):
            read_key(path)
    for path in (tmp_path / "rsa.pub", tmp_path / "ec.pub", ed):
        with pytest.raises(PassphraseError, match="Ed25519 public keys"):
            read_trusted(path)


def test_a_key_file_is_its_owners_and_never_replaced(tmp_path: Path) -> None:
    """Broken: others could sign; or a key that has signed everything would be gone."""
    own = tmp_path / "own.pem"
    before = os.umask(0)
    try:
        key = generate_key(own)
    finally:
        os.umask(before)
    assert own.stat().st_mode & 0o777 == 0o600
    content = own.read_bytes()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for path in (own, link):
        with pytest.raises(RefusedError, match="exists"):
            generate_key(path)
        with pytest.raises(RefusedError, match="exists"):
            write_public(key, path)
    assert own.read_bytes() == content
    assert not (tmp_path / "nowhere").exists()
    assert read_key(own).public == key.public


def test_a_file_of_many_trusted_keys_is_read(tmp_path: Path) -> None:
    """Broken: a team could not share one file."""
    keys = [generate_key(tmp_path / f"{number}.pem") for number in range(3)]
    for number, key in enumerate(keys):
        write_public(key, tmp_path / f"{number}.pub")
    blocks = b"\n".join((tmp_path / f"{number}.pub").read_bytes() for number in range(3))
    expected = [key.public for key in keys]
    assert [key.public for key in parse_trusted(blocks, "keys")] == expected
    lines = "# ours\n\n" + "\n".join(f"{key.public.hex()} somebody" for key in keys)
    assert [key.public for key in parse_trusted(lines.encode(), "keys")] == expected


@pytest.mark.oracle("openssl")
def test_the_verdict_says_who_has_signed(key: SigningKey) -> None:
    """Broken: everybody who can write to a repository could vouch for what is in it."""
    first, second = key_of(SECRET), key_of(SECOND_SECRET)
    content = sign(SNAPSHOT, first, beside=sign(SNAPSHOT, second))
    trusted = trusting(first, key)
    verdict = verify(content, SNAPSHOT, trusted)
    assert verdict.trusted == (trusted[0],)
    assert verdict.others == (second.public,)
    assert verdict.wrong == ()
    assert verdict.is_trusted
    assert not verify(content, SNAPSHOT, trusting(key)).is_trusted
    assert not verify(content, SNAPSHOT, []).is_trusted


def test_a_signature_of_another_snapshot_is_worth_nothing(key: SigningKey) -> None:
    """Broken: a store could put an old signature beside a new snapshot."""
    verdict = verify(sign(OTHER, key), SNAPSHOT, trusting(key))
    assert (verdict.trusted, verdict.others, verdict.wrong) == ((), (), (key.public,))


def test_signing_again_replaces_only_the_own_signature(key: SigningKey, tmp_path: Path) -> None:
    """Broken: signatures would pile up, or those of others be lost."""
    other = generate_key(tmp_path / "other.pem")
    stale = json.dumps({"key": key.public.hex(), "signature": "00" * 64}).encode()
    content = sign(SNAPSHOT, key, beside=sign(SNAPSHOT, other, beside=stale))
    assert len(json.loads(content)) == 2
    assert verify(content, SNAPSHOT, trusting(key, other)).trusted == tuple(trusting(key, other))
    alone = sign(SNAPSHOT, key, beside=stale)
    assert json.loads(alone) == json.loads(sign(SNAPSHOT, key))


def test_what_is_signed_is_canonical(key: SigningKey) -> None:
    """Broken: the format page would not be what is written."""
    value = json.loads(sign(SNAPSHOT, key))
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    assert sign(SNAPSHOT, key) == text.encode()
    assert set(value) == {"key", "signature"}


def test_every_flipped_bit_of_a_signature_is_found(key: SigningKey) -> None:
    """Broken: a signature could be of something else."""
    signature = key.sign(MESSAGE)
    for bit in range(512):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        content = json.dumps({"key": key.public.hex(), "signature": changed.hex()}).encode()
        assert not verify(content, SNAPSHOT, trusting(key)).is_trusted


def test_keys_of_small_order_are_not_trusted_keys(key: SigningKey) -> None:
    """Broken: signatures that hold for any message would end in a traceback, or in trust."""
    for public in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        content = json.dumps({"key": public.hex(), "signature": "00" * 64}).encode()
        assert not verify(content, SNAPSHOT, trusting(key)).is_trusted


def test_there_is_a_limit_to_signatures(key: SigningKey) -> None:
    """Broken: verifying could take hours."""
    many = [{"key": f"{number:064x}", "signature": "00" * 64} for number in range(SIGNATURES_MAX)]
    assert len(verify(json.dumps(many).encode(), SNAPSHOT, []).wrong) == SIGNATURES_MAX
    with pytest.raises(UsageError, match="no more"):
        sign(SNAPSHOT, key, beside=json.dumps(many).encode())
    with pytest.raises(RepositoryError, match="1 to 64"):
        verify(json.dumps([*many, many[0]]).encode(), SNAPSHOT, [])


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"[[]]", b"null", b"\xff", b"[" * 60000, b"[" + b" " * 70000 + b"]"]
    + [json.dumps({"key": "00" * 32, "signature": "00" * size}).encode() for size in (0, 63, 65)]
    + [json.dumps({"key": value, "signature": "00" * 64}).encode() for value in (1, "", "zz" * 32)],
    ids=lambda content: repr(content[:24]),
)
def test_what_is_no_signature_is_an_error(content: bytes, key: SigningKey) -> None:
    """Broken: damage would end in a traceback."""
    for call in (
        lambda: verify(content, SNAPSHOT, trusting(key)),
        lambda: sign(SNAPSHOT, key, beside=content),
    ):
        with pytest.raises(RepositoryError, match=SNAPSHOT.hex()):
            call()


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=100)
    | st.binary(max_size=60).map(lambda data: b"ssh-ed25519 " + data)
    | st.binary(max_size=80).map(
        lambda data: b"-----BEGIN PUBLIC KEY-----\n" + data + b"\n-----END PUBLIC KEY-----"
    )
    | st.binary(max_size=80).map(
        lambda data: (
            b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + data + b"\n-----END OPENSSH PRIVATE KEY-----"
        )
    )
)
def test_any_bytes_are_a_key_or_an_error(content: bytes) -> None:
    """Broken: a wrong file would end in a traceback."""
    with suppress(PassphraseError):
        parse_key(content, "key")
    with suppress(PassphraseError):
        parse_trusted(content, "key")
    with suppress(RepositoryError):
        verify(content, SNAPSHOT, [])
