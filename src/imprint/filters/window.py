"""A part of a disk as a disk of its own: a partition, a volume."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, Self

from imprint.core.contracts import Source
from imprint.core.errors import TruncatedImageError
from imprint.core.extent import check_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Traits
    from imprint.core.extent import Extent


class Editable(Source, Protocol):
    """A disk that is changed in place."""

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``."""

    def flush(self) -> None:
        """Wait until all that was written is durable."""


class Window:
    """The bytes ``[offset, offset + length)`` of another source, counted from 0.

    As thread-safe as the source, which it owns: closing the window closes it.
    """

    def __init__(
        self, source: Source, offset: int, length: int, *, name: str | None = None
    ) -> None:
        """``name`` is what errors call it; the source's own by default.

        Raises:
            TruncatedImageError: if the range is not wholly inside the source.
        """
        self._source = source
        self._offset = offset
        self._size = length
        self._name = source.name if name is None else name
        if offset < 0 or length < 0 or offset + length > source.size:
            raise TruncatedImageError(
                f"expected the range {offset} + {length} inside the disk, "
                f"found a disk of {source.size} bytes",
                name=self._name,
                offset=offset,
                length=length,
            )

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    @property
    def source(self) -> Source:
        """What it is a part of."""
        return self._source

    @property
    def start(self) -> int:
        """Where in the source it begins, in bytes."""
        return self._offset

    @property
    def traits(self) -> Traits:
        """Of the source; the grain is smaller where the window does not start at one."""
        traits = self._source.traits
        return replace(traits, grain=math.gcd(self._offset, traits.grain))

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        self._check_range(offset, len(buffer))
        self._source.readinto(buffer, self._offset + offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What the range is made of, as the source says."""
        self._check_range(offset, length)
        start = self._offset + offset
        for extent in self._source.extents(start, length):
            inside = extent.clip(start, start + length)
            yield inside._replace(offset=inside.offset - self._offset)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check_range(self, offset: int, length: int) -> None:
        check_range(offset, length, size=self._size, name=self._name)


class EditableWindow(Window):
    """A part of a disk that is changed in place; it does not own the disk."""

    def __init__(self, target: Editable, offset: int, length: int, *, name: str) -> None:
        """As of :class:`Window`."""
        super().__init__(target, offset, length, name=name)
        self._target = target

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``.

        Raises:
            ReadError: if the range is not wholly inside.
            TargetError: if it cannot be written.
        """
        self._check_range(offset, len(data))
        self._target.write(data, self._offset + offset)

    def flush(self) -> None:
        """Wait until all that was written to the disk is durable."""
        self._target.flush()

    def close(self) -> None:
        """The disk stays open."""
