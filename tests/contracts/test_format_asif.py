"""ASIF against the format contract, with images made by the tests themselves."""

from __future__ import annotations

from typing import ClassVar

from imprint.core.units import KIB
from imprint.testing.asif_image import asif
from imprint.testing.format_suite import FormatContract


class TestAsif(FormatContract):
    format_name = "asif"
    disk_size: ClassVar[int] = 240 * KIB + 3 * 512

    def build(self, disk: bytes) -> bytes:
        return asif(disk)


class TestAsifOfWholeChunks(FormatContract):
    format_name = "asif"
    disk_size: ClassVar[int] = 240 * KIB + 3 * 512

    def build(self, disk: bytes) -> bytes:
        return asif(disk, partly=False)
