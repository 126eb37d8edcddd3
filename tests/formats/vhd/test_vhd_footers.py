"""Footers, sizes and damage: what VHDs in the wild are like, made by arithmetic."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

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
from imprint.core.extent import Kind
from imprint.core.formats import Checkable, CreateSpec, Match, Resuming, parse_options
from imprint.core.image import WritableImage
from imprint.core.units import GIB, KIB, MIB
from imprint.formats.vhd import FORMAT as VHD
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import PendingFile
from imprint.testing.faults import RecordingStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.events import Finding
    from imprint.core.formats import SizePolicy

OPENER = DictOpener()
CHS = (4, 4, 17)  # 139264 bytes
CHS_SIZE = 4 * 4 * 17 * 512


def footer(
    *,
    kind: int = 2,
    creator: bytes = b"win ",
    size: int = 200 * KIB,
    chs: tuple[int, int, int] = CHS,
    header: int = (1 << 64) - 1,
    version: int = 0x10000,
) -> bytes:
    """A sound one."""
    data = bytearray(512)
    struct.pack_into(
        ">8sIIQI4sI4s", data, 0, b"conectix", 2, version, header, 9, creator, 0, b"Wi2k"
    )
    struct.pack_into(">QQHBBI", data, 40, size, size, *chs, kind)
    data[68:84] = bytes(range(16))
    struct.pack_into(">I", data, 64, ~sum(data) & 0xFFFFFFFF)
    return bytes(data)


def made(size: int = 200 * KIB, **options: str) -> MemoryStorage:
    """An image of ours with a few bytes in it."""
    storage = MemoryStorage(name="disk.vhd")
    parsed = parse_options("vhd", VHD.options, {"block_size": "16K", **options})
    image = VHD.create(storage, CreateSpec(size, OPENER, parsed))
    image.write(memoryview(b"\x42" * 5000), 30_000)
    image.commit()
    return storage


def found(storage: MemoryStorage, *, repair: bool = False) -> list[Finding]:
    assert isinstance(VHD, Checkable)
    return list(VHD.check(storage, OPENER, repair=repair))


@pytest.mark.parametrize("length", [512, 511])
def test_a_fixed_image_is_found_by_its_footer(length: int) -> None:
    """Fails if a fixed image is read as raw, with its footer as a part of the disk."""
    disk = random.Random(1).randbytes(200 * KIB)
    storage = MemoryStorage(disk + footer()[:length])
    assert formats.detect(storage) == "vhd"
    image = VHD.open(storage, OPENER)
    assert image.read_at(0, image.size + 1000) == disk


def test_a_cut_footer_survives_writing() -> None:
    """Fails if an edit or a repair moves the end of an image of old Virtual PC."""
    storage = MemoryStorage(bytes(200 * KIB) + footer()[:511])
    image = VHD.edit(storage, OPENER)
    image.write(memoryview(b"\1" * 512), 200 * KIB - 512)
    image.commit()
    assert found(storage, repair=True) == []
    assert storage.content == bytes(200 * KIB - 512) + b"\1" * 512 + footer()[:511]


@pytest.mark.parametrize(
    ("creator", "is_chs"),
    [
        (b"vpc ", True),
        (b"qemu", True),
        (b"qem2", False),
        (b"win ", False),
        (b"d2v ", False),
        (b"tap\0", False),
        (b"CTXS", False),
        (b"vbox", False),
    ],
)
def test_the_creator_decides_which_size_counts(creator: bytes, is_chs: bool) -> None:
    """Fails if a disk is longer or shorter than for the guest that wrote it."""
    image = VHD.open(MemoryStorage(bytes(200 * KIB) + footer(creator=creator)), OPENER)
    assert image.size == (CHS_SIZE if is_chs else 200 * KIB)
    info = image.info()
    assert info.options["size_policy"] == ("chs" if is_chs else "current")
    # Where all programs agree, there is nothing to be told.
    is_told = is_chs or creator == b"vbox"
    other = str(200 * KIB if is_chs else CHS_SIZE)
    assert [other in note for note in info.notes] == [True] * is_told


@pytest.mark.parametrize(("policy", "size"), [("chs", CHS_SIZE), ("current", 200 * KIB)])
def test_the_policy_can_be_chosen(policy: SizePolicy, size: int) -> None:
    """Fails if a user who knows better cannot say so."""
    for creator in (b"vpc ", b"win "):
        storage = MemoryStorage(bytes(200 * KIB) + footer(creator=creator))
        image = VHD.with_size_policy(policy).open(storage, OPENER)
        assert image.size == size
        assert image.info().options["size_reason"] == "asked for"
        assert image.info().warnings == ()  # whoever has chosen need not be told to


@pytest.mark.parametrize("chs", [(65535, 16, 255), (0, 0, 0), (9999, 16, 63)])
def test_a_geometry_that_cannot_be_meant_is_ignored(chs: tuple[int, int, int]) -> None:
    """Fails if the largest geometry, none, or one beyond the file is taken for the size."""
    storage = MemoryStorage(bytes(200 * KIB) + footer(creator=b"vpc ", chs=chs))
    assert VHD.open(storage, OPENER).size == 200 * KIB


def test_a_guest_cannot_turn_a_fixed_image_into_another_one() -> None:
    """Fails if marks of a dynamic image, in the disk's first sectors, win over the footer."""
    inner = bytes(made().content)
    disk = inner[: 100 * KIB].ljust(200 * KIB, b"\0")
    image = VHD.open(MemoryStorage(disk + footer()), OPENER)
    assert image.info().options["subformat"] == "fixed"
    assert image.read_at(0, image.size) == disk


