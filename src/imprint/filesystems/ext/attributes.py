"""Extended attributes of ext: behind the fields of an inode, in a block of their own, in inodes.

Source: Linux ``Documentation/filesystems/ext4/attributes.rst``, ``fs/ext4/xattr.h``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.attributes import check_length, indexed
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.inline import ATTRIBUTE, ATTRIBUTES_MARK
from imprint.filesystems.ext.inodes import Inodes
from imprint.filesystems.ext.layout import IS_EA_INODE, Inode
from imprint.filesystems.ext.trees import NODE, Trees

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Attribute

_BLOCK_HEAD: Final = 32


class Attributes:
    """Reads extended attributes of a volume as it is on the disk. For one thread."""

    def __init__(self, volume: Source) -> None:
        """Read the superblock.

        Raises:
            CorruptImageError: if it contradicts itself.
            UnsupportedFeatureError: if it has a feature that is not known.
            ReadError: if it cannot be read.
        """
        self._reader = VolumeReader(volume, budget=UNBOUNDED)
        self._geometry = read_geometry(self._reader, may_be_cut=True)
        self._inodes = Inodes(self._reader, self._geometry)

    def of(self, number: int) -> Iterator[Attribute]:
        """Those of an inode.

        Raises:
            CorruptImageError: if they cannot be.
            ReadError: if they cannot be read.
        """
        if number == self._geometry.superblock.inode_count + 1:
            return  # so The Sleuth Kit numbers its folder of orphans
        data = self._inodes.raw(number)
        inode = Inode.unpack(data)
        if len(data) > Inode.SIZE + 2:
            at = Inode.SIZE + int.from_bytes(data[Inode.SIZE : Inode.SIZE + 2], "little")
            if data[at : at + 4] == ATTRIBUTES_MARK:
                yield from self._entries(data[at + 4 :], 0)
        block = inode.xattr_block_low | inode.xattr_block_high << 32
        if block:
            size = self._geometry.block_size
            data = memoryview(self._reader.read(block * size, size, "block of attributes"))
            if data[:4] != ATTRIBUTES_MARK:
                raise CorruptImageError(f"block {block}: expected attributes")
            yield from self._entries(data, _BLOCK_HEAD)

    def _entries(self, data: memoryview, at: int) -> Iterator[Attribute]:
        """Those whose entries begin at a place, and whose values count from the beginning."""
        while at + 4 <= len(data) and data[at : at + 4] != bytes(4):
            start = at + ATTRIBUTE.size
            if start > len(data):
                raise CorruptImageError("expected entries that end")
            count, index, place, holder, length, _ = ATTRIBUTE.unpack_from(data, at)
            at = start + (count + 3 & ~3)
            if at > len(data):
                raise CorruptImageError("expected names that end")
            name = bytes(data[start : start + count])
            if holder:
                found = indexed(index, name, partial(self._value, holder, length))
            else:
                found = indexed(index, name, partial(_part, data, place, length))
            if found is not None:
                yield found

    def _value(self, number: int, length: int) -> bytes:
        """Of an inode that holds nothing else."""
        check_length(length)
        inode = Inode.unpack(self._inodes.raw(number))
        if not inode.flags & IS_EA_INODE or inode.size_low != length:
            raise CorruptImageError(f"inode {number}: expected a value of {length} bytes")
        size, found = self._geometry.block_size, bytearray(length)
        for position, block, count in Trees(self._reader, self._geometry).pieces(inode, number):
            start = position * size
            part = min(count * size, length - start)
            if position != NODE and part > 0:
                found[start : start + part] = self._reader.read(block * size, part, "attribute")
        return bytes(found)


def _part(data: memoryview, place: int, length: int) -> bytes:
    if place + length > len(data):
        raise CorruptImageError("expected a value that ends")
    return bytes(data[place : place + length])
