"""AFF4 against the format contract."""

from __future__ import annotations

from typing import ClassVar

from imprint.testing.format_suite import FormatContract


class TestAff4(FormatContract):
    format_name = "aff4"
    options: ClassVar = {"chunk_size": "4K"}


class TestAff4WithLz4(FormatContract):
    format_name = "aff4"
    options: ClassVar = {"chunk_size": "8K", "compression": "lz4", "block_hash": "md5,sha1"}


class TestAff4WithDeflate(FormatContract):
    format_name = "aff4"
    options: ClassVar = {"compression": "deflate", "hash": "none", "block_hash": "blake2b"}


class TestAff4WithZlib(FormatContract):
    format_name = "aff4"
    options: ClassVar = {"chunk_size": "4K", "compression": "zlib", "level": "6"}


class TestAff4AsItIs(FormatContract):
    format_name = "aff4"
    options: ClassVar = {"chunk_size": "4K", "compression": "none", "block_hash": "none"}
