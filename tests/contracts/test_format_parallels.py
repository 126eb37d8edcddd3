"""Parallels images against the format contract."""

from __future__ import annotations

import struct
from typing import ClassVar

from imprint.testing.format_suite import FormatContract


class TestParallels(FormatContract):
    format_name = "parallels"
    options: ClassVar = {"cluster_size": "4K"}


class TestParallelsWithOddClusters(FormatContract):
    format_name = "parallels"
    options: ClassVar = {"cluster_size": "31744"}  # 62 sectors: not a power of two


class TestParallelsVersion1(FormatContract):
    """What we make, as version 1: other magic, and entries that count sectors."""

    format_name = "parallels"
    options: ClassVar = {"cluster_size": "4K"}

    def build(self, disk: bytes) -> bytes:
        content = bytearray(super().build(disk))
        (count,) = struct.unpack_from("<I", content, 0x20)
        entries = struct.unpack_from(f"<{count}I", content, 0x40)
        struct.pack_into("<16s", content, 0, b"WithoutFreeSpace")
        struct.pack_into(f"<{count}I", content, 0x40, *(entry * 8 for entry in entries))
        return bytes(content)
