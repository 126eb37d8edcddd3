"""Ex01 as it is written: its sections by the description, segments, patterns, refusals."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import pytest

from imprint import formats
from imprint.core.contracts import Documenting
from imprint.core.errors import ReferenceRefusedError, UnsupportedFeatureError, UsageError
from imprint.core.extent import Extent, Kind
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.units import KIB, MIB
from imprint.endpoints.open import open_image
from imprint.formats.ewf import headers2
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener
from imprint.testing.program import Program

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Target

EX01 = formats.get("ex01")
CHUNK = 32 * KIB
NOISE = random.Random(6).randbytes(2 * MIB)
DISK = NOISE + bytes(MIB) + b"text " * 100_000 + b"ABCDEFGH" * 20_000 + bytes(480)


class Section(NamedTuple):
    """As a descriptor says: what it is, and its data."""

    kind: int
    data: bytes
    padding: int


def created(size: int, storage: MemoryStorage, **options: str) -> Target:
    parsed = parse_options("ex01", EX01.options, options)
    return EX01.create(storage, CreateSpec(size, DictOpener(), parsed, time_s=10**9))


def sections(content: bytes) -> list[Section]:
    """From the end to the start, as the description says; all checksums have to be right."""
    found: list[Section] = []
    at = len(content) - 64
    while True:
        described = content[at : at + 64]
        kind, flags, previous, size, own, padding = struct.unpack_from("<IIQQII", described)
        assert struct.unpack_from("<I", described, 60)[0] == zlib.adler32(described[:60])
        data = content[at - size : at]
        assert (flags, own) == (1, 64)
        assert described[32:48] == hashlib.md5(data, usedforsecurity=False).digest()
        assert size % 16 == at % 16 == 0
        found.append(Section(kind, data, padding))
        if not previous:
            assert at - size == 32
            return found[::-1]
        assert previous + 64 == at - size
        at = previous


def text(section: Section) -> dict[str, str]:
    """The object in a section with text."""
    lines = zlib.decompress(section.data).decode("utf-16").split("\n")
    assert lines[:2] + lines[4:] == ["1", "main", "", ""]
    return dict(zip(lines[2].split("\t"), lines[3].split("\t"), strict=True))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "disk.raw").write_bytes(DISK)
    return Program(tmp_path)


def test_sections_are_as_described(program: Program) -> None:
    """Fails if a checksum, an order, a size or a value is other than the description has it."""
    uuid = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
    case = {"case_number": "Fall Ä 7", "notes": "two\nlines\tand a tab", "model": "X-1"}
    options = [f"-o{name}={value}" for name, value in {**case, "uuid": uuid}.items()]
    environment = {"SOURCE_DATE_EPOCH": "1000000000"}
    done = program("convert", "disk.raw", "a.Ex01", *options, environment=environment)
    assert done.exit_code == 0, done.err
    content = (program.folder / "a.Ex01").read_bytes()
    assert content[:16] == b"EVF2\r\n\x81\0\2\1\1\0\1\0\0\0"
    assert content[16:32].hex() == "e004253f894fd3119a0c0305e82c3301"
    found = sections(content)
    assert [section.kind for section in found] == [1, 2, 3, 4, 8, 9, 15]
    device, about = text(found[0]), text(found[1])
    assert (device["md"], device["ts"], device["bp"]) == ("X-1", str(len(DISK) // 512), "512")
    assert (device["dt"], device["ph"]) == ("f", "1")
    assert (about["cn"], about["nt"]) == ("Fall Ä 7", "two\1lines\3and a tab")
    assert (about["tt"], about["cp"], about["sb"]) == ("1000000000", "1", "64")
    assert about["tb"] == str(-(-len(DISK) // CHUNK))
    assert found[4].data[:16] == hashlib.md5(DISK, usedforsecurity=False).digest()
    assert found[5].data[:20] == hashlib.sha1(DISK, usedforsecurity=False).digest()
    assert found[6] == Section(15, b"", 0)
    assert disk_of(content, found[3]) == DISK


def disk_of(content: bytes, table: Section) -> bytes:
    """What a table's entries say of the disk."""
    first, count, checksum = struct.unpack_from("<QI4xI", table.data)
    assert (first, checksum) == (0, zlib.adler32(table.data[:16]))
    entries = table.data[32 : 32 + 16 * count]
    assert struct.unpack_from("<I", table.data, 32 + len(entries))[0] == zlib.adler32(entries)
    disk, end = b"", 0
    for offset, size, flags in struct.iter_unpack("<QII", entries):
        if flags == 1 | 4:
            assert size == 0
            disk += offset.to_bytes(8, "little") * (min(CHUNK, len(DISK) - len(disk)) // 8)
            continue
        assert offset % 16 == 0
        assert offset >= end
        end = offset + size
        stored = content[offset:end]
        if flags == 2:
            assert struct.unpack("<I", stored[-4:])[0] == zlib.adler32(stored[:-4])
        disk += zlib.decompress(stored) if flags == 1 else stored[:-4]
    return disk


@pytest.mark.parametrize(
    ("compression", "count"), [("none", 0), ("empty-block", 32), ("fast", 36), ("best", 36)]
)
def test_what_repeats_is_a_pattern_of_which_nothing_is_stored(compression: str, count: int) -> None:
    """Fails if a chunk of zeros takes room, or one of noise is taken for a pattern."""
    storage = MemoryStorage(name="a.Ex01")
    aligned = NOISE + bytes(MIB) + b"ABCDEFGH" * (4 * CHUNK // 8)
    target = created(len(aligned), storage, compression=compression)
    target.write(memoryview(aligned), 0)
    target.commit()
    table = next(each for each in sections(bytes(storage.content)) if each.kind == 4)
    entries = struct.iter_unpack("<QII", table.data[32:-16])
    assert sum(flags == 5 for _, _, flags in entries) == count


@pytest.mark.parametrize("compression", ["none", "fast"])
def test_segments_have_their_names_and_sizes_and_say_all_of_the_disk(
    program: Program, compression: str
) -> None:
    """Fails if a segment is larger than asked, or has no description of the disk."""
    options = ["-osegment_size=1M", f"-ocompression={compression}"]
    program.ok("convert", "disk.raw", "disk.Ex01", *options)
    files = sorted(program.folder.glob("disk.Ex*"))
    assert [file.suffix for file in files] == [f".Ex{n:02}" for n in range(1, len(files) + 1)]
    assert len(files) >= 3
    assert all(file.stat().st_size <= MIB for file in files)
    for number, file in enumerate(files, 1):
        content = file.read_bytes()
        assert struct.unpack_from("<I", content, 12)[0] == number
        kinds = [section.kind for section in sections(content)]
        assert kinds[:2] == [1, 2]
        assert kinds[-1] == (15 if file == files[-1] else 13)
    assert program("compare", "disk.raw", "disk.Ex01").exit_code == 0
    assert program("verify", "disk.Ex01").exit_code == 0
    assert program("check", "disk.Ex01").exit_code == 0


def test_a_segment_of_another_set_is_refused(program: Program) -> None:
    """Fails if two images are read as one because of their names."""
    for name in ("a.Ex01", "b.Ex01"):
        program.ok("convert", "disk.raw", name, "-osegment_size=1M", "-ocompression=none")
    folder = program.folder
    (folder / "b.Ex02").replace(folder / "a.Ex02")
    with pytest.raises(ReferenceRefusedError, match="of the set"):
        open_image(str(folder / "a.Ex01"))
    found = program("verify", "a.Ex01", "--json")
    assert found.exit_code == 1
    assert 900 * KIB < found.json["damage"][0]["length"] < MIB


def test_bad_areas_have_64_bits() -> None:
    """Fails if version 2 has the limits of version 1, or a long area loses its end."""
    runs = [(5 << 32, 7), (1, (1 << 32) + 5)]
    data = headers2.errors(runs)
    count = struct.unpack_from("<I", data)[0]
    entries = list(struct.iter_unpack("<QI4x", data[32 : 32 + 16 * count]))
    assert entries == [(5 << 32, 7), (1, (1 << 32) - 1), (1 << 32, 6)]


def test_bad_areas_and_tracks_come_back() -> None:
    """Fails if sectors that could not be read turn into zeros like others."""
    storage = MemoryStorage(name="a.Ex01")
    target = created(8 * MIB, storage, tracks="0,100a", media_type="optical")
    target.write(memoryview(NOISE), 0)
    assert isinstance(target, Documenting)
    target.document({}, [Extent(3 * MIB + 1024, 1500, Kind.BAD)])
    target.commit()
    image = EX01.open(MemoryStorage(bytes(storage.content), name="a.Ex01"), DictOpener())
    found = [extent for extent in image.extents(0, image.size) if extent.kind is Kind.BAD]
    assert found == [Extent(3 * MIB + 1024, 1536, Kind.BAD)]
    assert image.info().options["tracks"] == "0 data, 100 audio"


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (1000, {}),
        (4 * MIB, {"chunk_sectors": "32"}),
        (4 * MIB, {"segment_size": "100K"}),
        (4 * MIB, {"compression": "none", "level": "3"}),
        (4 * MIB, {"flavour": "encase6"}),
        (4 * MIB, {"uuid": "none"}),
    ],
)
def test_what_makes_no_sense_is_refused(size: int, options: dict[str, str]) -> None:
    """Fails if options that contradict each other give an image."""
    with pytest.raises(UsageError):
        created(size, MemoryStorage(name="a.Ex01"), **options)


def test_evidence_is_not_changed_in_place() -> None:
    """Fails if an Ex01 can be opened for writing."""
    with pytest.raises(UnsupportedFeatureError, match="never changed"):
        EX01.edit(MemoryStorage(name="a.Ex01"), DictOpener())
