"""All that can be reached in an XFS, without asking its trees of free extents.

Every group has a tree of its inodes. What inodes own is in their two forks: content, folders and
links in the data fork, extended attributes in the other, both by extents. Extents that were
made to be written to, for files that share theirs, are in a tree of each group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.bitmap import runs_of_bits
from imprint.core.errors import CorruptImageError
from imprint.filesystems.xfs import groups, layout
from imprint.filesystems.xfs.geometry import has_checksum, numbers
from imprint.filesystems.xfs.groups import Group
from imprint.filesystems.xfs.layout import BASIC_BLOCK, Inode, MapBlock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.xfs.geometry import Geometry, Reader

_CHUNK: Final = 64
"""Inodes of a record of their tree."""

_PER_HOLE: Final = 4
"""Inodes for each bit of the mask of a chunk that has holes."""

_STAGING: Final = 1 << 31
"""In the start of a shared extent: nobody's yet, made to be written to."""

_WORDS: Final = {groups.OWNERS: 6, groups.SHARED: 3}
"""Numbers of 4 bytes in a record of trees that tell extents; the first two: start and length."""

NODE: Final = -1
"""In place of a position in a file: it is a block of the tree of the file's extents."""

_EXTENTS: Final = 2
_TREE: Final = 3
_EXTENT_BYTES: Final = 16
_LEVELS_MAX: Final = 16


def walk(reader: Reader, geometry: Geometry, *, follow_inodes: bool) -> Iterator[tuple[int, int]]:
    """``(offset, length)`` of all that is reached, in bytes of the volume.

    Without ``follow_inodes``, inodes are reached, but what they own only as far as the trees
    of owners tell it.

    Raises:
        CorruptImageError: if a tree cannot be followed.
        ReadError: if a part of it cannot be read.
    """
    yield geometry.log_at, geometry.log_bytes
    inodes = Inodes(reader, geometry, follow=follow_inodes)
    for number in range(geometry.superblock.group_count):
        group = Group(reader, geometry, number)
        yield group.offset(0), geometry.header_blocks * geometry.block_size
        for block in group.free_list:
            yield group.offset(block), geometry.block_size
        yield from _free_trees(geometry, group)
        for block, chunks in chunks_of(group):
            yield group.offset(block), geometry.block_size
            for chunk in chunks:
                yield from inodes.of_chunk(group, *chunk)


def chunks_of(group: Group) -> Iterator[tuple[int, list[tuple[int, int, int, int]]]]:
    """Each block of a group's tree of inodes, with the records that it has of chunks of them.

    Raises:
        CorruptImageError: if they are no tree, or not in order.
        ReadError: if they cannot be read.
    """
    root, levels = group.inodes.root, group.inodes.levels
    end = 0
    for block, header, records in group.tree(groups.INODES, root, levels):
        chunks: list[tuple[int, int, int, int]] = []
        if header.level == 0:
            words = iter(numbers("I", records))
            chunks.extend(zip(words, words, words, words, strict=True))
        for first, *_ in chunks:
            if first < end:
                raise group.error("inobt", "expected chunks in ascending order")
            end = first + _CHUNK
        yield block, chunks


def _free_trees(geometry: Geometry, group: Group) -> Iterator[tuple[int, int]]:
    """The blocks of all trees but that of inodes, and the extents that two of them tell."""
    free, inodes = group.free, group.inodes
    trees = [
        (groups.BY_PLACE, free.bno_root, free.bno_levels),
        (groups.BY_LENGTH, free.cnt_root, free.cnt_levels),
    ]
    if geometry.has(ro_compat=layout.RO_COMPAT_RMAPBT):
        trees.append((groups.OWNERS, free.rmap_root, free.rmap_levels))
    if geometry.has(ro_compat=layout.RO_COMPAT_FINOBT):
        trees.append((groups.FREE_INODES, inodes.free_root, inodes.free_levels))
    if geometry.has(ro_compat=layout.RO_COMPAT_REFLINK):
        trees.append((groups.SHARED, free.refcount_root, free.refcount_levels))
    size = geometry.block_size
    for kind, root, levels in trees:
        for number, header, records in group.tree(kind, root, levels):
            yield group.offset(number), size
            step = _WORDS.get(kind)
            if step is None or header.level:
                continue
            words = numbers("I", records)
            for at in range(0, len(words), step):
                start, count = words[at], words[at + 1]
                if kind is groups.SHARED:
                    start &= ~_STAGING
                if start + count > group.length:
                    raise group.error(kind.name, "expected extents inside of the group")
                yield group.offset(start), count * size


