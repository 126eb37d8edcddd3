"""E01, the evidence files of EnCase, FTK Imager and libewf.

Read: EnCase 1 to 7, linen, FTK Imager, Tableau, EWF-X; any number of segments. Written: the
flavours of EnCase 5, 6 and 7 and of FTK Imager. Refused: AD encryption. See
:mod:`imprint.formats.ewf.layout` for where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.formats import Match
from imprint.formats.ewf import options, probing
from imprint.formats.ewf.layout import MAGIC_E01
from imprint.formats.ewf.writable import WritableEvidence

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Storage, Target
    from imprint.core.formats import CreateSpec, Measure


class E01Format(WritableEvidence):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "e01"
    title = "EnCase evidence file"
    magic = MAGIC_E01
    options = options.OPTIONS

    def probe(self, storage: Storage) -> Match:
        """The mark of a segment, unless it is SMART's."""
        is_ours = probing.has_mark(storage, MAGIC_E01) and not probing.is_smart(storage)
        return Match.STRONG if is_ours else Match.NO

    def create(self, storage: Storage, spec: CreateSpec) -> Target:
        """Begin a new image; further segments are made through the opener."""
        from imprint.formats.ewf.create import create

        return create(storage, spec)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """What no compression makes smaller."""
        from imprint.formats.ewf.create import measure

        return measure(source, spec)


FORMAT: Final = E01Format()
