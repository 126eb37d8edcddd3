"""AFF against the format contract, with images made by the tests themselves."""

from __future__ import annotations

from imprint.testing.aff_image import aff
from imprint.testing.format_suite import FormatContract


class TestAff(FormatContract):
    format_name = "aff"

    def build(self, disk: bytes) -> bytes:
        return aff(disk)


class TestPlainAff(FormatContract):
    format_name = "aff"

    def build(self, disk: bytes) -> bytes:
        return aff(disk, method="none")


class TestAffWithLzma(FormatContract):
    format_name = "aff"

    def build(self, disk: bytes) -> bytes:
        return aff(disk, method="lzma", page_size=8192)
