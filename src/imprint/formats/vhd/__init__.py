"""VHD, the disk image of Virtual PC, Hyper-V, XenServer and Azure: version 1.0.

Read and written: fixed, dynamic and differencing images, any block size from 4 KiB to 256 MiB.
Parents are looked for by the names that the image has for them, then by UUID among the ``.vhd``
files beside; they are believed by their UUID. Read with a note: wrong checksums, a damaged
footer. Refused: what is larger than 2040 GiB, unless it is fixed.

Source: :mod:`imprint.formats.vhd.layout` says where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, ImagingError
from imprint.core.formats import Match, Support
from imprint.core.image import Image, WritableImage
from imprint.formats.vhd.create import OPTIONS, create_layer, measure, parent_size, plan
from imprint.formats.vhd.layer import VhdLayer, read_state
from imprint.formats.vhd.layout import read_footers
from imprint.formats.vhd.parent import open_parent
from imprint.formats.vhd.writer import WritableVhdLayer, edit_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Reference, Source, Storage
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, Measure


class VhdFormat:
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "vhd"
    title = "Virtual PC and Hyper-V disk image"
    support = Support(write=True, edit=True, check=True, repair=True, parent=True)
    options = OPTIONS

    def probe(self, storage: Storage) -> Match:
        """A footer, and for a fixed image one that stands where the disk ends.

        A raw disk may have had a VHD's end copied to it: then the numbers do not fit.
        """
        try:
            footers = read_footers(storage)
        except ImagingError:
            return Match.NO
        footer = footers.active
        if not footer.is_fixed or footers.tail_offset in (
            footer.current_size,
            footer.geometry.size,
        ):
            return Match.STRONG
        return Match.WEAK

    def open(self, storage: Storage, opener: Opener, *, size_policy: str | None = None) -> Image:
        """Open for reading, with all parents.

        ``size_policy``: ``chs`` or ``current`` is the size; by default its creator decides.
        """
        state = read_state(storage, policy=size_policy)
        parent = open_parent(storage, state, opener) if state.footers.active.has_parent else None
        return Image(VhdLayer(storage, state), name=storage.name, parent=parent)

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Open for writing; parents are only read."""
        state = read_state(storage)
        parent = open_parent(storage, state, opener) if state.footers.active.has_parent else None
        try:
            layer = WritableVhdLayer(storage, state, parent_size=parent_size(parent))
        except BaseException:
            if parent is not None:
                parent.close()
            raise
        return WritableImage(layer, storage, name=storage.name, parent=parent)

    def create(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Lay out an empty disk; with a parent, a differencing image."""
        layer = create_layer(storage, spec)
        return WritableImage(
            layer, storage, name=storage.name, parent=spec.parent_source, is_fresh=True
        )

    def resume(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Take up an unfinished image; see :class:`~imprint.core.formats.Resuming`.

        Raises:
            CorruptImageError: if it is not the image that ``spec`` asks for.
        """
        layer = edit_layer(storage, parent_size=parent_size(spec.parent_source))
        wanted = plan(spec)
        if layer.size != wanted.size or layer.footer.disk_type != wanted.footer.disk_type:
            raise CorruptImageError(
                f"expected an unfinished image of {wanted.size} bytes, found {layer.size}",
                name=storage.name,
            )
        return WritableImage(layer, storage, name=storage.name, parent=spec.parent_source)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Whole blocks for all data, and what lies around them."""
        return measure(source, spec)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare footers, header, block table and file; repair writes footers and checksums."""
        from imprint.formats.vhd.check import check  # not needed for anything else

        del opener
        return check(storage, repair=repair)

    def set_parent(self, storage: Storage, opener: Opener, parent: Reference | None) -> None:
        """Name another parent, or none at all; see :mod:`imprint.formats.vhd.rebase`."""
        from imprint.formats.vhd.rebase import set_parent  # rarely needed

        set_parent(storage, opener, parent)


FORMAT: Final = VhdFormat()
