"""QCOW version 1 against the format contract, with images made by the tests themselves."""

from __future__ import annotations

from imprint.testing import old_formats
from imprint.testing.format_suite import FormatContract


class TestQcow(FormatContract):
    format_name = "qcow"
    has_parents = False  # made by us, that is: they are only read

    def build(self, disk: bytes) -> bytes:
        return old_formats.qcow(disk)


class TestCompressedQcow(FormatContract):
    format_name = "qcow"
    has_parents = False

    def build(self, disk: bytes) -> bytes:
        return old_formats.qcow(disk, cluster_bits=12, l2_bits=9, compress=True)
