"""EWF sets that are damaged, odd or incomplete: what is said of them, and what is still read."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    ReadError,
    ReferenceRefusedError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.extent import Kind
from imprint.core.formats import Checkable, Gapped
from imprint.endpoints.hashing import verify_disk
from imprint.formats.ewf.chunks import EntryCache, TableCopy, TableGroup
from imprint.formats.ewf.naming import Names
from imprint.storage.memory import MemoryStorage
from imprint.testing import ewf_image
from imprint.testing.ewf_image import descriptor, e01, file_header, sealed, volume
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.core.contracts import Reference
    from imprint.core.image import Image

E01 = formats.get("e01")
CHUNK = ewf_image.PER_CHUNK * ewf_image.SECTOR
NOISE = random.Random(5).randbytes(10 * CHUNK - 512)


def opened(content: bytes, others: Mapping[str, bytes] | None = None) -> Image:
    files = {name: MemoryStorage(data, name=name) for name, data in (others or {}).items()}
    return E01.open(MemoryStorage(content, name="disk.E01"), DictOpener(files=files))


def incomplete(content: bytes, others: Mapping[str, bytes] | None = None) -> Image:
    files = {name: MemoryStorage(data, name=name) for name, data in (others or {}).items()}
    assert isinstance(E01, Gapped)
    return E01.open_incomplete(MemoryStorage(content, name="disk.E01"), DictOpener(files=files))


def damage(image: Image) -> list[tuple[int, int]]:
    found = verify_disk(image, ("md5",), {})
    return [(item.offset, item.length) for item in found.damage]


def faults(content: bytes, others: Mapping[str, bytes] | None = None) -> str:
    assert isinstance(E01, Checkable)
    files = {name: MemoryStorage(data, name=name) for name, data in (others or {}).items()}
    storage = MemoryStorage(content, name="disk.E01")
    found = E01.check(storage, DictOpener(files=files), repair=False)
    return "\n".join(f"{item.where}: {item.what}" for item in found)


def changed(content: bytes, at: int, data: bytes) -> bytes:
    return content[:at] + data + content[at + len(data) :]


def place(content: bytes, kind: bytes, number: int = 0) -> int:
    """Where the data of a section begins."""
    at = -1
    for _ in range(number + 1):
        at = content.index(kind.ljust(16, b"\0"), at + 1)
    return at + 76


@pytest.mark.parametrize("chunk", [2, 3], ids=["packed", "stored"])
def test_one_wrong_bit_is_told_with_its_place_on_the_disk(chunk: int) -> None:
    """Fails if a damaged chunk passes, or takes its neighbours with it."""
    content = e01(NOISE)
    table = place(content, b"table") + 24
    at = struct.unpack_from("<I", content, table + 4 * chunk)[0] & 0x7FFF_FFFF
    image = opened(changed(content, at + 100, bytes([content[at + 100] ^ 4])))
    assert damage(image) == [(chunk * CHUNK, CHUNK)]
    with pytest.raises(ReadError) as caught:
        image.read_at(0, len(NOISE))
    assert caught.value.offset == chunk * CHUNK
    assert image.read_at(0, chunk * CHUNK) == NOISE[: chunk * CHUNK]
    assert image.read_at((chunk + 1) * CHUNK, CHUNK) == NOISE[(chunk + 1) * CHUNK :][:CHUNK]


@pytest.mark.parametrize("at", [0, 30], ids=["header", "entries"])
@pytest.mark.parametrize("kind", [b"table", b"table2"])
def test_one_bad_copy_of_a_table_does_no_harm(kind: bytes, at: int) -> None:
    """Fails if the other copy is not taken, or the check does not tell."""
    content = e01(NOISE, groups=2)
    wrong = place(content, kind) + at
    content = changed(content, wrong, bytes([content[wrong] ^ 1]))
    assert opened(content).read_at(0, len(NOISE)) == NOISE
    assert faults(content)


def test_without_a_sound_table_only_its_own_chunks_are_lost() -> None:
    """Fails if chunks are read from wrong places, or those of other tables are lost too."""
    content = e01(NOISE, groups=2)
    for kind in (b"table", b"table2"):
        content = changed(content, place(content, kind) + 30, b"\xee\xee")
    assert damage(opened(content)) == [(0, 5 * CHUNK)]


def test_a_set_that_breaks_off_is_read_as_far_as_it_goes() -> None:
    """Fails if what is cut off reads as zeros, or nothing can be read at all."""
    content = e01(NOISE, groups=5)
    cut = place(content, b"table", 3)
    image = opened(content[: cut - 90])
    assert damage(image) == [(6 * CHUNK, len(NOISE) - 6 * CHUNK)]
    assert image.read_at(0, 6 * CHUNK) == NOISE[: 6 * CHUNK]
    assert image.info().warnings


def _segments() -> dict[str, bytes]:
    """A set of four, two chunks in each but the last."""
    chunks = ewf_image.chunks_of(NOISE)
    found = {}
    for number in range(1, 5):
        content = file_header(number)
        kind = b"volume" if number == 1 else b"data"
        content += descriptor(kind, len(content), 1052) + volume(NOISE)
        mine = chunks[2 * number - 2 : 2 * number] if number < 4 else chunks[6:]
        content += ewf_image.sectors(mine, len(content))
        end = b"next" if number < 4 else b"done"
        found[f"disk.E0{number}"] = content + descriptor(end, len(content), None)
    return found


def test_a_missing_segment_is_refused_unless_one_asks() -> None:
    """Fails if its chunks read as zeros, or if chunks behind it get other numbers."""
    files = _segments()
    first = files.pop("disk.E01")
    assert opened(first, files).read_at(0, len(NOISE)) == NOISE
    del files["disk.E03"]
    with pytest.raises(ReferenceRefusedError, match=r"segment 3, disk\.E03"):
        opened(first, files)
    image = incomplete(first, files)
    assert damage(image) == [(4 * CHUNK, 2 * CHUNK)]
    assert image.read_at(6 * CHUNK, CHUNK) == NOISE[6 * CHUNK :][:CHUNK]
    assert any("missing: 3" in text for text in image.info().warnings)
    assert "segment 3 is missing" in faults(first, files)


def test_without_its_end_a_set_is_read_up_to_it() -> None:
    """Fails if chunks are placed by counting from an end that is not there."""
    files = _segments()
    first = files.pop("disk.E01")
    del files["disk.E03"], files["disk.E04"]
    assert damage(incomplete(first, files)) == [(4 * CHUNK, len(NOISE) - 4 * CHUNK)]


def test_another_segment_in_the_place_of_one_is_noticed() -> None:
    """Fails if segments are taken by their names alone."""
    files = _segments()
    first = files.pop("disk.E01")
    files["disk.E02"] = files["disk.E03"]
    with pytest.raises(ImagingError, match="expected segment 2"):
        opened(first, files)
    with pytest.raises(CorruptImageError, match="expected segment 1 of a set, found segment 3"):
        opened(files["disk.E03"])


def test_the_zlib_of_the_tableau_td3_is_read() -> None:
    """Fails if stored blocks with a second length of 0 are taken for damage."""
    chunk = NOISE[:CHUNK]
    packed = bytearray(zlib.compress(chunk, 0))
    assert packed[2] == 1  # one stored block
    packed[5:7] = b"\0\0"
    content = file_header() + descriptor(b"volume", 13, 1052) + volume(chunk)
    at = len(content)
    content += descriptor(b"sectors", at, len(packed)) + packed
    table = sealed(struct.pack("<I16x", 1)) + sealed(struct.pack("<I", at + 76 | 1 << 31))
    content += descriptor(b"table", len(content), len(table)) + table
    content += descriptor(b"done", len(content), None)
    assert opened(content).read_at(0, CHUNK) == chunk


def test_offsets_of_encase_6_7_1_may_run_over_their_flag() -> None:
    """Fails if chunks behind 2 GiB of a section are taken for packed ones at wrong places."""
    offsets = [0x7FFF_0000 | 1 << 31, 0x7FFF_8004, 0x8000_0008, 0x8000_800C]
    table = struct.pack("<4I", *offsets)
    storage = MemoryStorage(table, name="disk.E01")
    group = TableGroup(storage, 4, 0, 0x8001_0010, [TableCopy(0, has_checksum=False)])
    places = [group.place(index, EntryCache()) for index in range(4)]
    assert [item.offset for item in places] == [0x7FFF_0000, 0x7FFF_8004, 0x8000_0008, 0x8000_800C]
    assert [item.is_compressed for item in places] == [True, False, False, False]
    assert [item.length for item in places] == [0x8004, 0x8004, 0x8004, 0x8004]


def test_two_images_in_one_file_are_noticed() -> None:
    """Fails if a section whose size and successor disagree passes in silence."""
    content = e01(NOISE)
    at = content.index(b"sectors")
    start = content[at : at + 24] + struct.pack("<Q", 5000) + content[at + 32 : at + 72]
    image = opened(changed(content, at, sealed(start)))
    assert image.read_at(0, len(NOISE)) == NOISE
    assert any("its size says" in text for text in image.info().warnings)


def _with(content: bytes, kind: bytes, data: bytes) -> bytes:
    """One section more, before the last one."""
    at = len(content) - 76
    content = content[:at] + descriptor(kind, at, len(data)) + data
    return content + descriptor(b"done", len(content), None)


def _error2(*runs: tuple[int, int]) -> bytes:
    listed = b"".join(struct.pack("<II", *run) for run in runs)
    return sealed(struct.pack("<I512x", len(runs))) + sealed(listed)


def test_sectors_that_could_not_be_read_are_bad_where_they_are_zeros() -> None:
    """Fails if they are lost from the map, or if what an imager kept of them is thrown away."""
    disk = bytearray(NOISE)
    disk[3 * 512 : 6 * 512] = bytes(3 * 512)
    image = opened(_with(e01(bytes(disk)), b"error2", _error2((3, 3), (40, 2), (1 << 30, 9))))
    bad = [extent for extent in image.extents(0, image.size) if extent.kind is Kind.BAD]
    assert [(extent.offset, extent.length) for extent in bad] == [(3 * 512, 3 * 512)]
    assert image.read_at(0, image.size) == disk
    assert image.info().options["bad_sectors"] == 5


def test_hashes_of_zeros_are_none_and_others_are_kept() -> None:
    """Fails if a hash that was never taken is compared, or two that differ pass."""
    digest = hashlib.md5(NOISE, usedforsecurity=False).digest()
    content = _with(e01(NOISE), b"hash", sealed(bytes(32)))
    assert opened(content).info().hashes == {}
    content = _with(content, b"digest", sealed(digest.ljust(76, b"\0")))
    assert opened(content).info().hashes == {"md5": digest.hex()}
    content = _with(content, b"hash", sealed(b"\1" * 16 + bytes(16)))
    assert any("two different" in text for text in opened(content).info().warnings)


def test_tracks_and_case_data_are_told() -> None:
    """Fails if the first track begins at 16, or a date is not understood."""
    entries = struct.pack("<II24xII24x", 0, 16, 1, 700)
    data = sealed(struct.pack("<I28x", 2)) + sealed(entries)
    info = opened(_with(e01(NOISE), b"session", data)).info()
    assert info.options["tracks"] == "0 data, 700 audio"
    assert info.case == {"case_number": "case 9", "acquisition_date": "2002-03-04T10:19:59"}


def test_encrypted_evidence_is_refused_by_name() -> None:
    """Fails if AD encryption is taken for damage."""
    with pytest.raises(UnsupportedFeatureError, match="AD encryption"):
        opened(b"ADCRYPT\0" + bytes(600))


@pytest.mark.parametrize(
    ("first", "number", "expected"),
    [
        ("a.E01", 2, "a.E02"),
        ("a.E01", 99, "a.E99"),
        ("a.E01", 100, "a.EAA"),
        ("a.E01", 775, "a.EZZ"),
        ("a.E01", 776, "a.FAA"),
        ("a.E01", 14971, "a.ZZZ"),
        ("/x/b.e01", 101, "b.eab"),
        ("b.s01.partial", 3, "b.s03"),
        ("b.Ex01", 100, "b.ExAA"),
        ("b.Ex01", 776, "b.EyAA"),
    ],
)
def test_segments_have_the_names_that_other_tools_look_for(
    first: str, number: int, expected: str
) -> None:
    """Fails if a set of many files cannot be found."""
    assert Names(first).name(number) == expected


def test_there_are_no_names_beyond_the_last() -> None:
    """Fails if a set grows names that nobody looks for."""
    names = Names("a.E01")
    assert names.count_max == 99 + 22 * 26 * 26
    with pytest.raises(UsageError, match="at most"):
        names.name(names.count_max + 1)
    with pytest.raises(UsageError, match=r"like disk\.E01"):
        Names("image").suffix(2)


def test_a_parent_gate_that_only_looks_shows_what_is_there() -> None:
    """Fails if a set whose segments are elsewhere cannot even be looked at."""
    files = _segments()
    opener = _Lenient()
    image = E01.open(MemoryStorage(files["disk.E01"], name="disk.E01"), opener)
    assert image.info().size == len(NOISE)
    assert image.info().warnings


class _Lenient(DictOpener):
    """Hands out files that fail when they are used, as the gate does for those who only look."""

    def data_file(self, reference: Reference, beside: object) -> MemoryStorage:
        """A file that is not there."""
        del beside
        return _Gone(name=reference.name or "")


class _Gone(MemoryStorage):
    @property
    def size(self) -> int:
        """Unknown."""
        raise ReferenceRefusedError("no such file", name=self.name)
