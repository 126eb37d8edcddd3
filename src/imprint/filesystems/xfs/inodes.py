"""Inodes of XFS by their number: facts, and where contents lie.

Source: "XFS Algorithms & Data Structures", chapters 16 to 18; Linux ``xfs_format.h``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.core.units import KIB
from imprint.filesystems.tree import Times
from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.geometry import numbers
from imprint.filesystems.xfs.layout import Inode
from imprint.filesystems.xfs.walk import NODE, Inodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.xfs.geometry import Geometry, Reader

IN_INODE: Final = 1
UNWRITTEN: Final = -2
"""In place of a position in a file: the blocks are its own, and read as zeros."""

EXTENTS_MAX: Final = 1 << 18
"""Of one file."""

_CORE: Final = struct.Struct(">HHBBHIII4xQQQQQ12xI2xBx6xH8x")
"""Magic, mode, version, format, old count of links, owner, group, links, wide count of extents,
times of access, of modification and of change, size, count of extents, place of attributes,
flags."""

_ATTRIBUTES: Final = struct.Struct(">76xIHBb")
"""Wide count of extents of attributes, narrow count, place, format: as :class:`Inode` has them."""

_FLAGS2_AT: Final = 120
_CREATED_AT: Final = 144
_NUMBER_AT: Final = 152
_CACHE_PIECES: Final = 256
_PIECE_BYTES: Final = 32 * KIB
_NS: Final = 1_000_000_000
_BIG_TIME_EPOCH: Final = (1 << 31) * _NS


class Facts(NamedTuple):
    """An inode.

    Attributes:
        number: of it.
        mode: its type and permissions.
        form: of its data.
        owner: its number.
        group: its number.
        links: how many names it has.
        size: in bytes.
        times: of it.
        extents: how many it has.
        fork: its data, or what tells where they are.
    """

    number: int
    mode: int
    form: int
    owner: int
    group: int
    links: int
    size: int
    times: Times
    extents: int
    fork: memoryview


class _Forks(Inodes):
    """Tells extents that were never written to from others."""

    def _extents(self, number: int, records: memoryview) -> Iterator[tuple[int, int, int]]:
        words = numbers("Q", records)
        for high, run in zip(words[::2], super()._extents(number, records), strict=True):
            yield (UNWRITTEN, *run[1:]) if high >> 63 else run


class InodeTable:
    """Reads inodes; keeps those beside them for a while."""

    def __init__(self, reader: Reader, geometry: Geometry) -> None:
        self._reader = reader
        self._geometry = geometry
        self._pieces: dict[int, memoryview] = {}

    def facts(self, number: int) -> Facts:
        """Of an inode.

        Raises:
            CorruptImageError: if it is outside of the volume, or none that is in use.
            ReadError: if it cannot be read.
        """
        data = self._bytes(number)
        core = _CORE.unpack_from(data)
        magic, mode, version, form, old_links, owner, group, links, wide = core[:9]
        accessed, modified, changed, size, count, attributes_at, flags = core[9:]
        is_v5 = version == 3
        if magic != layout.INODE_MAGIC or is_v5 != self._geometry.is_v5 or not mode:
            raise self._error(number, "expected an inode that is in use")
        head, created, flags2 = layout.INODE_CORE_V4, None, 0
        if is_v5:
            head = Inode.SIZE
            (flags2,) = struct.unpack_from(">Q", data, _FLAGS2_AT)
            created, itself = struct.unpack_from(">QQ", data, _CREATED_AT)
            if itself != number:
                raise self._error(number, "expected an inode that says it belongs here")
            if flags2 & layout.INODE_LARGE_COUNTS:
                count = wide
        if flags & layout.INODE_REALTIME:
            raise self._error(number, "its content is on a realtime device")
        big = bool(flags2 & layout.INODE_BIG_TIME)
        times = Times(
            _time(modified, big=big),
            _time(accessed, big=big),
            _time(changed, big=big),
            None if created is None else _time(created, big=big),
        )
        end = head + attributes_at * 8 if attributes_at else len(data)
        return Facts(
            number,
            mode,
            form,
            owner,
            group,
            old_links if version == 1 else links,
            size,
            times,
            count,
            data[head:end],
        )

    def attributes(self, number: int) -> Facts | None:
        """An inode with the fork of its extended attributes in place of its data, if it has one.

        Raises:
            CorruptImageError: if that is outside of it, or it is none that is in use.
            ReadError: if it cannot be read.
        """
        data = self._bytes(number)
        many, few, place, form = _ATTRIBUTES.unpack_from(data)
        if not place:
            return None
        facts, head, flags2 = self.facts(number), layout.INODE_CORE_V4, 0
        if self._geometry.is_v5:
            head = Inode.SIZE
            (flags2,) = struct.unpack_from(">Q", data, _FLAGS2_AT)
        start = head + place * 8
        if start >= len(data):
            raise self._error(number, "expected attributes inside of it")
        count = many if flags2 & layout.INODE_LARGE_COUNTS else few
        return facts._replace(form=form, fork=data[start:], extents=count)

    def runs(self, facts: Facts) -> Iterator[tuple[int, int, int]]:
        """Position in the file, or ``NODE`` or ``UNWRITTEN``, place in the volume, and length.

        Raises:
            CorruptImageError: if they cannot be, or are more than :data:`EXTENTS_MAX`.
            ReadError: if they cannot be read.
        """
        if facts.form == IN_INODE:
            return
        forks = _Forks(self._reader, self._geometry, follow=True)
        found = forks.of_fork(facts.number, facts.form, facts.fork, facts.extents)
        for index, run in enumerate(found):
            if index == EXTENTS_MAX:
                raise self._error(facts.number, f"expected at most {EXTENTS_MAX} extents")
            yield run

    def _bytes(self, number: int) -> memoryview:
        geometry, block = self._geometry, self._geometry.superblock
        shift = block.group_log + block.inodes_per_block_log
        group, slot = number >> shift, number & (1 << shift) - 1
        inside, size = slot >> block.inodes_per_block_log, block.inode_size
        if group >= block.group_count or inside >= geometry.group_length(group):
            raise self._error(number, "expected an inode inside of the groups")
        place = geometry.offset(group, 0) + slot * size
        start = place - place % _PIECE_BYTES
        piece = self._pieces.get(start)
        if piece is None:
            length = min(_PIECE_BYTES, self._reader.size - start)
            try:
                piece = memoryview(self._reader.read(start, length, "inodes"))
            except (FormatError, ReadError):  # another one of them may be bad
                return memoryview(self._reader.read(place, size, "inode"))
            self._pieces[start] = piece
            if len(self._pieces) > _CACHE_PIECES:
                del self._pieces[next(iter(self._pieces))]
        return piece[place - start : place - start + size]

    def _error(self, number: int, problem: str) -> CorruptImageError:
        return CorruptImageError(f"inode {number}: {problem}", name=self._reader.name)


def _time(value: int, *, big: bool) -> int:
    """In ns since 1970, of 8 bytes: seconds and ns, or, if big, ns since 1901."""
    if big:
        return value - _BIG_TIME_EPOCH
    seconds = value >> 32
    return (seconds - (seconds >> 31 << 32)) * _NS + (value & 0xFFFFFFFF)


__all__ = ["EXTENTS_MAX", "IN_INODE", "NODE", "UNWRITTEN", "Facts", "InodeTable"]
