"""Targets: AFF and AFF4; a changed zip archive gets its checksums, or nobody would look at it."""

from __future__ import annotations

import struct
import zipfile
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB
from imprint.formats.aff import segments as aff
from imprint.formats.aff4.turtle import parse
from imprint.testing.aff_image import aff as aff_image
from imprint.testing.fuzzing.images import image_target, made, small_disk
from imprint.testing.fuzzing.target import Place, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORDS: Final = (
    b"aff4:size",
    b"aff4:chunkSize",
    b"aff4:Zero",
    b"aff4:UnreadableData",
    b"SymbolicStreamFF",
    b"aff4:DiskImage",
    b"<aff4://",
    b'"1"^^xsd:long',
    b"[",
    b"(",
    b" ;\n",
)
_UUID: Final = "00000000-0000-4000-8000-000000000001"
_TURTLE: Final = b"""@prefix : <aff4://volume> . @prefix aff4: <http://aff4.org/Schema#> .
: a aff4:ZipVolume ; aff4:contains <aff4://a> , <aff4://b> .
<aff4://a> a aff4:Image ; aff4:size "1"^^aff4:long ; aff4:notes '''it's''' , "x\\n"@en ; .
[] aff4:target ( 1 2 true <x> ) . _:b aff4:of [ aff4:size -5 ] .
"""


def targets() -> Iterator[Target]:
    """All of them."""
    yield image_target("aff", _aff_seeds, (Place(aff.Head, 8), Place(aff.Head, b"AFF\0")))
    yield Target("aff4", _aff4_seeds, image_target("aff4", list).steps, words=_WORDS, seal=seal)
    yield Target("turtle", lambda: [_TURTLE], (_read_turtle,), words=_WORDS)


def seal(content: bytearray) -> None:
    """Put the checksums of all members right, as far as there still is an archive."""
    try:
        with zipfile.ZipFile(BytesIO(bytes(content))) as archive:
            entries = archive.infolist()
            start = archive.start_dir
    except (zipfile.BadZipFile, ValueError, OSError, struct.error, NotImplementedError):
        return
    for entry in entries:
        name = entry.orig_filename.encode("utf-8", "surrogateescape")
        at = content.find(name, start)
        place = entry.header_offset + 30
        if at < 46 or place > len(content):
            continue
        extra = int.from_bytes(content[place - 2 : place], "little")
        first = place + len(name) + extra
        crc = zlib.crc32(content[first : first + entry.file_size])
        struct.pack_into("<I", content, at - 30, crc)


def _read_turtle(content: bytes) -> None:
    parse(content, where="turtle")


def _aff_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    return [aff_image(disk, method=method) for method in ("none", "zlib", "lzma")]


def _aff4_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    return [
        made("aff4", disk, chunk_size="4K", uuid=_UUID),
        made("aff4", disk, chunk_size="4K", uuid=_UUID, compression="lz4", block_hash="md5"),
        made("aff4", disk, chunk_size="4K", uuid=_UUID, compression="deflate"),
        made("aff4", disk, chunk_size="4K", uuid=_UUID, compression="none", block_hash="none"),
    ]
