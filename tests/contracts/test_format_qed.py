"""QED against the format contract, with images made by the tests themselves."""

from __future__ import annotations

from typing import ClassVar

from imprint.testing import old_formats
from imprint.testing.format_suite import FormatContract


class TestQed(FormatContract):
    format_name = "qed"
    has_parents = False  # made by us, that is: they are only read

    def build(self, disk: bytes) -> bytes:
        return old_formats.qed(disk)


class TestQedWithZeros(FormatContract):
    format_name = "qed"
    has_parents = False

    def build(self, disk: bytes) -> bytes:
        return old_formats.qed(disk, table_size=4, zeros=True)


class TestWrittenQed(FormatContract):
    format_name = "qed"
    options: ClassVar = {"cluster_size": "4K", "table_size": "1"}


class TestWrittenQedWithLargeTables(FormatContract):
    format_name = "qed"
    options: ClassVar = {"cluster_size": "8K", "table_size": "4"}
