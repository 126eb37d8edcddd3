"""The free space of an XFS, group by group, told twice: by place, and by length."""

from __future__ import annotations

import contextlib
from array import array
from dataclasses import dataclass, field
from itertools import islice, repeat
from operator import add, and_, lt, rshift
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.filesystems.xfs.geometry import numbers
from imprint.filesystems.xfs.groups import BY_LENGTH, BY_PLACE, Group

if TYPE_CHECKING:
    from imprint.filesystems.xfs.geometry import Geometry, Reader
    from imprint.filesystems.xfs.groups import Kind

_PARTIAL_MAX: Final = 4096
"""Groups that may contradict themselves; a superblock of garbage would name billions."""

_LOW: Final = 0xFFFFFFFF


@dataclass
class Space:
    """Free space, as far as it could be told.

    Attributes:
        starts: of free runs, in bytes of the volume, ascending.
        ends: of the same runs.
        counted: free blocks as the superblock counts them: with the lists, and trees.
        newest: the largest sequence number (LSN) of all that was read.
        partial: how many groups contradict themselves.
    """

    starts: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    counted: int = 0
    newest: int = 0
    partial: int = 0

    @property
    def free(self) -> Runs:
        """In bytes of the volume."""
        return Runs(self.starts, self.ends)


def read_space(reader: Reader, geometry: Geometry, *, forgive: bool = False) -> Space:
    """The free space of all groups.

    With ``forgive``, what a group contradicts itself about is not free. Such groups are what a
    file system has on its disk while the changes of several blocks are in its log only.

    Raises:
        CorruptImageError: if a group contradicts itself, without ``forgive``, or thousands do.
        ReadError: if a part cannot be read.
    """
    space = Space()
    for number in range(geometry.superblock.group_count):
        try:
            group = Group(reader, geometry, number)
            runs = _free_runs(geometry, group)
        except CorruptImageError:
            space.partial += 1
            if not forgive or space.partial > _PARTIAL_MAX:
                raise
            with contextlib.suppress(CorruptImageError):
                group = Group(reader, geometry, number)
                _add(space, geometry, group, _agreed_runs(geometry, group))
        else:
            _add(space, geometry, group, runs)
    return space


def _add(space: Space, geometry: Geometry, group: Group, runs: Runs) -> None:
    """Take the free runs of a group, which count in its blocks."""
    runs = runs.scaled(geometry.block_size).shifted(group.offset(0))
    space.starts.extend(runs.starts)
    space.ends.extend(runs.ends)
    header = group.free
    space.counted += header.free_blocks + header.list_count + header.tree_blocks
    space.newest = max(space.newest, group.newest)


def _agreed_runs(geometry: Geometry, group: Group) -> Runs:
    """What the whole blocks of both trees call free, though the trees are not whole."""
    header = group.free
    found = []
    for kind, root, levels in (
        (BY_PLACE, header.bno_root, header.bno_levels),
        (BY_LENGTH, header.cnt_root, header.cnt_levels),
    ):
        extents = _records(group, kind, root, levels, forgive=True)
        runs = Runs.of((extent >> 32, extent & _LOW) for extent in extents)
        found.append(runs.clip(geometry.header_blocks, group.length))
    return (found[0] & found[1]) - Runs.of((block, 1) for block in group.free_list)


def _free_runs(geometry: Geometry, group: Group) -> Runs:
    """Free runs of a group, in its blocks.

    Both trees have to have the same ones, and as much as the header counts; a block that the
    list keeps for the trees must not be free as well.
    """

    def require(problem: str, *, holds: bool) -> None:
        if not holds:
            raise group.error("free space", problem)

    header = group.free
    by_place = _records(group, BY_PLACE, header.bno_root, header.bno_levels)
    starts = array("I", map(rshift, by_place, repeat(32)))
    lengths = array("I", map(and_, by_place, repeat(_LOW)))
    ends = array("Q", map(add, starts, lengths))
    require("expected extents that lie apart", holds=all(map(lt, ends, islice(starts, 1, None))))
    require("expected extents that have a length", holds=0 not in lengths)
    if by_place:
        inside = geometry.header_blocks <= starts[0] and ends[-1] <= group.length
        require("expected extents inside of the group", holds=inside)
    require(
        "expected as many blocks as its header counts", holds=sum(lengths) == header.free_blocks
    )
    require("expected the longest that it names", holds=max(lengths, default=0) == header.longest)
    by_length = _records(group, BY_LENGTH, header.cnt_root, header.cnt_levels)
    require("expected the same extents in both trees", holds=sorted(by_length) == by_place.tolist())
    runs = Runs(array("Q", starts), ends)
    kept = (runs.covers(block, 1) for block in group.free_list)
    require("expected what the free list keeps not to be free", holds=not any(kept))
    return runs


def _records(
    group: Group, kind: Kind, root: int, levels: int, *, forgive: bool = False
) -> array[int]:
    """All records of one of the two trees: the start times 2^32, plus the length."""
    found = array("Q")
    for _, header, records in group.tree(kind, root, levels, forgive=forgive):
        if header.level == 0:
            found.extend(numbers("Q", records))
    return found
