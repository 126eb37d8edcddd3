"""UDF: volumes made by hand, of each kind of partition; damage, circles and absurd lengths."""

from __future__ import annotations

import contextlib
import random
import struct
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    ImagingError,
    UnsupportedFeatureError,
)
from imprint.core.extent import Kind
from imprint.core.units import MIB
from imprint.filesystems import identify
from imprint.filesystems.blocks import block_size
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.udf import text
from imprint.filesystems.udf.layout import ExtendedFileEntry, LogicalVolume, PartitionMap
from imprint.filesystems.udf.tree import UdfTree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage
from imprint.testing.format_faults import bounded_memory
from imprint.testing.small_udf import (
    BLOCK,
    BLOCKS,
    CONTENT,
    EMBEDDED,
    GONE,
    KINDS,
    NAMES,
    STAMP_NS,
    START,
    STREAM,
    TARGET,
    seal_udf,
    small_udf,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.filesystems.tree import FileTree

ROOT: Final = START + 2
FILE: Final = START + 4
FOLDER: Final = START + 5
MAPS: Final = 101 * BLOCK + LogicalVolume.SIZE

each_kind = pytest.mark.parametrize("kind", KINDS)


def opened(content: bytes | bytearray) -> UdfTree:
    return UdfTree(MemoryStorage(bytes(content), name="volume"))


def changed(kind: str, change: Callable[[bytearray], object]) -> UdfTree:
    """A volume that was changed, with checksums that are right again."""
    content = bytearray(small_udf(kind))
    change(content)
    seal_udf(content)
    return opened(content)


def read(files: FileTree, path: str, stream: str | None = None) -> bytes:
    content = files.content(find_path(files, path, deleted=True), stream)
    buffer = bytearray(content.size)
    content.readinto(memoryview(buffer), 0)
    return bytes(buffer)


@each_kind
def test_what_was_put_there_is_told(kind: str) -> None:
    """Fails if blocks of any kind of partition are looked for elsewhere, or a loop is entered."""
    volume = MemoryStorage(small_udf(kind))
    system = identify(volume)
    assert system is not None
    assert (system.kind, system.label) == ("udf", "small")
    assert block_size("udf", volume) == BLOCK
    files = tree("udf", volume)
    found = {entry.path: entry for entry in walk(files)}
    assert sorted(found) == sorted(["/", *(f"/{name}" for name in NAMES), "/folder/again"])
    assert ["in itself" in note for note in files.notes] == [True]
    file = found["/file"]
    assert (file.owner, file.group, file.mode, file.links) == (70_000, 0, 0o2754, 2)
    assert set(file.times) == {STAMP_NS}
    assert found["/chained"].times.created == STAMP_NS
    assert found["/link"].target == TARGET
    assert found["/link"].size == len(TARGET.encode())
    assert read(files, "file") == CONTENT
    assert read(files, "größe") == EMBEDDED
    assert read(files, "chained") == EMBEDDED
    content = files.content(file)
    kinds = [extent.kind for extent in content.extents(0, content.size)]
    assert kinds == [Kind.DATA, Kind.HOLE, Kind.DATA, Kind.DATA]
    assert not file.is_plain
    assert found["/日本"].streams == ("more",)
    assert read(files, "日本", "more") == STREAM
    with pytest.raises(CorruptImageError, match="no stream"):
        files.content(found["/日本"], "less")
    with pytest.raises(CorruptImageError, match="no stream"):
        files.content(file, "more")


@each_kind
def test_a_deleted_file_is_told_with_what_is_left_of_it(kind: str) -> None:
    """Fails if it is told among the others, or as nobody's where nothing says that it is."""
    files = opened(small_udf(kind))
    gone = find_path(files, "gone", deleted=True)
    assert (gone.is_deleted, gone.type, gone.size) == (True, Type.FILE, len(GONE))
    assert read(files, "gone") == GONE
    assert gone.is_allocated == (kind not in ("plain", "sparable"))
    if kind == "plain":
        for at in (START + 60) * BLOCK + 24 + 1, (START + 60) * BLOCK + 24 + 5:
            content = bytearray(small_udf(kind))
            content[at] = 0  # in the bitmap its entry, then its data, are somebody's
            seal_udf(content)
            assert find_path(opened(content), "gone", deleted=True).is_allocated


def test_the_mirror_is_read_where_metadata_are_damaged() -> None:
    """Fails if a bad sector in the metadata file loses files although there is a copy of it."""
    content = bytearray(small_udf("metadata"))
    whole = read(opened(content), "file")
    main = [START + 16 + 2, START + 16 + 4]  # the root's entry, and the file's
    for block in main:
        content[block * BLOCK : (block + 1) * BLOCK] = b"\xff" * BLOCK
    files = opened(content)
    assert read(files, "file") == whole
    assert len(files.notes) == 2
    assert all("from its mirror" in note for note in files.notes)
    bad = [(block * BLOCK, BLOCK) for block in (*main, START + 16 + 3, START + 61)]
    volume = FaultyStorage(MemoryStorage(small_udf("metadata")), bad=bad[:3])
    assert read(UdfTree(volume), "file") == whole
    volume = FaultyStorage(MemoryStorage(small_udf("metadata")), bad=bad)
    files = UdfTree(volume)
    assert read(files, "file") == whole
    assert ["metadata file in block 61" in note for note in files.notes] == [True]


def test_wrong_checksums_are_notes_and_the_rest_is_told() -> None:
    """Fails if a descriptor with a wrong sum is lost, or taken without a word."""
    for at, why in ((4, "checksum"), (16 + 20, "CRC"), (12, "checksum")):
        content = bytearray(small_udf())
        content[FILE * BLOCK + at] ^= 1
        files = opened(content)
        assert read(files, "file") == CONTENT
        assert [why in note for note in files.notes] == [True]
    content = bytearray(small_udf())
    struct.pack_into("<I", content, FILE * BLOCK + 12, 77)
    seal_udf(content)
    files = opened(content)
    assert read(files, "file") == CONTENT
    assert ["says to be in block 77" in note for note in files.notes] == [True]


def test_a_name_that_is_damaged_costs_no_other() -> None:
    """Fails if a folder ends at the first descriptor that is none."""
    content = bytearray(small_udf())
    start = (START + 3) * BLOCK
    at = content.index(b"\x08folder", start)
    content[at - 38 : at - 20] = b"\xee" * 18
    files = opened(content)
    names = {entry.name for entry in files.children(files.root())}
    assert names == set(NAMES) - {"folder"}
    assert ["expected a name" in note for note in files.notes] == [True]
    content = bytearray(small_udf())
    content[content.index(b"\x08folder", start) + 1] = ord("F")
    files = opened(content)
    assert {entry.name for entry in files.children(files.root())} == {*NAMES, "Folder"} - {"folder"}
    assert ["CRC" in note for note in files.notes] == [True]


def test_the_reserve_is_read_where_the_volumes_descriptors_are_damaged() -> None:
    """Fails if one bad sector loses the volume, or one of several anchors."""
    for blocks in ((101,), (100, 101, 102), (256,), (102, 256)):
        content = bytearray(small_udf())
        for block in blocks:
            content[block * BLOCK : (block + 1) * BLOCK] = bytes([block % 200]) * BLOCK
        assert read(opened(content), "file") == CONTENT
    volume = FaultyStorage(MemoryStorage(small_udf()), bad=[(100 * BLOCK, 3 * BLOCK)])
    files = UdfTree(volume)
    assert read(files, "file") == CONTENT
    assert files.notes
    bad = [(100 * BLOCK, 3 * BLOCK), (120 * BLOCK, 3 * BLOCK)]
    with pytest.raises(FormatError):
        UdfTree(FaultyStorage(MemoryStorage(small_udf()), bad=bad))


def test_what_was_recorded_last_is_told() -> None:
    """Fails if a disc of several sessions, each with its descriptors, shows the first one."""
    content = bytearray(small_udf())
    content[200 * BLOCK : 204 * BLOCK] = content[100 * BLOCK : 104 * BLOCK]
    for block in range(200, 203):
        struct.pack_into("<I", content, block * BLOCK + 12, block)
    struct.pack_into("<H", content, 200 * BLOCK + 376 + 2, 2010)  # the year
    struct.pack_into("<I", content, 202 * BLOCK + 188, START + 1)  # the partition's start
    end = (BLOCKS - 1) * BLOCK
    struct.pack_into("<I", content, end + 20, 200)
    seal_udf(content)
    with pytest.raises(CorruptImageError):
        opened(content)
    struct.pack_into("<H", content, 200 * BLOCK + 376 + 2, 2008)
    seal_udf(content)
    assert read(opened(content), "file") == CONTENT


def test_what_cannot_be_read_is_refused_by_its_name() -> None:
    """Fails if an unknown partition, strategy or form is read by the rules of another one."""

    def unknown(content: bytearray) -> None:
        content[MAPS + 5 : MAPS + 12] = b"*Other "

    with pytest.raises(UnsupportedFeatureError, match="unknown kind"):
        changed("sparable", unknown)
    files = changed("plain", lambda content: struct.pack_into("<H", content, FILE * BLOCK + 20, 1))
    assert "/file" not in {entry.path for entry in walk(files)}
    assert any("strategy 4 or 4096, found 1" in note for note in files.notes)
    files = changed("plain", lambda content: struct.pack_into("<H", content, FILE * BLOCK + 34, 4))
    with pytest.raises(UnsupportedFeatureError, match="form 0 to 3"):
        files.content(find_path(files, "file"))


def test_absurd_lengths_are_errors_in_no_time() -> None:
    """Fails if sizes, counts or lengths are believed."""
    for size in (1 << 63, (1 << 64) - 1, 1 << 40):
        whole = bytearray(small_udf())
        struct.pack_into("<Q", whole, FILE * BLOCK + 56, size)
        seal_udf(whole)
        files = opened(whole)
        with pytest.raises(CorruptImageError, match="allocation descriptors of"):
            files.content(find_path(files, "file"))
    with bounded_memory(64 * MIB):
        for at in (ROOT * BLOCK + 56, FOLDER * BLOCK + 56):
            files = changed("plain", partial(fill_folder, at=at))
            list(walk(files))
            assert any("expected a folder of at most" in note for note in files.notes)


def fill_folder(content: bytearray, *, at: int) -> None:
    """Let a folder be a hole of 1 GiB - 1."""
    struct.pack_into("<Q", content, at, (1 << 30) - 1)
    struct.pack_into("<I", content, at - 56 + ExtendedFileEntry.SIZE, 2 << 30 | (1 << 30) - 1)


def test_descriptors_without_an_end_are_an_error() -> None:
    """Fails if an extent of allocation descriptors that leads to itself is followed for ever."""

    def loop(content: bytearray) -> None:
        at = (START + 16) * BLOCK + 24
        struct.pack_into("<IIH", content, at, 3 << 30 | BLOCK, 16, 0)

    files = changed("plain", loop)
    entry = find_path(files, "file")
    assert any("expected an end" in note for note in files.notes)
    with pytest.raises(CorruptImageError, match="expected an end"):
        files.content(entry)

    def chain(content: bytearray) -> None:
        struct.pack_into("<I", content, (START + 14) * BLOCK + 36 + 4, 13)

    files = changed("plain", chain)
    assert "/chained" not in {entry.path for entry in walk(files)}
    assert any("no end of them" in note for note in files.notes)


def test_a_partition_in_the_wrong_place_is_an_error() -> None:
    """Fails if virtual blocks without a place, or outside of the table, are read as others."""
    table = (BLOCKS - 2) * BLOCK
    for value, why in ((0xFFFFFFFF, "found none"), (1 << 30, "inside the volume")):
        content = bytearray(small_udf("virtual 1.50"))
        struct.pack_into("<I", content, table + 4 * 4, value)  # of the file's entry
        files = opened(content)
        assert "/file" not in {entry.path for entry in walk(files)}
        assert any(why in note for note in files.notes)
    content = bytearray(small_udf("virtual 2.00"))
    content[-BLOCK:] = bytes(BLOCK)
    with pytest.raises(CorruptImageError, match="virtual allocation table"):
        opened(content)
    row = PartitionMap.unpack(small_udf("sparable")[MAPS:])
    assert row.packet_blocks == 8
    content = bytearray(small_udf("sparable"))
    struct.pack_into("<H", content, MAPS + 40, 0)
    seal_udf(content)
    with pytest.raises(CorruptImageError, match="packets"):
        opened(content)


@each_kind
def test_random_damage_gives_files_notes_or_one_error(kind: str) -> None:
    """Fails if hostile bytes raise anything else, or do not end; half are sealed."""
    whole = small_udf(kind)
    starts = [*range(100, 104), 256, *range(START, START + 66), *range(340, BLOCKS)]
    dice = random.Random(kind)
    for number in range(120):
        content = bytearray(whole)
        for _ in range(dice.choice((1, 3, 10))):
            at = dice.choice(starts) * BLOCK + dice.randrange(260)
            content[at : at + 4] = dice.choice((bytes(4), b"\xff" * 4, dice.randbytes(4)))
        if number % 2:
            seal_udf(content)
        with contextlib.suppress(ImagingError), bounded_memory(100 * MIB):
            files = opened(content)
            for entry in walk(files, deleted=True):
                if entry.type is Type.FILE and entry.size < MIB:
                    with contextlib.suppress(ImagingError):
                        read(files, entry.path)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", ""),
        (b"\x08gr\xf6\xdfe", "größe"),
        (b"\x10\x65\xe5\x67\x2c", "日本"),
        (b"\x10\xd8\x3d\xde\x00", "😀"),
        (b"\xfegone", "gone"),
        (b"\xff\x65\xe5", "日"),
        (b"\x07no", ""),
    ],
)
def test_names_are_compressed_unicode(raw: bytes, expected: str) -> None:
    """Fails if names of 8 or 16 bits, or of deleted files, are decoded as others."""
    assert text.name_of(raw) == expected


def test_times_have_zones() -> None:
    """Fails if a zone is taken as another's, or a date that is none as one."""
    parts = (2009, 2, 13, 23, 31, 30, 1, 2, 3)
    utc = 1_234_567_890_010_203_000

    def told(zone: int, *date: int) -> int | None:
        return text.time_of(struct.pack("<Hh8B", zone, *date))

    assert told(0, *parts) == utc
    assert told(1 << 12 | 60, *parts) == utc - 3600 * 10**9
    assert told(1 << 12 | (-300 & 0xFFF), *parts) == utc + 5 * 3600 * 10**9
    assert told(1 << 12 | (-2047 & 0xFFF), *parts) == utc  # no zone is given
    assert told(0, 1601, 1, 1, 0, 0, 0, 0, 0, 0) == -11_644_473_600 * 10**9
    assert told(0, 2009, 2, 13, 23, 31, 30, 255, 255, 255) == utc // 10**9 * 10**9
    for date in ((0,) * 9, (2009, 13, *parts[2:]), (-5, *parts[1:])):
        assert told(0, *date) is None
