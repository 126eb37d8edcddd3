"""Real QCOW2 images of other tools, read to the content that independent readers agree on."""

from __future__ import annotations

import csv
import hashlib
from typing import TYPE_CHECKING

import pytest

from imprint.core.extent import Kind
from imprint.formats import detect
from imprint.formats.qcow2 import FORMAT
from imprint.storage.file import FileStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path


def rows(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "formats" / "INDEX.tsv").open() as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    return [
        row
        for row in found
        if row["format"].startswith("qcow2") and "#" not in row["path"]
        if row["stored"] == "plain" and row["status"] == "verified-2+"
    ]


def test_every_image_reads_as_its_witnesses_do(corpus: Path) -> None:
    """Fails if a real image is refused, has another size, or a single other byte."""
    images = rows(corpus)
    if not images:
        pytest.skip("no QCOW2 images in the corpus")
    for row in images:
        storage = FileStorage.open(corpus / "formats" / row["path"])
        assert detect(storage) == "qcow2"
        with FORMAT.open(storage, DictOpener()) as image:
            assert image.size == int(row["guest_size"]), row["path"]
            digest = hashlib.sha256()
            buffer = memoryview(bytearray(1 << 20))
            for start in range(0, image.size, len(buffer)):
                piece = buffer[: image.size - start]
                image.readinto(piece, start)
                digest.update(piece)
            assert digest.hexdigest() == row["guest_sha256"], row["path"]


def test_every_map_covers_its_image_and_holes_are_zeros(corpus: Path) -> None:
    """Fails if the map of a real image has a gap, or calls data a hole."""
    for row in rows(corpus):
        with FORMAT.open(FileStorage.open(corpus / "formats" / row["path"]), DictOpener()) as image:
            position = 0
            for extent in image.extents(0, image.size):
                assert extent.offset == position
                position = extent.end
                if extent.kind in (Kind.HOLE, Kind.ZERO) and extent.length <= 16 << 20:
                    assert not any(image.read_at(extent.offset, extent.length))
            assert position == image.size