def _present(holes: int) -> list[tuple[int, int]]:
    """First inode and number of each run of a chunk that is there; bits of ``holes`` are not."""
    if holes == 0:
        return [(0, _CHUNK)]
    clear = ~holes & 0xFFFF
    runs = runs_of_bits(clear.to_bytes(2, "little"), 0, 16)
    return [(first * _PER_HOLE, count * _PER_HOLE) for first, count in runs]


class Inodes:
    """Follows inodes; remembers which blocks of their extents' trees it has seen."""

    def __init__(self, reader: Reader, geometry: Geometry, *, follow: bool) -> None:
        self._reader = reader
        self._follow = follow
        self._geometry = geometry
        self._seen: set[int] = set()

    def of_chunk(
        self, group: Group, first: int, counts: int, free_high: int, free_low: int
    ) -> Iterator[tuple[int, int]]:
        """What a record of the tree of inodes stands for: its inodes, and all that they own."""
        size = self._geometry.superblock.inode_size
        free = free_high << 32 | free_low
        for index, number, offset, count in self.places(group, first, counts):
            yield offset, count * size
            if not self._follow:
                continue
            data = memoryview(self._reader.read(offset, count * size, "inodes"))
            for at in range(count):
                if not free >> index + at & 1:
                    yield from self._of_inode(number + at, data[at * size : (at + 1) * size])

    def places(self, group: Group, first: int, counts: int) -> Iterator[tuple[int, int, int, int]]:
        """Runs of inodes of a chunk that are there.

        Gives for each: index in the chunk, number, place in the volume, and how many they are.

        Raises:
            CorruptImageError: if they are outside of the group.
        """
        geometry, superblock = self._geometry, self._geometry.superblock
        holes = counts >> 16 if geometry.has(incompat=layout.INCOMPAT_SPARSE_INODES) else 0
        inodes_log = superblock.group_log + superblock.inodes_per_block_log
        end = group.length << superblock.inodes_per_block_log
        for index, count in _present(holes):
            slot = first + index
            if slot + count > end:
                raise group.error("inobt", "expected inodes inside of the group")
            offset = group.offset(0) + slot * superblock.inode_size
            yield index, group.number << inodes_log | slot, offset, count

    def _of_inode(self, number: int, data: memoryview) -> Iterator[tuple[int, int]]:
        """The extents of both forks of an inode, and the blocks of their trees."""
        inode = Inode.unpack(data)
        is_v5 = self._geometry.is_v5
        if inode.magic != layout.INODE_MAGIC or (inode.version == 3) != is_v5:
            raise self._error(number, "expected an inode")
        if is_v5:
            if inode.number != number or inode.uuid != self._geometry.uuid:
                raise self._error(number, "expected an inode that says it belongs here")
            if not has_checksum(data, layout.INODE_CRC_AT):
                raise self._error(number, "the checksum does not match")
        if inode.flags & layout.INODE_REALTIME:
            return
        core = Inode.SIZE if is_v5 else layout.INODE_CORE_V4
        room = len(data) - core
        attr_at = inode.attr_at * 8
        if attr_at > room:
            raise self._error(number, "expected attributes inside of it")
        is_large = is_v5 and inode.flags2 & layout.INODE_LARGE_COUNTS
        counts = inode.extents, inode.attr_extents
        if is_large:
            counts = inode.big_extents, inode.extents
        content = data[core : core + (attr_at or room)]
        for _, offset, length in self.of_fork(number, inode.data_format, content, counts[0]):
            yield offset, length
        if attr_at:
            rest = data[core + attr_at :]
            for _, offset, length in self.of_fork(number, inode.attr_format, rest, counts[1]):
                yield offset, length

    def of_fork(
        self, number: int, form: int, fork: memoryview, count: int
    ) -> Iterator[tuple[int, int, int]]:
        """Position in the file, or ``NODE``, place in the volume, and length, of all of a fork.

        Args:
            number: of the inode.
            form: as the inode has it.
            fork: its bytes in the inode.
            count: of extents, as the inode has it.

        Raises:
            CorruptImageError: if they cannot be.
        """
        if form == _EXTENTS:
            if count * _EXTENT_BYTES > len(fork):
                raise self._error(number, "expected fewer extents")
            yield from self._extents(number, fork[: count * _EXTENT_BYTES])
        elif form == _TREE:
            level, keys = numbers("H", fork[:4])
            width = (len(fork) - 4) // _EXTENT_BYTES
            if not 0 < level < _LEVELS_MAX or keys > width:
                raise self._error(number, "expected the root of a tree")
            pointers = fork[4 + width * 8 :][: keys * 8]
            yield from self._tree(number, numbers("Q", pointers).tolist(), level - 1)

    def _tree(self, number: int, row: list[int], level: int) -> Iterator[tuple[int, int, int]]:
        """The blocks of a tree of extents below its root, and the extents."""
        geometry, size = self._geometry, self._geometry.block_size
        start = MapBlock.SIZE if geometry.is_v5 else layout.MAP_HEADER_V4
        width = (size - start) // _EXTENT_BYTES
        while row:
            below: list[int] = []
            for block in row:
                if not geometry.holds(block) or block in self._seen:
                    raise self._error(number, "expected a tree of extents")
                self._seen.add(block)
                offset = geometry.offset_of(block)
                data = memoryview(self._reader.read(offset, size, "bmbt block"))
                header = MapBlock.unpack(data)
                self._check_block(number, header, data, offset, level)
                yield NODE, offset, size
                if level == 0:
                    records = data[start : start + header.count * _EXTENT_BYTES]
                    yield from self._extents(number, records)
                else:
                    first = start + width * 8
                    below.extend(numbers("Q", data[first : first + header.count * 8]))
            row, level = below, level - 1

    def _check_block(
        self, number: int, header: MapBlock, data: memoryview, offset: int, level: int
    ) -> None:
        is_v5 = self._geometry.is_v5
        start = MapBlock.SIZE if is_v5 else layout.MAP_HEADER_V4
        if header.magic != (b"BMA3" if is_v5 else b"BMAP") or header.level != level:
            raise self._error(number, "expected a block of its tree of extents")
        if header.count > (len(data) - start) // _EXTENT_BYTES:
            raise self._error(number, "expected fewer extents")
        if not is_v5:
            return
        if (header.owner, header.place, header.uuid) != (
            number,
            offset // BASIC_BLOCK,
            self._geometry.uuid,
        ) or not has_checksum(data, layout.MAP_CRC_AT):
            raise self._error(number, "expected a whole block of its tree of extents")

    def _extents(self, number: int, records: memoryview) -> Iterator[tuple[int, int, int]]:
        """Extents as they are packed: flag 1, offset 54, block 52, count 21 bits."""
        geometry, size = self._geometry, self._geometry.block_size
        words = numbers("Q", records)
        for high, low in zip(words[::2], words[1::2], strict=True):
            block, count = (high & 0x1FF) << 43 | low >> 21, low & 0x1FFFFF
            if count == 0 or not geometry.holds(block, count):
                raise self._error(number, "expected extents inside of the groups")
            position = (high >> 9 & (1 << 54) - 1) * size
            yield position, geometry.offset_of(block), count * size

    def _error(self, number: int, problem: str) -> CorruptImageError:
        return CorruptImageError(f"inode {number}: {problem}", name=self._reader.name)
