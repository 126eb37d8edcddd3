"""L01, logical evidence of EnCase: files instead of a disk; only read.

As an image it is the bytes of all its files, one behind the other; :meth:`LogicalImage.entries`
lists the files, and :meth:`LogicalImage.file` gives one of them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.readonly import ReadOnlyFormat
from imprint.filters.window import Window
from imprint.formats.ewf import probing
from imprint.formats.ewf.layer import EwfLayer
from imprint.formats.ewf.layout import MAGIC_L01
from imprint.formats.ewf.logical import Tree
from imprint.formats.ewf.opening import gather

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding
    from imprint.core.info import ImageInfo, Value
    from imprint.formats.ewf.evidence import Evidence
    from imprint.formats.ewf.logical import Entry

LISTED_MAX: Final = 100
"""Files that :meth:`LogicalImage.info` names."""

COUNTED_MAX: Final = 100_000
"""Entries that it looks at: half a second."""


class LogicalImage(Image):
    """The bytes of all files, and the tree that says which are whose."""

    def __init__(self, evidence: Evidence, tree: Tree) -> None:
        super().__init__(EwfLayer(evidence, "l01"), name=evidence.name)
        self._tree = tree

    def entries(self) -> Iterator[Entry]:
        """All files and folders, each folder before what is in it.

        Raises:
            CorruptImageError: if the tree is damaged.
        """
        return self._tree.entries()

    def file(self, entry: Entry) -> Window:
        """The bytes of a file, as long as this image is open.

        Raises:
            TruncatedImageError: if they are not inside the data.
            UnsupportedFeatureError: if it is kept as one byte that stands for all.
        """
        if entry.size and entry.stored < entry.size:
            raise UnsupportedFeatureError(
                f"{entry.path}: expected {entry.size} stored bytes, found {entry.stored}",
                name=self.name,
            )
        return Window(self, entry.offset, entry.size, name=f"{self.name}:{entry.path}")

    def info(self) -> ImageInfo:
        """What the sections say, and the first files."""
        info = super().info()
        listed: list[str] = []
        count = 0
        for entry in islice(self.entries(), COUNTED_MAX):
            count += 1
            if len(listed) < LISTED_MAX and not entry.is_folder:
                md5 = f", md5 {entry.md5}" if entry.md5 else ""
                listed.append(f"{entry.path}: {entry.size} bytes{md5}")
        entries: Value = count if count < COUNTED_MAX else f"{count} or more"
        return replace(info, options={**info.options, "entries": entries}, notes=tuple(listed))


class L01Format(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "l01"
    title = "EnCase logical evidence file"
    support: ClassVar = Support(check=True)

    def probe(self, storage: Storage) -> Match:
        """The mark of a segment."""
        return Match.STRONG if probing.has_mark(storage, MAGIC_L01) else Match.NO

    def open(self, storage: Storage, opener: Opener) -> LogicalImage:
        """Open for reading, with all segments.

        Raises:
            ReferenceRefusedError: if one is missing.
            CorruptImageError: if it has no tree of files.
        """
        return _opened(gather(storage, opener, magic=MAGIC_L01))

    def open_incomplete(self, storage: Storage, opener: Opener) -> LogicalImage:
        """The same, though segments may be missing: what was in them is ``BAD``."""
        return _opened(gather(storage, opener, is_incomplete=True, magic=MAGIC_L01))

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare all checksums and tables; nothing is repaired."""
        from imprint.formats.ewf.check import check

        del repair
        return check(storage, opener, magic=MAGIC_L01)


def _opened(evidence: Evidence) -> LogicalImage:
    try:
        tree = Tree.of(evidence)
        size = tree.data_size
        if 0 < size < evidence.geometry.size:  # the last chunk is shorter than the others
            evidence.geometry = replace(evidence.geometry, size=size)
        return LogicalImage(evidence, tree)
    except BaseException:
        for storage in evidence.storages[1:]:
            storage.close()
        raise


FORMAT: Final = L01Format()
