"""Envelopes: a second reader, written from the format page, and whatever bytes there may be."""

from __future__ import annotations

import json
import random
import struct
import subprocess
from contextlib import suppress

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.codecs import zstd
from imprint.core.errors import PassphraseError, RepositoryError
from imprint.core.units import GIB, KIB, MIB
from imprint.repository.envelope import CONTENT_BYTES_MAX, What, unwrap, wrap
from imprint.repository.protection import CIPHERS, Encrypted, Plain, Protection
from imprint.testing.format_faults import bounded_memory
from imprint.testing.rfc_crypto import hkdf_sha256, x25519

ID_KEY, INDEX_KEY, PRIVATE = (bytes([number]) * 32 for number in (1, 2, 3))
PUBLIC = x25519(PRIVATE)
NAME = "tags/" + "ab" * 32
NAMED = (What.SIGNATURE, What.TAGS, What.SESSION, What.CONDEMNED)
CONTENTS = {
    "empty": b"",
    "short": b"[]",
    "text": json.dumps({"packs": ["00" * 32] * 200}).encode(),
    "random": random.Random(3).randbytes(9000),
}


def full(cipher: str = CIPHERS[0]) -> Encrypted:
    return Encrypted(cipher, id_key=ID_KEY, index_key=INDEX_KEY, public=PUBLIC, private=PRIVATE)


PROTECTIONS: dict[str, Protection] = {"plain": Plain(), **{name: full(name) for name in CIPHERS}}


def aead_decrypt(cipher: str, key: bytes, nonce: bytes, data: bytes, associated: bytes) -> bytes:
    if cipher == "chacha20-poly1305":
        return ChaCha20Poly1305(key).decrypt(nonce, data, associated)
    decryptor = Cipher(AES(key), GCM(nonce, data[-16:])).decryptor()
    decryptor.authenticate_additional_data(associated)
    return decryptor.update(data[:-16]) + decryptor.finalize()


def second_reader(data: bytes, name: str, cipher: str) -> tuple[int, bytes]:
    """Kind and content of an envelope, by the tables of the format page."""
    magic, version, what, codec, protection, size = struct.unpack_from("<4sBBBBQ", data)
    assert (magic, version) == (b"IMPe", 1)
    if protection == 0:
        assert blake3(data[:-32]).digest() == data[-32:]
        encoded = data[16:-32]
    elif protection == 1:
        associated = data[:16] + (name.encode() if what in {3, 4, 5, 6} else b"")
        encoded = aead_decrypt(cipher, INDEX_KEY, data[16:28], data[28:], associated)
    else:
        sender = data[16:48]
        key = hkdf_sha256(x25519(PRIVATE, sender), sender + PUBLIC, b"imprint seal 1")
        encoded = aead_decrypt(cipher, key, bytes(12), data[48:], data[:16])
    content = encoded
    if codec == 1:
        content = subprocess.run(
            ["zstd", "-dc"], input=encoded, check=True, capture_output=True
        ).stdout
    assert len(content) == size
    return what, content


def resealed(content: bytes, what: int, codec: int = 0, size: int | None = None) -> bytes:
    """A plain envelope whose checksum is right, whatever else it says."""
    size = len(content) if size is None else size
    body = struct.pack("<4sBBBBQ", b"IMPe", 1, what, codec, 0, size) + content
    return body + blake3(body).digest()


@pytest.mark.oracle("zstd")
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("how", PROTECTIONS)
def test_a_second_reader_finds_what_was_wrapped(how: str, content: bytes) -> None:
    """Broken: the format page would not be what is written."""
    for what in What:
        data = wrap(what, content, PROTECTIONS[how], name=NAME)
        assert second_reader(data, NAME, how) == (what, content)
        sealed = what is What.SNAPSHOT
        assert data[7] == (0 if how == "plain" else 2 if sealed else 1)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("how", PROTECTIONS)
def test_what_was_wrapped_is_unwrapped(how: str, content: bytes) -> None:
    """Broken: nothing could be read."""
    for what in What:
        data = wrap(what, memoryview(content), PROTECTIONS[how], name=NAME)
        assert unwrap(memoryview(data), what, PROTECTIONS[how], name=NAME) == content


