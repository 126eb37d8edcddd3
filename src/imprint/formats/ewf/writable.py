"""What E01 and Ex01 have in common as formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.formats import Support
from imprint.core.image import Image
from imprint.formats.ewf.layer import EwfLayer
from imprint.formats.ewf.opening import gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding
    from imprint.core.image import WritableImage


class WritableEvidence:
    """A disk in segments, written once; see :class:`~imprint.core.formats.Format`."""

    name: ClassVar[str]
    magic: ClassVar[bytes]
    support: ClassVar = Support(write=True, check=True)

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
        evidence = gather(storage, opener, is_incomplete=is_incomplete, magic=self.magic)
        is_bzip2 = evidence.geometry.compression == "bzip2"
        layer = EwfLayer(evidence, self.name, is_bzip2=is_bzip2)
        return Image(layer, name=storage.name)

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

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare all checksums and tables; nothing is repaired."""
        from imprint.formats.ewf.check import check

        del repair
        return check(storage, opener, magic=self.magic)
