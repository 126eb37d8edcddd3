"""Differencing VHDs against libvhdi, since qemu-img reads them as if they had no parent.

libvhdi is trusted for what imprint writes, whose bitmaps have no byte that is set in part: of
others, it takes the sectors behind the last one that is set for the image's own.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.formats import CreateSpec
from imprint.core.image import WritableImage
from imprint.core.units import MIB
from imprint.endpoints.gate import FolderGate
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile
from imprint.testing.disks import random_writes

if TYPE_CHECKING:
    from pathlib import Path

VHD = formats.get("vhd")
SIZE = 9 * MIB + 3 * 512


def change(image: WritableImage, model: bytearray, randomness: random.Random) -> None:
    """Write and zero at random, and do the same to the model."""
    for offset, length, byte in random_writes(randomness, SIZE, count=8):
        if byte % 4:
            image.write(memoryview(bytes([byte]) * length), offset)
        else:
            image.zero(offset, length)
        model[offset : offset + length] = bytes([byte if byte % 4 else 0]) * length


@pytest.mark.parametrize("seed", range(3))
def test_libvhdi_reads_our_chain(tmp_path: Path, seed: int) -> None:
    """Fails if a bit, an identifier or a name in our chain is not where others look."""
    pyvhdi: Any = pytest.importorskip("pyvhdi", reason="libvhdi-python is not installed")
    randomness, model = random.Random(seed), bytearray(SIZE)
    below: Any = None
    for name, parent in (("base.vhd", None), ("middle.vhd", "base.vhd"), ("top.vhd", "middle.vhd")):
        path = tmp_path / name
        spec = CreateSpec(SIZE, FolderGate(), {})
        if parent is not None:
            source = VHD.open(FileStorage.open(tmp_path / parent), FolderGate())
            spec = CreateSpec(SIZE, FolderGate(), {}, Reference(parent), source)
        image = VHD.create(PendingFile.create(path, may_replace=False), spec)
        assert isinstance(image, WritableImage)
        change(image, model, randomness)
        image.commit()
        edited = VHD.edit(FileStorage.open(path, writable=True), FolderGate())
        change(edited, model, randomness)
        edited.commit()
        edited.close()
        theirs = pyvhdi.file()
        theirs.open(str(path))
        if parent is not None:
            assert theirs.get_parent_filename() == parent
            assert theirs.get_parent_identifier() == below.get_identifier()
            theirs.set_parent(below)
        below = theirs
        assert theirs.get_media_size() == SIZE
        assert theirs.read_buffer_at_offset(SIZE, 0) == model
        with VHD.open(FileStorage.open(path), FolderGate()) as ours:
            assert ours.read_at(0, SIZE) == model
