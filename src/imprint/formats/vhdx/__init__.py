"""VHDX, the disk image of Hyper-V: version 1.

Read and written: dynamic, fixed and differencing images, sectors of 512 and 4096 bytes, all
block sizes. A log that is not empty is replayed: in memory for reading, on the file for
writing. Changes of tables go through the log. Regions and metadata that are required and
unknown are refused.

Source: [MS-VHDX] "Virtual Hard Disk v2 (VHDX) File Format".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.formats import Match, Support
from imprint.core.opening import editable_image, new_image, opened_image, resumed_image
from imprint.core.units import align_up
from imprint.formats.vhdx.create import OPTIONS, create_layer, measure
from imprint.formats.vhdx.layer import Tables, open_layer, read_tables
from imprint.formats.vhdx.layout import SIGNATURE
from imprint.formats.vhdx.parent import open_parent
from imprint.formats.vhdx.writer import edit_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Reference, Source, Storage
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, Measure
    from imprint.core.image import Image, WritableImage


class VhdxFormat:
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "vhdx"
    title = "Hyper-V disk image"
    support = Support(write=True, edit=True, check=True, repair=True, parent=True)
    options = OPTIONS

    def probe(self, storage: Storage) -> Match:
        """The signature at the file's start."""
        if storage.size < len(SIGNATURE):
            return Match.NO
        found = bytearray(len(SIGNATURE))
        storage.readinto(memoryview(found), 0)
        return Match.STRONG if found == SIGNATURE else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with all parents."""
        tables = read_tables(storage)
        layer = open_layer(tables)
        return opened_image(lambda: layer, storage, _parent(storage, tables, opener))

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Open for writing; parents are only read."""
        parent = _parent(storage, read_tables(storage), opener)
        return editable_image(lambda: edit_layer(storage), storage, parent)

    def create(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Lay out an empty disk; with a parent, a differencing image."""
        return new_image(create_layer(storage, spec), storage, spec)

    def resume(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Take up an unfinished image; see :class:`~imprint.core.formats.Resuming`.

        Raises:
            CorruptImageError: if it is not the image that ``spec`` asks for.
        """
        layer = edit_layer(storage, is_fresh=True)
        is_same = layer.metadata.has_parent == (spec.parent is not None)
        size = align_up(spec.size, layer.metadata.logical_sector)
        return resumed_image(layer, storage, spec, size=size, is_same=is_same)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Whole blocks for all data, and what lies before them."""
        return measure(source, spec)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare tables and file; repair replays the log and rewrites a damaged copy."""
        from imprint.formats.vhdx.check import check  # not needed for anything else

        del opener
        return check(storage, repair=repair)

    def set_parent(self, storage: Storage, opener: Opener, parent: Reference | None) -> None:
        """Name another parent, in the state that it is in now, or none at all.

        Raises:
            UsageError: if the parent is no VHDX, or the image itself.
            UnsupportedFeatureError: if the image is fixed.
        """
        from imprint.formats.vhdx.rebase import set_parent  # rarely needed

        set_parent(storage, opener, parent)


def _parent(storage: Storage, tables: Tables, opener: Opener) -> Source | None:
    locator = tables.metadata.locator
    return None if locator is None else open_parent(storage, locator, opener)


FORMAT: Final = VhdxFormat()
