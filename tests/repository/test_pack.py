"""Packs: what is written, read by a decoder made from the format's page alone."""

from __future__ import annotations

import struct
import sys
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import RepositoryError
from imprint.objects.memory import MemoryStore
from imprint.repository import envelope
from imprint.repository.envelope import What
from imprint.repository.pack import Directory, PackKind, encode_group, pack_object
from imprint.repository.pack_reading import parse_head, read_directory
from imprint.repository.protection import Plain
from imprint.testing.format_faults import bounded_memory
from imprint.testing.small_packs import (
    ID_KEY,
    INDEX_KEY,
    PRIVATE_KEY,
    chunks,
    encrypted,
    pack_of,
    protections,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.repository.protection import Protection

GROUPS = [chunks(7, seed=1), chunks(1, seed=2), [b"a" * 9000, b"b"], chunks(5, seed=3)]


def decode_pack(data: bytes, *, is_sealed: bool) -> list[list[tuple[bytes, bytes]]]:
    """Names and bytes of the chunks of each group, by nothing but the page of the format."""
    assert data[:5] == b"IMPp\x01"
    assert data[6:8] == bytes((is_sealed, 0))
    at, aead = 8, None
    if is_sealed:
        own = X25519PrivateKey.from_private_bytes(PRIVATE_KEY)
        sender, at = data[8:40], 40
        salt = sender + own.public_key().public_bytes_raw()
        secret = own.exchange(X25519PublicKey.from_public_bytes(sender))
        kdf = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"imprint seal 1")
        aead = AESGCM(kdf.derive(secret))
    length, magic = struct.unpack("<Q4s", data[-12:])
    assert magic == b"IMPf"
    end = len(data) - 12 - length
    content = open_directory(data[end:-12], is_sealed=is_sealed)
    group_count, chunk_count = struct.unpack_from("<II", content)
    numbers = struct.unpack_from(f"<{2 * group_count}I", content, 8)
    codecs = content[8 + 8 * group_count :][:group_count]
    lengths = list(struct.unpack_from(f"<{chunk_count}I", content, 8 + 9 * group_count))
    names = content[8 + 9 * group_count + 4 * chunk_count :]
    assert len(names) == 32 * chunk_count
    found = []
    for number in range(group_count):
        stored, raw = numbers[number], numbers[group_count + number]
        group = data[at : at + stored]
        at += stored
        if aead is not None:
            group = aead.decrypt(number.to_bytes(12, "big"), group, None)
        if codecs[number]:
            group = zstd.decompress(group)
        assert len(group) == raw
        listed = []
        while group:
            chunk, group = group[: lengths[0]], group[lengths.pop(0) :]
            listed.append((names[:32], chunk))
            names = names[32:]
        found.append(listed)
    assert at == end
    return found


def open_directory(blob: bytes, *, is_sealed: bool) -> bytes:
    magic, version, what, codec, guard, size = struct.unpack_from("<4sBBBBQ", blob)
    assert (magic, version, what, guard) == (b"IMPe", 1, 7, is_sealed)
    if is_sealed:
        content = AESGCM(INDEX_KEY).decrypt(blob[16:28], blob[28:], blob[:16])
    else:
        content = blob[16:-32]
        assert blob[-32:] == blake3(blob[:-32]).digest()
    if codec:
        content = zstd.decompress(content)
    assert len(content) == size
    return content


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("kind", list(PackKind))
def test_a_pack_is_what_the_page_says(is_sealed: bool, kind: PackKind) -> None:
    """Fails if another implementation could not read what we write."""
    pack = pack_of(GROUPS, encrypted() if is_sealed else Plain(), kind=kind)
    data = b"".join(pack.parts)
    assert data[5] == kind
    assert pack.name == blake3(data).digest()

    def name_of(chunk: bytes) -> bytes:
        return (blake3(chunk, key=ID_KEY) if is_sealed else blake3(chunk)).digest()

    expected = [[(name_of(chunk), chunk) for chunk in group] for group in GROUPS]
    assert decode_pack(data, is_sealed=is_sealed) == expected


