"""Differencing VHDs, built by hand: qemu-img reads them as if complete, so arithmetic judges."""

from __future__ import annotations

import random
import struct
import uuid
from typing import TYPE_CHECKING

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
from imprint.core.formats import CreateSpec, Rebasable, parse_options
from imprint.core.image import Image, WritableImage
from imprint.endpoints.gate import FolderGate
from imprint.formats.vhd import bitmaps
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import RecordingStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4096  # eight sectors: one byte of bitmap
SECTOR = 512
STRIDE = SECTOR + BLOCK
ABSENT = 0xFFFFFFFF
NONE = uuid.UUID(int=0)
FIRST = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
SECOND = uuid.UUID("10112233-4455-6677-8899-aabbccddeeff")
THIRD = uuid.UUID("20112233-4455-6677-8899-aabbccddeeff")

VHD = formats.get("vhd")


def summed(data: bytearray, at: int) -> bytes:
    """With the checksum of the specification: the one's complement of the sum of all bytes."""
    data[at : at + 4] = bytes(4)
    data[at : at + 4] = struct.pack(">I", ~sum(data) & 0xFFFFFFFF)
    return bytes(data)


def vhd(
    blocks: dict[int, tuple[int, bytes]],
    count: int,
    *,
    image: uuid.UUID,
    parent: uuid.UUID | None = None,
    names: dict[bytes, bytes] | None = None,
    unicode_name: str = "",
    size: int | None = None,
) -> bytes:
    """An image of ``count`` blocks, of which some have a bitmap and data."""
    size = count * BLOCK if size is None else size
    footer = bytearray(512)
    kind = 3 if parent is None else 4
    struct.pack_into(
        ">8sIIQI4sI4s", footer, 0, b"conectix", 2, 0x10000, 512, 0, b"win ", 0, b"Wi2k"
    )
    struct.pack_into(">QQHBBI", footer, 40, size, size, 65535, 16, 255, kind)
    footer[68:84] = image.bytes
    header = bytearray(1024)
    struct.pack_into(">8sQQIII", header, 0, b"cxsparse", (1 << 64) - 1, 4096, 0x10000, count, BLOCK)
    header[40:56] = (parent or NONE).bytes
    encoded = unicode_name.encode("utf-16-be")
    header[64 : 64 + len(encoded)] = encoded
    body = bytearray(4096 + 512)
    for at, (platform, text) in enumerate((names or {}).items()):
        where = 1536 + 512 * at
        struct.pack_into(">4sIIIQ", header, 576 + 24 * at, platform, 512, len(text), 0, where)
        body[where : where + len(text)] = text
    entries = [ABSENT] * count
    for index, (bits, data) in blocks.items():
        entries[index] = len(body) // SECTOR
        body += bytes([bits]).ljust(SECTOR, b"\0") + data
    struct.pack_into(f">{count}I", body, 4096, *entries)
    whole = summed(footer, 64)
    body[0:512] = whole
    body[512:1536] = summed(header, 36)
    return bytes(body) + whole


def fill(byte: int) -> bytes:
    return bytes([byte]) * BLOCK


def chain(**files: bytes) -> DictOpener:
    """A folder of images; ``a`` is called ``a.vhd``."""
    storages = {f"{name}.vhd": data for name, data in files.items()}
    return DictOpener(files={n: MemoryStorage(d, name=n) for n, d in storages.items()})


def read(image: Image) -> list[int]:
    """The first byte of each sector, all of whose bytes must be the same."""
    content = image.read_at(0, image.size)
    found = []
    for at in range(0, len(content), SECTOR):
        piece = content[at : at + SECTOR]
        assert piece == bytes([piece[0]]) * len(piece)
        found.append(piece[0])
    return found


BASE = vhd({0: (0xFF, fill(1)), 1: (0xFF, fill(2)), 3: (0, fill(4))}, 4, image=FIRST)
W2RU = {b"W2ru": ".\\base.vhd".encode("utf-16-le")}
CHILD = vhd(
    {1: (0b01100001, fill(9)), 2: (0b10000000, fill(8))}, 4, image=SECOND, parent=FIRST, names=W2RU
)
SEEN = [1] * 8 + [2, 9, 9, 2, 2, 2, 2, 9] + [8] + [0] * 7 + [4] * 8


