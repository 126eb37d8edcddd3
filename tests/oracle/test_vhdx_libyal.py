"""VHDX against libyal's libvhdi, where qemu-img has no opinion: parents, and 4Kn disks.

libvhdi is trusted here for blocks that are stored, in a child or else in its parent. Measured
with 20260901: it ignores a log that is not empty; in a chain it shows the parent's bytes where
the child's block is zero, and takes the file's header for the sector bitmap of block 0 where
the child has none. So none of that is asked. Install ``libvhdi-python`` to run these.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.image import WritableImage
from imprint.core.units import KIB, MIB
from imprint.endpoints.gate import FolderGate
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile
from imprint.testing.disks import Write, random_writes
from imprint.testing.opener import DictOpener
from imprint.testing.oracles import paint

if TYPE_CHECKING:
    from pathlib import Path

pyvhdi: Any = pytest.importorskip("pyvhdi", reason="libvhdi-python is not installed")

VHDX = formats.get("vhdx")
SIZE = 6 * MIB + 8 * KIB


def create(path: Path, parent: str | None = None, **options: str) -> WritableImage:
    """A new image, over one in the same folder."""
    source = reference = None
    if parent is not None:
        source = VHDX.open(FileStorage.open(path.with_name(parent)), FolderGate())
        reference = Reference(parent, format="vhdx")
    values = parse_options("vhdx", VHDX.options, options)
    spec = CreateSpec(SIZE, DictOpener(), values, parent=reference, parent_source=source)
    image = VHDX.create(PendingFile.create(path, may_replace=True), spec)
    assert isinstance(image, WritableImage)
    return image


def write(image: WritableImage, drawn: list[Write]) -> None:
    for offset, length, byte in drawn:
        image.write(memoryview(bytes([byte]) * length), offset)


def read(*paths: Path) -> bytes:
    """The disk of the last file, the others being its parents, the base first."""
    parent = None
    for path in paths:
        file = pyvhdi.file()
        file.open(str(path))
        if parent is not None:
            file.set_parent(parent)
        parent = file
    assert parent is not None
    parent.seek(0)
    content = b""
    while len(content) < SIZE:
        content += parent.read(min(MIB, SIZE - len(content)))
    return content


@pytest.mark.parametrize("sector", ["512", "4096"])
def test_libvhdi_reads_what_we_wrote(tmp_path: Path, sector: str) -> None:
    """Fails if a table is not where a reader of other people looks for it."""
    drawn = random_writes(random.Random(int(sector)), SIZE)
    image = create(tmp_path / "a.vhdx", logical_sector_size=sector)
    write(image, drawn)
    image.commit()
    assert read(tmp_path / "a.vhdx") == paint(SIZE, drawn)


@pytest.mark.parametrize("sector", ["512", "4096"])
def test_libvhdi_reads_our_chain(tmp_path: Path, sector: str) -> None:
    """Fails if a child's states, or its locator, mean something else to others."""
    randomness = random.Random(int(sector) + 1)
    below = [Write(0, SIZE, 0x5A), *random_writes(randomness, SIZE)]
    above = [Write(0, MIB, 0xA5), *random_writes(randomness, SIZE, count=2)]
    base = create(tmp_path / "base.vhdx", logical_sector_size=sector)
    write(base, below)
    base.commit()
    child = create(tmp_path / "child.vhdx", "base.vhdx")
    write(child, above)
    child.commit()
    expected = paint(SIZE, [*below, *above])
    assert child.traits.logical_sector == int(sector)
    assert read(tmp_path / "base.vhdx", tmp_path / "child.vhdx") == expected
    parent, opened = pyvhdi.file(), pyvhdi.file()
    parent.open(str(tmp_path / "base.vhdx"))
    opened.open(str(tmp_path / "child.vhdx"))
    assert opened.get_parent_identifier() == parent.get_identifier()
