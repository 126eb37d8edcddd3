"""VHDX files that are damaged, or made to do harm; and options that make no sense."""

from __future__ import annotations

import contextlib
import random
import struct
import uuid
from typing import TYPE_CHECKING, Any

import google_crc32c
import pytest

from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    TruncatedImageError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import Severity
from imprint.core.formats import Checkable, CreateSpec, parse_options
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Any]

MIB = 1 << 20
VHDX = formats.get("vhdx")
UNKNOWN = uuid.UUID(int=0x77)
HEADERS = (64 << 10, 128 << 10)
TABLES = (192 << 10, 256 << 10)


def stored(mib: int, state: int = 6) -> int:
    return mib << 20 | state


def read(content: bytes) -> bytes:
    with VHDX.open(MemoryStorage(content), DictOpener()) as image:
        return image.read_at(0, image.size)


def findings(content: bytes) -> list[Severity]:
    assert isinstance(VHDX, Checkable)
    found = VHDX.check(MemoryStorage(content), DictOpener(), repair=False)
    return [each.severity for each in found]


@pytest.mark.parametrize("wrong", [0, 1])
def test_one_sound_header_and_table_are_enough(maker: Make, wrong: int) -> None:
    """Fails if a checksum is not looked at, or a damaged copy stops us; repair makes it whole."""
    made = maker(MIB, [stored(4)], [b"\x09" * MIB])
    good = made.build()
    bad = bytearray(good)
    bad[HEADERS[wrong] + 70] ^= 1
    bad[TABLES[wrong] + 300] ^= 1
    assert read(bytes(bad)) == b"\x09" * MIB
    assert findings(bytes(bad)) == [Severity.WARNING] * 2
    assert isinstance(VHDX, Checkable)
    storage = MemoryStorage(bad)
    assert all(each.repaired for each in VHDX.check(storage, DictOpener(), repair=True))
    assert findings(bytes(storage.content)) == []
    edited = MemoryStorage(bad)
    bad[HEADERS[1 - wrong] + 70] ^= 1
    with pytest.raises(CorruptImageError, match="header"):
        read(bytes(bad))
    image = VHDX.edit(edited, DictOpener())
    image.write(memoryview(b"\x08"), 0)
    image.commit()
    assert findings(bytes(edited.content)) == []


def test_the_higher_sequence_number_wins_among_sound_ones(maker: Make) -> None:
    """Fails if the first header is taken, or a damaged one with a higher number."""
    newer = maker(MIB, [0], [], data_guid=uuid.UUID(int=0xAA), sequences=(9, 5)).build()
    older = maker(MIB, [0], [], data_guid=uuid.UUID(int=0xBB), sequences=(9, 5)).build()
    mixed = bytearray(older)
    mixed[HEADERS[0] : HEADERS[1]] = newer[HEADERS[0] : HEADERS[1]]
    guid = VHDX.open(MemoryStorage(mixed), DictOpener()).info().options["data_write_guid"]
    assert guid == str(uuid.UUID(int=0xAA))
    mixed[HEADERS[0] + 40] ^= 1
    guid = VHDX.open(MemoryStorage(mixed), DictOpener()).info().options["data_write_guid"]
    assert guid == str(uuid.UUID(int=0xBB))


def test_unknown_required_things_are_refused_and_others_kept(maker: Make) -> None:
    """Fails if we open what we do not understand, or overwrite what we do not know."""
    region = (UNKNOWN, 5 * MIB, MIB, 1)
    blocks = [b"\x01" * MIB, b"\xee" * MIB]
    with pytest.raises(UnsupportedFeatureError, match=str(UNKNOWN)):
        read(maker(MIB, [stored(4)], blocks, extra_regions=[region]).build())
    for flags in (4, 5, 6):
        item = (UNKNOWN, b"secret", flags)
        with pytest.raises(UnsupportedFeatureError, match=str(UNKNOWN)):
            read(maker(MIB, [stored(4)], blocks, extra_items=[item]).build())
    made = maker(
        2 * MIB,
        [stored(4), 0],
        blocks,
        extra_regions=[(UNKNOWN, 5 * MIB, MIB, 0)],
        extra_items=[(UNKNOWN, b"a user's item", 1)],
    )
    storage = MemoryStorage(made.build())
    image = VHDX.edit(storage, DictOpener())
    image.write(memoryview(b"\x02" * MIB), MIB)
    image.resize(9 * MIB)
    image.commit()
    assert storage.content[5 * MIB : 6 * MIB] == b"\xee" * MIB
    assert b"a user's item" in storage.content[2 * MIB : 3 * MIB]
    assert read(bytes(storage.content)) == b"\x01" * MIB + b"\x02" * MIB + bytes(7 * MIB)


