"""The power fails while a VHD is changed: libvhdi reads the same old or new disk as we do.

Every point of each recording is cut, with whatever part of the un-flushed writes has arrived.
libvhdi looks for the footer at the file's end only. Where a cut has left none there, the copy
at the start counts, and libvhdi is asked after our own repair. Measured with 20260901: it takes
the original size for the disk's, so that of a disk that has grown it is asked for the old part
(qemu-img for all of it, unless there is a parent); and in an image with a parent it finds no
second block unless blocks have 2 MiB.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.extent import Kind
from imprint.core.formats import Checkable, CreateSpec, parse_options
from imprint.core.image import WritableImage
from imprint.storage.memory import MemoryStorage
from imprint.testing import oracles
from imprint.testing.disks import random_writes
from imprint.testing.faults import RecordingStorage, is_unseen
from imprint.testing.format_faults import History
from imprint.testing.opener import DictOpener
from imprint.testing.oracles import paint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Work = Callable[[WritableImage, History, int], None]

pyvhdi: Any = pytest.importorskip("pyvhdi", reason="libvhdi-python is not installed")

KIB: Final = 1 << 10
VHD = formats.get("vhd")
BLOCKS: Final = {"fixed": 64 * KIB, "dynamic": 64 * KIB, "differencing": 2048 * KIB}


def made(kind: str, size: int, below: MemoryStorage | None = None) -> MemoryStorage:
    """An empty image, over ``below`` if there is one."""
    options = {"subformat": "fixed"} if kind == "fixed" else {"block_size": str(BLOCKS[kind])}
    values = parse_options("vhd", VHD.options, options)
    storage = MemoryStorage(name="disk.vhd")
    spec = CreateSpec(size, DictOpener(), values)
    if below is not None:
        parent = VHD.open(below, DictOpener())
        spec = CreateSpec(size, DictOpener(), values, Reference("base.vhd"), parent)
    VHD.create(storage, spec).commit()
    return storage


def base(block: int) -> tuple[MemoryStorage, bytes]:
    """The parent, longer than its child and with data at both ends of each block; its disk."""
    storage = made("differencing", 8 * block)
    drawn = [(index * block + 512, 200 * KIB, 0x70 + index) for index in range(8)]
    drawn += [(index * block - 9 * KIB, 9 * KIB, 0x60 + index) for index in range(1, 8)]
    with VHD.edit(storage, DictOpener()) as image:
        for offset, length, byte in drawn:
            image.write(memoryview(bytes([byte]) * length), offset)
        image.commit()
    return MemoryStorage(storage.content, name="base.vhd"), paint(8 * block, drawn)


def rewrite(image: WritableImage, history: History, block: int) -> None:
    """Sectors that the image has already, and zeros over them."""
    history.change(image, 10 * KIB, 9 * KIB, 0xA1)
    history.flush(image)
    history.change(image, 2 * block + 100, 700, 0xA2)
    history.change(image, 2 * block, 3 * KIB, 0)
    history.flush(image)


def allocate(image: WritableImage, history: History, block: int) -> None:
    """New blocks, a flush apart."""
    history.change(image, block + 7, 100, 0xB1)
    history.flush(image)
    history.change(image, 4 * block - 5 * KIB, 9 * KIB, 0xB2)
    history.flush(image)


def change_bitmaps(image: WritableImage, history: History, block: int) -> None:
    """More sectors of blocks that are there: in a child, only their bitmaps change."""
    for number, at in enumerate((40 * KIB, 50 * KIB + 300, 2 * block + 30 * KIB), start=1):
        history.change(image, at, 5 * KIB, 0xC0 + number)
    history.flush(image)
    history.change(image, 55 * KIB, 100, 0xC9)
    history.flush(image)


def mix(image: WritableImage, history: History, block: int) -> None:
    """All kinds of writes at random, more than one between flushes."""
    del block
    for seed in range(3):
        for offset, length, byte in random_writes(random.Random(seed), image.size, count=3):
            history.change(image, offset, min(length, 90 * KIB), byte % 4)
        history.flush(image)


def resize(image: WritableImage, history: History, block: int) -> None:
    """Larger, so that the table has to grow, and smaller, inside a block."""
    for size in (7 * block + 512, 2 * block + 20 * KIB + 512):
        history.resize(size)
        image.resize(size)
        history.flushed()
        history.change(image, size - 900, 900, 0xD1)
        history.flush(image)


def commit_into(image: WritableImage, history: History, block: int) -> None:
    """What ``imprint commit`` does: all that an overlay has itself, written here."""
    storage = MemoryStorage(name="top.vhd")
    reference = Reference("disk.vhd", uuid=image.info().uuid)
    spec = CreateSpec(image.size, DictOpener(), {}, reference, image)
    overlay = VHD.create(storage, spec)
    assert isinstance(overlay, WritableImage)
    for offset, length, byte in ((8 * KIB, 48 * KIB, 0xE1), (3 * block, 40 * KIB, 0xE2)):
        overlay.write(memoryview(bytes([byte]) * length), offset)
    overlay.zero(block, 8 * KIB)
    overlay.flush()
    own = [item for item in overlay.own_extents(0, overlay.size) if item.kind is not Kind.HOLE]
    for extent in own:
        data = overlay.read_at(extent.offset, extent.length)
        sectors = [data[at : at + 512] for at in range(0, len(data), 512)]
        at = extent.offset
        for sector, alike in itertools.groupby(sectors):
            assert sector == sector[:1] * len(sector)
            length = len(sector) * len(list(alike))
            history.write(at, length, sector[0])
            at += length
        image.write(memoryview(data), extent.offset)
    history.flush(image)


def begun(kind: str) -> tuple[MemoryStorage, bytes, DictOpener, MemoryStorage | None]:
    """An image with some blocks and its disk; what opens it, and its parent's file."""
    block = BLOCKS[kind]
    size = 4 * block + 32 * KIB + 512
    below, disk = base(block) if kind == "differencing" else (None, bytes(size))
    opener = DictOpener(files={} if below is None else {"base.vhd": below})
    storage, changed = made(kind, size, below), bytearray(disk[:size])
    with VHD.edit(storage, opener) as image:
        for offset, length, byte in ((0, 20 * KIB, 1), (2 * block, 9 * KIB, 2), (4 * block, 99, 3)):
            image.write(memoryview(bytes([byte]) * length), offset)
            changed[offset : offset + length] = bytes([byte]) * length
        image.commit()
    return storage, bytes(changed), opener, below


