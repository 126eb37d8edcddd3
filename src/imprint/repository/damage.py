"""Which parts of which snapshots cannot be read, once it is known which chunks are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from imprint.core.errors import ReadError, RepositoryError
from imprint.core.runs import Runs
from imprint.repository.nodes import Piece
from imprint.repository.walking import Fold

if TYPE_CHECKING:
    from collections.abc import Container

    from imprint.repository.chunks import ChunkReader
    from imprint.repository.index import ChunkIndex
    from imprint.repository.nodes import Branch, Leaf
    from imprint.repository.snapshots import Snapshot

FilesOf = Callable[["Snapshot", Runs], Iterable[str]]
"""Given a snapshot and ranges of its disk: which files are in them."""

_Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class SnapshotDamage:
    """What of a snapshot is lost.

    Attributes:
        snapshot: which.
        ranges: of its disk, in bytes.
        files: that are in these ranges, if that could be found out.
        reasons: what is wrong with its tree, if that is damaged too.
    """

    snapshot: Snapshot
    ranges: Runs
    files: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass
class DamageSearch:
    """Finds out what of snapshots is lost. Each node is read once, whoever has it.

    Attributes:
        chunks: for reading nodes.
        index: where chunks are, without packs that are known to be of no use.
        lost: names of chunks that are damaged, although the index has them.
        checked: how many chunks were looked for.
    """

    chunks: ChunkReader
    index: ChunkIndex
    lost: Container[bytes]
    checked: int = 0
    _reasons: list[str] = field(default_factory=list)
    _fold: Fold[_Ranges] = field(init=False)

    def __post_init__(self) -> None:
        self._fold = Fold(self._load, self._of_leaf, _of_branch, self._broken)

    def of(self, snapshot: Snapshot) -> SnapshotDamage | None:
        """What of a snapshot is lost; ``None`` if nothing is."""
        self._reasons = []
        ranges = self._fold.of(snapshot)
        if not ranges and not self._reasons:
            return None
        return SnapshotDamage(snapshot, Runs.of(ranges), reasons=tuple(self._reasons))

    def _load(self, name: bytes) -> memoryview:
        try:
            return self.chunks.read(name)
        except ReadError as failure:
            raise RepositoryError(str(failure.args[0]), name=failure.name) from failure

    def _of_leaf(self, _: bytes, leaf: Leaf) -> _Ranges:
        found: list[tuple[int, int]] = []
        locate, lost = self.index.locate, self.lost
        rows = zip(leaf.kinds, leaf.borders, leaf.lengths, strict=False)
        data = (row[1:] for row in rows if row[0] == Piece.DATA)
        for at, (offset, length) in enumerate(data):
            name = leaf.names[32 * at : 32 * at + 32]
            place = locate(name)
            if place is None or place[2] != length or name in lost:
                _join(found, offset, length)
        self.checked += len(leaf.names) // 32
        return tuple(found)

    def _broken(self, start: int, end: int, failure: RepositoryError) -> _Ranges:
        self._reasons.append(f"{start} to {end}: {failure}")
        return ((start, end - start),)


def _of_branch(_: bytes, branch: Branch, below: list[_Ranges]) -> _Ranges:
    del branch
    found: list[tuple[int, int]] = []
    for offset, length in chain.from_iterable(below):
        _join(found, offset, length)
    return tuple(found)


def _join(ranges: list[tuple[int, int]], offset: int, length: int) -> None:
    """Add a range behind the others; a disk of which all is lost has one, not millions."""
    if ranges and sum(ranges[-1]) == offset:
        ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
    else:
        ranges.append((offset, length))
