"""S01, the evidence files of ASR Data's SMART; only read.

Told from E01, which has the same mark, by the size of its volume section. See
:mod:`imprint.formats.ewf.layout` for where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.readonly import ReadOnlyFormat
from imprint.formats.ewf import probing
from imprint.formats.ewf.layer import EwfLayer
from imprint.formats.ewf.layout import MAGIC_E01
from imprint.formats.ewf.opening import gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding


class S01Format(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "s01"
    title = "SMART evidence file"
    support: ClassVar = Support(check=True)

    def probe(self, storage: Storage) -> Match:
        """The mark of a segment, and a short volume section."""
        is_ours = probing.has_mark(storage, MAGIC_E01) and probing.is_smart(storage)
        return Match.STRONG if is_ours else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with all segments."""
        return Image(EwfLayer(gather(storage, opener), self.name), name=storage.name)

    def open_incomplete(self, storage: Storage, opener: Opener) -> Image:
        """The same, though segments may be missing; see :class:`E01Format`."""
        evidence = gather(storage, opener, is_incomplete=True)
        return Image(EwfLayer(evidence, self.name), name=storage.name)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare all checksums and tables; nothing is repaired."""
        from imprint.formats.ewf.check import check

        del repair
        return check(storage, opener)


FORMAT: Final = S01Format()
