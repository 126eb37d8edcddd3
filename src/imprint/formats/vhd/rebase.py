"""Giving a differencing VHD another parent, a dynamic one its first, or taking it away.

The new header goes to the end of the file; the footer's copy at its start, one sector that
says where the header is, then decides between old and new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import UnsupportedFeatureError, UsageError
from imprint.core.units import MIB, div_up
from imprint.formats.vhd import bitmaps
from imprint.formats.vhd.create import ParentLink, parent_link
from imprint.formats.vhd.layout import SECTOR_BYTES, TYPE_DIFFERENCING, TYPE_DYNAMIC, Header
from imprint.formats.vhd.locators import encode_names
from imprint.formats.vhd.writer import WritableVhdLayer, edit_layer

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Reference, Storage

_ALL_SET_BYTES = 1 * MIB


def set_parent(storage: Storage, opener: Opener, parent: Reference | None) -> None:
    """Name another parent, or none at all; durable when this returns.

    Raises:
        UnsupportedFeatureError: if the image is fixed.
        UsageError: if the parent is the image itself, or of a format that VHD cannot name.
    """
    layer = edit_layer(storage)
    if layer.footer.is_fixed:
        if parent is None:
            return
        raise UnsupportedFeatureError("a fixed vhd cannot have a parent", name=storage.name)
    link = _link(layer, opener, parent)
    if parent is None and not layer.footer.has_parent:
        return
    if layer.footer.has_parent != (parent is not None):
        _own_sectors(layer)
    if parent is None:
        name, locators, names, place = b"", b"", b"", layer.reserve(Header.SIZE)
    else:
        if not parent.name:
            raise UsageError("vhd: expected the name of the parent, found none")
        length = len(encode_names(parent.name, at=0)[2])
        place = layer.reserve(Header.SIZE + length)
        name, locators, names = encode_names(parent.name, at=place + Header.SIZE)
    header = layer.header.replace(
        parent_uuid=link.uuid,
        parent_timestamp=link.timestamp,
        parent_name=name,
        locators=locators,
    ).sealed()
    storage.write(memoryview(header.pack() + names), place)
    storage.flush()
    disk_type = TYPE_DYNAMIC if parent is None else TYPE_DIFFERENCING
    footer = layer.footer.replace(data_offset=place, disk_type=disk_type)
    layer.switch_parent(footer, header)


def _link(layer: WritableVhdLayer, opener: Opener, parent: Reference | None) -> ParentLink:
    if parent is None:
        return ParentLink(bytes(16))
    source = opener.parent(parent, layer.storage)
    try:
        link = parent_link(parent, source)
    finally:
        source.close()
    if link.uuid == layer.footer.uuid:
        raise UsageError("an image cannot be its own parent", name=layer.storage.name)
    return link


def _own_sectors(layer: WritableVhdLayer) -> None:
    """Let bitmaps mean the same before and after, where the image gets or loses its bitmaps.

    In a differencing image, a bit says whose a sector is; in a dynamic one nobody looks at
    it. So sectors that are not the image's own are zeros from now on, and in a dynamic
    image all are its own.
    """
    header, storage = layer.header, layer.storage
    count = header.block_size // SECTOR_BYTES
    full = bytearray(div_up(count, 8))
    bitmaps.mark(full, 0, count)
    for _, start in layer.table.used():
        if not layer.footer.has_parent:
            storage.write(memoryview(bytes(full)), start)
            continue
        own = bytearray(len(full))
        storage.readinto(memoryview(own), start)
        sector = 0
        while sector < count:
            run = bitmaps.run(own, sector, count - sector)
            if not bitmaps.is_set(own, sector):
                position = start + header.bitmap_bytes + sector * SECTOR_BYTES
                storage.zero(position, run * SECTOR_BYTES)
            sector += run
    storage.flush()
