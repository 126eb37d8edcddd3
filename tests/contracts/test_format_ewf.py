"""EWF against the format contract: E01 and Ex01 as they are written here, others as tests do."""

from __future__ import annotations

from typing import ClassVar

from imprint.testing import ewf_image
from imprint.testing.format_reading import ReadingContract
from imprint.testing.format_suite import FormatContract


class TestE01(FormatContract):
    format_name = "e01"
    options: ClassVar = {"chunk_sectors": "16"}
    frees_zeros = False  # zeros are stored like anything else
    has_parents = False


class TestE01AsFtkWritesIt(FormatContract):
    format_name = "e01"
    options: ClassVar = {"chunk_sectors": "32", "flavour": "ftk", "compression": "none"}
    frees_zeros = False
    has_parents = False


class TestE01OfEncase1(FormatContract):
    format_name = "e01"
    frees_zeros = False

    def build(self, disk: bytes) -> bytes:
        return ewf_image.e01(disk, is_first_version=True)


class TestS01(FormatContract):
    format_name = "s01"
    frees_zeros = False

    def build(self, disk: bytes) -> bytes:
        return ewf_image.s01(disk)


class TestEx01(FormatContract):
    format_name = "ex01"
    frees_zeros = False  # zeros are chunks like any others, though nothing is stored of them
    has_parents = False


class TestEx01Unpacked(FormatContract):
    format_name = "ex01"
    options: ClassVar = {"compression": "none", "sector_size": "512"}
    frees_zeros = False
    has_parents = False


class TestEx01WithBzip2(ReadingContract):
    format_name = "ex01"
    frees_zeros = False

    def build(self, disk: bytes) -> bytes:
        return ewf_image.ex01(disk, is_bzip2=True, tables=1)


class TestL01(FormatContract):
    format_name = "l01"
    frees_zeros = False

    def build(self, disk: bytes) -> bytes:
        return ewf_image.l01({"first": disk[:70_000], "second": disk[70_000:]})


class TestEx01AsTheTestsMakeIt(ReadingContract):
    format_name = "ex01"
    frees_zeros = False

    def build(self, disk: bytes) -> bytes:
        return ewf_image.ex01(disk)
