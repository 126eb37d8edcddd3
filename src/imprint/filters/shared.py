"""A disk that many threads read and write at once."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from imprint.core.buffers import ZEROS
from imprint.core.extent import Kind
from imprint.filters.over import OverSource
from imprint.filters.window import Editable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.contracts import Source, Traits
    from imprint.core.extent import Extent


class Zeroing(Editable, Protocol):
    """The same where zeros need no bytes: :class:`~imprint.core.image.WritableImage`."""

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros."""


class SharedDisk(OverSource):
    """An image that is written while it is read: reads go together, a write goes alone.

    Owns the image. Its extents say what a range is, and not for how long: data is to be read from
    here, not from where it lies.

    Attributes:
        on_change: told of each range, offset and length, that was written or zeroed, when it
            was, whether all of it was or not; it must not ask the disk.
    """

    def __init__(self, image: Zeroing, *, like: Source | None = None) -> None:
        """``like`` is a disk whose sectors this one has; ``None``: the image's own."""
        super().__init__(image)
        self._image = image
        self._like = like or image
        self._turns = _Turns()
        self._is_closed = False
        self.on_change: Callable[[int, int], None] = _nobody

    @property
    def traits(self) -> Traits:
        """Of the image, with the sectors that the disk has."""
        own, like = self._image.traits, self._like.traits
        return replace(
            own, logical_sector=like.logical_sector, physical_sector=like.physical_sector
        )

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        with self._turns.shared():
            self._image.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What the range is made of, each as it is when it is asked for."""
        position, end = offset, offset + length
        while position < end:
            with self._turns.shared():
                found = next(iter(self._image.extents(position, end - position)))
            yield found._replace(kind=Kind.ENCODED) if found.kind is Kind.DATA else found
            position = found.end

    def write(self, data: memoryview, offset: int) -> None:
        """Store ``data``; whoever reads the range gets all of it or nothing of it."""
        with self._changing(offset, len(data)):
            self._image.write(data, offset)

    def zero(self, offset: int, length: int, *, keeps_room: bool = False) -> None:
        """Make the range read as zeros; written as such if it has to keep its room."""
        if not keeps_room:
            with self._changing(offset, length):
                self._image.zero(offset, length)
            return
        for start in range(offset, offset + length, len(ZEROS)):
            self.write(memoryview(ZEROS)[: offset + length - start], start)

    def flush(self) -> None:
        """Make all that was written durable."""
        with self._turns.alone():
            self._image.flush()

    def close(self) -> None:
        """Make it durable, and close the image. Calling again changes nothing."""
        with self._turns.alone():
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._image.flush()
            finally:
                self._image.close()

    @contextlib.contextmanager
    def _changing(self, offset: int, length: int) -> Iterator[None]:
        with self._turns.alone():
            try:
                yield
            finally:  # what failed may have been written in part
                self.on_change(offset, length)


def _nobody(offset: int, length: int) -> None:
    """Nobody wants to know."""


class _Turns:
    """Readers together, or one writer; who writes does not wait for readers that came later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._waiting = 0
        self._is_writing = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not (self._is_writing or self._waiting))
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not (self._is_writing or self._readers))
                self._is_writing = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
