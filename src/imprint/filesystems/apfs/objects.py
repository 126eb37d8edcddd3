"""Objects of a container: reading them, and their checksums."""

from __future__ import annotations

import sys
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.apfs import layout
from imprint.filesystems.apfs.layout import Extent, ObjectHeader

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader

_MODULUS: Final = (1 << 32) - 1
_CHECKSUM_BYTES: Final = 8


def checksum(content: bytes | bytearray | memoryview) -> int:
    """Of an object, whose first 8 bytes are where it stands, and do not count.

    Fletcher's with 64 bits, turned so that the sums over an object with its checksum are zero.
    Source: "Apple File System Reference", ``obj_phys_t``.
    """
    words = array("I")
    words.frombytes(bytes(content[_CHECKSUM_BYTES:]))
    if sys.byteorder == "big":
        words.byteswap()
    first, second = sum(words), sum(accumulate(words))
    low = _MODULUS - (first + second) % _MODULUS
    high = _MODULUS - (first + low) % _MODULUS
    return high << 32 | low


def is_whole(content: bytes | bytearray) -> bool:
    """Whether the checksum of an object fits; that of zeros is not zero."""
    return int.from_bytes(content[:_CHECKSUM_BYTES], "little") == checksum(content)


class Blocks:
    """The blocks of a container.

    Attributes:
        reader: of the volume.
        size: of a block, in bytes.
        count: of the blocks.
    """

    def __init__(self, reader: VolumeReader, size: int, count: int) -> None:
        """All blocks are inside the volume."""
        self.reader = reader
        self.size = size
        self.count = count

    def check(self, extent: Extent, what: str) -> Extent:
        """The extent, if it is inside the container.

        Raises:
            CorruptImageError: if it is not.
        """
        if extent.start + extent.length > self.count:
            raise CorruptImageError(
                f"{what}: expected a place inside the container's {self.count} blocks, "
                f"found {extent.start} + {extent.length}",
                name=self.reader.name,
            )
        return extent

    def read(self, start: int, count: int, what: str) -> bytes:
        """Whole blocks.

        Raises:
            CorruptImageError: if they are not all inside the container.
        """
        self.check(Extent(start, count), what)
        return bytes(self.reader.read(start * self.size, count * self.size, what))

    def physical(self, block: int, kind: int, what: str) -> bytes:
        """A physical object of one block; ``kind`` is what it has to be.

        Raises:
            CorruptImageError: if it is something else, or its checksum does not fit.
        """
        content = self.read(block, 1, what)
        header = ObjectHeader.unpack(content)
        if (
            header.type & layout.TYPE_MASK != kind
            or header.type & layout.STORAGE_MASK != layout.PHYSICAL
            or header.oid != block
        ):
            raise CorruptImageError(
                f"{what}: expected it at block {block}, found an object of type "
                f"0x{header.type:x} that calls itself {header.oid}",
                name=self.reader.name,
                offset=block * self.size,
            )
        self.verify(content, block, what)
        return content

    def verify(self, content: bytes, block: int, what: str) -> None:
        """Refuse an object whose checksum does not fit.

        Raises:
            CorruptImageError: if it does not.
        """
        if not is_whole(content):
            raise CorruptImageError(
                f"{what} at block {block}: its checksum does not fit",
                name=self.reader.name,
                offset=block * self.size,
            )
