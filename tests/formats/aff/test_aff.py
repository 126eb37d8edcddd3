"""AFF that is damaged, cut off or encrypted; what AFFLIB writes is in ``tests/oracle``."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import FormatError, UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.core.formats import Checkable
from imprint.core.units import KIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.aff_image import aff, segment
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from imprint.core.events import Finding

DISK = (
    random.Random(1).randbytes(100 * KIB)
    + bytes(200 * KIB)
    + b"abc" * 70_000
    + bytes(100 * KIB + 512)
)


def checked(content: bytes) -> list[Finding]:
    format_ = formats.get("aff")
    assert isinstance(format_, Checkable)
    return list(format_.check(MemoryStorage(content), DictOpener(), repair=False))


def test_a_page_that_is_missing_is_bad() -> None:
    """Fails if a hole in the evidence reads as zeros in silence."""
    content = aff(DISK, page_size=4096)
    at = content.index(b"page3")
    broken = content[:at] + b"pagX3" + content[at + 5 :]
    with formats.get("aff").open(MemoryStorage(broken), DictOpener()) as image:
        bad = [e for e in image.extents(0, image.size) if e.kind is Kind.BAD]
        assert [(e.offset, e.length) for e in bad] == [(3 * 4096, 4096)]
    assert [finding.where for finding in checked(broken)] == ["disk at 0x3000"]


def test_a_damaged_page_is_named_and_the_rest_is_read() -> None:
    """Fails if damage is found elsewhere, or spreads."""
    content = bytearray(aff(DISK, page_size=4096))
    at = content.index(b"page5") + 5
    content[at + 40 : at + 60] = bytes(20)
    with formats.get("aff").open(MemoryStorage(bytes(content)), DictOpener()) as image:
        assert image.read_at(6 * 4096, 4096) == DISK[6 * 4096 : 7 * 4096]
        with pytest.raises(FormatError, match="page 5"):
            image.read_at(5 * 4096, 1)
    assert [finding.where for finding in checked(bytes(content))] == ["disk at 0x5000"]


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes() -> None:
    """Fails if what is left of an image is lost with its end, or nothing is said about it."""
    content = aff(DISK, page_size=4096, method="none")
    with formats.get("aff").open(MemoryStorage(content[: 50 * KIB]), DictOpener()) as image:
        assert image.info().warnings
        assert image.read_at(0, 8 * 4096) == DISK[: 8 * 4096]
    assert checked(content[: 50 * KIB])


@pytest.mark.parametrize(
    "tail",
    [segment("affkey_aes256", b"x" * 52), segment("page0/aes256", b"x" * 64)],
)
def test_an_encrypted_image_is_refused(tail: bytes) -> None:
    """Fails if ciphertext is taken for a disk."""
    with pytest.raises(UnsupportedFeatureError, match="encrypted"):
        formats.get("aff").open(MemoryStorage(aff(b"x" * 512, tail=tail)), DictOpener())


def test_a_page_that_comes_twice_is_refused() -> None:
    """Fails if an image can show two disks to two readers."""
    with pytest.raises(FormatError, match="once"):
        formats.get("aff").open(
            MemoryStorage(aff(b"x" * 512, tail=segment("page0", b"y"))), DictOpener()
        )