def test_an_envelope_by_hand_is_read() -> None:
    """Broken: what a second implementation writes could not be read."""
    head = struct.pack("<4sBBBBQ", b"IMPe", 1, 4, 0, 1, 2)
    nonce = bytes(range(12))
    encryptor = Cipher(AES(INDEX_KEY), GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(head + NAME.encode())
    body = encryptor.update(b"[]") + encryptor.finalize() + encryptor.tag
    assert unwrap(head + nonce + body, What.TAGS, full(), name=NAME) == b"[]"
    assert unwrap(resealed(b"[]", 4), What.TAGS, Plain(), name=NAME) == b"[]"


def test_what_compresses_is_stored_shorter_and_what_does_not_is_not_longer() -> None:
    """Broken: manifests would take several times their room."""
    text, noise = CONTENTS["text"], CONTENTS["random"]
    assert len(wrap(What.CONDEMNED, text, Plain(), name=NAME)) < len(text) // 20
    assert len(wrap(What.CONDEMNED, noise, Plain(), name=NAME)) == len(noise) + 16 + 32


def test_no_two_objects_look_the_same() -> None:
    """Broken: a nonce that comes twice gives the key of AES-GCM away."""
    for what in What:
        assert len({wrap(what, b"[]", full(), name=NAME) for _ in range(16)}) == 16


@pytest.mark.parametrize("what", [What.TAGS, What.SNAPSHOT])
@pytest.mark.parametrize("how", PROTECTIONS)
def test_every_flipped_bit_is_found(how: str, what: What) -> None:
    """Broken: damage or an attack would be taken for content."""
    data = wrap(what, b'["a"]', PROTECTIONS[how], name=NAME)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RepositoryError):
            unwrap(changed, what, PROTECTIONS[how], name=NAME)


@pytest.mark.parametrize("what", [What.INDEX, What.SNAPSHOT])
@pytest.mark.parametrize("how", PROTECTIONS)
def test_every_cut_is_found(how: str, what: What) -> None:
    """Broken: half an object would be taken for a whole one, or end in a traceback."""
    data = wrap(what, b'["a"]', PROTECTIONS[how], name=NAME)
    for changed in (*(data[:end] for end in range(len(data))), data + b"\0"):
        with pytest.raises(RepositoryError, match=r"^index/x: "):
            unwrap(changed, what, PROTECTIONS[how], name="index/x")


def test_an_object_under_another_name_is_refused() -> None:
    """Broken: a store could give one snapshot the tags of another, or bring a session back."""
    for what in NAMED:
        data = wrap(what, b"[]", full(), name=NAME)
        with pytest.raises(RepositoryError, match="changed"):
            unwrap(data, what, full(), name=NAME.replace("ab", "cd"))


@pytest.mark.parametrize("how", PROTECTIONS)
def test_an_object_of_another_kind_is_refused(how: str) -> None:
    """Broken: a store could pass tags off as a list of condemned packs."""
    data = wrap(What.TAGS, b"[]", PROTECTIONS[how], name=NAME)
    with pytest.raises(RepositoryError, match="expected content 6, found content 4"):
        unwrap(data, What.CONDEMNED, PROTECTIONS[how], name=NAME)


def test_objects_that_are_not_encrypted_are_refused_where_all_are() -> None:
    """Broken: whoever can write to the store could add what nobody with a key has made."""
    for what in What:
        plain, hidden = (wrap(what, b"[]", how, name=NAME) for how in (Plain(), full()))
        with pytest.raises(RepositoryError, match=r"expected protection [12], .* found 0"):
            unwrap(plain, what, full(), name=NAME)
        with pytest.raises(RepositoryError, match=r"expected protection 0, .* found [12]"):
            unwrap(hidden, what, Plain(), name=NAME)


def test_a_snapshot_under_the_index_key_is_refused() -> None:
    """Broken: hosts that may only add could write snapshots that hosts can read."""
    data = bytearray(wrap(What.TAGS, b"[]", full(), name=NAME))
    data[5] = What.SNAPSHOT
    with pytest.raises(RepositoryError, match="expected protection 2"):
        unwrap(data, What.SNAPSHOT, full())


def test_objects_of_another_repository_are_refused() -> None:
    """Broken: repositories in one store could be mixed up."""
    other = Encrypted(CIPHERS[0], id_key=ID_KEY, index_key=PRIVATE, public=PUBLIC, private=PRIVATE)
    with pytest.raises(RepositoryError, match="changed"):
        unwrap(wrap(What.TAGS, b"[]", other, name=NAME), What.TAGS, full(), name=NAME)


def test_who_may_only_add_reads_all_but_snapshots() -> None:
    """Broken: it could not add, or could read."""
    host = Encrypted(CIPHERS[0], id_key=ID_KEY, index_key=INDEX_KEY, public=PUBLIC)
    for what in What:
        data = wrap(what, b"[]", host, name=NAME)
        assert unwrap(data, what, full(), name=NAME) == b"[]"
        if what is What.SNAPSHOT:
            with pytest.raises(PassphraseError, match="may only add"):
                unwrap(data, what, host, name=NAME)
        else:
            assert unwrap(data, what, host, name=NAME) == b"[]"


