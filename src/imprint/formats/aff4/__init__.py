"""AFF4, the Advanced Forensics File Format 4: a zip archive of compressed streams and maps.

Read: disk images of the standard 1.0 and of the time before (Evimetry's ``.af4``), in one file
or striped over several; chunks that are stored, or packed by Snappy, LZ4 or deflate; maps with
what was not read; every chunk is compared with its hash. Written: the standard. Refused: logical
images (AFF4-L), encryption, more than one disk.

Source: *AFF4 Standard* 1.0 (Schatz, Cohen).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError, UnsupportedFeatureError
from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.limits import PROBE_BYTES
from imprint.formats.aff4 import plan as planning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Source, Storage
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, Measure
    from imprint.core.image import WritableImage
    from imprint.formats.aff4.writer import Aff4Target

_HEAD: Final = b"PK\3\4"
_DESCRIPTION: Final = b"container.description"


class Aff4Format:
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "aff4"
    title = "AFF4 evidence image"
    support = Support(write=True, check=True)

    options = planning.OPTIONS

    def probe(self, storage: Storage) -> Match:
        """A zip archive that begins or ends as a volume does."""
        size = min(storage.size, PROBE_BYTES)
        if size < 100:
            return Match.NO
        head, tail = bytearray(64), bytearray(size)
        try:
            storage.readinto(memoryview(head), 0)
            storage.readinto(memoryview(tail), storage.size - size)
        except ImagingError:
            return Match.NO
        if not head.startswith(_HEAD):
            return Match.NO
        is_first = head.startswith(_DESCRIPTION, 30)
        is_listed = _DESCRIPTION in tail and b"information.turtle" in tail
        return Match.STRONG if is_first or is_listed else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with all volumes of the set."""
        from imprint.formats.aff4.layer import Aff4Layer
        from imprint.formats.aff4.opening import find

        return Image(Aff4Layer(find(storage, opener)), name=storage.name)

    def open_incomplete(self, storage: Storage, opener: Opener) -> Image:
        """As :meth:`open`; what is in missing volumes is ``BAD``."""
        from imprint.formats.aff4.layer import Aff4Layer
        from imprint.formats.aff4.opening import find

        return Image(Aff4Layer(find(storage, opener, incomplete=True)), name=storage.name)

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Refused: evidence is not changed.

        Raises:
            UnsupportedFeatureError: always.
        """
        del opener
        raise UnsupportedFeatureError("is evidence, which is never changed", name=storage.name)

    def create(self, storage: Storage, spec: CreateSpec) -> Aff4Target:
        """Begin a volume of the standard, to be written front to back."""
        from imprint.formats.aff4.writer import Aff4Target

        return Aff4Target(storage, planning.plan(spec))

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """All chunks as they are, with their hashes, and the map."""
        return planning.measure(source, spec)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Read everything, and compare every hash there is."""
        from imprint.formats.aff4.check import check

        return check(storage, opener, repair=repair)


FORMAT: Final = Aff4Format()
