"""What a disk is made of, run by run, and which image of a chain says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from imprint.core.extent import Extent, Kind
from imprint.core.image import Image
from imprint.filters.used import UsedOnly
from imprint.filters.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Source


class Run(NamedTuple):
    """A run of a disk.

    Attributes:
        offset: of the disk, in bytes.
        length: in bytes.
        kind: what it is; never ``ENCODED``.
        depth: which image says so: 0 is the one that was opened, 1 its parent …; ``None`` for
            holes, of which nobody says anything, and where it is not known.
        storage_offset: where plain data begins in the image's file.
        is_compressed: data that has to be decompressed.
        is_encrypted: data that has to be decrypted.
    """

    offset: int
    length: int
    kind: Kind
    depth: int | None = None
    storage_offset: int | None = None
    is_compressed: bool = False
    is_encrypted: bool = False

    def follows(self, before: Run) -> bool:
        """Whether both are one run."""
        # The kind first: neighbours mostly differ in it.
        if self.kind is not before.kind or self.depth != before.depth or self[5:] != before[5:]:
            return False
        expected = before.storage_offset
        if expected is not None:
            expected += before.length
        return self.storage_offset == expected and self.offset == before.offset + before.length


def runs(source: Source, offset: int, length: int) -> Iterator[Run]:
    """The runs of ``[offset, offset + length)``: ascending, contiguous, as long as can be.

    Raises:
        ImagingError: if the image's tables cannot be read.
    """
    return _joined(_runs(source, offset, length, 0))


def _runs(source: Source, offset: int, length: int, depth: int) -> Iterator[Run]:
    if isinstance(source, Window):
        for run in _runs(source.source, source.start + offset, length, depth):
            yield run._replace(offset=run.offset - source.start)
        return
    if isinstance(source, UsedOnly):
        yield from _used_runs(source, offset, length, depth)
        return
    if not isinstance(source, Image):
        for extent in source.extents(offset, length):
            yield _run(extent, depth, is_encrypted=False)
        return
    parent = source.parent
    is_encrypted = source.info().encryption is not None
    for extent in source.own_extents(offset, length):
        if extent.kind is not Kind.HOLE or parent is None:
            yield _run(extent, depth, is_encrypted=is_encrypted)
            continue
        inside = max(extent.offset, min(extent.end, parent.size))
        if inside > extent.offset:
            yield from _runs(parent, extent.offset, inside - extent.offset, depth + 1)
        if extent.end > inside:
            yield Run(inside, extent.end - inside, Kind.HOLE)


def _used_runs(source: UsedOnly, offset: int, length: int, depth: int) -> Iterator[Run]:
    """As the source says where it is used; what nobody has written stays a hole."""
    for extent in source.extents(offset, length):
        if extent.kind is Kind.UNUSED:
            yield Run(extent.offset, extent.length, Kind.UNUSED)
        else:
            yield from _runs(source.source, extent.offset, extent.length, depth)


def _run(extent: Extent, depth: int, *, is_encrypted: bool) -> Run:
    offset, length, kind = extent.offset, extent.length, extent.kind
    if kind is Kind.DATA:
        return Run(offset, length, kind, depth, extent.storage_offset, is_encrypted=is_encrypted)
    if kind is Kind.ENCODED:
        return Run(offset, length, Kind.DATA, depth, is_compressed=True)
    return Run(offset, length, kind, None if kind is Kind.HOLE else depth)


def _joined(items: Iterable[Run]) -> Iterator[Run]:
    last: Run | None = None
    for item in items:
        if last is not None and item.follows(last):
            last = last._replace(length=last.length + item.length)
        else:
            if last is not None:
                yield last
            last = item
    if last is not None:
        yield last
