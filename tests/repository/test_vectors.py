"""The repositories in ``vectors/`` are what the format page says, to a reader made of it alone.

Nothing of imprint reads them in the first half of this file: whoever writes a second
implementation has no more than the page, and neither has :class:`Reader`.

The disks are arithmetic (see :func:`disk`). The secrets of the encrypted ones are the bytes 0 to 31
(id key), 32 to 63 (index key) and 64 to 95 (private key); the passphrase is ``correct horse``, the
key file of the key that may only add is ``KEY_FILE``. Signed with the Ed25519 key 96 to 127.
"""

from __future__ import annotations

import json
import struct
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from imprint.core.extent import Kind
from imprint.objects.local import LocalStore
from imprint.repository.check import check
from imprint.repository.check_report import CheckOptions
from imprint.repository.rebuild import rebuild_index
from imprint.repository.repository import Repository
from imprint.repository.subsets import ALL
from imprint.testing.small_repositories import read_disk

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VECTORS = Path(__file__).parent / "vectors"
PASSPHRASE = b"correct horse"
KEY_FILE = b"\x00\x01battery staple\xff"
K = 1024

Place = tuple[str, int, int, int, int, int, int, int]
"""Pack, number of the group, its position, stored and decoded length and codec, and the chunk's
offset and length."""