def as_libvhdi_reads(path: Path, below: Path | None, size: int) -> bytes:
    """The disk by libvhdi, as far as it takes it to go, and at most ``size`` bytes of it."""
    opened, parent = pyvhdi.file(), pyvhdi.file()
    opened.open(str(path))
    if below is not None:
        parent.open(str(below))
        opened.set_parent(parent)
    try:
        content: bytes = opened.read_buffer_at_offset(min(size, opened.get_media_size()), 0)
        return content
    finally:
        opened.close()
        if below is not None:
            parent.close()


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize(
    "work", [rewrite, allocate, change_bitmaps, mix, resize, commit_into], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("kind", BLOCKS)
def test_every_cut_is_old_or_new_for_us_and_for_others(
    tmp_path: Path, kind: str, work: Work
) -> None:
    """Fails if a guest's sector is neither old nor new, or another program sees other bytes."""
    assert isinstance(VHD, Checkable)
    first, disk, opener, below = begun(kind)
    path, below_path, raw = tmp_path / "disk.vhd", None, tmp_path / "disk.raw"
    if below is not None:
        below_path = tmp_path / "base.vhd"
        below_path.write_bytes(below.content)
    storage = RecordingStorage(bytes(first.content), name="disk.vhd")
    history = History(storage, disk)
    work(VHD.edit(storage, opener), history, BLOCKS[kind])
    seen, repaired = set[bytes](), 0
    for count, survived in storage.crashes(random.Random(3), variants=1):
        with VHD.open(survived, opener) as image:
            ours = image.read_at(0, image.size)
        history.check(count, ours)
        if not is_unseen(survived, seen):
            continue
        wrong = list(VHD.check(survived, opener, repair=True))
        assert [
            found for found in wrong if not found.repaired and found.severity.value != "info"
        ] == []
        repaired += any(found.repaired for found in wrong)
        path.write_bytes(survived.content)
        found = as_libvhdi_reads(path, below_path, len(ours))
        assert found == ours[: len(found)]
        assert len(found) >= min(len(ours), len(disk))
        if work is resize and below is None:
            raw.write_bytes(ours)
            assert oracles.info(path, "vpc")["virtual-size"] == len(ours)
            assert oracles.is_equal(path, raw, first_format="vpc", second_format="raw")
    assert repaired < len(seen)  # most of them need none
