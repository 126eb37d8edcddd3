"""Extended attributes of XFS: within an inode, or in blocks of a fork of their own.

Source: "XFS Algorithms & Data Structures", chapter 20 (extended attributes); Linux
``xfs_da_format.h``.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.attributes import ACCESS_LIST, DEFAULT_LIST, check_length, list_of_xfs
from imprint.filesystems.tree import ATTRIBUTES_BYTES_MAX, text_of
from imprint.filesystems.xfs.geometry import has_checksum
from imprint.filesystems.xfs.inodes import IN_INODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.filesystems.tree import Attribute
    from imprint.filesystems.xfs.geometry import Geometry, Reader
    from imprint.filesystems.xfs.inodes import InodeTable

LEAVES_BYTES_MAX: Final = 4 * ATTRIBUTES_BYTES_MAX
"""Of the leaves of one file: much more than is told of it."""

_SMALL_HEAD: Final = 4
_LOCAL, _ROOT, _SECURE, _PARENT, _INCOMPLETE = 0x01, 0x02, 0x04, 0x08, 0x80
_PREFIXES: Final = {0: "user.", _ROOT: "trusted.", _SECURE: "security."}
_LISTS: Final = {b"SGI_ACL_FILE": ACCESS_LIST, b"SGI_ACL_DEFAULT": DEFAULT_LIST}
_LEAF, _NODE = 0xFBEE, 0xFEBE
_LEAF_V5, _NODE_V5 = 0x3BEE, 0x3EBE
_DEPTH_MAX: Final = 5
_CRC_AT: Final = 12
_OWNER_AT: Final = 48
_LINKS: Final = struct.Struct(">I4xH")
"""The block behind it, and what it is."""

_LEAF_HEAD, _LEAF_HEAD_V5 = 32, 80
_NODE_HEAD, _NODE_HEAD_V5 = 16, 64
_COUNTS, _COUNTS_V5 = 12, 56
"""Where the count of entries stands."""

_ENTRY: Final = struct.Struct(">4xHBx")
"""Place of the name, flags; a hash stands before them."""

_NAME: Final = struct.Struct(">HB")
"""Length of the value, of the name; both follow."""

_REMOTE: Final = struct.Struct(">IIB")
"""First block of the value, its length, length of the name, which follows."""

_VALUE_MARK: Final = b"XARM"
_VALUE_HEAD: Final = 56
_VALUE_CRC_AT: Final = 12
_VALUE_OWNER_AT: Final = 32


def attributes(
    reader: Reader, geometry: Geometry, inodes: InodeTable, number: int
) -> Iterator[Attribute]:
    """Those of an inode.

    Raises:
        CorruptImageError: if they cannot be.
        ReadError: if they cannot be read.
    """
    fork = inodes.attributes(number)
    if fork is None:
        return
    if fork.form == IN_INODE:
        yield from _in_inode(fork.fork)
        return
    runs = sorted(run for run in inodes.runs(fork) if run[0] >= 0)
    if runs:
        yield from _Blocks(reader, geometry, number, runs).attributes()


def _in_inode(fork: memoryview) -> Iterator[Attribute]:
    if len(fork) < _SMALL_HEAD:
        raise CorruptImageError("expected attributes in an inode, found none")
    at = _SMALL_HEAD
    for _ in range(fork[2]):
        if at + 3 > len(fork):
            raise CorruptImageError("expected attributes inside of an inode")
        count, length, flags = fork[at : at + 3]
        start, at = at + 3, at + 3 + count + length
        if at > len(fork):
            raise CorruptImageError("expected attributes inside of an inode")
        name = bytes(fork[start : start + count])
        yield from _told(flags, name, bytes(fork[start + count : at]))


def _told(flags: int, name: bytes, value: bytes | Callable[[], bytes]) -> Iterator[Attribute]:
    """An attribute with the name that Linux has for it; nothing, if that is none of its users'."""
    if flags & (_PARENT | _INCOMPLETE):
        return
    acl = _LISTS.get(name) if flags & _ROOT else None
    prefix = _PREFIXES.get(flags & (_ROOT | _SECURE))
    if acl is not None:
        yield acl, partial(_list, value)
    elif prefix is not None:
        yield prefix + text_of(name), value


def _list(value: bytes | Callable[[], bytes]) -> bytes:
    return list_of_xfs(value if isinstance(value, bytes) else value())