@given(
    st.lists(
        st.lists(
            st.builds(bytes.__mul__, st.binary(min_size=1, max_size=40), st.integers(1, 300)),
            min_size=1,
            max_size=6,
        ),
        max_size=5,
    ),
    st.booleans(),
)
def test_any_chunks_come_back(groups: list[list[bytes]], is_sealed: bool) -> None:
    """Fails if some number or length of chunks makes a pack that is wrong."""
    protection: Protection = encrypted() if is_sealed else Plain()
    pack = pack_of(groups, protection)
    decoded = decode_pack(b"".join(pack.parts), is_sealed=is_sealed)
    assert [[chunk for _, chunk in group] for group in decoded] == groups
    directory = directory_of(pack.parts, protection)
    assert list(directory.lengths) == [len(chunk) for group in groups for chunk in group]
    starts = [accumulate(map(len, group[:-1]), initial=0) for group in groups]
    assert list(directory.offsets()) == [offset for group in starts for offset in group]
    assert list(directory.groups()) == [n for n, group in enumerate(groups) for _ in group]
    assert list(directory.chunk_names()) == [name for group in decoded for name, _ in group]
    sizes = [len(part) for part in pack.parts[: len(groups) + 1]]
    assert list(directory.positions()) == list(accumulate(sizes))[:-1]


def directory_of(parts: Sequence[bytes | memoryview], protection: Protection) -> Directory:
    store = MemoryStore()
    store.put(pack_object(bytes(32)), parts)
    return read_directory(store, bytes(32), protection)