def test_a_footer_that_was_copied_with_a_disk_is_no_strong_sign() -> None:
    """Fails if the end of a larger raw disk makes it a VHD."""
    storage = MemoryStorage(bytes(300 * KIB) + footer())
    assert VHD.probe(storage) is Match.WEAK
    assert formats.detect(storage) == "raw"


@pytest.mark.parametrize("damage", ["zeros", "cut off", "checksum"])
def test_a_damaged_end_does_no_harm(damage: str) -> None:
    """Fails if the footer's copy at the start is not used, noted and repaired from."""
    storage = made()
    whole = bytes(storage.content)
    if damage == "zeros":
        storage.content[-512:] = bytes(512)
    elif damage == "cut off":
        del storage.content[-512:]
    else:
        storage.content[-512 + 68] ^= 0xFF
    image = VHD.open(storage, OPENER)
    assert image.read_at(30_000, 5000) == b"\x42" * 5000
    assert image.info().notes
    assert formats.detect(storage) == "vhd"
    before = bytes(storage.content)
    findings = found(storage)
    assert findings
    assert {item.severity for item in findings} == {Severity.WARNING}
    assert storage.content == before
    assert all(item.repaired for item in found(storage, repair=True))
    assert storage.content == whole
    assert found(storage) == []


def test_a_damaged_start_does_no_harm() -> None:
    """Fails if the footer at the end is not enough to read, or to repair the other one."""
    storage = made()
    whole = bytes(storage.content)
    storage.content[:512] = bytes(512)
    assert VHD.open(storage, OPENER).read_at(30_000, 5000) == b"\x42" * 5000
    image = VHD.edit(storage, OPENER)
    image.write(memoryview(b"\x42" * 5000), 100_000)  # a new block lies over the only footer
    image.commit()
    assert storage.content[:512] == whole[:512]
    assert found(storage) == []


def test_wrong_checksums_are_read_with_a_note() -> None:
    """Fails if images that other readers read are refused, or the user is not told."""
    storage = made()
    for at in (64, 512 + 36, len(storage.content) - 512 + 64):
        storage.content[at] ^= 0xFF
    image = VHD.open(storage, OPENER)
    assert image.read_at(30_000, 5000) == b"\x42" * 5000
    assert len([note for note in image.info().notes if "checksum" in note]) == 2
    assert len(found(storage)) == 3
    found(storage, repair=True)
    assert found(storage) == []
    assert VHD.open(storage, OPENER).info().notes == ()


def test_a_fixed_footer_with_a_wrong_checksum_is_repaired() -> None:
    """Fails if the check of a fixed image overlooks the only thing that can be wrong."""
    storage = MemoryStorage(bytes(200 * KIB) + footer())
    storage.content[200 * KIB + 64] ^= 1
    assert [item.repaired for item in found(storage)] == [False]
    assert [item.repaired for item in found(storage, repair=True)] == [True]
    assert storage.content == bytes(200 * KIB) + footer()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (bytes(100), CorruptImageError),
        (footer(kind=3, header=512), CorruptImageError),
        (footer(size=1 << 50), TruncatedImageError),
        (bytes(200 * KIB) + footer(kind=5), UnsupportedFeatureError),
        (bytes(200 * KIB) + footer(version=0x20000), UnsupportedFeatureError),
        (bytes(200 * KIB) + footer(kind=3, header=1 << 63), CorruptImageError),
        (bytes(200 * KIB) + footer(kind=3, header=1024), CorruptImageError),
    ],
)
def test_what_cannot_be_right_is_refused(content: bytes, error: type[ImagingError]) -> None:
    """Fails if a disk is made up where there is none."""
    with pytest.raises(error):
        VHD.open(MemoryStorage(content), OPENER)