def test_the_bitmap_decides_for_each_sector() -> None:
    """Fails if a block of a child hides its parent whole, as qemu-img has it."""
    image = VHD.open(MemoryStorage(CHILD), chain(base=BASE))
    assert read(image) == SEEN
    runs = [(extent.kind, extent.length // SECTOR) for extent in image.own_extents(0, image.size)]
    hole, data = Kind.HOLE, Kind.DATA
    expected = [(hole, 8), (hole, 1), (data, 2), (hole, 4), (data, 1), (data, 1), (hole, 7)]
    assert runs == [*expected, (hole, 8)]


@pytest.mark.parametrize("offset", range(0, 4 * BLOCK, 700))
def test_any_range_agrees_with_the_whole(offset: int) -> None:
    """Fails if a run of sectors that begins inside one is measured wrongly."""
    image = VHD.open(MemoryStorage(CHILD), chain(base=BASE))
    whole = b"".join(bytes([byte]) * SECTOR for byte in SEEN)
    for length in (1, 511, 512, 1025, 4097):
        assert image.read_at(offset, length) == whole[offset : offset + length]


@pytest.mark.parametrize(
    "names",
    [
        W2RU,
        {b"W2ku": "C:\\disks\\base.vhd".encode("utf-16-le")},
        {b"W2ku": "\\\\server\\share\\base.vhd".encode("utf-16-le")},
        {b"Wi2r": b".\\base.vhd"},
        {b"Wi2k": b"C:\\base.vhd"},
        {b"MacX": b"file://./base.vhd"},
        {b"W2ku": "C:\\lost.vhd".encode("utf-16-le"), **W2RU},
    ],
)
def test_every_kind_of_name_leads_to_the_parent(names: dict[bytes, bytes]) -> None:
    """Fails if a platform's locator is not understood."""
    child = vhd({}, 4, image=SECOND, parent=FIRST, names=names)
    assert read(VHD.open(MemoryStorage(child), chain(base=BASE)))[:16] == [1] * 8 + [2] * 8


def test_the_name_in_the_header_is_enough() -> None:
    """Fails if an image without locators, as VirtualBox may leave it, cannot be opened."""
    child = vhd({}, 4, image=SECOND, parent=FIRST, unicode_name="base.vhd")
    image = VHD.open(MemoryStorage(child), chain(base=BASE))
    assert image.info().parent == "base.vhd"
    assert image.info().options["parent_uuid"] == str(FIRST)


def test_a_renamed_parent_is_found_by_its_uuid() -> None:
    """Fails if a chain that was renamed cannot be read any more."""
    opener = chain(aaa=b"no vhd at all", renamed=BASE, other=vhd({}, 1, image=THIRD))
    assert read(VHD.open(MemoryStorage(CHILD), opener)) == SEEN


def test_a_parent_with_that_name_and_another_uuid_is_refused() -> None:
    """Fails if the name alone is believed: the bytes would be of another disk."""
    with pytest.raises(ReferenceRefusedError, match=str(FIRST)):
        VHD.open(MemoryStorage(CHILD), chain(base=vhd({}, 4, image=THIRD)))


def test_a_missing_parent_is_an_error_and_not_zeros() -> None:
    """Fails if a differencing image alone reads as if it were a whole disk."""
    with pytest.raises(ReferenceRefusedError):
        VHD.open(MemoryStorage(CHILD), DictOpener())


def test_loops_end() -> None:
    """Fails if images that name each other, or themselves, are opened for ever."""
    loop = vhd({}, 1, image=FIRST, parent=FIRST, unicode_name="loop.vhd")
    with pytest.raises(ReferenceRefusedError):
        VHD.open(MemoryStorage(loop), chain(loop=loop))
    one = vhd({}, 1, image=FIRST, parent=SECOND, unicode_name="two.vhd")
    two = vhd({}, 1, image=SECOND, parent=FIRST, unicode_name="one.vhd")
    with pytest.raises(ReferenceRefusedError):
        VHD.open(MemoryStorage(one), chain(one=one, two=two))


def test_a_raw_parent_is_named_by_having_no_uuid() -> None:
    """Fails if what XenServer makes over a raw disk is refused, or its parent probed."""
    child = vhd({1: (0xF0, fill(9))}, 4, image=SECOND, parent=NONE, unicode_name="disk.img")
    opener = DictOpener(files={"disk.img": MemoryStorage(BASE[:512].ljust(4 * BLOCK, b"\7"))})
    image = VHD.open(MemoryStorage(child), opener)
    assert image.info().parent_format == "raw"
    assert image.read_at(0, 512) == BASE[:512]
    assert image.read_at(BLOCK, BLOCK) == b"\x09" * 2048 + b"\7" * 2048


def test_a_write_takes_over_what_it_touches_and_no_more() -> None:
    """Fails if a whole block is copied up, or what a write leaves of a sector is not."""
    big = 4 * BLOCK
    parent, child = MemoryStorage(name="base.vhd"), MemoryStorage(name="child.vhd")
    options = parse_options("vhd", VHD.options, {"block_size": "16K"})
    whole = random.Random(6).randbytes(3 * big)
    target = VHD.create(parent, CreateSpec(3 * big, DictOpener(), options))
    target.write(memoryview(whole), 0)
    target.commit()
    source = VHD.open(parent, DictOpener())
    spec = CreateSpec(3 * big, DictOpener(), options, Reference("base.vhd"), source)
    overlay = VHD.create(child, spec)
    overlay.write(memoryview(b"\x77" * 600), big + 4096 + 300)
    overlay.write(memoryview(b"\x66" * 5000), big + 2 * 4096)
    overlay.commit()
    table = struct.unpack_from(">Q", child.content, 512 + 16)[0]
    entries = struct.unpack_from(">3I", child.content, table)
    assert [entry == ABSENT for entry in entries] == [True, False, True]
    at = entries[1] * SECTOR
    assert child.content[at : at + SECTOR] == b"\0\xff\xff\xff".ljust(SECTOR, b"\0")
    model = bytearray(whole)
    model[big + 4096 + 300 : big + 4096 + 900] = b"\x77" * 600
    model[big + 8192 : big + 8192 + 5000] = b"\x66" * 5000
    opener = DictOpener(files={"base.vhd": parent})
    assert VHD.open(child, opener).read_at(0, 3 * big) == model


def test_sectors_of_its_own_among_others_are_kept() -> None:
    """Fails if completing what foreign bitmaps cut finely takes the wrong side's bytes."""
    storage = MemoryStorage(CHILD)
    image = VHD.edit(storage, chain(base=BASE))
    image.write(memoryview(b"\x77" * 600), BLOCK + 3 * SECTOR + 100)
    image.write(memoryview(b"\x66" * 10), 5)
    image.commit()
    content = VHD.open(MemoryStorage(storage.content), chain(base=BASE)).read_at(0, 4 * BLOCK)
    model = bytearray(b"".join(bytes([byte]) * SECTOR for byte in SEEN))
    model[BLOCK + 3 * SECTOR + 100 : BLOCK + 3 * SECTOR + 700] = b"\x77" * 600
    model[5:15] = b"\x66" * 10
    assert content == model


def test_zeroing_hides_the_parent() -> None:
    """Fails if the parent's bytes come back where the child was zeroed."""
    storage = MemoryStorage(CHILD)
    image = VHD.edit(storage, chain(base=BASE))
    image.zero(0, 2 * BLOCK)
    image.commit()
    expected = [0] * 16 + SEEN[16:]
    assert read(VHD.open(MemoryStorage(storage.content), chain(base=BASE))) == expected


def test_growing_over_a_longer_parent_shows_zeros() -> None:
    """Fails if the parent's bytes behind the old end appear when the child is enlarged."""
    short = vhd({}, 2, image=SECOND, parent=FIRST, names=W2RU, size=BLOCK + 1024)
    storage = MemoryStorage(short)
    image = VHD.edit(storage, chain(base=BASE))
    image.resize(6 * BLOCK)
    image.commit()
    reopened = VHD.open(MemoryStorage(storage.content), chain(base=BASE))
    assert read(reopened) == [1] * 8 + [2] * 2 + [0] * 38


def test_a_power_cut_leaves_each_sector_old_or_new() -> None:
    """Fails if a bit, or an entry of the table, is durable before the bytes that it stands for."""
    old = b"".join(bytes([byte]) * SECTOR for byte in SEEN)
    storage = RecordingStorage(CHILD)
    image = VHD.edit(storage, chain(base=BASE))
    model, versions, done = bytearray(old), [old], [0]
    for offset, length, byte in (
        (0, SECTOR, 0xA1),
        (BLOCK + 200, 1500, 0xA2),
        (3 * BLOCK, BLOCK, 0xA3),
        (2 * BLOCK, BLOCK, 0),
        (BLOCK, 3 * SECTOR, 0xA4),
    ):
        if byte:
            image.write(memoryview(bytes([byte]) * length), offset)
        else:
            image.zero(offset, length)
        model[offset : offset + length] = bytes([byte]) * length
        image.flush()
        versions.append(bytes(model))
        done.append(len(storage.operations))
    for count, survived in storage.crashes(random.Random(3)):
        content = VHD.open(survived, chain(base=BASE)).read_at(0, 4 * BLOCK)
        at = max(step for step, end in enumerate(done) if end <= count)
        possible = versions[at : at + 2]
        for start in range(0, len(content), SECTOR):
            piece = content[start : start + SECTOR]
            assert piece in [version[start : start + SECTOR] for version in possible]


def new_child(name: str, parent: Image, **options: str) -> MemoryStorage:
    storage = MemoryStorage(name="child.vhd")
    parsed = parse_options("vhd", VHD.options, {"block_size": "4K", **options})
    reference = Reference(name, format=parent.info().format)
    spec = CreateSpec(4 * BLOCK, DictOpener(), parsed, parent=reference, parent_source=parent)
    target = VHD.create(storage, spec)
    assert isinstance(target, WritableImage)
    target.commit()
    return storage


@pytest.mark.parametrize("name", ["base.vhd", "../other/base.vhd", "/disks/base.vhd", "b ä€😀.vhd"])
def test_a_new_overlay_names_its_parent(name: str) -> None:
    """Fails if the names that are written are not those that are read again."""
    parent = VHD.open(MemoryStorage(BASE), DictOpener())
    storage = new_child(name, parent)
    image = VHD.open(storage, DictOpener({name: parent}))
    assert image.info().parent == name
    assert image.info().options["parent_uuid"] == str(FIRST)
    assert read(image)[:16] == [1] * 8 + [2] * 8


def test_a_relative_name_is_written_as_windows_has_it() -> None:
    """Fails if Hyper-V would not find the parent: W2ru is UTF-16LE with backslashes."""
    parent = VHD.open(MemoryStorage(BASE), DictOpener())
    content = bytes(new_child("base.vhd", parent).content)
    assert content[512 + 576 : 512 + 580] == b"W2ru"
    length, _, offset = struct.unpack_from(">IIQ", content, 512 + 576 + 8)
    assert content[offset : offset + length] == ".\\base.vhd".encode("utf-16-le")
    assert content[512 + 64 : 512 + 80] == "base.vhd".encode("utf-16-be")


def test_an_overlay_over_a_raw_disk_can_be_made() -> None:
    """Fails if the parent's format is lost: nothing may be probed later."""
    parent = formats.get("raw").open(MemoryStorage(b"\5" * 4 * BLOCK), DictOpener())
    storage = new_child("disk.img", parent)
    image = VHD.open(storage, DictOpener({"disk.img": parent}))
    assert image.info().parent_format == "raw"
    assert read(image) == [5] * 32


@pytest.mark.parametrize("name", ["a\\b.vhd", "x" * 300 + ".vhd", ""])
def test_a_name_that_cannot_be_stored_is_refused(name: str) -> None:
    """Fails if a chain is made that nothing can ever resolve."""
    parent = VHD.open(MemoryStorage(BASE), DictOpener())
    with pytest.raises(UsageError):
        new_child(name, parent)


@pytest.mark.parametrize("options", [{"subformat": "fixed"}, {"preset": "azure"}])
def test_a_fixed_image_has_no_parent(options: dict[str, str]) -> None:
    """Fails if a request that contradicts itself gives an image all the same."""
    parent = VHD.open(MemoryStorage(BASE), DictOpener())
    with pytest.raises(UsageError):
        new_child("base.vhd", parent, **options)


def test_rebase_changes_the_name_and_nothing_else() -> None:
    """Fails if naming another parent loses sectors, or a power cut loses the image."""
    assert isinstance(VHD, Rebasable)
    other = vhd({0: (0xFF, fill(7))}, 4, image=THIRD)
    opener = chain(base=BASE, other=other)
    storage = RecordingStorage(CHILD)
    VHD.set_parent(storage, opener, Reference("other.vhd", format="vhd"))
    new = [7] * 8 + [0, 9, 9, 0, 0, 0, 0, 9] + [8] + [0] * 15
    image = VHD.open(storage, opener)
    assert read(image) == new
    assert image.info().parent == "other.vhd"
    for _, survived in storage.crashes(random.Random(4)):
        assert read(VHD.open(survived, opener)) in (SEEN, new)


def test_without_a_parent_what_was_not_its_own_is_zero() -> None:
    """Fails if stale bytes under a clear bit show when nobody looks at the bits any more."""
    assert isinstance(VHD, Rebasable)
    storage = RecordingStorage(CHILD)
    VHD.set_parent(storage, chain(base=BASE), None)
    alone = [0] * 8 + [0, 9, 9, 0, 0, 0, 0, 9] + [8] + [0] * 15
    image = VHD.open(storage, DictOpener())
    assert read(image) == alone
    assert image.info().options["subformat"] == "dynamic"
    for _, survived in storage.crashes(random.Random(5)):
        assert read(VHD.open(survived, chain(base=BASE))) in (SEEN, alone)


def test_a_dynamic_image_that_gets_a_parent_keeps_all_of_its_blocks() -> None:
    """Fails if bits that nobody looked at before let the parent shine through."""
    assert isinstance(VHD, Rebasable)
    other = vhd({0: (0xFF, fill(7)), 3: (0xFF, fill(6))}, 4, image=THIRD)
    storage = MemoryStorage(BASE)
    VHD.set_parent(storage, chain(other=other), Reference("other.vhd", format="vhd"))
    image = VHD.open(storage, chain(other=other))
    assert read(image) == [1] * 8 + [2] * 8 + [0] * 8 + [4] * 8


@pytest.mark.parametrize("name", ["itself.vhd", "disk.vdi"])
def test_a_rebase_that_makes_no_sense_is_refused(name: str) -> None:
    """Fails if a loop or an unnameable parent gets into a header."""
    assert isinstance(VHD, Rebasable)
    vdi = MemoryStorage()
    formats.get("vdi").create(vdi, CreateSpec(BLOCK, DictOpener(), {})).commit()
    files = {"itself.vhd": MemoryStorage(CHILD), "disk.vdi": vdi, "base.vhd": MemoryStorage(BASE)}
    storage = MemoryStorage(CHILD)
    with pytest.raises(UsageError):
        VHD.set_parent(storage, DictOpener(files=files), Reference(name))
    assert storage.content == CHILD


def test_a_fixed_image_does_not_get_a_parent() -> None:
    """Fails if a footer is changed where there is no header to name the parent."""
    assert isinstance(VHD, Rebasable)
    storage = MemoryStorage()
    options = parse_options("vhd", VHD.options, {"subformat": "fixed"})
    VHD.create(storage, CreateSpec(BLOCK, DictOpener(), options)).commit()
    with pytest.raises(UnsupportedFeatureError):
        VHD.set_parent(storage, chain(base=BASE), Reference("base.vhd"))
    VHD.set_parent(storage, chain(base=BASE), None)


def test_blocks_that_overlap_are_not_written() -> None:
    """Fails if changing one block of a damaged table would change another one."""
    broken = bytearray(CHILD)
    broken[4096 + 8 : 4096 + 12] = broken[4096 + 4 : 4096 + 8]
    assert read(VHD.open(MemoryStorage(broken), chain(base=BASE)))[16:24] == [0, 9, 9] + [0] * 4 + [
        9
    ]
    with pytest.raises(CorruptImageError, match="another block"):
        VHD.edit(MemoryStorage(broken), chain(base=BASE))


def test_a_folder_is_searched_for_the_parent(tmp_path: Path) -> None:
    """Fails if the search does not work with files, or looks outside the image's folder."""
    inside = tmp_path / "machine"
    inside.mkdir()
    (inside / "child.vhd").write_bytes(CHILD)
    (tmp_path / "base.vhd").write_bytes(BASE)
    with pytest.raises(ReferenceRefusedError):
        VHD.open(FileStorage.open(inside / "child.vhd"), FolderGate())
    with VHD.open(FileStorage.open(inside / "child.vhd"), FolderGate(allowed=[tmp_path])) as image:
        assert read(image) == SEEN
    (inside / "renamed.vhd").write_bytes(BASE)
    with VHD.open(FileStorage.open(inside / "child.vhd"), FolderGate()) as image:
        assert read(image) == SEEN


@pytest.mark.parametrize("seed", range(3))
def test_bits_are_counted_and_set_as_one_by_one(seed: int) -> None:
    """Fails if a run is off by one at the border of a byte."""
    randomness = random.Random(seed)
    for _ in range(200):
        model = [randomness.random() < 0.5] * 64
        bitmap = bytearray(b"\xff" * 8 if model[0] else bytes(8))
        for _ in range(randomness.randrange(3)):
            start = randomness.randrange(64)
            count = randomness.randint(1, 64 - start)
            bitmaps.mark(bitmap, start, count)
            model[start : start + count] = [True] * count
        assert [bitmaps.is_set(bitmap, at) for at in range(64)] == model
        start = randomness.randrange(64)
        limit = randomness.randint(1, 64 - start)
        run = 1
        while run < limit and model[start + run] == model[start]:
            run += 1
        assert bitmaps.run(bitmap, start, limit) == run
