"""The reference images of AFF4, read to the hashes that its other implementations assert."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import FormatError, ImagingError, UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.core.formats import Checkable, Gapped
from imprint.core.units import KIB, MIB
from imprint.endpoints.gate import FolderGate
from imprint.endpoints.hashing import verify_disk
from imprint.formats.aff4.maps import UNKNOWN, UNREADABLE
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.image import Image

# Asserted by the tests of pyaff4, aff4-java and aff4-cpp-lite, which read the standard's texts
# where nothing was read.
LINEAR = "7d3d27f667f95f7ec5b9d32121622c0f4b60b48d"
ALLOCATED = "e8650e89b262cf0b4b73c025312488d5a6317a26"
READ_ERROR = "67e245a640e2784ead30c1ff1a3f8d237b58310f"
# The example in section 6.1 of the standard is this image.
OLD_READ_ERROR = "5fc17ee079cbe55c5b6dc150250eebc478ca7191"

EXPECTED = {
    "AFF4Std/Base-Linear.aff4": LINEAR,
    "AFF4Std/Base-Linear-AllHashes.aff4": LINEAR,
    "AFF4Std/Striped/Base-Linear_1.aff4": LINEAR,
    "AFF4Std/Striped/Base-Linear_2.aff4": LINEAR,
    "AFF4Std/Base-Allocated.aff4": ALLOCATED,
    "AFF4Std/Base-Linear-ReadError.aff4": READ_ERROR,
    "AFF4PreStd/Base-Linear-ReadError.af4": OLD_READ_ERROR,
}
CLEAN = (*EXPECTED, "AFF4PreStd/Base-Linear.af4", "AFF4PreStd/Base-Allocated.af4")


@pytest.fixture
def references(corpus: Path) -> Path:
    folder = corpus / "forensics" / "aff4+ReferenceImages"
    if not folder.is_dir():
        pytest.skip("the reference images of AFF4 are not in the corpus")
    return folder


def opened(path: Path) -> Image:
    return formats.get("aff4").open(FileStorage.open(path), FolderGate())


def sha1_with_texts(image: Image) -> str:
    """Of the disk, as the standard wants it."""
    taken = hashlib.sha1(usedforsecurity=False)
    for start in range(0, image.size, MIB):
        buffer = memoryview(bytearray(min(MIB, image.size - start)))
        image.readinto(buffer, start)
        for extent in image.extents(start, len(buffer)):
            symbol = {Kind.BAD: UNREADABLE, Kind.UNUSED: UNKNOWN}.get(extent.kind)
            if symbol is not None:
                symbol.fill(buffer[extent.offset - start : extent.end - start], extent.offset)
        taken.update(buffer)
    return taken.hexdigest()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_reference_image_has_the_hash_that_others_read(references: Path, name: str) -> None:
    """Fails if any byte of a map, a bevy or a stripe is read from the wrong place."""
    with opened(references / name) as image:
        assert sha1_with_texts(image) == EXPECTED[name]


@pytest.mark.parametrize("name", CLEAN)
def test_the_check_finds_all_hashes_of_a_reference_image_right(references: Path, name: str) -> None:
    """Fails if a hash of maps, indices, chunks, or of all of these is taken otherwise."""
    format_ = formats.get("aff4")
    assert isinstance(format_, Checkable)
    storage = FileStorage.open(references / name)
    assert list(format_.check(storage, FolderGate(), repair=False)) == []
    storage.close()


def test_what_was_not_read_is_told_apart_from_zeros(references: Path) -> None:
    """Fails if bad sectors, or areas that were left out, turn into zeros in silence."""
    with opened(references / "AFF4Std/Base-Linear-ReadError.aff4") as image:
        kinds = {extent.kind for extent in image.extents(0, image.size)}
        assert Kind.BAD in kinds
        assert Kind.UNUSED not in kinds
        assert any("could not be read" in note for note in image.info().notes)
    with opened(references / "AFF4Std/Base-Allocated.aff4") as image:
        kinds = {extent.kind for extent in image.extents(0, image.size)}
        assert Kind.UNUSED in kinds


def test_case_and_medium_are_told(references: Path) -> None:
    """Fails if facts are looked for under other names than Evimetry's."""
    for name in ("AFF4Std/Base-Linear.aff4", "AFF4PreStd/Base-Linear.af4"):
        with opened(references / name) as image:
            case = image.info().case
            assert case["case_name"] == "Canonical Image Generation"
            assert case["evidence_number"] == "Drive 1"
            assert case["model"] == "ST-506"
            assert case["serial_number"] == "SGAT5060001234"
            assert image.info().options["compression"] == "snappy"