def disk(number: int) -> bytes:
    """The disk of the first or second snapshot."""
    text = bytes((at * 7 + at // 256) & 255 for at in range(64 * K))
    if number == 1:
        text = bytes(255 - byte for byte in text[: 4 * K]) + text[4 * K :]
    noise = blake3(b"imprint").digest(16 * K)
    return text + bytes(32 * K) + noise + bytes(32 * K)


class Reader:
    """Reads a repository as the format page describes it."""

    def __init__(self, folder: Path, secret: bytes = PASSPHRASE) -> None:
        self.folder = folder
        self.format = json.loads(self.object("format"))
        assert self.format["imprint-repository"] == 1
        encryption = self.format["encryption"]
        self.is_encrypted = encryption is not None
        if encryption is not None:
            self.public = bytes.fromhex(encryption["public"])
            assert encryption["cipher"] in ("aes-256-gcm", "chacha20-poly1305")
            self.is_aes = encryption["cipher"] == "aes-256-gcm"
            self.secrets = self.unlock(encryption, secret)
            self.id_key = bytes.fromhex(self.secrets["id"])
            self.index_key = bytes.fromhex(self.secrets["index"])

    def object(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def names(self, kind: str) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder))
            for path in (self.folder / kind).rglob("*")
            if path.is_file()
        )

    def hash(self, data: bytes) -> bytes:
        """``H`` of the page."""
        return (
            blake3(data, key=self.id_key).digest() if self.is_encrypted else blake3(data).digest()
        )

    def unlock(self, encryption: dict[str, str], secret: bytes) -> dict[str, str]:
        for name in self.names("keys"):
            key = json.loads(self.object(name))
            kdf = key["kdf"]
            assert kdf["name"] == "argon2id"
            derived = Argon2id(
                salt=bytes.fromhex(kdf["salt"]),
                length=32,
                iterations=kdf["passes"],
                lanes=kdf["lanes"],
                memory_cost=kdf["memory_kib"],
            ).derive(secret)
            words = ("imprint key 1", key["rights"], self.format["id"], encryption["cipher"])
            associated = " ".join((*words, encryption["public"])).encode()
            try:
                wrapped = AESGCM(derived).decrypt(
                    bytes.fromhex(key["nonce"]), bytes.fromhex(key["wrapped"]), associated
                )
            except Exception:  # noqa: BLE001 - it is another's key
                continue
            found: dict[str, str] = json.loads(wrapped)
            return found
        raise AssertionError("no key fits")

    def aead(self, key: bytes) -> AESGCM | ChaCha20Poly1305:
        return AESGCM(key) if self.is_aes else ChaCha20Poly1305(key)

    def sealed(self, sender: bytes) -> AESGCM | ChaCha20Poly1305:
        private = X25519PrivateKey.from_private_bytes(bytes.fromhex(self.secrets["private"]))
        shared = private.exchange(X25519PublicKey.from_public_bytes(sender))
        kdf = HKDF(SHA256(), 32, salt=sender + self.public, info=b"imprint seal 1")
        return self.aead(kdf.derive(shared))

    def envelope(self, data: bytes, what: int, name: str = "") -> bytes:
        magic, version, found, codec, protection, length = struct.unpack_from("<4sBBBBQ", data)
        assert (magic, version, found) == (b"IMPe", 1, what)
        assert protection == ((2 if what == 2 else 1) if self.is_encrypted else 0)
        if protection == 0:
            body, check_ = data[16:-32], data[-32:]
            assert blake3(data[:-32]).digest() == check_
        elif protection == 1:
            cipher = self.aead(self.index_key)
            body = cipher.decrypt(data[16:28], data[28:], data[:16] + name.encode())
        else:
            body = self.sealed(data[16:48]).decrypt(bytes(12), data[48:], data[:16])
        content = zstd.decompress(body) if codec == 1 else body
        assert len(content) == length
        return content

    def pack(self, name: str) -> bytes:
        """All of a pack, whose name and head are right."""
        data = self.object(name)
        assert blake3(data).hexdigest() == name.rpartition("/")[2] == Path(name).name
        assert Path(name).parent.name == Path(name).name[:2]
        magic, version, _, cipher, zero = struct.unpack_from("<4sBBBB", data)
        assert (magic, version, cipher, zero) == (b"IMPp", 1, self.is_encrypted, 0)
        return data

    def group(self, place: Place) -> bytes:
        pack, number, position, stored, raw, codec, _, _ = place
        data = self.pack(f"packs/{pack[:2]}/{pack}")
        content = data[position : position + stored]
        if self.is_encrypted:
            content = self.sealed(data[8:40]).decrypt(number.to_bytes(12, "big"), content, None)
        content = zstd.decompress(content) if codec == 1 else content
        assert len(content) == raw
        return content

    def index_of_packs(self) -> dict[bytes, Place]:
        """Where chunks are, by the directories of packs."""
        found: dict[bytes, Place] = {}
        for name in self.names("packs"):
            data = self.pack(name)
            position = 40 if self.is_encrypted else 8
            length, magic = struct.unpack("<Q4s", data[-12:])
            assert magic == b"IMPf"
            content = self.envelope(data[-12 - length : -12], 7)
            groups, chunks = struct.unpack_from("<II", content)
            columns = Columns(content, 8)
            stored, raw = columns.numbers(groups), columns.numbers(groups)
            codecs, lengths = columns.take(groups), columns.numbers(chunks)
            chunk = 0
            for group in range(groups):
                offset = 0
                while offset < raw[group]:
                    at = columns.position + 32 * chunk
                    found[content[at : at + 32]] = (
                        Path(name).name,
                        group,
                        position,
                        stored[group],
                        raw[group],
                        codecs[group],
                        offset,
                        lengths[chunk],
                    )
                    offset += lengths[chunk]
                    chunk += 1
                assert offset == raw[group]
                position += stored[group]
            assert columns.position + 32 * chunks == len(content)
            assert position == len(data) - 12 - length
        return found

    def index(self) -> dict[bytes, Place]:
        """Where chunks are, by index objects."""
        found: dict[bytes, Place] = {}
        for name in self.names("index"):
            data = self.object(name)
            assert Path(name).name == blake3(data).hexdigest()
            content = self.envelope(data, 1)
            packs, groups, chunks = struct.unpack_from("<III", content)
            columns = Columns(content, 12)
            pack_names = [columns.take(32).hex() for _ in range(packs)]
            counts, kinds = columns.numbers(packs), columns.take(packs)
            assert set(kinds) <= {0, 1}
            owners = [
                (pack, number)
                for pack, count in zip(pack_names, counts, strict=True)
                for number in range(count)
            ]
            positions, stored = columns.numbers(groups), columns.numbers(groups)
            raw, codecs = columns.numbers(groups), columns.take(groups)
            group, offset = columns.numbers(chunks), columns.numbers(chunks)
            lengths = columns.numbers(chunks)
            names = [columns.take(32) for _ in range(chunks)]
            assert names == sorted(names)
            assert columns.position == len(content)
            for at, chunk in enumerate(names):
                number = group[at]
                found[chunk] = (
                    *owners[number],
                    positions[number],
                    stored[number],
                    raw[number],
                    codecs[number],
                    offset[at],
                    lengths[at],
                )
        return found

    def chunk(self, index: dict[bytes, Place], name: bytes) -> bytes:
        place = index[name]
        data = self.group(place)[place[6] : place[6] + place[7]]
        assert self.hash(data) == name
        return data

    def snapshots(self) -> list[tuple[str, dict[str, Any]]]:
        """Names and manifests, by time."""
        found = []
        for name in self.names("snapshots"):
            content = self.envelope(self.object(name), 2)
            assert self.hash(content).hex() == Path(name).name
            found.append((Path(name).name, json.loads(content)))
        return sorted(found, key=lambda item: item[1]["time"])

    def runs(self, index: dict[bytes, Place], node: bytes) -> list[tuple[int, int, int, bytes]]:
        """Offset, kind, length and bytes of the entries below a node."""
        data = self.chunk(index, node)
        kind, count = struct.unpack_from("<B3xI", data)
        if kind == 2:
            columns = Columns(data, 8)
            starts = columns.longs(count + 1)
            below = [self.runs(index, columns.take(32)) for _ in range(count)]
            assert [entries[0][0] for entries in below] == starts[:-1]
            return [entry for entries in below for entry in entries]
        assert kind == 1
        columns = Columns(data, 8)
        (start,) = columns.longs(1)
        kinds, lengths = columns.take(count), columns.longs(count)
        offsets = accumulate(lengths, initial=start)
        found = []
        for offset, entry, length in zip(offsets, kinds, lengths, strict=False):
            content = self.chunk(index, columns.take(32)) if entry == 0 else bytes(length)
            assert len(content) == length
            found.append((offset, entry, length, content))
        return found


