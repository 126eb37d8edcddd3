"""Targets: evidence files; seeds are made by their descriptions and by our own writer."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from imprint.core.units import KIB
from imprint.formats.ewf import layout, layout2
from imprint.formats.ewf.logical import TreeHeader
from imprint.testing import ewf_image
from imprint.testing.fuzzing.images import image_target, made, put_u32, small_disk
from imprint.testing.fuzzing.target import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.testing.fuzzing.target import Target

_KINDS = (b"header2", b"header", b"volume", b"sectors", b"table2", b"table", b"data", b"error2")


def targets() -> Iterator[Target]:
    """All of them."""
    sections = tuple(Place(layout.Descriptor, kind) for kind in _KINDS)
    places = (Place(layout.FileHeader), *sections, Place(layout.Volume, 13 + 76))
    tables = (Place(layout.TableHeader, b"table\0", -76), Place(layout.SmartVolume, b"SMART", 85))
    yield image_target("e01", _e01_seeds, (*places, *tables), words=_KINDS, seal=seal)
    yield image_target("s01", _s01_seeds, (*places, *tables), words=_KINDS, seal=seal)
    yield image_target("l01", _l01_seeds, (*sections, *tables), words=_KINDS, seal=seal)
    descriptors = tuple(Place(layout2.Descriptor2, at) for at in (-64, -144, -224))
    yield image_target(
        "ex01", _ex01_seeds, (Place(layout2.FileHeader2), *descriptors), seal=seal_second
    )


def seal(content: bytearray) -> None:
    """Make the checksums of descriptors and of what follows them right."""
    at = layout.FileHeader.SIZE
    for _ in range(64):
        if at + layout.Descriptor.SIZE > len(content):
            return
        _seal(content, at, layout.Descriptor.SIZE)
        kind = bytes(content[at : at + 16]).split(b"\0", 1)[0]
        data = at + layout.Descriptor.SIZE
        following = int.from_bytes(content[at + 16 : at + 24], "little")
        if kind in (b"volume", b"disk", b"data", b"digest", b"hash"):
            _seal(content, data, following - data)
        elif kind.startswith(b"table"):
            _seal(content, data, layout.TableHeader.SIZE)
            count = int.from_bytes(content[data : data + 4], "little")
            _seal(content, data + layout.TableHeader.SIZE, 4 * count + 4)
        elif kind == b"ltree" and following <= len(content):
            content[data : data + 16] = hashlib.md5(
                content[data + TreeHeader.SIZE : following], usedforsecurity=False
            ).digest()
        elif kind == b"error2":
            _seal(content, data, layout.ErrorHeader.SIZE)
        if following <= at:
            return
        at = following


def seal_second(content: bytearray) -> None:
    """Make the checksums of version 2 right; the hashes of sections stay wrong."""
    at = len(content) - layout2.Descriptor2.SIZE
    for _ in range(64):
        if at < layout2.FileHeader2.SIZE:
            return
        _seal(content, at, layout2.Descriptor2.SIZE)
        descriptor = layout2.Descriptor2.unpack(content[at:])
        start = at - descriptor.size
        if descriptor.type in (layout2.SECTOR_TABLE, layout2.ERRORS) and start > 0:
            _seal(content, start, layout2.TableHeader2.SIZE)
            count = int.from_bytes(content[start + 8 : start + 12], "little")
            _seal(content, start + layout2.TABLE_HEADER_BYTES, 16 * count + 4)
        if descriptor.previous >= at:
            return
        at = descriptor.previous


def _seal(content: bytearray, at: int, length: int) -> None:
    """Put the checksum of ``length - 4`` bytes behind them, if they are inside."""
    if length > 4 and at + length <= len(content):
        end = at + length - layout.CHECKSUM_BYTES
        put_u32(content, end, layout.adler32(content[at:end]))


def _e01_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    return [
        ewf_image.e01(disk),
        ewf_image.e01(disk, groups=3),
        ewf_image.e01(disk, is_first_version=True),
        made("e01", disk, examiner="me", tracks="0,20a"),
        made("e01", disk, flavour="ftk", compression="none"),
    ]


def _s01_seeds() -> list[bytes]:
    return [ewf_image.s01(small_disk(64 * KIB))]


def _l01_seeds() -> list[bytes]:
    return [ewf_image.l01({"a": b"text" * 3000, "b": b"", "c": small_disk(8 * KIB)})]


def _ex01_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    return [
        ewf_image.ex01(disk, bad=((5, 3),)),
        ewf_image.ex01(disk, is_bzip2=True, tables=1),
        made("ex01", disk, examiner="me", tracks="0,20a"),
    ]
