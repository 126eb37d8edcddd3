"""Cloop images against the format contract, with images made by the tests themselves."""

from __future__ import annotations

from imprint.testing import old_formats
from imprint.testing.format_suite import FormatContract


class TestCloop(FormatContract):
    format_name = "cloop"
    frees_zeros = False  # zeros are compressed like anything else

    def build(self, disk: bytes) -> bytes:
        return old_formats.cloop(disk)
