"""Ex01, the evidence files of EnCase 7 and later; only read.

Read: chunks packed by zlib or bzip2, patterns, any number of segments. Refused: encryption. See
:mod:`imprint.formats.ewf.layout2` for where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.readonly import ReadOnlyFormat
from imprint.formats.ewf import probing
from imprint.formats.ewf.layer import EwfLayer
from imprint.formats.ewf.layout2 import MAGIC_EX01
from imprint.formats.ewf.opening import gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding


class Ex01Format(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "ex01"
    title = "EnCase evidence file, version 2"
    support: ClassVar = Support(check=True)

    def probe(self, storage: Storage) -> Match:
        """The mark of a segment."""
        return Match.STRONG if probing.has_mark(storage, MAGIC_EX01) else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with all segments.

        Raises:
            ReferenceRefusedError: if one is missing.
        """
        return self._opened(storage, opener, is_incomplete=False)

    def open_incomplete(self, storage: Storage, opener: Opener) -> Image:
        """The same, though segments may be missing: what was in them is ``BAD``."""
        return self._opened(storage, opener, is_incomplete=True)

    def _opened(self, storage: Storage, opener: Opener, *, is_incomplete: bool) -> Image:
        evidence = gather(storage, opener, is_incomplete=is_incomplete, magic=MAGIC_EX01)
        is_bzip2 = evidence.geometry.compression == "bzip2"
        layer = EwfLayer(evidence, self.name, is_bzip2=is_bzip2)
        return Image(layer, name=storage.name)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare all checksums and tables; nothing is repaired."""
        from imprint.formats.ewf.check import check

        del repair
        return check(storage, opener, magic=MAGIC_EX01)


FORMAT: Final = Ex01Format()
