"""VHDX against the format contract.

Its blocks have 1 MiB at least, so that a disk of seven of them is copied for every fault; the
variants are held to the parts that they can change.
"""

from __future__ import annotations

from typing import ClassVar

from imprint.core.units import KIB, MIB
from imprint.testing.format_reading import ReadingContract
from imprint.testing.format_suite import FormatContract
from imprint.testing.format_writing import OverlayContract, WritingContract


class TestVhdx(FormatContract):
    format_name = "vhdx"
    options: ClassVar = {"block_size": "1M"}
    disk_size = 7 * MIB + 3 * 512


class TestFixedVhdx(ReadingContract, WritingContract):
    format_name = "vhdx"
    options: ClassVar = {"subformat": "fixed"}
    disk_size = 2 * MIB + 3 * 512
    frees_zeros = False
    has_parents = False


class TestVhdxWithLargeSectors(ReadingContract, WritingContract, OverlayContract):
    format_name = "vhdx"
    options: ClassVar = {"logical_sector_size": "4096"}
    disk_size = 4 * MIB + 8 * KIB
    grows = False  # the contract does it by 512 bytes, which such a disk refuses


class TestVhdxWithZeroBlocks(ReadingContract, WritingContract):
    format_name = "vhdx"
    options: ClassVar = {"block_state_zero": "on"}
    disk_size = 2 * MIB + 3 * 512
    has_parents = False
