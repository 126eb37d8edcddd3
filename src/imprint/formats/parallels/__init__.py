"""Parallels images: single ``.hds`` files, and bundles by their ``DiskDescriptor.xml``.

Read and written: ``WithoutFreeSpace`` (version 1) and ``WithouFreSpacExt`` (version 2) with
clusters of any size; new images are version 2. Images with an extension (dirty bitmaps) are
read and not changed. Bundles, with snapshots and disks in several parts, are only read.

Source: :mod:`imprint.formats.parallels.layout` says where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.opening import editable_image, new_image, opened_image, resumed_image
from imprint.core.units import align_up
from imprint.formats.parallels.bundle import is_descriptor, open_bundle
from imprint.formats.parallels.create import OPTIONS, create_layer, measure
from imprint.formats.parallels.layer import ParallelsLayer, read_image
from imprint.formats.parallels.layout import MAGIC_V1, MAGIC_V2, SECTOR_BYTES
from imprint.formats.parallels.writer import edit_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Source, Storage
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, Measure
    from imprint.core.image import WritableImage


class ParallelsFormat:
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "parallels"
    title = "Parallels disk image"
    support = Support(write=True, edit=True, check=True, repair=True)
    options = OPTIONS

    def probe(self, storage: Storage) -> Match:
        """Either magic, or a bundle's descriptor."""
        head = bytearray(min(len(MAGIC_V1), storage.size))
        storage.readinto(memoryview(head), 0)
        is_ours = bytes(head) in (MAGIC_V1, MAGIC_V2) or is_descriptor(storage)
        return Match.STRONG if is_ours else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading: an image, or all files that a bundle's descriptor names."""
        if is_descriptor(storage):
            return Image(open_bundle(storage, opener), name=storage.name)
        return opened_image(lambda: ParallelsLayer(storage, *read_image(storage)), storage, None)

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Open for writing in place.

        Raises:
            UnsupportedFeatureError: if it is a bundle, or has an extension.
        """
        del opener
        if is_descriptor(storage):
            raise UnsupportedFeatureError(
                "is a bundle, which is only read",
                name=storage.name,
                advice="convert it, or change its files one by one",
            )
        return editable_image(lambda: edit_layer(storage), storage, None)

    def create(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Lay out an empty disk."""
        return new_image(create_layer(storage, spec), storage, spec)

    def resume(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Take up an unfinished image; see :class:`~imprint.core.formats.Resuming`.

        Raises:
            CorruptImageError: if it is not the image that ``spec`` asks for.
        """
        size = align_up(spec.size, SECTOR_BYTES)
        return resumed_image(edit_layer(storage), storage, spec, size=size)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Whole clusters for all data, and what lies before them."""
        return measure(source, spec)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare table and file; repair only clears the "in use" mark of a sound image."""
        from imprint.formats.parallels.check import check  # not needed for anything else

        del opener
        if is_descriptor(storage):
            raise UnsupportedFeatureError(
                "is a bundle; its files are checked one by one", name=storage.name
            )
        return check(storage, repair=repair)


FORMAT: Final = ParallelsFormat()
