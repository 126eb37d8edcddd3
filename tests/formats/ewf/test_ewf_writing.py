"""E01 as it is written: segments, tables, bad areas, hashes."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.contracts import Documenting
from imprint.core.errors import RefusedError, TargetError, UnsupportedFeatureError, UsageError
from imprint.core.extent import Extent, Kind
from imprint.core.formats import Checkable, CreateSpec, parse_options
from imprint.core.units import KIB, MIB
from imprint.endpoints import copying
from imprint.endpoints.gate import FolderGate
from imprint.endpoints.hashing import verify_disk
from imprint.endpoints.open import open_image
from imprint.endpoints.target import TargetRequest
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener
from imprint.testing.program import Program
from imprint.transfer.copy import copy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.core.contracts import Target

E01 = formats.get("e01")
DISK = random.Random(6).randbytes(2 * MIB) + bytes(MIB) + b"text " * 100_000 + bytes(224)


def created(size: int, storage: MemoryStorage, **options: str) -> Target:
    parsed = parse_options("e01", E01.options, options)
    return E01.create(storage, CreateSpec(size, DictOpener(), parsed, time_s=10**9))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "disk.raw").write_bytes(DISK)
    return Program(tmp_path)


@pytest.mark.parametrize("flavour", ["encase5", "encase6", "encase7", "ftk"])
@pytest.mark.parametrize("compression", ["none", "empty-block", "fast", "best"])
def test_a_disk_comes_back_out_of_several_segments(
    tmp_path: Path, program: Program, flavour: str, compression: str
) -> None:
    """Fails if a segment is larger than asked (CFTT AO-05), or chunks are lost between two."""
    options = {"flavour": flavour, "segment_size": "1M", "compression": compression}
    target = TargetRequest(str(tmp_path / "disk.E01"), options=options)
    copying.run(copying.CopyRequest(str(program.folder / "disk.raw"), target))
    files = sorted(tmp_path.glob("disk.E*"))
    assert [file.name for file in files] == ["disk.E01", "disk.E02", "disk.E03", "disk.E04"][
        : len(files)
    ]
    assert len(files) >= 3
    assert all(file.stat().st_size <= MIB for file in files)
    with open_image(str(files[0])) as image:
        assert image.read_at(0, image.size) == DISK
        assert image.info().hashes["md5"] == hashlib.md5(DISK).hexdigest()
    check(files[0])


def check(path: Path) -> None:
    """Nothing may be wrong with the structure."""
    assert isinstance(E01, Checkable)
    storage = FileStorage.open(path)
    assert list(E01.check(storage, FolderGate(), repair=False)) == []
    storage.close()


def test_verify_tells_what_has_changed_and_what_is_missing(
    tmp_path: Path, program: Program
) -> None:
    """Fails if a changed image verifies (CFTT AO-07), or the place is not told (AO-08)."""
    program("convert", "disk.raw", "disk.E01", "-osegment_size=1M", "-ocompression=none")
    assert program("verify", "disk.E01").exit_code == 0
    second = tmp_path / "disk.E02"
    content = bytearray(second.read_bytes())
    content[500_000] ^= 1
    second.write_bytes(content)
    result = program("verify", "disk.E01", "--json")
    assert result.exit_code == 1
    (found,) = result.json["damage"]
    assert found["length"] == 32 * KIB
    assert found["offset"] % (32 * KIB) == 0
    second.unlink()
    assert program("convert", "disk.E01", "back.raw").exit_code == 3
    result = program("verify", "disk.E01", "--json")
    assert result.exit_code == 1
    (found,) = result.json["damage"]
    assert 900 * KIB < found["length"] < MIB
    assert "missing" in found["what"]
    result = program("capture", "disk.E01", "back.raw", "--incomplete", "--json")
    assert result.exit_code == 6, result.err
    assert result.json["bad"] == [{"offset": found["offset"], "length": found["length"]}]
    back = (tmp_path / "back.raw").read_bytes()
    end = found["offset"] + found["length"]
    assert back == DISK[: found["offset"]] + bytes(found["length"]) + DISK[end:]


def test_case_data_and_hashes_are_kept_and_told(program: Program) -> None:
    """Fails if what the examiner gives does not come back, or the image is not reproducible."""
    case = {"case_number": "Fall Ä 7", "examiner": "m.e.", "notes": "two\nlines", "model": "X-1"}
    options = [f"-o{name}={value}" for name, value in case.items()]
    uuid = "-ouuid=3f2504e0-4f89-11d3-9a0c-0305e82c3301"
    env = {"SOURCE_DATE_EPOCH": "1000000000"}
    for name in ("a.E01", "b.E01"):
        done = program("convert", "disk.raw", name, uuid, *options, environment=env)
        assert done.exit_code == 0, done.err
    found = program("info", "a.E01", "--json").json
    assert found["hashes"]["sha1"] == hashlib.sha1(DISK).hexdigest()
    assert found["case"]["case_number"] == "Fall Ä 7"
    assert found["case"]["notes"] == "two lines"
    assert found["case"]["model"] == "X-1"
    assert found["case"]["acquisition_date"] == "2001-09-09T01:46:40Z"
    assert found["uuid"] == "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
    folder = program.folder
    assert (folder / "a.E01").read_bytes() == (folder / "b.E01").read_bytes()


def test_bad_areas_are_kept_when_an_image_is_copied() -> None:
    """Fails if sectors that could not be read turn into zeros like others."""
    first = MemoryStorage(name="a.E01")
    target = created(len(DISK), first, tracks="0,100a", media_type="optical")
    bad = Extent(2 * MIB + 1024, 1500, Kind.BAD)
    copy(_WithBad(DISK, bad), target)
    image = E01.open(MemoryStorage(bytes(first.content), name="a.E01"), DictOpener())
    found = [extent for extent in image.extents(0, image.size) if extent.kind is Kind.BAD]
    assert found == [Extent(2 * MIB + 1024, 1536, Kind.BAD)]
    assert image.info().options["tracks"] == "0 data, 100 audio"
    assert verify_disk(image, (), image.info().hashes).ok


class _WithBad(MemoryStorage):
    """A disk, a part of which could not be read when it was imaged."""

    def __init__(self, disk: bytes, bad: Extent) -> None:
        super().__init__(disk, name="disk")
        self._bad = bad

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Three: before, bad, behind."""
        end = offset + length
        for start, stop, kind in (
            (0, self._bad.offset, Kind.DATA),
            (self._bad.offset, self._bad.end, Kind.BAD),
            (self._bad.end, self.size, Kind.DATA),
        ):
            first, last = max(start, offset), min(stop, end)
            if first < last:
                storage = self if kind is Kind.DATA else None
                yield Extent(first, last - first, kind, storage, first if storage else 0)