@pytest.mark.parametrize("what", [What.INDEX, What.DIRECTORY])
def test_a_short_object_cannot_demand_much_memory(what: What) -> None:
    """Broken: 32 KiB of zeros, compressed, would take 1 GiB of memory."""
    frame = zstd.compress(bytes(60 * MIB))
    bomb = resealed(frame, what, 1, 60 * MIB)
    assert len(bomb) < 16 * KIB
    with bounded_memory(32 * MIB), pytest.raises(RepositoryError, match="expected at most"):
        unwrap(bomb, what, Plain())


def test_what_looks_like_a_bomb_is_wrapped_so_that_it_can_be_read() -> None:
    """Broken: an index of names that happen to compress would be lost."""
    content = bytes(2 * MIB)
    assert unwrap(wrap(What.INDEX, content, Plain()), What.INDEX, Plain()) == content


@pytest.mark.parametrize("what", list(What))
def test_absurd_lengths_are_refused_before_anything_is_allocated(what: What) -> None:
    """Broken: a damaged length would end in a lack of memory."""
    frame = zstd.compress(b"[]")
    for size in (CONTENT_BYTES_MAX[what] + 1, 1 << 40, (1 << 64) - 1):
        for codec, content in ((0, b"[]"), (1, frame)):
            with bounded_memory(8 * MIB), pytest.raises(RepositoryError, match="at most"):
                unwrap(resealed(content, what, codec, size), what, Plain(), name=NAME)


def test_what_no_reader_would_accept_is_not_wrapped() -> None:
    """Broken: a snapshot with too many notes would be put, and never be read again."""
    for what in (What.SNAPSHOT, What.TAGS):
        most = CONTENT_BYTES_MAX[what]
        assert unwrap(wrap(what, bytes(most), full(), name=NAME), what, full(), name=NAME)
        with pytest.raises(RepositoryError, match=f"at most {most} bytes"):
            wrap(what, bytes(most + 1), Plain(), name=NAME)


def test_lengths_that_do_not_fit_the_content_are_refused() -> None:
    """Broken: content would be cut off, or come with what stood in memory."""
    frame = zstd.compress(b"[1,2]")
    for codec, content, size in ((0, b"[]", 1), (0, b"[]", 3), (1, frame, 6), (1, b"", 1)):
        with pytest.raises(RepositoryError, match="expected"):
            unwrap(resealed(content, What.TAGS, codec, size), What.TAGS, Plain(), name=NAME)


def test_a_frame_with_a_large_window_is_refused() -> None:
    """Broken: a frame header of 6 bytes could demand 2 GiB."""
    frame = bytes.fromhex("28b52ffd 00 a8".replace(" ", "")) + bytes(20)  # a window of 2 GiB
    with bounded_memory(32 * MIB), pytest.raises(RepositoryError, match="Zstandard"):
        unwrap(resealed(frame, What.TAGS, 1, 1000), What.TAGS, Plain(), name=NAME)


def test_the_largest_contents_are_what_the_page_says() -> None:
    """Broken: a second implementation would write what is refused."""
    assert CONTENT_BYTES_MAX == {
        What.INDEX: GIB,
        What.SNAPSHOT: 4 * MIB,
        What.SIGNATURE: MIB,
        What.TAGS: MIB,
        What.SESSION: MIB,
        What.CONDEMNED: 64 * MIB,
        What.DIRECTORY: 64 * MIB,
    }


@settings(max_examples=300, deadline=None)
@given(
    head=st.binary(min_size=12, max_size=12),
    tail=st.binary(max_size=80),
    what=st.sampled_from(What),
    how=st.sampled_from(sorted(PROTECTIONS)),
)
def test_any_bytes_are_refused(head: bytes, tail: bytes, what: What, how: str) -> None:
    """Broken: hostile bytes would end in a traceback."""
    with pytest.raises(RepositoryError):
        unwrap(b"IMPe" + head + tail, what, PROTECTIONS[how], name=NAME)


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=100) | st.binary(max_size=60).map(zstd.compress),
    codec=st.integers(0, 3),
    size=st.integers(0, 200) | st.integers(0, (1 << 64) - 1),
    what=st.sampled_from(What),
)
def test_any_content_with_a_right_checksum_is_content_or_an_error(
    content: bytes, codec: int, size: int, what: What
) -> None:
    """Broken: whoever can write to a store could crash its readers."""
    data = resealed(content, what, codec, size)
    found = None
    with suppress(RepositoryError), bounded_memory(64 * MIB):
        found = unwrap(data, what, Plain(), name=NAME)
    assert found is None or len(found) == size