def test_a_frame_has_to_save_one_part_in_32() -> None:
    """Fails if readers decompress for nothing, or if what compresses is stored plain."""
    noise = b"".join(chunks(8, seed=5, longest=2)) + blake3(b"").digest(64 << 10)
    assert encode_group([noise], 3) == (noise, len(noise), 0, (len(noise),))
    zeros = len(noise) // 16
    for chunk, codec in ((noise + bytes(zeros // 4), 0), (noise + bytes(zeros), 1)):
        group = encode_group([memoryview(chunk)[:100], chunk[100:]], 3)
        assert (group.codec, group.raw) == (codec, len(chunk))
        assert group.lengths == (100, len(chunk) - 100)
        assert (zstd.decompress(group.stored) if codec else group.stored) == chunk


def test_a_long_directory_is_read_whole() -> None:
    """Fails if only directories that fit into the first read at a pack's end are found."""
    group = [bytes([number % 256, number >> 8]) for number in range(3000)]
    pack = pack_of([group], Plain())
    assert len(directory_of(pack.parts, Plain())) == 3000


@pytest.mark.parametrize("protection", protections(), ids=["plain", "aes", "chacha"])
def test_no_flipped_bit_outside_of_groups_goes_unseen(protection: Protection) -> None:
    """Fails if damage to a head, a directory or a foot is believed."""
    pack = pack_of([[b"ab" * 40, b"c"], [b"d"]], protection)
    data = bytearray(b"".join(pack.parts))
    sound = directory_of((bytes(data),), protection).serialise()
    begin = sum(map(len, pack.parts[:-2]))
    for at in (*range(5), 6, 7, *range(begin, len(data))):
        for bit in (0, 3, 7):
            data[at] ^= 1 << bit
            with pytest.raises(RepositoryError) as caught:
                directory_of((bytes(data),), protection)
            assert caught.value.name is not None
            assert "packs/00/" in caught.value.name
            data[at] ^= 1 << bit
    assert directory_of((bytes(data),), protection).serialise() == sound


@pytest.mark.parametrize("protection", [Plain(), encrypted()], ids=["plain", "sealed"])
def test_no_cut_off_pack_is_read(protection: Protection) -> None:
    """Fails if a part of a pack is taken for a pack."""
    data = b"".join(pack_of([[b"ab" * 40, b"c"], [b"d"]], protection).parts)
    for length in range(len(data)):
        with pytest.raises(RepositoryError):
            directory_of((data[:length],), protection)
        with pytest.raises(RepositoryError):
            directory_of((data[length + 1 :],), protection)


def test_a_pack_that_is_not_sealed_is_refused_where_all_are() -> None:
    """Fails if whoever can write into a store can put plain packs into an encrypted repository."""
    head = b"".join(pack_of(GROUPS, Plain()).parts)[:40]
    assert parse_head(head, is_sealed=False).kind == PackKind.DATA
    with pytest.raises(RepositoryError, match="cipher 1, found 0"):
        parse_head(head, is_sealed=True)


def content_of(
    stored: Sequence[int], raw: Sequence[int], codecs: Sequence[int], lengths: Sequence[int]
) -> bytes:
    """A directory, by hand."""
    return struct.pack(
        f"<II{len(stored)}I{len(raw)}I{len(codecs)}B{len(lengths)}I",
        *(len(stored), len(lengths), *stored, *raw, *codecs, *lengths),
    ) + bytes(32 * len(lengths))


MIB = 1 << 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "8 bytes or more"),
        (bytes(7), "8 bytes or more"),
        (struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF), "4294967295 groups"),
        (content_of([9], [9], [0], [9]) + b"\0", "found 54"),
        (content_of([9], [9], [0], [9])[:-1], "found 52"),
        (content_of([9], [9], [2], [9]), "codec"),
        (content_of([9], [9], [0], [8]), "add up"),
        (content_of([9], [9], [0], [10]), "add up"),
        (content_of([9], [9], [0], []), "add up"),
        (content_of([9, 9], [9, 9], [0, 0], [8, 10]), "group 0 do not add up"),
        (content_of([9, 9], [9, 9], [0, 0], [9, 4, 6]), "group 1 do not add up"),
        (content_of([9, 9], [9, 9], [0, 0], [18]), "group 0 do not add up"),
        (content_of([9], [9], [0], [9, 1]), "behind the last group"),
        (content_of([], [], [], [1]), "behind the last group"),
        (content_of([9], [9], [0], [9, 0]), "1 to 1048576 bytes, found one of 0"),
        (content_of([9], [MIB + 1], [0], [MIB + 1]), "found one of 1048577"),
        (content_of([9], [0], [0], []), "1 to 16777216 bytes, found one of 0"),
        (content_of([9], [17 * MIB], [1], [MIB] * 17), "found one of 17825792"),
        (content_of([17 * MIB], [MIB], [0], [MIB]), "found one of 17825792"),
        (content_of([16 * MIB] * 256, [1] * 256, [1] * 256, [1] * 256), "4 GiB"),
    ],
    ids=range(20),
)
def test_a_directory_that_contradicts_itself_is_refused(content: bytes, message: str) -> None:
    """Fails if a directory by hostile hands leads to chunks that do not exist."""
    with bounded_memory(64 * MIB), pytest.raises(RepositoryError, match=message):
        Directory.parse(content, PackKind.DATA, start=8)


@pytest.mark.parametrize("change", [-1, 1, 60])
def test_groups_end_where_the_directory_begins(change: int) -> None:
    """Fails if groups may reach into the directory, or leave a gap before it."""
    content = content_of([10, 10 + change], [10, 10], [0, 0], [10, 10])
    blob = envelope.wrap(What.DIRECTORY, content, Plain())
    parts = [b"IMPp\x01\0\0\0", bytes(20), blob, struct.pack("<Q4s", len(blob), b"IMPf")]
    with pytest.raises(RepositoryError, match="behind the groups"):
        directory_of(parts, Plain())


@pytest.mark.parametrize("length", [0, 1, 1 << 40, (1 << 64) - 1])
def test_a_foot_that_lies_is_refused(length: int) -> None:
    """Fails if a foot makes us read or allocate what is not there."""
    parts = pack_of([[b"a"]], Plain()).parts[:-1]
    with bounded_memory(64 * MIB), pytest.raises(RepositoryError):
        directory_of([*parts, struct.pack("<Q4s", length, b"IMPf")], Plain())


def test_a_directory_grows_with_its_groups() -> None:
    """Fails if a builder's own directory is not what a reader finds."""
    pack = pack_of(GROUPS, Plain())
    assert pack.directory.counts == array("I", map(len, GROUPS))
    found = directory_of(pack.parts, Plain())
    assert vars(found) == vars(pack.directory)