class _Blocks:
    """Attributes in blocks, which are counted from the start of their fork."""

    def __init__(
        self, reader: Reader, geometry: Geometry, number: int, runs: list[tuple[int, int, int]]
    ) -> None:
        """``runs``: position in the fork, place and length, in bytes, in their order."""
        self._reader = reader
        self._number = number
        self._is_v5 = geometry.is_v5
        self._size = geometry.block_size
        self._runs = runs
        self._starts = [position for position, _, _ in runs]

    def attributes(self) -> Iterator[Attribute]:
        """All of them, leaf by leaf."""
        number, data = self._first_leaf()
        seen = {number}
        while True:
            yield from self._in_leaf(data)
            number = _LINKS.unpack_from(data)[0]
            if not number:
                return
            if number in seen or len(seen) * self._size >= LEAVES_BYTES_MAX:
                raise self._error("expected leaves of attributes that end")
            seen.add(number)
            is_leaf, data = self._block(number)
            if not is_leaf:
                raise self._error(f"expected block {number} of its attributes to be a leaf")

    def _first_leaf(self) -> tuple[int, memoryview]:
        number = 0
        for _ in range(_DEPTH_MAX + 1):
            is_leaf, data = self._block(number)
            if is_leaf:
                return number, data
            at = _NODE_HEAD_V5 if self._is_v5 else _NODE_HEAD
            if not self._count(data):
                break
            number = int.from_bytes(data[at + 4 : at + 8], "big")
        raise self._error("expected a tree of attributes")

    def _in_leaf(self, data: memoryview) -> Iterator[Attribute]:
        head = _LEAF_HEAD_V5 if self._is_v5 else _LEAF_HEAD
        count = self._count(data)
        if head + count * _ENTRY.size > len(data):
            raise self._error("expected fewer attributes in a leaf")
        for place, flags in _ENTRY.iter_unpack(data[head : head + count * _ENTRY.size]):
            form = _NAME if flags & _LOCAL else _REMOTE
            if place + form.size > len(data):
                raise self._error("expected attributes inside of a leaf")
            *block, length, name_bytes = form.unpack_from(data, place)
            start = place + form.size
            end = start + name_bytes
            if end + (length if flags & _LOCAL else 0) > len(data):
                raise self._error("expected attributes inside of a leaf")
            name = bytes(data[start:end])
            if flags & _LOCAL:
                yield from _told(flags, name, bytes(data[end : end + length]))
            else:
                yield from _told(flags, name, partial(self._value, block[0], length))

    def _value(self, number: int, length: int) -> bytes:
        """In blocks of its own; in version 5 each has a head."""
        check_length(length)
        head = _VALUE_HEAD if self._is_v5 else 0
        found = b""
        while len(found) < length:
            data = self._read(number)
            if self._is_v5 and (
                bytes(data[:4]) != _VALUE_MARK
                or not has_checksum(data, _VALUE_CRC_AT)
                or self._owner(data, _VALUE_OWNER_AT) != self._number
            ):
                raise self._error(f"expected block {number} of its attributes to be a value")
            found += data[head : head + length - len(found)]
            number += 1
        return found

    def _count(self, data: memoryview) -> int:
        at = _COUNTS_V5 if self._is_v5 else _COUNTS
        return int.from_bytes(data[at : at + 2], "big")

    def _block(self, number: int) -> tuple[bool, memoryview]:
        """A block of the tree, and whether it is a leaf of it."""
        data = self._read(number)
        mark = _LINKS.unpack_from(data)[1]
        kinds = (_LEAF_V5, _NODE_V5) if self._is_v5 else (_LEAF, _NODE)
        if mark not in kinds:
            raise self._error(f"expected block {number} of its attributes to be one of their tree")
        if self._is_v5 and (
            not has_checksum(data, _CRC_AT) or self._owner(data, _OWNER_AT) != self._number
        ):
            raise self._error(f"block {number} of its attributes: the checksum does not match")
        return mark == kinds[0], data

    def _owner(self, data: memoryview, at: int) -> int:
        return int.from_bytes(data[at : at + 8], "big")

    def _read(self, number: int) -> memoryview:
        position = number * self._size
        index = bisect_right(self._starts, position) - 1
        if index >= 0:
            start, place, length = self._runs[index]
            if position + self._size <= start + length:
                place += position - start
                return memoryview(self._reader.read(place, self._size, "attributes"))
        raise self._error(f"expected a block {number} of its attributes")

    def _error(self, problem: str) -> CorruptImageError:
        return CorruptImageError(f"inode {self._number}: {problem}", name=self._reader.name)
