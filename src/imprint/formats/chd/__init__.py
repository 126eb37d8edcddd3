"""CHD, MAME's compressed hunks of data: hard disks of versions 1 to 5. Only read.

Read: plain and compressed images, codecs ``zlib``, ``lzma``, ``zstd``, ``huff`` and ``flac``,
hunks that are the same as others, of the image or of its parent; all checksums are compared.
Refused: other codecs, CDs and laser discs. See :mod:`imprint.formats.chd.layout` for where the
format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.errors import CorruptImageError
from imprint.core.formats import Match, Support
from imprint.core.opening import opened_image
from imprint.core.readonly import ReadOnlyFormat
from imprint.formats.chd.hunkmap import PARENT, read_map
from imprint.formats.chd.layer import ChdLayer
from imprint.formats.chd.layout import TAG, read_header, read_metadata
from imprint.formats.chd.parent import open_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding
    from imprint.core.image import Image


class ChdFormat(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "chd"
    title = "MAME compressed hunks of data"
    support: ClassVar = Support(check=True)

    def probe(self, storage: Storage) -> Match:
        """The tag."""
        head = bytearray(min(len(TAG), storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head == TAG else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with the parent.

        Raises:
            CorruptImageError: if hunks are in a parent that the image says it does not have.
        """
        header = read_header(storage)
        geometry = read_metadata(storage, header)
        hunks = read_map(storage, header)
        if PARENT in hunks.kinds and not header.parent_ids:
            raise CorruptImageError(
                "map: expected no hunk of a parent, found some", name=storage.name
            )
        parent = open_parent(storage, header, opener) if header.parent_ids else None
        return opened_image(
            lambda: ChdLayer(storage, header, hunks, geometry=geometry, parent=parent),
            storage,
            parent,
        )

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare the map with the file; nothing is repaired."""
        from imprint.formats.chd.check import check  # not needed for anything else

        del opener, repair
        return check(storage)


FORMAT: Final = ChdFormat()
