"""VHDs that other tools made, read to the hashes that independent readers agree on."""

from __future__ import annotations

import bz2
import csv
import hashlib
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import CorruptImageError, ReferenceRefusedError
from imprint.core.extent import Kind
from imprint.endpoints.gate import FolderGate
from imprint.formats.vhd import FORMAT
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Storage
    from imprint.core.image import Image

VHD = formats.get("vhd")
BLOCK = 64 << 10
QEMU = "qemu+qemu/sample_images/"
DFVFS = "log2timeline+dfvfs/"


def storage_of(path: Path) -> Storage:
    if path.suffix == ".bz2":
        return MemoryStorage(bz2.decompress(path.read_bytes()))
    return FileStorage.open(path)


def nonzero_digest(image: Image) -> str:
    """Offset and bytes of every 64 KiB block that is not all zeros; then the disk's size."""
    digest = hashlib.sha256()
    blocks: set[int] = set()
    for extent in image.extents(0, image.size):
        if extent.kind is Kind.DATA:
            blocks.update(range(extent.offset // BLOCK, (extent.end - 1) // BLOCK + 1))
    for number in sorted(blocks):
        data = image.read_at(number * BLOCK, BLOCK)
        if any(data):
            digest.update((number * BLOCK).to_bytes(8, "big") + data)
    digest.update(image.size.to_bytes(8, "big"))
    return digest.hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        f"{DFVFS}history/ext2.a.vhd",
        f"{DFVFS}history/ext2.b.vhd",
        f"{DFVFS}history/image.a.vhd",
        f"{DFVFS}history/image.b.vhd",  # a wrong checksum
        f"{DFVFS}test_data/ext2.vhd",
        f"{DFVFS}test_data/image.vhd",  # likewise
        f"{DFVFS}test_data/image-differential.vhd",  # two wrong checksums, and a parent
        f"{QEMU}d2v-zerofilled.vhd.bz2",
        f"{QEMU}hyperv2012r2-dynamic.vhd",
    ],
)
def test_a_real_image_reads_to_its_hash(corpus: Path, name: str) -> None:
    """Fails if we read other bytes than the independent readers that the index names."""
    with (corpus / "formats" / "INDEX.tsv").open(newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file, delimiter="\t") if row["path"] == name)
    storage = storage_of(corpus / "formats" / name)
    assert formats.detect(storage) == "vhd"
    with VHD.open(storage, FolderGate()) as image:
        assert image.size == int(row["guest_size"])
        assert nonzero_digest(image) == row["guest_nzdigest"]
        if row["guest_sha256"] != "nz-only":
            content = hashlib.sha256(image.read_at(0, image.size)).hexdigest()
            assert content == row["guest_sha256"]


def test_the_image_of_virtual_pc_has_both_sizes(corpus: Path) -> None:
    """Fails if its disk has neither QEMU's size nor that of the other readers."""
    path = corpus / "formats" / QEMU / "virtualpc-dynamic.vhd"
    with VHD.open(FileStorage.open(path), FolderGate()) as image:
        assert image.size == 136_363_130_880  # by geometry, as qemu-img has it
        assert any("136365211648" in note for note in image.info().notes)
    opened = FORMAT.with_size_policy("current").open(FileStorage.open(path), FolderGate())
    with opened as image:  # as libvhdi and dissect have it
        expected = "eb1c6b490c3a319eeb65b08316e92a9807afa3ff3e4073f452240b5c73e6d545"
        assert nonzero_digest(image) == expected


def test_a_differencing_image_without_its_parent_is_refused(corpus: Path) -> None:
    """Fails if it is read as if it were complete, as qemu-img and others do."""
    path = corpus / "formats" / DFVFS / "test_data" / "fat-differential.vhd"
    with pytest.raises(ReferenceRefusedError, match=r"fat-parent\.vhd"):
        VHD.open(FileStorage.open(path), FolderGate())


def test_a_fuzzed_image_is_refused(corpus: Path) -> None:
    """Fails if a table of 2^30 entries is believed."""
    with pytest.raises(CorruptImageError):
        VHD.open(FileStorage.open(corpus / "formats" / QEMU / "afl5.img"), FolderGate())
