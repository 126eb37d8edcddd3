"""Which format a content is in."""

from __future__ import annotations

import pytest

from imprint import formats
from imprint.core.errors import FormatError, UnsupportedFeatureError, UsageError
from imprint.storage.memory import MemoryStorage

QCOW2 = b"QFI\xfb\0\0\0\x03" + bytes(1000)
VDI = bytes(64) + b"\x7f\x10\xda\xbe" + bytes(1000)


def test_formats_are_known_by_their_marks() -> None:
    """Fails if an image is read as another thing than it is."""
    assert formats.detect(MemoryStorage(QCOW2)) == "qcow2"
    assert formats.detect(MemoryStorage(VDI)) == "vdi"
    assert formats.detect(MemoryStorage(b"anything else")) == "raw"
    assert formats.detect(MemoryStorage(b"")) == "raw"


def test_two_marks_are_refused() -> None:
    """Fails if one of two readings of a file is chosen by chance."""
    with pytest.raises(FormatError, match="qcow2 and vdi"):
        formats.detect(MemoryStorage(QCOW2[:64] + VDI[64:]))


@pytest.mark.parametrize(
    ("mark", "at_end"),
    [(mark, at < 0) for _, marks in formats.FOREIGN for at, mark in marks],
)
def test_a_container_that_is_not_read_is_not_taken_for_raw(mark: bytes, *, at_end: bool) -> None:
    """Fails if the file of an image is hashed as if it were the disk in it."""
    content = bytes(4096 - 512) + mark.ljust(512, b"\0") if at_end else mark.ljust(4096, b"\0")
    with pytest.raises(UnsupportedFeatureError, match="looks like") as caught:
        formats.detect(MemoryStorage(content))
    assert "-f raw" in (caught.value.advice or "")


def test_an_unknown_name_lists_the_known_ones() -> None:
    """Fails if a typing error is answered without help."""
    with pytest.raises(UsageError, match="known: qcow2"):
        formats.get("qcow3")
