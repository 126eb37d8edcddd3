"""VHD, the disk image of Virtual PC, Hyper-V, XenServer and Azure: version 1.0.

Read and written: fixed, dynamic and differencing images, any block size from 4 KiB to 256 MiB.
Parents are looked for by the names that the image has for them, then by UUID among the ``.vhd``
files beside; they are believed by their UUID. Read with a note: wrong checksums, a damaged
footer. Refused: what is larger than 2040 GiB, unless it is fixed.

Source: :mod:`imprint.formats.vhd.layout` says where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError
from imprint.core.formats import Match, Support
from imprint.core.opening import editable_image, new_image, opened_image, resumed_image
from imprint.formats.vhd.create import OPTIONS, create_layer, measure, parent_size, plan
from imprint.formats.vhd.layer import State, VhdLayer, read_state
from imprint.formats.vhd.layout import read_footers
from imprint.formats.vhd.parent import open_parent
from imprint.formats.vhd.writer import WritableVhdLayer, edit_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Reference, Source, Storage
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, Measure, SizePolicy
    from imprint.core.image import Image, WritableImage


class VhdFormat:
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "vhd"
    title = "Virtual PC and Hyper-V disk image"
    support = Support(write=True, edit=True, check=True, repair=True, parent=True)
    options = OPTIONS

    def __init__(self, size_policy: SizePolicy | None = None) -> None:
        """``size_policy``: which size of an image counts; by default its creator decides."""
        self._policy = size_policy

    def with_size_policy(self, policy: SizePolicy | None) -> VhdFormat:
        """The same, for images whose size is known to be the one or the other."""
        return VhdFormat(policy)

    def probe(self, storage: Storage) -> Match:
        """A footer, and for a fixed image one that stands where the disk ends.

        A raw disk may have had a VHD's end copied to it: then the numbers do not fit.
        """
        try:
            footers = read_footers(storage)
        except ImagingError:
            return Match.NO
        footer = footers.active
        sizes = (footer.current_size, footer.geometry.size)
        if not footer.is_fixed or footers.tail_offset in sizes or footer.is_resizing:
            return Match.STRONG
        return Match.WEAK

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with all parents."""
        state, parent = self._read(storage, opener)
        return opened_image(lambda: VhdLayer(storage, state), storage, parent)

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Open for writing; parents are only read."""
        state, parent = self._read(storage, opener)
        size = parent_size(parent)
        return editable_image(
            lambda: WritableVhdLayer(storage, state, parent_size=size), storage, parent
        )

    def create(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Lay out an empty disk; with a parent, a differencing image."""
        return new_image(create_layer(storage, spec), storage, spec)

    def resume(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Take up an unfinished image; see :class:`~imprint.core.formats.Resuming`.

        Raises:
            CorruptImageError: if it is not the image that ``spec`` asks for.
        """
        layer = edit_layer(storage, parent_size=parent_size(spec.parent_source))
        wanted = plan(spec)
        is_same = layer.footer.disk_type == wanted.footer.disk_type
        return resumed_image(layer, storage, spec, size=wanted.size, is_same=is_same)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Whole blocks for all data, and what lies around them."""
        return measure(source, spec)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare footers, header, block table and file; repair writes footers and checksums."""
        from imprint.formats.vhd.check import check  # not needed for anything else

        del opener
        return check(storage, repair=repair, policy=self._policy)

    def set_parent(self, storage: Storage, opener: Opener, parent: Reference | None) -> None:
        """Name another parent, or none at all; see :mod:`imprint.formats.vhd.rebase`."""
        from imprint.formats.vhd.rebase import set_parent  # rarely needed

        set_parent(storage, opener, parent)

    def _read(self, storage: Storage, opener: Opener) -> tuple[State, Source | None]:
        """What the file says, and the parent, opened."""
        state = read_state(storage, policy=self._policy)
        has_parent = state.footers.active.has_parent
        return state, open_parent(storage, state, opener) if has_parent else None


FORMAT: Final = VhdFormat()