def test_a_block_twice_or_outside_is_an_error_of_the_check() -> None:
    """Fails if the check is satisfied with a table that loses data."""
    storage = made(200 * KIB)
    table = struct.unpack_from(">Q", storage.content, 512 + 16)[0]
    good = bytes(storage.content)
    used = next(at for at in range(13) if storage.content[table + 4 * at] != 0xFF)
    entry = good[table + 4 * used : table + 4 * used + 4]
    for index, value in ((used + 4, entry), (0, b"\0\x10\0\0"), (0, bytes(4))):
        storage.content[:] = good
        storage.content[table + 4 * index : table + 4 * index + 4] = value
        assert Severity.ERROR in {item.severity for item in found(storage, repair=True)}
        with pytest.raises(CorruptImageError):
            VHD.edit(storage, OPENER)


def test_the_image_is_the_same_each_time() -> None:
    """Fails if a given UUID and time do not decide every byte."""
    options = {"uuid": "8d9ac3f4-8d0e-4b8b-9a10-6a3b6f2f0c11", "timestamp": "1600000000"}
    first, second = made(200 * KIB, **options), made(200 * KIB, **options)
    assert first.content == second.content
    info = VHD.open(first, OPENER).info()
    assert info.uuid == options["uuid"]
    assert info.options["timestamp"] == 1_600_000_000
    assert struct.unpack_from(">I", first.content, 24) == (1_600_000_000 - 946_684_800,)


