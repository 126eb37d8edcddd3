"""What files and devices have in common: a path, and a descriptor that is open on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class DescriptorStorage:
    """The facts that every open descriptor has; reading and writing are up to the classes."""

    def __init__(self, path: Path, fd: int, size: int, *, is_writable: bool) -> None:
        """Takes over ``fd``; ``size`` is in bytes."""
        self._path = path
        self._fd = fd
        self._size = size
        self._is_writable = is_writable
        self._is_closed = False

    @property
    def path(self) -> Path:
        """As it was given."""
        return self._path

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    @property
    def is_writable(self) -> bool:
        """Whether it was opened for writing."""
        return self._is_writable

    def fileno(self) -> int:
        """The descriptor (of a device: that of cached access), for calls that take one."""
        return self._fd