def test_bad_sectors_that_the_format_cannot_name_are_refused() -> None:
    """Fails if a bad area behind 2 TiB is left out in silence."""
    target = created(1 << 43, MemoryStorage(name="a.E01"), chunk_sectors="32768")
    assert isinstance(target, Documenting)
    with pytest.raises(TargetError, match="bad sectors"):
        target.document({}, [Extent(1 << 42, 512, Kind.BAD)])


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (1000, {}),
        (4 * MIB, {"sector_size": "4096", "flavour": "encase7", "chunk_sectors": "32"}),
        (4 * MIB, {"sector_size": "4096", "chunk_sectors": "32768"}),
        (4 * MIB, {"segment_size": "100K"}),
        (4 * MIB, {"segment_size": "3G", "flavour": "ftk"}),
        (4 * MIB, {"compression": "none", "level": "3"}),
        (4 * MIB, {"tracks": "5,3"}),
        (4 * MIB, {"uuid": "none"}),
        (4 << 40, {"flavour": "encase5"}),
    ],
)
def test_what_makes_no_sense_is_refused(size: int, options: dict[str, str]) -> None:
    """Fails if options that contradict each other give an image."""
    with pytest.raises(UsageError):
        created(size, MemoryStorage(name="a.E01"), **options)


def test_further_segments_need_a_name_that_goes_on() -> None:
    """Fails if an image of several files is made that nobody finds again."""
    target = created(4 * MIB, MemoryStorage(name="image"), segment_size="1M", compression="none")
    with pytest.raises(UsageError, match=r"like disk\.E01"):
        target.write(memoryview(random.Random(1).randbytes(4 * MIB)), 0)


def test_evidence_is_not_changed_in_place() -> None:
    """Fails if an E01 can be opened for writing."""
    with pytest.raises(UnsupportedFeatureError, match="never changed"):
        E01.edit(MemoryStorage(name="a.E01"), DictOpener())


def test_segments_of_another_image_are_not_taken_over(tmp_path: Path, program: Program) -> None:
    """Fails if a new image begins in front of segments that are not its own."""
    (tmp_path / "disk.E02").write_bytes(b"something else")
    done = program("convert", "disk.raw", "disk.E01")
    assert done.exit_code == RefusedError.exit_code
    assert not (tmp_path / "disk.E01").exists()


def test_no_segment_of_the_source_is_overwritten(program: Program) -> None:
    """Fails if evidence that is being read can be lost."""
    program("convert", "disk.raw", "disk.E01", "-osegment_size=1M", "-ocompression=none")
    program.refuses(5, "convert", "disk.E01", "disk.E02", "-Oraw", "--force", "--progress", "none")


def test_replacing_a_set_leaves_no_old_segment(tmp_path: Path, program: Program) -> None:
    """Fails if other tools would read the new image with the old one's end."""
    program("convert", "disk.raw", "disk.E01", "-osegment_size=1M", "-ocompression=none")
    assert (tmp_path / "disk.E04").exists()
    done = program("convert", "disk.raw", "disk.E01", "--force")
    assert done.exit_code == 0, done.err
    assert [file.name for file in sorted(tmp_path.glob("disk.E*"))] == ["disk.E01"]
