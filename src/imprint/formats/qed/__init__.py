"""QED, the QEMU enhanced disk: QCOW2's short-lived rival.

Read and written: plain and zero clusters, backing files, all cluster and table sizes; written
are only tables of up to 16 MiB. An image that was not closed properly is read as it is, with a
note. See :mod:`imprint.formats.qed.layout` for where the format is specified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.contracts import Reference
from imprint.core.formats import Match, Support
from imprint.core.opening import editable_image, new_image, opened_image, resumed_image
from imprint.core.units import align_up
from imprint.formats.qed.create import OPTIONS, create_layer, edit_layer, measure
from imprint.formats.qed.layer import QedLayer
from imprint.formats.qed.layout import (
    FEATURE_BACKING_RAW,
    MAGIC,
    SECTOR_BYTES,
    backing_name,
    read_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Source, Storage
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, Measure, Option
    from imprint.core.image import Image, WritableImage


class QedFormat:
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "qed"
    title = "QEMU enhanced disk"
    support: ClassVar = Support(write=True, edit=True, check=True, repair=True, parent=True)
    options: ClassVar[tuple[Option, ...]] = OPTIONS

    def probe(self, storage: Storage) -> Match:
        """The magic."""
        head = bytearray(min(4, storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head == MAGIC.to_bytes(4, "little") else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with the backing file."""
        header = read_header(storage)
        backing = backing_name(storage, header)
        parent = _parent(storage, opener)
        return opened_image(lambda: QedLayer(storage, header, backing=backing), storage, parent)

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Open for writing; the backing file is only read."""
        parent = _parent(storage, opener)
        return editable_image(
            lambda: edit_layer(storage, parent_size=0 if parent is None else parent.size),
            storage,
            parent,
        )

    def create(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Lay out an empty disk; with a parent, an overlay."""
        return new_image(create_layer(storage, spec), storage, spec)

    def resume(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """Take up an unfinished image; see :class:`~imprint.core.formats.Resuming`.

        Raises:
            CorruptImageError: if it is not the image that ``spec`` asks for.
        """
        parent = spec.parent_source
        layer = edit_layer(storage, parent_size=0 if parent is None else parent.size)
        size = align_up(spec.size, SECTOR_BYTES)
        is_same = (layer.info().parent is None) == (spec.parent is None)
        return resumed_image(layer, storage, spec, size=size, is_same=is_same)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Whole clusters for all data, and the tables that name them."""
        return measure(source, spec)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare the tables with the file; only the "need check" mark is repaired."""
        from imprint.formats.qed.check import check  # not needed for anything else

        del opener
        return check(storage, repair=repair)


def _parent(storage: Storage, opener: Opener) -> Source | None:
    header = read_header(storage)
    backing = backing_name(storage, header)
    if backing is None:
        return None
    format_name = "raw" if header.features & FEATURE_BACKING_RAW else None
    return opener.parent(Reference(backing, format_name), storage)


FORMAT: Final = QedFormat()
