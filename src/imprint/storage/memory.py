"""Bytes in memory: for tests, and for small images that come through a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.buffers import copy_by_hand
from imprint.core.contracts import Traits
from imprint.core.errors import TruncatedImageError
from imprint.core.extent import Extent, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage


class MemoryStorage:
    """A storage that is a ``bytearray``."""

    def __init__(
        self,
        content: bytes | bytearray = b"",
        *,
        name: str = "memory",
        writable: bool = True,
    ) -> None:
        self.content = bytearray(content)
        self._name = name
        self._is_writable = writable

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """Of the content."""
        return len(self.content)

    @property
    def traits(self) -> Traits:
        """No unit at all."""
        return Traits(grain=1)

    @property
    def is_writable(self) -> bool:
        """As given."""
        return self._is_writable

    @property
    def stored_size(self) -> int:
        """Of the content."""
        return len(self.content)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        piece = self.content[offset : offset + len(buffer)]
        if len(piece) != len(buffer):
            raise TruncatedImageError(
                f"expected {len(buffer)} bytes at 0x{offset:x}, found {len(piece)}",
                name=self._name,
                offset=offset,
                length=len(buffer),
            )
        buffer[:] = piece

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data."""
        if length:
            yield Extent(offset, length, Kind.DATA, self, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Store, growing; nothing makes it no longer, as with a file."""
        if not data:
            return
        if offset > len(self.content):
            self.resize(offset)
        self.content[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        """Store zeros."""
        self.write(memoryview(bytes(length)), offset)

    def resize(self, size: int) -> None:
        """Cut off or grow."""
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))

    def can_offload(self, source: Storage) -> bool:
        """Nobody copies memory but we."""
        del source
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Read and write."""
        copy_by_hand(source, source_offset, self, offset, length)

    def flush(self) -> None:
        """Nothing to wait for."""

    def commit(self) -> None:
        """Nothing to rename."""

    def abort(self) -> None:
        """Nothing to remove."""

    def close(self) -> None:
        """Nothing to close."""