def test_a_stripe_without_its_sibling_is_refused(references: Path) -> None:
    """Fails if the half that is missing reads as zeros."""
    content = (references / "AFF4Std/Striped/Base-Linear_1.aff4").read_bytes()
    with pytest.raises(FormatError, match="beside it"):
        formats.get("aff4").open(MemoryStorage(content, name="one.aff4"), DictOpener())


def test_around_a_missing_stripe_the_rest_can_be_read(references: Path) -> None:
    """Fails if one half of a set is of no use, or what is missing is not told."""
    content = (references / "AFF4Std/Striped/Base-Linear_1.aff4").read_bytes()
    format_ = formats.get("aff4")
    assert isinstance(format_, Gapped)
    half = format_.open_incomplete(MemoryStorage(content, name="one.aff4"), DictOpener())
    with half, opened(references / "AFF4Std/Base-Linear.aff4") as whole:
        assert any("missing" in warning for warning in half.info().warnings)
        kinds = [extent.kind for extent in half.extents(0, half.size)]
        assert Kind.BAD in kinds
        first = next(e for e in half.extents(0, half.size) if e.kind is Kind.ENCODED)
        assert half.read_at(first.offset, 32768) == whole.read_at(first.offset, 32768)


def test_nine_exabytes_are_read_here_and_there(references: Path) -> None:
    """Fails if offsets near 2 ** 63 are cut off; the other reference image is in its middle."""
    with (
        opened(references / "Errata/Base-ExabyteSparse.aff4") as image,
        opened(references / "AFF4Std/Base-Linear.aff4") as linear,
    ):
        assert image.size == 0x7FFFFFFFFFFFFE00
        assert image.read_at(0, MIB) == b"\xff" * MIB
        assert image.read_at(MIB, 4 * KIB) == bytes(4 * KIB)
        assert image.read_at(0x3FFFFFFFFFFFFF00, 16 * MIB) == linear.read_at(0, 16 * MIB)
        assert image.read_at(0x7FFFFFFFFFEFFE00, MIB) == b"\xff" * MIB


def test_a_logical_image_is_refused(references: Path) -> None:
    """Fails if the files of an AFF4-L container are taken for a disk."""
    with pytest.raises(UnsupportedFeatureError, match="AFF4-L"):
        opened(references / "AFF4-L/dream.aff4")


def test_a_flipped_bit_is_named_by_its_place_on_the_disk(references: Path) -> None:
    """Fails if damage is not found, is found elsewhere, or takes its neighbours along."""
    path = references / "AFF4Std/Base-Linear.aff4"
    content = bytearray(path.read_bytes())
    with opened(path) as image:
        unit = image._layer.unit(65536)
        healthy = image.read_at(32768 * 3, 32768)
    content[unit.storage_offset + 1000] ^= 4
    storage = MemoryStorage(bytes(content), name="damaged.aff4")
    format_ = formats.get("aff4")
    with format_.open(storage, DictOpener()) as image:
        found = verify_disk(_Front(image, 1 * MIB), ("sha1",), {})
        assert [(damage.offset, damage.length) for damage in found.damage] == [(65536, 32768)]
        assert image.read_at(32768 * 3, 32768) == healthy
        with pytest.raises(ImagingError):
            image.read_at(65536, 512)
    assert isinstance(format_, Checkable)
    findings = list(format_.check(storage, DictOpener(), repair=False))
    assert "disk at 0x10000" in [finding.where for finding in findings]


class _Front:
    """The first bytes of an image: 256 MiB would take too long."""

    def __init__(self, image: Image, size: int) -> None:
        self._image = image
        self.size = size
        self.name = image.name
        self.traits = image.traits
        self.readinto = image.readinto
        self.extents = image.extents

    def close(self) -> None:
        """The image is the test's."""