@pytest.mark.parametrize(
    "changes",
    [
        {"block_size": MIB // 2},
        {"block_size": 3 * MIB},
        {"block_size": 512 * MIB},
        {"block_size": 0},
        {"sector": 0},
        {"sector": 1024},
        {"size": 1000},
        {"size": 1 << 60},
        {"size": 64 << 40},
        {"size": 4000 << 30},
        {"extra_regions": [(UNKNOWN, 3 * MIB, MIB, 0)]},
        {"extra_regions": [(UNKNOWN, 1 << 50, MIB, 0)]},
        {"extra_regions": [(UNKNOWN, 100, MIB, 0)]},
        {"sequences": (1 << 63, 1 << 63)},
        {"parent": {}},
        {"parent": {"parent_linkage": "x"}},
        {"parent": {"relative_path": "/etc/passwd"}},
    ],
)
def test_values_that_make_no_sense_are_one_error(maker: Make, changes: dict[str, Any]) -> None:
    """Fails if a field leads to a division by zero, a huge table, or another file."""
    content = maker(**{"size": MIB, "entries": [0], **changes}).build()
    with pytest.raises(ImagingError):
        read(content)


@pytest.mark.parametrize(
    "entry", [stored(0), stored(1 << 30), stored(5), 0xFFFFFFFFFFFFFFFE, stored(0, 7)]
)
def test_blocks_that_are_nowhere_are_errors(maker: Make, entry: int) -> None:
    """Fails if headers are read as data (libvhdi did), or what is not there as zeros."""
    content = maker(MIB, [entry], [b"\x01" * MIB]).build()
    with pytest.raises((CorruptImageError, TruncatedImageError)):
        read(content)
    assert Severity.ERROR in findings(content)
    with pytest.raises(CorruptImageError):
        VHDX.edit(MemoryStorage(content), DictOpener())


@pytest.mark.parametrize("mib", [1, 2, 3, 4])
def test_two_things_in_one_place_are_not_written_to(maker: Make, mib: int) -> None:
    """Fails if writing a block could overwrite the log, a table, or another block."""
    content = maker(2 * MIB, [stored(4), stored(mib)], [b"\x01" * MIB]).build()
    assert Severity.ERROR in findings(content)
    with pytest.raises(CorruptImageError, match="nothing else"):
        VHDX.edit(MemoryStorage(content), DictOpener())


@pytest.mark.parametrize(
    "options",
    [
        {"block_size": "3M"},
        {"block_size": "512K"},
        {"block_size": "512M"},
        {"log_size": "100K"},
        {"log_size": "128M"},
        {"log_size": "0"},
        {"logical_sector_size": "1024"},
        {"subformat": "flat"},
        {"uuid": "no"},
        {"uuid": str(uuid.UUID(int=0))},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, str]) -> None:
    """Fails if an image is made that others cannot open."""
    with pytest.raises(UsageError):
        VHDX.create(
            MemoryStorage(),
            CreateSpec(MIB, DictOpener(), parse_options("vhdx", VHDX.options, options)),
        )


def test_the_same_uuid_gives_the_same_file() -> None:
    """Fails if anything random gets into an image whose UUID was given."""
    made = []
    for _ in range(2):
        storage = MemoryStorage()
        options = parse_options("vhdx", VHDX.options, {"uuid": str(UNKNOWN)})
        image = VHDX.create(storage, CreateSpec(3 * MIB, DictOpener(), options))
        image.write(memoryview(b"\x01" * MIB), MIB)
        image.commit()
        made.append(bytes(storage.content))
    assert made[0] == made[1]


def test_a_disk_of_large_sectors_is_laid_out_as_specified() -> None:
    """Fails if a 4Kn disk keeps the chunk ratio of 512 bytes, or takes a size in half sectors."""
    storage = MemoryStorage()
    options = parse_options("vhdx", VHDX.options, {"logical_sector_size": "4096"})
    image = VHDX.create(storage, CreateSpec(40_000 * MIB + 1000, DictOpener(), options))
    assert image.size == 40_000 * MIB + 4096
    image.write(memoryview(b"\x05" * MIB), 32768 * MIB)
    image.commit()
    # 2^23 sectors of 4096 bytes are 32768 blocks of 1 MiB; then stands one bitmap's entry.
    entry = 3 * MIB + 8 * (32768 + 1)
    (value,) = struct.unpack_from("<Q", storage.content, entry)
    assert value & 7 == 6
    assert storage.content[value >> 20 << 20 :][:MIB] == b"\x05" * MIB
    edited = VHDX.edit(storage, DictOpener())
    with pytest.raises(UsageError, match="4096"):
        edited.resize(40_000 * MIB + 512)


def test_wrong_fields_under_right_checksums_are_a_disk_or_an_error(
    maker: Make, log_entry: Callable[..., Any]
) -> None:
    """Fails if only the checksums protect us: whoever makes a hostile file makes these too."""
    guid, randomness = uuid.UUID(int=5), random.Random(21)
    entry = log_entry(guid, 9, 0, [(3 * MIB, bytes(4096))], zeros=[(3 * MIB + 4096, 8192)])
    log = entry.build()
    blocks = [b"\x01" * 4096, b"\x02" * 4096]
    dirty = maker(2 * MIB, [stored(4), stored(5)], blocks, log_guid=guid, log=log)
    clean = maker(2 * MIB, [stored(4), stored(5)], blocks)
    areas = [(offset, 80) for offset in (*HEADERS, *TABLES)] + [(2 * MIB, 192), (MIB, 130)]
    for _ in range(150):
        made = randomness.choice((dirty, clean))
        content = bytearray(made.build())
        for start, length in randomness.choices(areas, k=3):
            at = start + randomness.randrange(0, length, 4)
            content[at : at + 4] = randomness.choice((b"\0\0\0\0", b"\xff" * 4, b"\0\0\x10\0"))
        lengths = ((HEADERS, 4096), (TABLES, 65536), ((MIB,), len(log)))
        for offsets, length in lengths:
            for offset in offsets:
                piece = content[offset : offset + length]
                piece[4:8] = bytes(4)
                piece[4:8] = struct.pack("<I", google_crc32c.value(bytes(piece)))
                content[offset : offset + length] = piece
        storage = FaultyStorage(MemoryStorage(content), size_max=len(content) + 16 * MIB)
        with contextlib.suppress(ImagingError):
            VHDX.open(MemoryStorage(content), DictOpener()).read_at(0, MIB)
        with contextlib.suppress(ImagingError):
            image = VHDX.edit(storage, DictOpener())
            image.write(memoryview(b"x"), 0)
            image.commit()
