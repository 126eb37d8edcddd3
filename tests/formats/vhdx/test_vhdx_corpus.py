"""Real VHDX files: Hyper-V's, Disk2vhd's, and one whose log has to be replayed."""

from __future__ import annotations

import bz2
import hashlib
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.extent import Kind
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

VHDX = formats.get("vhdx")
FOLDER = "formats/qemu+qemu/sample_images"
BLOCK = 64 << 10


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        # The index says which readers agree on these; offset and bytes of all blocks of
        # 64 KiB that are not zeros, then the disk's size.
        (
            "iotest-dirtylog-10G-4M.vhdx",
            10 << 30,
            "58829471f619d6b0e6b932c2d2ff4caa941b70db153b243f07f354fb6c616130",
        ),
        (
            "iotest-dynamic-1G.vhdx.bz2",
            1 << 30,
            "639828f111d0302dc946f51900f40b01518eb9453f958af4dd0cbbd730137763",
        ),
        (
            "test-disk2vhd.vhdx.bz2",
            256 << 20,
            "df3b0bf01da3f6a5cfc4e7364b05bc2642b7d0542cbea8aac8681cada2d7ec37",
        ),
    ],
)
def test_a_real_image_reads_to_its_hash(corpus: Path, name: str, size: int, expected: str) -> None:
    """Fails if we read other bytes than the independent readers, or the stale ones."""
    content = (corpus / FOLDER / name).read_bytes()
    if name.endswith(".bz2"):
        content = bz2.decompress(content)
    storage = MemoryStorage(content, writable=False)
    digest = hashlib.sha256()
    with VHDX.open(storage, DictOpener()) as image:
        assert image.size == size
        blocks: set[int] = set()
        for extent in image.extents(0, size):
            if extent.kind is Kind.DATA:
                blocks.update(range(extent.offset // BLOCK, (extent.end - 1) // BLOCK + 1))
        for number in sorted(blocks):
            data = image.read_at(number * BLOCK, BLOCK)
            if any(data):
                digest.update((number * BLOCK).to_bytes(8, "big") + data)
    digest.update(size.to_bytes(8, "big"))
    assert digest.hexdigest() == expected
    assert storage.content == content
