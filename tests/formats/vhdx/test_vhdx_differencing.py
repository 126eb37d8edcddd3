"""Differencing VHDX files, built by hand: qemu-img refuses them, so arithmetic is the judge."""

from __future__ import annotations

import os
import struct
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.errors import (
    CorruptImageError,
    ReferenceRefusedError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.extent import Kind
from imprint.core.formats import Checkable, CreateSpec, Rebasable, parse_options
from imprint.core.image import WritableImage
from imprint.endpoints.gate import FolderGate
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.core.image import Image

    Make = Callable[..., Any]

MIB = 1 << 20
VHDX = formats.get("vhdx")
BASE_GUID = uuid.UUID("b0b0b0b0-1111-2222-3333-444444444444")
OTHER_GUID = uuid.UUID("c0c0c0c0-1111-2222-3333-444444444444")
LINK = {"parent_linkage": "{" + str(BASE_GUID).upper() + "}", "relative_path": ".\\base.vhdx"}
BITMAP_SLOT = 4096  # behind one chunk of 1 MiB blocks with sectors of 512 bytes


def fill(byte: int) -> bytes:
    return bytes([byte]) * MIB


def stored(mib: int, state: int = 6) -> int:
    return mib << 20 | state


def base(maker: Make, guid: uuid.UUID = BASE_GUID) -> bytes:
    """Four blocks: 1, 2, 3, 4."""
    blocks = [fill(index) for index in (1, 2, 3, 4)]
    content: bytes = maker(
        4 * MIB, [stored(4), stored(5), stored(6), stored(7)], blocks, data_guid=guid
    ).build()
    return content


def child(maker: Make, entries: list[int], blocks: list[bytes], **changes: object) -> bytes:
    """An image over ``base`` whose sector bitmap, if there is one, is the last block."""
    table = list(entries) + [0] * (BITMAP_SLOT + 1 - len(entries))
    if any(entry & 7 == 7 for entry in entries):
        table[BITMAP_SLOT] = stored(3 + len(blocks))
    changes = {"size": len(entries) * MIB, "parent": LINK, **changes}
    content: bytes = maker(entries=table, blocks=blocks, **changes).build()
    return content


def folder(**files: bytes) -> DictOpener:
    storages = {f"{name}.vhdx": data for name, data in files.items()}
    return DictOpener(files={n: MemoryStorage(d, name=n) for n, d in storages.items()})


def opened(content: bytes, opener: DictOpener) -> Image:
    return VHDX.open(MemoryStorage(content, name="child.vhdx"), opener)


def test_every_state_says_whether_the_parent_shows(maker: Make) -> None:
    """Fails if zero, undefined or unmapped blocks show the parent, or an absent one does not."""
    for entry, first, kind in (
        (0, 1, Kind.HOLE),
        (1, 0, Kind.ZERO),
        (2, 0, Kind.ZERO),
        (3, 0, Kind.ZERO),
        (stored(9, 3), 0, Kind.ZERO),
        (stored(4), 0x77, Kind.DATA),
    ):
        content = child(maker, [entry, 0, 0, 0], [fill(0x77)])
        image = opened(content, folder(base=base(maker)))
        assert image.read_at(0, MIB) == fill(first)
        assert image.read_at(MIB, MIB) == fill(2)
        assert next(image.own_extents(0, MIB)).kind is kind


@pytest.mark.parametrize("state", [4, 5])
def test_states_that_there_are_not_are_refused(maker: Make, state: int) -> None:
    """Fails if a reserved state reads as anything."""
    image = opened(child(maker, [state], []), folder(base=base(maker)))
    with pytest.raises(CorruptImageError, match="state"):
        image.read_at(0, 1)


def bitmap(sectors: set[int], first_sector: int = 0) -> bytes:
    """A sector bitmap block with these bits set, lowest bit first."""
    bits = bytearray(MIB)
    for sector in sectors:
        at = first_sector + sector
        bits[at // 8] |= 1 << at % 8
    return bytes(bits)


@pytest.mark.parametrize(
    "here",
    [{0}, {2047}, {7, 8, 9}, set(range(3, 1000)), set(range(0, 2048, 2)), set(range(2048)), set()],
)
def test_the_bitmap_says_which_sectors_are_here(maker: Make, here: set[int]) -> None:
    """Fails if a bit is looked up in the wrong byte or order, or of another block."""
    content = child(maker, [0, stored(4, 7), 0, 0], [fill(0x77), bitmap(here, first_sector=2048)])
    image = opened(content, folder(base=base(maker)))
    expected = b"".join((b"\x77" if at in here else b"\x02") * 512 for at in range(2048))
    assert image.read_at(MIB, MIB) == expected
    assert image.read_at(MIB + 700, 5000) == expected[700:5700]
    assert image.read_at(0, MIB) + image.read_at(2 * MIB, MIB) == fill(1) + fill(3)
    position = MIB
    for extent in image.own_extents(MIB, MIB):
        assert extent.offset == position
        sector = (position - MIB) // 512
        assert extent.kind is (Kind.DATA if sector in here else Kind.HOLE)
        position = extent.end


def test_the_bits_of_large_sectors_are_found(maker: Make) -> None:
    """Fails if the chunk ratio or the bitmap's unit is that of 512 bytes: here it is 32768."""
    slot = 32768
    table = [stored(4, 7)] + [0] * slot
    table[slot] = stored(5)
    content = maker(MIB, table, [fill(0x77), bitmap({0, 5})], sector=4096, parent=LINK).build()
    image = opened(content, folder(base=base(maker)))
    assert image.traits.logical_sector == 4096
    expected = b"".join((b"\x77" if at in (0, 5) else b"\x01") * 4096 for at in range(256))
    assert image.read_at(0, MIB) == expected


def test_a_block_here_in_part_without_a_bitmap_is_corrupt(maker: Make) -> None:
    """Fails if it reads as anything."""
    content = maker(MIB, [stored(4, 7)], [fill(1)], parent=LINK).build()
    with pytest.raises(CorruptImageError, match="bitmap"):
        opened(content, folder(base=base(maker))).read_at(0, 1)
    alone = maker(MIB, [stored(4, 7)], [fill(1)]).build()
    with pytest.raises(CorruptImageError, match="bitmap"):
        opened(alone, DictOpener()).read_at(0, 1)


def test_a_write_into_a_block_here_in_part_makes_it_whole(maker: Make) -> None:
    """Fails if sectors that were the parent's become what happened to lie in the file."""
    content = child(maker, [stored(4, 7), 0, 0, 0], [fill(0x77), bitmap({0, 1})])
    storage = MemoryStorage(content, name="child.vhdx")
    opener = folder(base=base(maker))
    image = VHDX.edit(storage, opener)
    image.write(memoryview(b"\x99" * 10), 512 * 4 + 3)
    image.commit()
    expected = bytearray(b"\x77" * 1024 + b"\x01" * (MIB - 1024))
    expected[2051:2061] = b"\x99" * 10
    again = opened(bytes(storage.content), opener)
    assert again.read_at(0, MIB) == expected
    assert again.read_at(MIB, MIB) == fill(2)
    assert isinstance(VHDX, Checkable)
    found = list(VHDX.check(storage, opener, repair=False))
    assert all(each.severity.value == "info" for each in found)


def test_without_a_parent_the_rest_of_such_a_block_is_zero(maker: Make) -> None:
    """Fails if a standalone image still asks for its parent, or shows what lay in the file."""
    assert isinstance(VHDX, Rebasable)
    content = child(maker, [stored(4, 7), 0, stored(5), 0], [fill(0x77), fill(9), bitmap({3})])
    storage = MemoryStorage(content, name="child.vhdx")
    VHDX.set_parent(storage, folder(base=base(maker)), None)
    image = opened(bytes(storage.content), DictOpener())
    expected = bytes(3 * 512) + b"\x77" * 512 + bytes(MIB - 4 * 512)
    assert image.read_at(0, 4 * MIB) == expected + bytes(MIB) + fill(9) + bytes(MIB)
    assert image.info().parent is None


def test_a_parent_that_has_changed_is_refused(maker: Make) -> None:
    """Fails if blocks of a disk that is no more are mixed with another one's."""
    content = child(maker, [0, 0, 0, 0], [])
    with pytest.raises(ReferenceRefusedError, match=str(OTHER_GUID)):
        opened(content, folder(base=base(maker, OTHER_GUID)))


def test_writing_to_a_parent_makes_its_children_invalid(maker: Make) -> None:
    """Fails if the DataWriteGuid stays the same when the disk does not; opening alone is none."""
    parent = MemoryStorage(base(maker), name="base.vhdx")
    opener = DictOpener(files={"base.vhdx": parent})
    content = child(maker, [0, 0, 0, 0], [])
    image = VHDX.edit(parent, DictOpener())
    image.commit()
    assert opened(content, opener).read_at(0, 1) == b"\x01"
    image.write(memoryview(b"\x55"), 0)
    image.commit()
    with pytest.raises(ReferenceRefusedError, match="DataWriteGuid"):
        opened(content, opener)
    assert isinstance(VHDX, Rebasable)
    storage = MemoryStorage(content, name="child.vhdx")
    VHDX.set_parent(storage, opener, Reference("base.vhdx", format="vhdx"))
    assert opened(bytes(storage.content), opener).read_at(0, 2) == b"\x55\x01"


@pytest.mark.parametrize(
    "paths",
    [
        {"relative_path": "base.vhdx"},
        {"relative_path": "..\\gone\\base.vhdx"},
        {"absolute_win32_path": "C:\\Hyper-V\\base.vhdx"},
        {"absolute_win32_path": "\\\\?\\C:\\Hyper-V\\base.vhdx"},
        {"volume_path": "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\base.vhdx"},
        {"relative_path": ".\\gone.vhdx", "absolute_win32_path": "D:\\base.vhdx"},
    ],
)
def test_the_parent_is_found_by_any_path(maker: Make, paths: dict[str, str]) -> None:
    """Fails if a child that was moved off Windows with its parent does not find it."""
    link = {"parent_linkage": LINK["parent_linkage"], **paths}
    content = child(maker, [0, 0, 0, 0], [], parent=link)
    assert opened(content, folder(base=base(maker))).read_at(MIB, 1) == b"\x02"


def test_a_missing_parent_is_an_error_and_not_zeros(maker: Make) -> None:
    """Fails if a differencing image alone reads as if it were a whole disk."""
    with pytest.raises(ReferenceRefusedError):
        opened(child(maker, [0], []), DictOpener())


def test_a_chain_of_files_stays_in_its_folder(maker: Make, tmp_path: Path) -> None:
    """Fails if an image reaches out of its folder, or a loop is followed."""
    inside = tmp_path / "machine"
    inside.mkdir()
    outside = {**LINK, "relative_path": "..\\base.vhdx"}
    (inside / "child.avhdx").write_bytes(child(maker, [0, 0, 0, 0], [], parent=outside))
    (tmp_path / "base.vhdx").write_bytes(base(maker))
    with pytest.raises(ReferenceRefusedError):
        VHDX.open(FileStorage.open(inside / "child.avhdx"), FolderGate())
    gate = FolderGate(allowed=[tmp_path])
    with VHDX.open(FileStorage.open(inside / "child.avhdx"), gate) as image:
        assert image.read_at(MIB, 1) == b"\x02"
    itself = {**LINK, "relative_path": "child.avhdx"}
    (inside / "child.avhdx").write_bytes(child(maker, [0], [], parent=itself))
    with pytest.raises(ReferenceRefusedError, match="loop"):
        VHDX.open(FileStorage.open(inside / "child.avhdx"), FolderGate())


def test_a_new_child_has_what_hyper_v_asks_for(maker: Make) -> None:
    """Fails if a locator lacks its keys, or the flag that there is a parent is not set."""
    parent = VHDX.open(MemoryStorage(base(maker)), DictOpener())
    storage = MemoryStorage()
    reference = Reference("base.vhdx", format="vhdx")
    spec = CreateSpec(4 * MIB, DictOpener(), parent=reference, parent_source=parent)
    made = VHDX.create(storage, spec)
    assert isinstance(made, WritableImage)
    made.commit()
    for key, value in (
        ("parent_linkage", "{" + str(BASE_GUID) + "}"),
        ("relative_path", ".\\base.vhdx"),
    ):
        assert (key + value).encode("utf-16-le") in storage.content
    parameters = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
    at = storage.content.index(parameters)
    region = at - 32
    (offset,) = struct.unpack_from("<I", storage.content, at + 16)
    assert struct.unpack_from("<II", storage.content, region + offset) == (MIB, 2)


def test_a_parent_that_is_no_vhdx_is_refused() -> None:
    """Fails if a chain is made that nothing can ever resolve."""
    parent = formats.get("raw").open(MemoryStorage(bytes(MIB)), DictOpener())
    reference = Reference("base.img", format="raw")
    spec = CreateSpec(MIB, DictOpener(), parent=reference, parent_source=parent)
    with pytest.raises(UsageError, match="vhdx"):
        VHDX.create(MemoryStorage(), spec)


@pytest.mark.parametrize("name", ["back\\slash.vhdx", os.fsdecode(b"\xff.vhdx")])
def test_a_parent_whose_name_utf_16_or_windows_has_no_words_for_is_refused(
    maker: Make, name: str
) -> None:
    """Fails if such a name ends in an exception of Python's own, or in another file's name."""
    parent = VHDX.open(MemoryStorage(base(maker)), DictOpener())
    spec = CreateSpec(
        4 * MIB, DictOpener(), parent=Reference(name, format="vhdx"), parent_source=parent
    )
    with pytest.raises(UsageError, match="expected a"):
        VHDX.create(MemoryStorage(), spec)


@pytest.mark.parametrize(("above", "below"), [("512", "4096"), ("4096", "512")])
def test_the_sectors_of_a_child_are_those_of_its_parent(above: str, below: str) -> None:
    """Fails if a guest's disk changes its sectors with a snapshot, or cannot be made at all."""
    storage = MemoryStorage(name="base.vhdx")
    given = parse_options("vhdx", VHDX.options, {"logical_sector_size": below})
    VHDX.create(storage, CreateSpec(4 * MIB, DictOpener(), given)).commit()
    parent = VHDX.open(MemoryStorage(storage.content, name="base.vhdx"), DictOpener())
    reference = Reference("base.vhdx", format="vhdx")
    for wanted in ({}, {"logical_sector_size": below}):
        options = parse_options("vhdx", VHDX.options, wanted)
        spec = CreateSpec(4 * MIB, DictOpener(), options, reference, parent)
        assert VHDX.create(MemoryStorage(), spec).traits.logical_sector == int(below)
    options = parse_options("vhdx", VHDX.options, {"logical_sector_size": above})
    spec = CreateSpec(4 * MIB, DictOpener(), options, reference, parent)
    with pytest.raises(UsageError, match="logical_sector_size"):
        VHDX.create(MemoryStorage(), spec)


def test_rebases_that_make_no_sense_are_refused(maker: Make) -> None:
    """Fails if a fixed image or a loop gets into a header."""
    assert isinstance(VHDX, Rebasable)
    opener = folder(base=base(maker))
    reference = Reference("base.vhdx", format="vhdx")
    fixed = MemoryStorage()
    spec = CreateSpec(MIB, DictOpener(), {"subformat": "fixed"})
    VHDX.create(fixed, spec).commit()
    with pytest.raises(UnsupportedFeatureError):
        VHDX.set_parent(fixed, opener, reference)
    itself = MemoryStorage(base(maker))
    with pytest.raises(UsageError, match="own parent"):
        VHDX.set_parent(itself, opener, reference)


def test_growing_and_shrinking_forget_bitmaps(maker: Make) -> None:
    """Fails if the entry of a bitmap behind the end survives and claims a place in use."""
    table = [0] * 2 * (BITMAP_SLOT + 1)
    table[BITMAP_SLOT + 1] = stored(4, 7)
    table[-1] = stored(5)
    made = maker(4097 * MIB, table, [fill(0x77), bitmap({0})], parent=LINK)
    storage = MemoryStorage(made.build(), name="child.vhdx")
    opener = folder(base=base(maker))
    image = VHDX.edit(storage, opener)
    assert image.read_at(4096 * MIB, 513) == b"\x77" * 512 + b"\0"
    image.resize(4 * MIB)
    image.write(memoryview(fill(5)), 0)
    image.resize(4097 * MIB)
    image.write(memoryview(fill(6)), MIB)
    image.commit()
    again = VHDX.edit(MemoryStorage(storage.content, name="child.vhdx"), opener)
    assert again.read_at(0, 2 * MIB) == fill(5) + fill(6)
    assert again.read_at(4096 * MIB, 1024) == bytes(1024)
