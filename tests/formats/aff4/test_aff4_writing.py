"""AFF4 that we write, read by Python's zipfile and a decoder made from the standard's text."""

from __future__ import annotations

import hashlib
import random
import re
import struct
import zipfile
import zlib
from io import BytesIO
from typing import Any

import pytest

from imprint import formats
from imprint.core.contracts import Documenting, Encoding
from imprint.core.errors import TargetError, UsageError
from imprint.core.extent import Extent, Kind
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.units import KIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.disks import fill
from imprint.testing.opener import DictOpener

UUID = "6d4e0c2a-7d2f-4f2e-9d0e-1b9d6a0b1c2d"
TIME_S = 1_600_000_000
DISK = (
    random.Random(1).randbytes(10_000)
    + bytes(50_000)
    + b"all work and no play " * 3000
    + bytes(99_777)
    + b"end"
)


def made(disk: bytes = DISK, bad: tuple[tuple[int, int], ...] = (), **options: str) -> bytes:
    format_ = formats.get("aff4")
    given = {"chunk_size": "4K", "uuid": UUID, **options}
    parsed = parse_options("aff4", format_.options, given)
    storage = MemoryStorage(name="new.aff4")
    target: Any = format_.create(
        storage, CreateSpec(len(disk), DictOpener(), parsed, time_s=TIME_S)
    )
    fill(target, disk, step=16 * KIB)
    hashes = {name: hashlib.new(name, disk).hexdigest() for name in target.wanted_hashes}
    target.document(hashes, [Extent(offset, length, Kind.BAD) for offset, length in bad])
    target.commit()
    return bytes(storage.content)


class Decoded:
    """A volume, by the standard: nothing of imprint is used."""

    def __init__(self, content: bytes) -> None:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            assert archive.testzip() is None
            self.comment = archive.comment
            self.members = {name: archive.read(name) for name in archive.namelist()}
            self.infos = archive.infolist()
        self.turtle = self.members["information.turtle"].decode()

    def under(self, ending: str) -> bytes:
        return next(data for name, data in self.members.items() if name.endswith(ending))

    def stream(self) -> bytes:
        """All chunks, unpacked."""
        method = re.search(r"compressionMethod <([^>]+)>", self.turtle)
        assert method is not None
        stored, chunks = self.under("/00000000"), []
        for offset, length in struct.iter_unpack("<QI", self.under("/00000000.index")):
            chunk = stored[offset : offset + length]
            if length < 4096 and "1951" in method.group(1):
                chunk = zlib.decompress(chunk, -15)
            elif length < 4096 and "1950" in method.group(1):
                chunk = zlib.decompress(chunk)
            chunks.append(chunk)
        return b"".join(chunks)

    def disk(self, size: int) -> bytes:
        """The map carried out."""
        disk, stream = bytearray(size), self.stream()
        names = self.under("/idx").decode().splitlines()
        for start, length, at, number in struct.iter_unpack("<QQQI", self.under("/map")):
            if names[number].startswith("aff4://"):
                disk[start : start + length] = stream[at : at + length]
            elif names[number].endswith("#UnreadableData"):
                disk[start : start + length] = b"?" * length
        return bytes(disk)

    def hash_of(self, digest: str) -> bool:
        return f'"{digest}"' in self.turtle


@pytest.mark.parametrize("method", ["none", "deflate", "zlib"])
def test_a_decoder_by_the_standard_reads_the_disk(method: str) -> None:
    """Fails if map, index or chunks are not what the standard says."""
    volume = Decoded(made(compression=method))
    assert volume.disk(len(DISK)) == DISK
    first = volume.infos[0]
    assert first.filename == "container.description"
    assert volume.members["container.description"] == volume.comment
    assert volume.comment.startswith(b"aff4://")
    assert all(len(info.extra) >= 24 for info in volume.infos)  # all headers are ZIP64


def test_all_hashes_are_those_of_what_is_stored() -> None:
    """Fails if one of the tree's hashes is of something else, or in another order."""
    volume = Decoded(made(compression="none", hash="md5,sha256", block_hash="sha1,md5"))
    assert volume.hash_of(hashlib.md5(DISK, usedforsecurity=False).hexdigest())
    assert volume.hash_of(hashlib.sha256(DISK).hexdigest())
    tree = b""
    stream = volume.stream()
    for name in ("md5", "sha1"):  # the shorter digest counts first
        digests = b"".join(
            hashlib.new(name, stream[at : at + 4096]).digest() for at in range(0, len(stream), 4096)
        )
        assert volume.under(f"/00000000.blockHash.{name}") == digests
        tree += hashlib.sha512(digests).digest()
        assert volume.hash_of(hashlib.sha512(digests).hexdigest())
    points, idx = volume.under("/map"), volume.under("/idx")
    tree += hashlib.sha512(points).digest() + hashlib.sha512(idx).digest()
    assert volume.hash_of(hashlib.sha512(points + idx).hexdigest())
    digest = hashlib.sha512(tree).hexdigest()
    # pyaff4 compares each hash of the image with this one; the disk's own are those of its map.
    image = re.search(r"a aff4:DiskImage.*?\n\n", volume.turtle, re.DOTALL)
    assert image is not None
    assert re.findall(r"aff4:hash (.*) ;", image[0]) == [f'"{digest}"^^aff4:blockMapHashSHA512']


