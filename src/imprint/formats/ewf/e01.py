"""E01, the evidence files of EnCase, FTK Imager and libewf.

Read: EnCase 1 to 7, linen, FTK Imager, Tableau, EWF-X; any number of segments. Written: the
flavours of EnCase 5, 6 and 7 and of FTK Imager. Refused: AD encryption. See
:mod:`imprint.formats.ewf.layout` for where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.formats.ewf import options, probing
from imprint.formats.ewf.layer import EwfLayer
from imprint.formats.ewf.layout import MAGIC_E01
from imprint.formats.ewf.opening import gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Source, Storage, Target
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, Measure
    from imprint.core.image import WritableImage


class E01Format:
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "e01"
    title = "EnCase evidence file"
    support = Support(write=True, check=True)
    options = options.OPTIONS

    def probe(self, storage: Storage) -> Match:
        """The mark of a segment, unless it is SMART's."""
        is_ours = probing.has_mark(storage, MAGIC_E01) and not probing.is_smart(storage)
        return Match.STRONG if is_ours else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with all segments.

        Raises:
            ReferenceRefusedError: if one is missing.
        """
        return Image(EwfLayer(gather(storage, opener), self.name), name=storage.name)

    def open_incomplete(self, storage: Storage, opener: Opener) -> Image:
        """The same, though segments may be missing: what was in them is ``BAD``."""
        evidence = gather(storage, opener, is_incomplete=True)
        return Image(EwfLayer(evidence, self.name), name=storage.name)

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Refused: evidence is not changed.

        Raises:
            UnsupportedFeatureError: always.
        """
        del opener
        raise UnsupportedFeatureError(
            "is evidence, which is never changed in place",
            name=storage.name,
            advice="convert it to qcow2, or another format that can be changed",
        )

    def create(self, storage: Storage, spec: CreateSpec) -> Target:
        """Begin a new image; further segments are made through the opener."""
        from imprint.formats.ewf.create import create

        return create(storage, spec)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """What no compression makes smaller."""
        from imprint.formats.ewf.create import measure

        return measure(source, spec)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare all checksums and tables; nothing is repaired."""
        from imprint.formats.ewf.check import check

        del repair
        return check(storage, opener)


FORMAT: Final = E01Format()