@pytest.mark.parametrize(
    "options",
    [
        {"size_policy": "chs", "force_size": "on"},
        {"size_policy": "current", "force_size": "off"},
        {"preset": "azure", "subformat": "dynamic"},
        {"preset": "azure", "size_policy": "chs"},
        {"block_size": "1000"},
        {"block_size": "512M"},
        {"uuid": "nonsense"},
        {"uuid": "00000000-0000-0000-0000-000000000000"},
        {"timestamp": "0"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, str]) -> None:
    """Fails if one of two contradicting wishes is dropped without a word."""
    with pytest.raises(UsageError):
        made(200 * KIB, **options)


def test_sizes_of_no_whole_sector_are_padded() -> None:
    """Fails if the last bytes of an odd disk are lost."""
    storage = MemoryStorage()
    image = VHD.create(storage, CreateSpec(1_000_003, OPENER, {}))
    assert image.size == 1_000_448
    image.write(memoryview(b"\1\2\3"), 1_000_000)
    image.commit()
    assert VHD.open(storage, OPENER).read_at(999_999, 5) == b"\0\1\2\3\0"


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_2040_gib_are_the_limit(tmp_path: Path, subformat: str) -> None:
    """Fails if a disk is promised whose end could never be written."""
    options = parse_options("vhd", VHD.options, {"subformat": subformat})
    with pytest.raises(UsageError, match="2040"):
        VHD.create(MemoryStorage(), CreateSpec(2040 * GIB + 512, OPENER, options))
    storage = PendingFile.create(tmp_path / "disk.vhd", may_replace=False)
    image = VHD.create(storage, CreateSpec(2040 * GIB, OPENER, options))
    image.write(memoryview(b"\x42" * 512), 2040 * GIB - 512)
    image.commit()
    with VHD.open(FileStorage.open(tmp_path / "disk.vhd"), OPENER) as opened:
        assert opened.read_at(2040 * GIB - 512, 600) == b"\x42" * 512
        kinds = [extent.kind for extent in opened.extents(0, opened.size)]
        assert kinds[-1] is Kind.DATA
        assert len(kinds) <= 3


@pytest.mark.parametrize("size", [512, 100 * KIB, 200 * KIB + 512, 5 * MIB])
@pytest.mark.parametrize("cut", [512, 511])
def test_a_fixed_image_that_is_resized_is_a_disk_and_a_footer(cut: int, size: int) -> None:
    """Fails if the footer is not all that follows the disk, or shows in what is new."""
    disk = random.Random(4).randbytes(200 * KIB)
    storage = MemoryStorage(disk + footer()[:cut])
    VHD.edit(storage, OPENER).resize(size)
    assert storage.content[:size] == disk[:size].ljust(size, b"\0")
    assert storage.size == size + 512
    last = bytes(storage.content[size:])
    assert last[:8] == b"conectix"
    assert struct.unpack_from(">QQ", last, 40) == (200 * KIB, size)  # original and current size
    assert found(storage) == []


@pytest.mark.parametrize("odd", [1, 200, 511])
def test_a_footer_between_sectors_is_moved_to_one(odd: int) -> None:
    """Fails if a footer that two sectors share is overwritten: a cut could tear it."""
    disk = random.Random(4).randbytes(200 * KIB) + b"\x77" * odd
    for size in (100 * KIB, 200 * KIB + 512, 300 * KIB):
        storage = RecordingStorage(disk + footer())
        VHD.edit(storage, OPENER).resize(size)
        for _, survived in storage.crashes(random.Random(5)):
            assert formats.detect(survived) in ("vhd", "raw")  # the odd one is no strong sign
            with VHD.open(survived, OPENER) as image:
                assert image.size in (200 * KIB, size)
                expected = disk[: min(size, 200 * KIB)].ljust(image.size, b"\0")
                assert image.read_at(0, size) == expected[: min(size, image.size)]
        assert storage.size == size + 512


@pytest.mark.parametrize("size", [50 * KIB, 700 * KIB])
def test_a_resize_that_was_killed_is_still_known_and_can_be_finished(size: int) -> None:
    """Fails if a fixed image between two sizes is taken for raw, or cannot be put right."""
    disk = random.Random(6).randbytes(200 * KIB)
    storage = RecordingStorage(disk + footer())
    VHD.edit(storage, OPENER).resize(size)
    between = 0
    for _, survived in storage.crashes(random.Random(7)):
        assert formats.detect(survived) == "vhd"
        with VHD.open(survived, OPENER) as image:
            before = image.read_at(0, image.size)
            assert before in (disk, disk[:size].ljust(size, b"\0"))
        wrong = found(survived, repair=True)
        between += bool(wrong)
        assert all(finding.repaired for finding in wrong)
        assert found(survived) == []
        assert survived.content[:-512] == before
    assert between


def test_the_sizes_of_a_fixed_image_have_limits() -> None:
    """Fails if a size that VHD cannot have changes the file."""
    storage = made(subformat="fixed")
    content = bytes(storage.content)
    for size in (513, 2041 * GIB):
        with pytest.raises(UsageError):
            VHD.edit(storage, OPENER).resize(size)
    assert storage.content == content


def test_resizing_settles_which_size_counts() -> None:
    """Fails if an image of Virtual PC is rounded again by its geometry after a resize."""
    storage = made(CHS_SIZE, size_policy="chs")
    assert VHD.open(storage, OPENER).info().options["size_policy"] == "chs"
    image = VHD.edit(storage, OPENER)
    image.resize(CHS_SIZE + 512)
    image.close()
    reopened = VHD.open(storage, OPENER)
    assert reopened.size == CHS_SIZE + 512
    assert reopened.info().options["size_policy"] == "current"


def test_freed_blocks_are_used_again() -> None:
    """Fails if a disk that is zeroed and written makes its file grow without end."""
    storage = made(MIB)
    image = VHD.edit(storage, OPENER)
    image.write(memoryview(b"\1" * MIB), 0)
    image.flush()
    size = storage.size
    for at in range(0, MIB - 64 * KIB, 48 * KIB):
        image.zero(at, 32 * KIB)
        image.flush()
        image.write(memoryview(b"\2" * 32 * KIB), at)
        image.flush()
    assert storage.size == size
    image.zero(0, 64 * KIB)
    image.close()
    again = VHD.edit(storage, OPENER)
    again.write(memoryview(b"\3" * 64 * KIB), 0)
    again.commit()
    assert storage.size == size
    again.zero(0, MIB)
    again.flush()
    assert storage.size < 4 * KIB
    assert found(storage) == []


def test_only_the_same_image_is_resumed() -> None:
    """Fails if an unfinished file of another kind is taken up."""
    assert isinstance(VHD, Resuming)
    for options, size in (({"subformat": "fixed"}, 200 * KIB), ({}, 300 * KIB)):
        spec = CreateSpec(size, OPENER, {"block_size": 16 * KIB, **options})
        with pytest.raises(CorruptImageError):
            VHD.resume(made(), spec)


def test_a_new_image_is_a_writable_one() -> None:
    """Fails if a copy could not go on after an interruption."""
    assert isinstance(VHD.create(MemoryStorage(), CreateSpec(MIB, OPENER, {})), WritableImage)
