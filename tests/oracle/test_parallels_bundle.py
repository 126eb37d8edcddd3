"""Bundles: files by qemu-img, the descriptor by its specification, libphdi as second reader."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

import imprint
from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    ReferenceRefusedError,
    UnsupportedFeatureError,
)
from imprint.core.extent import Kind
from imprint.core.units import MIB
from imprint.storage.file import FileStorage
from imprint.testing import oracles
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

ZERO = "{00000000-0000-0000-0000-000000000000}"
TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
BASE = "{11111111-2222-3333-4444-555555555555}"
SIZE = 8 * MIB


def descriptor(
    images: str,
    *,
    shots: tuple[tuple[str, str], ...] = ((TOP, ZERO),),
    size: int = SIZE,
    end: int = SIZE,
    engine: str = ZERO,
    more: str = "",
) -> str:
    """The XML of a disk in one part."""
    listed = "".join(
        f"<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>"
        for guid, parent in shots
    )
    return (
        "<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">"
        f"<Disk_Parameters><Disk_size>{size // 512}</Disk_size><Cylinders>32</Cylinders>"
        "<Heads>16</Heads><Sectors>32</Sectors><Padding>0</Padding>"
        f"<Encryption><Engine>{engine}</Engine><Data></Data></Encryption></Disk_Parameters>"
        f"<StorageData><Storage><Start>0</Start><End>{end // 512}</End>"
        f"<Blocksize>2048</Blocksize>{images}</Storage>{more}</StorageData>"
        f"<Snapshots>{listed}</Snapshots></Parallels_disk_image>\n"
    )


def entry(guid: str, name: str, kind: str = "Compressed") -> str:
    return f"<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>{name}</File></Image>"


def bundle(folder: Path, *, kind: str = "Compressed") -> Path:
    """A base with 4 MiB of ones, and on top of it 1 MiB of twos and one of threes."""
    folder.mkdir()
    if kind == "Plain":
        (folder / "base.hds").write_bytes(b"\x01" * 4 * MIB + bytes(4 * MIB))
    else:
        oracles.create(folder / "base.hds", SIZE, "parallels")
        oracles.qemu_io(folder / "base.hds", "parallels", "write -P 1 0 4M")
    oracles.create(folder / "top.hds", SIZE, "parallels")
    oracles.qemu_io(folder / "top.hds", "parallels", "write -P 2 1M 1M", "write -P 3 6M 1M")
    path = folder / "DiskDescriptor.xml"
    images = entry(TOP, "top.hds") + entry(BASE, "base.hds", kind)
    # The top one first: libphdi takes the first for it, others look for its GUID.
    path.write_text(descriptor(images, shots=((TOP, BASE), (BASE, ZERO))), encoding="utf-8")
    return path


def _make_version_1(path: Path) -> None:
    """Another magic, and entries that count sectors."""
    content = bytearray(path.read_bytes())
    sectors, count = struct.unpack_from("<II", content, 0x1C)
    entries = struct.unpack_from(f"<{count}I", content, 0x40)
    struct.pack_into("<16s", content, 0, b"WithoutFreeSpace")
    struct.pack_into(f"<{count}I", content, 0x40, *(entry * sectors for entry in entries))
    path.write_bytes(content)


EXPECTED = oracles.paint(SIZE, [(0, 4 * MIB, 1), (MIB, MIB, 2), (6 * MIB, MIB, 3)])


@pytest.mark.parametrize("kind", ["Compressed", "Plain"])
def test_a_snapshot_shows_through_its_child(tmp_path: Path, kind: str) -> None:
    """Fails if the chain is read in the wrong order, or holes do not show what is below."""
    with imprint.open(bundle(tmp_path / "disk.hdd", kind=kind)) as disk:
        info = disk.info()
        assert info.format == "parallels"
        assert [snapshot.id for snapshot in info.snapshots] == [BASE]
        assert disk.size == SIZE
        assert disk.read_at(0, SIZE) == EXPECTED
        stored = [e for e in disk.extents(0, SIZE) if e.kind is Kind.DATA]
        assert sum(e.length for e in stored) in (5 * MIB, SIZE - 0)  # Plain: zeros are stored


def test_libphdi_reads_the_same(tmp_path: Path) -> None:
    """Fails if our reading of the descriptor is not that of an independent reader."""
    pyphdi = pytest.importorskip("pyphdi")
    path = bundle(tmp_path / "disk.hdd")
    for name in ("top.hds", "base.hds"):  # libphdi knows version 1 only
        _make_version_1(path.with_name(name))
    with imprint.open(path) as disk:
        assert disk.read_at(0, SIZE) == EXPECTED
    handle = pyphdi.handle()
    handle.open(str(path.parent))
    handle.open_extent_data_files()
    assert handle.get_media_size() == SIZE
    assert handle.read_buffer_at_offset(SIZE, 0) == EXPECTED
    handle.close()


@pytest.mark.parametrize(("top", "expected"), [(TOP, 2), (BASE, 1)])
def test_the_descriptor_says_which_snapshot_is_on_top(
    tmp_path: Path, top: str, expected: int
) -> None:
    """Fails if ``TopGUID`` is ignored, or the order of the list is taken for it."""
    path = bundle(tmp_path / "disk.hdd")
    shots = "<Snapshots>"
    text = path.read_text(encoding="utf-8").replace(shots, f"{shots}<TopGUID>{top}</TopGUID>")
    path.write_text(text, encoding="utf-8")
    with imprint.open(path) as disk:
        assert disk.read_at(MIB, 1) == bytes([expected])


def test_a_disk_in_two_parts_is_one_disk(tmp_path: Path) -> None:
    """Fails if the second part is read from the first one's file, or not at all."""
    for number in (1, 2):
        path = tmp_path / f"part{number}.hds"
        oracles.create(path, 4 * MIB, "parallels")
        oracles.qemu_io(path, "parallels", f"write -P {number} 1M 3M")
    start, end = 4 * MIB // 512, SIZE // 512
    more = f"<Storage><Start>{start}</Start><End>{end}</End>{entry(TOP, 'part2.hds')}</Storage>"
    path = tmp_path / "DiskDescriptor.xml"
    text = descriptor(entry(TOP, "part1.hds"), end=4 * MIB, more=more)
    path.write_text(text, encoding="utf-8")
    with imprint.open(path) as disk:
        expected = oracles.paint(SIZE, [(MIB, 3 * MIB, 1), (5 * MIB, 3 * MIB, 2)])
        assert disk.read_at(0, SIZE) == expected


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (descriptor(entry(TOP, "../../etc/x.hds")), ReferenceRefusedError, "hds|host"),
        (descriptor(entry(TOP, "/etc/hostname", "Plain")), ReferenceRefusedError, "hds|host"),
        (descriptor(entry(TOP, "missing.hds")), ReferenceRefusedError, "hds|host"),
        (descriptor(entry(TOP, "")), CorruptImageError, "file name"),
        (descriptor(entry(TOP, "a.hds", "Other")), CorruptImageError, "Compressed or Plain"),
        (descriptor(entry(TOP, "a.hds"), engine=BASE), UnsupportedFeatureError, "encrypted"),
        (descriptor(entry(TOP, "a.hds"), size=SIZE * 2), CorruptImageError, "storages for"),
        (descriptor(entry(TOP, "a.hds"), end=0), CorruptImageError, "ends behind"),
        (
            descriptor(entry(TOP, "a.hds"), shots=((TOP, BASE), (BASE, TOP))),
            CorruptImageError,
            "a loop",
        ),
        (
            descriptor(entry(TOP, "a.hds"), shots=((TOP, BASE), (BASE, ZERO))),
            CorruptImageError,
            "an image for each snapshot",
        ),
        (
            descriptor("<a>" * 30 + "</a>" * 30),
            CorruptImageError,
            "levels",
        ),
        (
            descriptor(entry(TOP, "a.hds")).replace(
                "<Parallels_disk_image", '<!DOCTYPE x [<!ENTITY a "b">]><Parallels_disk_image', 1
            ),
            CorruptImageError,
            "document type",
        ),
        (descriptor(entry(TOP, "a.hds"))[:300], CorruptImageError, "expected XML"),
        (descriptor(entry(TOP, "a.hds")).replace("16384", "0x10"), CorruptImageError, "a number"),
    ],
)
def test_a_descriptor_that_lies_is_refused(
    tmp_path: Path, text: str, error: type[FormatError], message: str
) -> None:
    """Fails if a descriptor reaches files outside of the bundle, or is believed."""
    path = tmp_path / "DiskDescriptor.xml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        imprint.open(path)


def test_other_xml_is_raw(tmp_path: Path) -> None:
    """Fails if any XML file is taken for a bundle."""
    path = tmp_path / "other.xml"
    path.write_text("<?xml version='1.0'?>\n<other/>\n".ljust(512), encoding="utf-8")
    with imprint.open(path) as disk:
        assert disk.info().format == "raw"


def test_a_bundle_is_only_read(tmp_path: Path) -> None:
    """Fails if a write would go to one file of several."""
    storage = FileStorage.open(bundle(tmp_path / "disk.hdd"))
    with pytest.raises(UnsupportedFeatureError, match="bundle"):
        formats.get("parallels").edit(storage, DictOpener())
    storage.close()
