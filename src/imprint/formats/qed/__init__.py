"""QED, the QEMU enhanced disk: QCOW2's short-lived rival. Only read.

Read: plain and zero clusters, backing files, all cluster and table sizes. An image that was
not closed properly is read as it is, with a note. See :mod:`imprint.formats.qed.layout` for
where the format is specified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Reference
from imprint.core.formats import Match
from imprint.core.image import Image
from imprint.core.readonly import ReadOnlyFormat
from imprint.formats.qed.layer import QedLayer
from imprint.formats.qed.layout import FEATURE_BACKING_RAW, MAGIC, backing_name, read_header

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Storage


class QedFormat(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "qed"
    title = "QEMU enhanced disk"

    def probe(self, storage: Storage) -> Match:
        """The magic."""
        head = bytearray(min(4, storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head == MAGIC.to_bytes(4, "little") else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with the backing file."""
        header = read_header(storage)
        backing = backing_name(storage, header)
        parent = None
        if backing is not None:
            format_name = "raw" if header.features & FEATURE_BACKING_RAW else None
            parent = opener.parent(Reference(backing, format_name), storage)
        return Image(QedLayer(storage, header, backing=backing), name=storage.name, parent=parent)


FORMAT: Final = QedFormat()