class Columns:
    """Takes columns of an object one after the other."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position

    def take(self, length: int) -> bytes:
        self.position += length
        return self.data[self.position - length : self.position]

    def numbers(self, count: int) -> list[int]:
        return list(struct.unpack(f"<{count}I", self.take(4 * count)))

    def longs(self, count: int) -> list[int]:
        return list(struct.unpack(f"<{count}Q", self.take(8 * count)))


@pytest.fixture(params=["plain", "aes", "chacha"])
def reader(request: pytest.FixtureRequest) -> Reader:
    return Reader(VECTORS / request.param)


@pytest.mark.parametrize("by", ["index", "index_of_packs"])
def test_disks_are_what_the_arithmetic_says(reader: Reader, by: str) -> None:
    """The page, the files and the formula of the disk agree, with the index or without."""
    index = getattr(reader, by)()
    for number, (_, manifest) in enumerate(reader.snapshots()):
        runs = reader.runs(index, bytes.fromhex(manifest["root"]))
        content = b"".join(run[3] for run in runs)
        assert content == disk(number)
        assert manifest["size"] == len(content)
        assert manifest["hashes"] == {"blake3": blake3(content).hexdigest()}
        assert [run[1:3] for run in runs[3:]] == [
            (2, 32 * K),
            (0, 10 * K),
            (0, 6 * K),
            (1, 16 * K),
            (3, 8 * K),
            (4, 8 * K),
        ]


def test_what_index_and_packs_say_is_the_same(reader: Reader) -> None:
    """Either can be made of the other."""
    assert reader.index() == reader.index_of_packs()


def test_manifests_signatures_and_tags_read_as_the_page_says(reader: Reader) -> None:
    """Small objects: names that are bound, canonical JSON, Ed25519."""
    (first, manifest), (second, later) = reader.snapshots()
    assert (manifest["image"], manifest["parent"], later["parent"]) == ("host/disk", None, first)
    name = f"signatures/{first}"
    signature = json.loads(reader.envelope(reader.object(name), 3, name))
    public = Ed25519PrivateKey.from_private_bytes(bytes(range(96, 128))).public_key()
    assert bytes.fromhex(signature["key"]) == public.public_bytes_raw()
    message = f"imprint snapshot 1 {first}".encode()
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["key"]))
    key.verify(bytes.fromhex(signature["signature"]), message)
    for snapshot in (first, second):
        name = f"tags/{snapshot}"
        assert json.loads(reader.envelope(reader.object(name), 4, name)) == ["gold"]


@pytest.mark.parametrize("cipher", ["aes", "chacha"])
def test_keys_hold_the_secrets(cipher: str) -> None:
    """Full rights have all three, the key that may only add has no private one."""
    keys = {
        name: bytes(range(start, start + 32)).hex()
        for name, start in (("id", 0), ("index", 32), ("private", 64))
    }
    assert Reader(VECTORS / cipher).secrets == keys
    del keys["private"]
    assert Reader(VECTORS / cipher, KEY_FILE).secrets == keys


@pytest.mark.parametrize("name", ["plain", "aes", "chacha"])
def test_imprint_reads_the_vectors_too(name: str, tmp_path: Path) -> None:
    """Repositories that were made by the first version stay readable; also without an index."""
    for path in (VECTORS / name).rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(VECTORS / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for step in ("as it is", "rebuilt"):
        with Repository.open(LocalStore(tmp_path), lambda _: PASSPHRASE) as repository:
            if step == "rebuilt":
                rebuild_index(repository, workers=1)
            assert check(repository, CheckOptions(read_data=ALL, workers=1)).findings == []
            for number, snapshot in enumerate(repository.snapshots()):
                assert read_disk(repository, snapshot) == disk(number)
                extents = repository.source(snapshot).extents(0, 144 * K)
                assert [extent.kind for extent in extents][-2:] == [Kind.UNUSED, Kind.BAD]
