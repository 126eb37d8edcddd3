"""VDI, the disk image of VirtualBox: version 1.1, with headers of 384 and 400 bytes.

Read and written: dynamic, fixed ("static") and differencing images; any block size from 512
bytes to 256 MiB; block extra data (kept, not interpreted); any order of blocks; discarded
blocks. Refused: versions before 1.1, undo images. Snapshots of VirtualBox are differencing
images that name their parent by UUID: it is looked for among the ``.vdi`` files beside.

Source: :mod:`imprint.formats.vdi.layout` says where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError, UsageError
from imprint.core.formats import Match, Support
from imprint.core.opening import editable_image, new_image, opened_image, resumed_image
from imprint.core.units import align_up
from imprint.formats.vdi.create import OPTIONS, ParentLink, create_layer, measure, parent_link
from imprint.formats.vdi.layer import open_layer
from imprint.formats.vdi.layout import (
    SECTOR_BYTES,
    SIGNATURE,
    SIGNATURE_OFFSET,
    TYPE_DIFFERENCING,
    TYPE_DYNAMIC,
    TYPE_FIXED,
    read_header,
)
from imprint.formats.vdi.parent import open_parent
from imprint.formats.vdi.writer import edit_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Reference, Source, Storage
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, Measure
    from imprint.core.image import Image, WritableImage


class VdiFormat:
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "vdi"
    title = "VirtualBox disk image"
    support = Support(write=True, edit=True, check=True, repair=True, parent=True)
    options = OPTIONS

    def probe(self, storage: Storage) -> Match:
        """The signature, which is not at the file's start."""
        if storage.size < SIGNATURE_OFFSET + 4:
            return Match.NO
        found = bytearray(4)
        storage.readinto(memoryview(found), SIGNATURE_OFFSET)
        is_ours = int.from_bytes(found, "little") == SIGNATURE
        return Match.STRONG if is_ours else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with all parents."""
        parent, notes = self._parent(storage, opener)
        return opened_image(lambda: open_layer(storage, notes=notes), storage, parent)

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Open for writing; parents are only read."""
        parent, notes = self._parent(storage, opener)
        return editable_image(lambda: edit_layer(storage, notes=notes), storage, parent)

    def create(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Lay out an empty disk; with a parent, a differencing image."""
        return new_image(create_layer(storage, spec), storage, spec)

    def resume(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Take up an unfinished image; see :class:`~imprint.core.formats.Resuming`.

        Raises:
            CorruptImageError: if it is not the image that ``spec`` asks for.
        """
        layer = edit_layer(storage)
        is_same = layer.header.has_parent == (spec.parent is not None)
        size = align_up(spec.size, SECTOR_BYTES)
        return resumed_image(layer, storage, spec, size=size, is_same=is_same)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Whole blocks for all data, and what lies before them."""
        return measure(source, spec)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare map, header and file; repair only recounts the slots in use."""
        from imprint.formats.vdi.check import check  # not needed for anything else

        del opener
        return check(storage, repair=repair)

    def set_parent(self, storage: Storage, opener: Opener, parent: Reference | None) -> None:
        """Name another parent by its UUID, or none at all.

        Raises:
            UsageError: if the image is fixed, or the parent has no UUID.
        """
        header = read_header(storage)
        link, image_type = ParentLink(), TYPE_DYNAMIC
        if parent is not None:
            image_type = TYPE_DIFFERENCING
            source = opener.parent(parent, storage)
            try:
                link = parent_link(parent, source)
            finally:
                source.close()
            if link.image_uuid == header.image_uuid:
                raise UsageError("an image cannot be its own parent", name=storage.name)
        if header.image_type == TYPE_FIXED:
            if parent is None:
                return
            raise UnsupportedFeatureError("a fixed vdi cannot have a parent", name=storage.name)
        changed = header.replace(
            image_type=image_type,
            parent_uuid=link.image_uuid,
            parent_modify_uuid=link.modify_uuid,
        )
        storage.write(memoryview(changed.pack()), 0)
        storage.flush()

    def _parent(self, storage: Storage, opener: Opener) -> tuple[Source | None, tuple[str, ...]]:
        header = read_header(storage)
        return open_parent(storage, header, opener) if header.has_parent else (None, ())


FORMAT: Final = VdiFormat()
