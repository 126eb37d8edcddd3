"""VMDK, the disk image of VMware: a descriptor, and extents that are the disk's content.

Read: monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat,
streamOptimized, vmfs, vmfsSparse (COWD), seSparse; delta disks by ``parentFileNameHint``, whose
``parentCID`` is compared; every extent line counts. Written: the first five. Refused: raw device
mappings, SESparse with a journal to replay.

Source: :mod:`imprint.formats.vmdk.layout` says where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.formats import Match, Support
from imprint.core.image import Image, WritableImage
from imprint.formats.vmdk import create as making
from imprint.formats.vmdk.headers import magic_of
from imprint.formats.vmdk.opening import find, open_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Reference, Source, Storage, Target
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, Measure


class VmdkFormat:
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "vmdk"
    title = "VMware disk image"
    support = Support(write=True, stream=True, edit=True, check=True, repair=True, parent=True)
    options = making.OPTIONS

    def probe(self, storage: Storage) -> Match:
        """By the magic of its four kinds of file."""
        return Match.STRONG if magic_of(storage) else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with all extents and parents."""
        found = find(storage, opener)
        parent: Source | None = None
        try:
            parent, notes = open_parent(storage, found.descriptor, opener)
            found.notes += notes
            return Image(found.layer(), name=storage.name, parent=parent)
        except BaseException:
            found.close_others()
            if parent is not None:
                parent.close()
            raise

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Open for writing; parents are only read.

        Raises:
            UnsupportedFeatureError: if an extent is compressed, or may only be read.
        """
        from imprint.formats.vmdk.writer import edit_layer

        found = find(storage, opener)
        parent: Source | None = None
        try:
            parent, notes = open_parent(storage, found.descriptor, opener)
            found.notes += notes
            layer = edit_layer(found, opener)
        except BaseException:
            found.close_others()
            if parent is not None:
                parent.close()
            raise
        return WritableImage(
            layer, storage, name=storage.name, parent=parent, others=found.others()
        )

    def create(self, storage: Storage, spec: CreateSpec) -> Target:
        """Lay out an empty disk; further files through the opener."""
        from imprint.formats.vmdk import files

        return files.create(storage, spec)

    def resume(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Take up an unfinished monolithicSparse image."""
        from imprint.formats.vmdk import files

        return files.resume(storage, spec)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Whole grains for all data, and what lies before them."""
        return making.measure(source, spec)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare tables, headers and descriptor; repair makes redundant tables equal again."""
        from imprint.formats.vmdk.check import check

        return check(storage, opener, repair=repair)

    def set_parent(self, storage: Storage, opener: Opener, parent: Reference | None) -> None:
        """Name another parent and its CID, or none at all."""
        from imprint.formats.vmdk.parent import set_parent

        set_parent(storage, opener, parent)


FORMAT: Final = VmdkFormat()
