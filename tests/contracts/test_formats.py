"""Every format against the format contract: one class for each way of storing a disk."""

from __future__ import annotations

from typing import ClassVar

from imprint.testing.format_suite import FormatContract


class TestRaw(FormatContract):
    format_name = "raw"
    frees_zeros = False  # holes are the storage's affair, and memory has none
    is_found = False


class TestQcow2(FormatContract):
    format_name = "qcow2"
    options: ClassVar = {"cluster_size": "4K"}


class TestQcow2WithSmallestClusters(FormatContract):
    format_name = "qcow2"
    options: ClassVar = {"cluster_size": "512", "refcount_bits": "1"}
    disk_size = 201 * 512


class TestQcow2Version2(FormatContract):
    format_name = "qcow2"
    options: ClassVar = {"cluster_size": "1K", "compat": "0.10"}


class TestQcow2WithSubclusters(FormatContract):
    format_name = "qcow2"
    options: ClassVar = {"cluster_size": "16K", "extended_l2": "on"}


class TestQcow2WithZlib(FormatContract):
    format_name = "qcow2"
    options: ClassVar = {"cluster_size": "4K", "compression": "zlib"}
    has_parents = False  # not when it is written front to back


class TestQcow2WithZstd(FormatContract):
    format_name = "qcow2"
    options: ClassVar = {"cluster_size": "4K", "compression": "zstd"}
    has_parents = False  # not when it is written front to back


class TestVdi(FormatContract):
    format_name = "vdi"
    options: ClassVar = {"block_size": "4K"}


class TestVdiWithLargeBlocks(FormatContract):
    format_name = "vdi"
    options: ClassVar = {"block_size": "32K"}


class TestFixedVdi(FormatContract):
    format_name = "vdi"
    options: ClassVar = {"block_size": "4K", "subformat": "fixed"}
    frees_zeros = False
    has_parents = False
