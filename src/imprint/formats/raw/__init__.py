"""Raw: the disk's bytes and nothing else.

Every file is a raw image of something, so raw is never *found*: it is what remains when no
other format is, and it is written in place only when the user names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.buffers import ZEROS
from imprint.core.errors import UnsupportedFeatureError, UsageError
from imprint.core.extent import Extent, Kind
from imprint.core.formats import Match, Measure, Option, OptionKind, Support
from imprint.core.image import Image, WritableImage
from imprint.core.info import ImageInfo
from imprint.core.units import align_up
from imprint.formats.raw import pieces

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage, Target, Traits
    from imprint.core.formats import CreateSpec

PREALLOCATION: Final = Option(
    "preallocation",
    "off: sparse; falloc, full: every byte is written when it is created",
    default="off",
    choices=("off", "falloc", "full"),
)

SPLIT: Final = Option(
    "split",
    "size of the pieces that the image is cut into: disk.001, disk.002 …",
    kind=OptionKind.SIZE,
)


class RawLayer:
    """Disk offset and storage offset are the same."""

    def __init__(self, storage: Storage, warnings: tuple[str, ...] = ()) -> None:
        """``warnings`` are what to say of the file."""
        self._storage = storage
        self._warnings = warnings

    @property
    def size(self) -> int:
        """Of the storage."""
        return self._storage.size

    @property
    def traits(self) -> Traits:
        """Of the storage."""
        return self._storage.traits

    def map(self, offset: int, length: int) -> Extent:
        """What the storage itself says."""
        return next(iter(self._storage.extents(offset, length)))

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """Only the size."""
        return ImageInfo("raw", self.size, warnings=self._warnings)

    def place(self, offset: int, length: int) -> Extent:
        """All bytes have their place."""
        return Extent(offset, length, Kind.DATA, self._storage, offset)

    allocate = place

    def link(self, extent: Extent) -> None:
        """All bytes are linked."""

    def zero(self, offset: int, length: int) -> None:
        """A hole where the storage can."""
        self._storage.zero(offset, length)

    def resize(self, size: int) -> None:
        """Of the storage."""
        self._storage.resize(size)

    def flush(self) -> None:
        """Of the storage."""
        self._storage.flush()

    def close(self) -> None:
        """Of the storage."""
        self._storage.close()


class RawFormat:
    """The format of no format."""

    name = "raw"
    title = "raw image"
    support = Support(write=True, stream=True, edit=True)
    options = (PREALLOCATION, SPLIT)

    def probe(self, storage: Storage) -> Match:
        """Anything could be raw."""
        del storage
        return Match.WEAK

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Every content is valid; ``disk.001`` is read with the pieces beside it."""
        found = pieces.others(storage, opener)
        if found:
            return Image(pieces.PiecesLayer([storage, *found]), name=storage.name)
        layer = RawLayer(storage, pieces.warnings(storage, opener))
        return Image(layer, name=storage.name)

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """The caller has made sure that the user said *raw*."""
        del opener
        return WritableImage(RawLayer(storage), storage, name=storage.name)

    def create(self, storage: Storage, spec: CreateSpec) -> Target:
        """A hole as long as the disk, or several."""
        if spec.parent is not None:
            raise UsageError("a raw image cannot have a parent")
        piece_size = spec.options.get("split")
        if piece_size is not None:
            if _is_filled(spec):
                raise UsageError("option split: expected no preallocation, found one")
            return pieces.PiecesTarget(storage, spec, int(piece_size))
        storage.resize(spec.size)
        if _is_filled(spec):
            for start in range(0, spec.size, len(ZEROS)):
                storage.write(memoryview(ZEROS)[: spec.size - start], start)
        return WritableImage(RawLayer(storage), storage, name=storage.name, is_fresh=True)

    def resume(self, storage: Storage, spec: CreateSpec) -> WritableImage:
        """The same file, of which nothing is known behind the checkpoint."""
        if "split" in spec.options:
            raise UnsupportedFeatureError("a raw image in pieces cannot be resumed")
        storage.resize(spec.size)
        return WritableImage(RawLayer(storage), storage, name=storage.name)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Data rounded up to blocks of the file system; the rest is holes, unless it is filled."""
        if _is_filled(spec):
            return Measure(source.size, source.size)
        required = sum(
            align_up(extent.length, 4096)
            for extent in source.extents(0, source.size)
            if extent.kind in (Kind.DATA, Kind.ENCODED)
        )
        return Measure(min(required, source.size), source.size)


def _is_filled(spec: CreateSpec) -> bool:
    return spec.options.get("preallocation", "off") != "off"


FORMAT: Final = RawFormat()
