"""AFF, the Advanced Forensic Format 3: pages in named segments; AFD and AFM; only read.

Read: pages as they are, of zeros, packed by zlib or LZMA; a disk in one file (AFF), in the files
of a folder (AFD, by its first file), or in raw files beside their description (AFM). Refused:
encryption, bzip2 (which AFFLIB never wrote). Signatures are not looked at.

Source: :mod:`imprint.formats.aff.segments` says where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.readonly import ReadOnlyFormat
from imprint.formats.aff.layer import AffLayer
from imprint.formats.aff.opening import find
from imprint.formats.aff.segments import MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding


class AffFormat(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "aff"
    title = "AFF evidence image"
    support: ClassVar[Support] = Support(check=True)

    def probe(self, storage: Storage) -> Match:
        """By the head of the file."""
        head = bytearray(min(len(MAGIC), storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head == MAGIC else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with all files of the set."""
        return Image(AffLayer(find(storage, opener)), name=storage.name)

    def open_incomplete(self, storage: Storage, opener: Opener) -> Image:
        """As :meth:`open`; what is in missing files is ``BAD``."""
        return Image(AffLayer(find(storage, opener, incomplete=True)), name=storage.name)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Read all pages."""
        from imprint.formats.aff.check import check

        return check(storage, opener, repair=repair)


FORMAT: Final = AffFormat()
