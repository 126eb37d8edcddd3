"""ASIF, the sparse disk images of macOS 26 and later. Only read.

Read: version 1, chunks that were written whole or in part, the image's UUIDs. Refused: flags
and states that nobody has described. See :mod:`imprint.formats.asif.layout` for the sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.readonly import ReadOnlyFormat
from imprint.formats.asif.layer import AsifLayer
from imprint.formats.asif.layout import MAGIC, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding


class AsifFormat(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "asif"
    title = "Apple sparse image"
    support: ClassVar = Support(check=True)

    def probe(self, storage: Storage) -> Match:
        """The magic."""
        head = bytearray(min(4, storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head == MAGIC.to_bytes(4, "big") else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading."""
        del opener
        return Image(AsifLayer(storage, read_header(storage)), name=storage.name)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare the tables with each other; nothing is repaired."""
        from imprint.formats.asif.check import check  # not needed for anything else

        del opener, repair
        return check(storage)


FORMAT: Final = AsifFormat()
