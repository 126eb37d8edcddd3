"""CHD against the format contract, with images made by the tests themselves."""

from __future__ import annotations

from imprint.testing import old_formats
from imprint.testing.format_suite import FormatContract
from imprint.testing.old_chd import old_chd


class TestPlainChd(FormatContract):
    format_name = "chd"

    def build(self, disk: bytes) -> bytes:
        return old_formats.chd(disk)


class TestCompressedChd(FormatContract):
    format_name = "chd"
    frees_zeros = False  # zeros are compressed like anything else

    def build(self, disk: bytes) -> bytes:
        return old_formats.chd(disk, compress=True)


class TestOldChd(FormatContract):
    format_name = "chd"

    def build(self, disk: bytes) -> bytes:
        return old_chd(disk, 3)
