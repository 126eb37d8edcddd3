"""Bochs images against the format contract, with images made by the tests themselves."""

from __future__ import annotations

from imprint.testing import old_formats
from imprint.testing.format_suite import FormatContract


class TestBochs(FormatContract):
    format_name = "bochs"

    def build(self, disk: bytes) -> bytes:
        return old_formats.bochs(disk)


class TestBochsVersion1(FormatContract):
    format_name = "bochs"

    def build(self, disk: bytes) -> bytes:
        return old_formats.bochs(disk, extent_size=32 << 10, version=0x10000)
