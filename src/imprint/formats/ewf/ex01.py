"""Ex01, the evidence files of EnCase 7 and later.

Read: chunks packed by zlib or bzip2, patterns, any number of segments. Written: the same, but
for bzip2. Refused: encryption. See :mod:`imprint.formats.ewf.layout2` for where the format is
described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.formats import Match
from imprint.formats.ewf import options, probing
from imprint.formats.ewf.layout2 import MAGIC_EX01
from imprint.formats.ewf.writable import WritableEvidence

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Storage, Target
    from imprint.core.formats import CreateSpec, Measure


class Ex01Format(WritableEvidence):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "ex01"
    title = "EnCase evidence file, version 2"
    magic = MAGIC_EX01
    options = options.OPTIONS_EX01

    def probe(self, storage: Storage) -> Match:
        """The mark of a segment."""
        return Match.STRONG if probing.has_mark(storage, MAGIC_EX01) else Match.NO

    def create(self, storage: Storage, spec: CreateSpec) -> Target:
        """Begin a new image; further segments are made through the opener."""
        from imprint.formats.ewf.create2 import create

        return create(storage, spec)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """What no compression makes smaller, patterns neither."""
        from imprint.formats.ewf.create2 import measure

        return measure(source, spec)


FORMAT: Final = Ex01Format()
