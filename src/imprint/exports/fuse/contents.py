"""What is read, and perhaps written, of an open file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from imprint.core.contracts import Source


class Writing(Protocol):
    """A disk that is changed in place; see :class:`~imprint.core.image.WritableImage`."""

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``."""

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros."""

    def flush(self) -> None:
        """Make all that was written durable."""


class Content(Protocol):
    """The bytes of something that is open."""

    @property
    def size(self) -> int:
        """In bytes."""

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``, which lies inside of it."""


class Text:
    """A content that is at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._data)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``."""
        buffer[:] = self._data[offset : offset + len(buffer)]


class Raw:
    """A disk, or a part of it, as a file.

    Attributes:
        source: what is read.
        writing: the disk that is changed; ``None``: it cannot be.
        start: where in that the file begins.
    """

    def __init__(self, source: Source, writing: Writing | None = None, start: int = 0) -> None:
        self.source = source
        self.writing = writing
        self.start = start
