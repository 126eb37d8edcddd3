"""CHD, MAME's compressed hunks of data: version 5, hard disks. Only read.

Read: plain and compressed images, codecs ``zlib``, ``lzma``, ``zstd``, ``huff`` and ``flac``,
hunks that are the same as others; all checksums are compared. Refused: other codecs, images
with a parent, CDs and laser discs, versions before 5. See
:mod:`imprint.formats.chd.layout` for where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.formats import Match
from imprint.core.image import Image
from imprint.core.readonly import ReadOnlyFormat
from imprint.formats.chd.hunkmap import read_map
from imprint.formats.chd.layer import ChdLayer
from imprint.formats.chd.layout import TAG, read_header, read_metadata

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Storage


class ChdFormat(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "chd"
    title = "MAME compressed hunks of data"

    def probe(self, storage: Storage) -> Match:
        """The tag."""
        head = bytearray(min(len(TAG), storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head == TAG else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading."""
        del opener
        header = read_header(storage)
        geometry = read_metadata(storage, header)
        layer = ChdLayer(storage, header, read_map(storage, header), geometry=geometry)
        return Image(layer, name=storage.name)


FORMAT: Final = ChdFormat()