def test_what_could_not_be_read_is_unreadable_in_the_map() -> None:
    """Fails if bad sectors are lost, or good bytes next to them are."""
    bad = ((4096 * 15 + 512, 1024), (0, 512), (70_000, 10), (len(DISK) - 1, 1))
    content = made(bad=bad)
    expected, zeroed = bytearray(DISK), bytearray(DISK)
    for offset, length in bad:
        expected[offset : offset + length] = b"?" * length
        zeroed[offset : offset + length] = bytes(length)
    assert Decoded(made(bad=bad, compression="zlib")).disk(len(DISK)) == expected
    with formats.get("aff4").open(MemoryStorage(content), DictOpener()) as image:
        found = [e for e in image.extents(0, image.size) if e.kind is Kind.BAD]
        assert [(e.offset, e.length) for e in found] == sorted(bad)
        assert image.read_at(0, image.size) == zeroed
        assert "sha256" not in image.info().hashes


def test_zeros_take_no_room() -> None:
    """Fails if holes are stored: a disk of a GiB of them is a few hundred bytes of map."""
    assert len(made(bytes(64 * KIB * 1024), hash="none")) < 8 * KIB


def test_the_same_disk_gives_the_same_file() -> None:
    """Fails if a time, a random name or the size of the pieces gets into the file."""
    content = made()
    assert made() == content
    storage = MemoryStorage(name="new.aff4")
    format_ = formats.get("aff4")
    parsed = parse_options("aff4", format_.options, {"chunk_size": "4K", "uuid": UUID})
    target = format_.create(storage, CreateSpec(len(DISK), DictOpener(), parsed, time_s=TIME_S))
    assert isinstance(target, Encoding)
    assert isinstance(target, Documenting)
    for start in range(0, len(DISK), 8192):
        piece = memoryview(DISK)[start : start + 8192]
        target.write_encoded(target.encode(piece, start), start)
    target.document({name: hashlib.new(name, DISK).hexdigest() for name in ("sha1", "sha256")}, [])
    target.commit()
    assert bytes(storage.content) == content


def test_case_data_comes_back() -> None:
    """Fails if quotes, line ends or other characters are not escaped as Turtle wants."""
    said = 'a "b" \\ c\nd\te \u0007 ü 😀 <x> .'
    content = made(examiner=said, case_number="17", notes="n")
    with formats.get("aff4").open(MemoryStorage(content), DictOpener()) as image:
        case = image.info().case
        assert case["examiner"] == said
        assert case["case_number"] == "17"
        assert image.info().uuid == UUID


def test_many_bevies_are_one_stream() -> None:
    """Fails if chunks after the first 2,048 are looked for in the wrong member."""
    disk = random.Random(2).randbytes(4096 * 2050)
    content = made(disk, compression="none", block_hash="sha1")
    with zipfile.ZipFile(BytesIO(content)) as archive:
        bevies = [name for name in archive.namelist() if re.search(r"/0000000\d$", name)]
        assert [archive.getinfo(name).file_size for name in bevies] == [4096 * 2048, 4096 * 2]
    with formats.get("aff4").open(MemoryStorage(content), DictOpener()) as image:
        assert image.read_at(4096 * 2046 + 5, 12_000) == disk[4096 * 2046 + 5 :][:12_000]


def test_descending_writes_are_refused() -> None:
    """Fails if a chunk could be stored twice."""
    format_ = formats.get("aff4")
    target = format_.create(
        MemoryStorage(), CreateSpec(64 * KIB, DictOpener(), {"chunk_size": 4096})
    )
    target.write(memoryview(b"x" * 8192), 8192)
    with pytest.raises(TargetError):
        target.write(memoryview(b"x" * 4096), 0)


@pytest.mark.parametrize(
    "options",
    [
        {"level": "3"},
        {"hash": "blake2b"},
        {"block_hash": "crc32"},
        {"chunk_size": "5K"},
        {"uuid": "x"},
        {"notes": "n" * 9999},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, str]) -> None:
    """Fails if a typing error is taken for something else."""
    format_ = formats.get("aff4")
    parsed = parse_options("aff4", format_.options, options)
    with pytest.raises(UsageError):
        format_.create(MemoryStorage(), CreateSpec(4096, DictOpener(), parsed))
