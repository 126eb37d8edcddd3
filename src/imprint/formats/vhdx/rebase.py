"""Naming another parent, or none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imprint.core.errors import UnsupportedFeatureError, UsageError
from imprint.core.extent import Kind
from imprint.formats.vhdx.bat import place_of
from imprint.formats.vhdx.layout import FULLY_PRESENT, PARTIALLY_PRESENT, STATE_MASK, guid_text
from imprint.formats.vhdx.parent import locator_for
from imprint.formats.vhdx.resize import metadata_sectors, move_bat
from imprint.formats.vhdx.writer import edit_layer

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Reference, Storage
    from imprint.formats.vhdx.writer import WritableVhdxLayer


def set_parent(storage: Storage, opener: Opener, parent: Reference | None) -> None:
    """Change the parent locator, through the log; durable when this returns.

    Raises:
        UsageError: if the parent is no VHDX, or the image itself.
        UnsupportedFeatureError: if the image is fixed.
    """
    layer = edit_layer(storage)
    if layer.metadata.is_fixed:
        if parent is None:
            return
        raise UnsupportedFeatureError("a fixed vhdx cannot have a parent", name=storage.name)
    locator = None
    if parent is not None:
        source = opener.parent(parent, storage)
        try:
            locator = locator_for(parent, source)
        finally:
            source.close()
        own = guid_text(layer.headers.header.data_write_guid)
        if locator["parent_linkage"].strip("{}") == own:
            raise UsageError("an image cannot be its own parent", name=storage.name)
    metadata = replace(layer.metadata, locator=locator)
    if locator is None:
        _complete_blocks(layer)
    if 8 * metadata.entry_count > layer.bat.region.length:
        move_bat(layer, metadata)
    bat = layer.bat.resized(layer.bat.region, metadata)
    if bat.dirty:
        layer.journal.commit(bat.changed_pages())
    layer.journal.commit(metadata_sectors(storage, layer.regions.metadata, metadata))


def _complete_blocks(layer: WritableVhdxLayer) -> None:
    """Blocks that are here in part are whole without a parent: the rest of them is zeros."""
    size = layer.metadata.block_size
    for block, entry in layer.bat.stored(layer.metadata.block_count):
        if entry & STATE_MASK != PARTIALLY_PRESENT:
            continue
        offset, end = block * size, min((block + 1) * size, layer.size)
        while offset < end:
            extent = layer.map(offset, end - offset)
            if extent.kind is Kind.HOLE:
                layer.storage.zero(place_of(entry) + offset - block * size, extent.length)
            offset = extent.end
        layer.bat.set_payload(block, place_of(entry) | FULLY_PRESENT)
    layer.flush()
