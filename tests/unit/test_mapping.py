"""Runs of a disk: coalesced, seen through a chain, counted from a window's start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.contracts import Traits
from imprint.core.extent import Extent, Kind
from imprint.core.image import Image
from imprint.core.info import ImageInfo
from imprint.endpoints.mapping import Run, runs
from imprint.filters.window import Window
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE = MemoryStorage(bytes(4096))


class Scripted:
    """A layer that says what it was told to say."""

    def __init__(self, extents: Sequence[Extent], encryption: str | None = None) -> None:
        self._extents = extents
        self._encryption = encryption

    @property
    def size(self) -> int:
        return self._extents[-1].end

    @property
    def traits(self) -> Traits:
        return Traits()

    def map(self, offset: int, length: int) -> Extent:
        found = next(item for item in self._extents if item.offset <= offset < item.end)
        return found.clip(offset, min(found.end, offset + length))

    def unit(self, offset: int) -> Extent:
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        raise NotImplementedError

    def info(self) -> ImageInfo:
        return ImageInfo("scripted", self.size, encryption=self._encryption)

    def close(self) -> None:
        pass


def image(*extents: Extent, parent: Image | None = None, encryption: str | None = None) -> Image:
    return Image(Scripted(extents, encryption), name="scripted", parent=parent)


def data(offset: int, length: int, at: int) -> Extent:
    return Extent(offset, length, Kind.DATA, FILE, at)


def test_neighbours_are_one_run_only_if_they_lie_together() -> None:
    """Fails if a run claims bytes to be where they are not."""
    disk = image(data(0, 10, 100), data(10, 10, 110), data(20, 10, 500), Extent(30, 5, Kind.ZERO))
    assert list(runs(disk, 0, 35)) == [
        Run(0, 20, Kind.DATA, 0, 100),
        Run(20, 10, Kind.DATA, 0, 500),
        Run(30, 5, Kind.ZERO, 0),
    ]


def test_holes_are_looked_up_in_the_parents_and_end_behind_them() -> None:
    """Fails if a depth is wrong, or a short parent is read behind its end."""
    base = image(data(0, 8, 0), Extent(8, 4, Kind.HOLE), Extent(12, 4, Kind.BAD))
    middle = image(Extent(0, 4, Kind.ZERO), Extent(4, 16, Kind.HOLE), parent=base)
    top = image(data(0, 2, 64), Extent(2, 30, Kind.HOLE), parent=middle)
    assert list(runs(top, 0, 32)) == [
        Run(0, 2, Kind.DATA, 0, 64),
        Run(2, 2, Kind.ZERO, 1),
        Run(4, 4, Kind.DATA, 2, 4),
        Run(8, 4, Kind.HOLE),
        Run(12, 4, Kind.BAD, 2),
        Run(16, 16, Kind.HOLE),
    ]


def test_zeros_of_two_images_of_a_chain_are_two_runs() -> None:
    """Fails if joining runs loses who says so."""
    base = image(Extent(0, 8, Kind.ZERO))
    top = image(Extent(0, 4, Kind.ZERO), Extent(4, 4, Kind.HOLE), parent=base)
    assert list(runs(top, 0, 8)) == [Run(0, 4, Kind.ZERO, 0), Run(4, 4, Kind.ZERO, 1)]


def test_encoded_data_is_data_that_is_compressed() -> None:
    """Fails if a unit's place is shown as the place of its bytes."""
    units = [Extent(at, 4, Kind.ENCODED, FILE, 7 * at) for at in (0, 4)]
    assert list(runs(image(*units), 0, 8)) == [Run(0, 8, Kind.DATA, 0, is_compressed=True)]


def test_data_of_an_encrypted_image_says_so_and_its_parents_data_does_not() -> None:
    """Fails if the flag is that of another image of the chain."""
    base = image(data(0, 8, 0))
    top = image(data(0, 4, 16), Extent(4, 4, Kind.HOLE), parent=base, encryption="luks")
    assert list(runs(top, 0, 8)) == [
        Run(0, 4, Kind.DATA, 0, 16, is_encrypted=True),
        Run(4, 4, Kind.DATA, 1, 4),
    ]


def test_a_window_counts_from_its_start() -> None:
    """Fails if a partition's map has the disk's offsets, or loses where data is stored."""
    disk = image(data(0, 10, 100), Extent(10, 10, Kind.HOLE), data(20, 10, 200))
    part = Window(disk, 5, 20)
    assert list(runs(part, 0, 20)) == [
        Run(0, 5, Kind.DATA, 0, 105),
        Run(5, 10, Kind.HOLE),
        Run(15, 5, Kind.DATA, 0, 200),
    ]
    assert list(runs(part, 16, 2)) == [Run(16, 2, Kind.DATA, 0, 201)]


def test_what_is_no_image_has_runs_too() -> None:
    """Fails if a plain storage cannot be mapped."""
    assert list(runs(FILE, 0, 4096)) == [Run(0, 4096, Kind.DATA, 0, 0)]
    assert list(runs(FILE, 0, 0)) == []
