"""A volume of classic HFS: its master block, its blocks, the trees and what is in them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import div_up
from imprint.filesystems.hfs import layout
from imprint.filesystems.hfs.layout import ExtentsRecord, Record, extents_of, record_of
from imprint.filesystems.hfs_common import INDEX, LEAF, Leaf, SpecialFile, Tree
from imprint.filesystems.probes.apple import HFS_MARK, HFS_OFFSET, SECTOR, HfsMasterBlock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.filesystems.allocation import VolumeReader

    Extent = tuple[int, int]
    """First block and count."""

_EXTENTS_MAX: Final = 1 << 16
"""Of all files together: no volume has more blocks."""

_DEPTH_MAX: Final = 16
_LEAVES_BEFORE: Final = 2
"""That may have nothing of a folder before those that do."""

_NODES_KEPT: Final = 512


class Volume:
    """A volume whose master block was read.

    Attributes:
        reader: of the volume.
        block: the master block.
        unit: size of an allocation block, in bytes.
        base: where the first one begins, in bytes of the volume.
    """

    def __init__(self, reader: VolumeReader) -> None:
        """Read the master block.

        Raises:
            CorruptImageError: if it makes no sense.
            ReadError: if it cannot be read.
        """
        self.reader = reader
        block = HfsMasterBlock.unpack(reader.read(HFS_OFFSET, HfsMasterBlock.SIZE, "master block"))
        self.block, self.unit, self.base = block, block.block_size, block.first_block * SECTOR
        need = [
            ("mark", block.mark == HFS_MARK, "BD"),
            ("block_size", self.unit > 0 and self.unit % SECTOR == 0, "a multiple of 512"),
            ("block_count", block.block_count > 0, "some blocks"),
        ]
        for field, holds, what in need:
            block.require(field, holds, what, where=reader.name, at=HFS_OFFSET)
        self._overflow: dict[tuple[int, int], list[tuple[int, tuple[Extent, ...]]]] = {}

    def read_overflow(self) -> None:
        """Read the tree of further extents, of files that have more than three.

        Raises:
            CorruptImageError: if it cannot be followed.
            ReadError: if it cannot be read.
        """
        size, first = self.block.extents_size, extents_of(self.block.extents_extents)
        if not size:
            return
        count = 0
        for leaf in Tree(self._file(first, size, "extents tree")).leaves():
            for data in leaf.records:
                if len(data) < ExtentsRecord.SIZE:
                    continue
                record = ExtentsRecord.unpack(data)
                more = extents_of(record.extents)
                count += len(more)
                if count > _EXTENTS_MAX:
                    raise self.odd("extents tree", f"at most {_EXTENTS_MAX} extents", "more")
                known = self._overflow.setdefault((record.file, record.fork), [])
                known.append((record.first, more))

    def catalog(self) -> Catalog:
        """The tree of files and folders.

        Raises:
            CorruptImageError: if it is not there.
            ReadError: if it cannot be read.
        """
        size = self.block.catalog_size
        first = extents_of(self.block.catalog_extents)
        found = self.extents(layout.CATALOG_FILE, layout.DATA, size, first)
        return Catalog(Tree(self._file(found, size, "catalog")))

    def extents(self, number: int, fork: int, size: int, first: tuple[Extent, ...]) -> list[Extent]:
        """All extents of a fork of a size; ``first`` are those that its record has.

        Raises:
            CorruptImageError: if some are missing, or outside of the volume's blocks.
        """
        found = list(first)
        covered = sum(count for _, count in first)
        for position, more in self._overflow.get((number, fork), ()):
            if position != covered:
                break
            found += more
            covered += sum(count for _, count in more)
        what = f"file {number}"
        if covered < div_up(size, self.unit):
            raise self.odd(what, f"extents for {size} bytes", f"{covered} blocks")
        for start, count in found:
            if start + count > self.block.block_count:
                blocks = f"one of {self.block.block_count} blocks"
                raise self.odd(what, blocks, f"{start} and {count} from there")
        return found

    def place(self, extent: Extent) -> tuple[int, int]:
        """Offset and length, in bytes of the volume."""
        return self.base + extent[0] * self.unit, extent[1] * self.unit

    def known_extents(self) -> Iterator[Extent]:
        """Those of both trees, and all that the tree of further extents has."""
        yield from extents_of(self.block.extents_extents)
        yield from extents_of(self.block.catalog_extents)
        for known in self._overflow.values():
            for _, more in known:
                yield from more

    def odd(self, what: str, expected: str, found: str) -> CorruptImageError:
        """The error of something that is not as it should be."""
        return CorruptImageError(f"{what}: expected {expected}, found {found}", name=self._name)

    @property
    def _name(self) -> str:
        return self.reader.name

    def _file(self, extents: Iterable[Extent], size: int, what: str) -> SpecialFile:
        return SpecialFile(self.reader, self.unit, extents, size, what, base=self.base)


class Catalog:
    """The tree of files and folders. What is in a folder stands side by side."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._index = lru_cache(_NODES_KEPT)(self._read_index)

    def all(self) -> Iterator[Record]:
        """All records.

        Raises:
            CorruptImageError: if it cannot be followed.
            ReadError: if it cannot be read.
        """
        for leaf in self._tree.leaves():
            for data in leaf.records:
                record = record_of(data, leaf.number)
                if record is not None:
                    yield record

    def within(self, folder: int) -> Iterator[Record]:
        """The records of what is in a folder, as far as they can be told.

        Raises:
            CorruptImageError: if they cannot be followed; behind the others, if some are damaged.
            ReadError: if they cannot be read.
        """
        problems: list[CorruptImageError] = []
        yield from self._within(folder, problems)
        if problems:
            raise problems[0]

    def _within(self, folder: int, problems: list[CorruptImageError]) -> Iterator[Record]:
        first = self._leaf_before(folder)
        is_begun = False
        for before, leaf in enumerate(self._tree.leaves(first) if first else (), start=1):
            for record in _told(leaf, problems):
                if record.parent > folder:
                    return
                if record.parent == folder:
                    is_begun = True
                    yield record
                elif is_begun:
                    raise self._tree.odd("records in their order", leaf.number)
            if not is_begun and before == _LEAVES_BEFORE:
                raise self._tree.odd(f"what is in folder {folder}", leaf.number)

    def of_leaf(self, number: int) -> list[Record]:
        """The records of one leaf, as far as they can be told."""
        descriptor, content = self._tree.node(number)
        return _told(Leaf(number, self._tree.records(number, descriptor, content)), [])

    def _leaf_before(self, folder: int) -> int:
        """The last leaf whose first record is of a folder before this one; 0 if there is none."""
        number = self._tree.header.root
        if not number:
            return 0
        for _ in range(_DEPTH_MAX):
            children = self._index(number)
            if children is None:
                return number
            if not children:
                raise self._tree.odd("an index of other nodes", number)
            number = next(
                (child for parent, child in reversed(children) if parent < folder), children[0][1]
            )
        raise self._tree.odd(f"a leaf below {_DEPTH_MAX} others", number)

    def _read_index(self, number: int) -> tuple[tuple[int, int], ...] | None:
        """What an index points to, by the folder of the first record there; ``None`` of a leaf."""
        descriptor, content = self._tree.node(number)
        if descriptor.kind == LEAF:
            return None
        if descriptor.kind != INDEX:
            raise self._tree.odd("an index", number)
        # Where some are damaged, an earlier one leads to the leaves as well.
        found = _told(Leaf(number, self._tree.records(number, descriptor, content)), [])
        return tuple(
            (record.parent, int.from_bytes(record.data[:4]))
            for record in found
            if len(record.data) >= 4
        )


def _told(leaf: Leaf, problems: list[CorruptImageError]) -> list[Record]:
    """The records of a node; what speaks against others becomes a problem."""
    found = []
    try:
        for data in leaf.records:
            record = record_of(data, leaf.number)
            if record is not None:
                found.append(record)
    except CorruptImageError as failure:
        problems.append(failure)
    return found
