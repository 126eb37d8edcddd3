"""How much of what a repository has, and what it saves.

Each node is read once or twice, each leaf's chunks are counted once for all snapshots that share
the leaf. Chunks are told apart by the first 8 bytes of their names: of ten million, two are the
same by chance once in 300 000 repositories.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.events import OnEvent, ignore
from imprint.core.units import TIB
from imprint.repository.nodes import Branch, Leaf, Piece, parse
from imprint.repository.pack import PackKind
from imprint.repository.walking import Fold
from imprint.transfer.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.cancel import CancelToken
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot

_SEVERAL: Final = 0xFFFFFFFF
"""Owner of what more than one snapshot, or image, has."""

_BUCKETS: Final = 256
_NAME: Final = struct.Struct("<Q24x")


@dataclass(frozen=True)
class SnapshotStatistics:
    """Of one snapshot.

    Attributes:
        snapshot: which.
        size: of its disk, in bytes.
        data: bytes of chunks that it is made of.
        unique: bytes of chunks that no other snapshot has: what forgetting it could give back,
            before compression.
    """

    snapshot: Snapshot
    size: int
    data: int
    unique: int


@dataclass(frozen=True)
class ImageStatistics:
    """Of all snapshots of one disk.

    Attributes:
        image: its name.
        snapshots: how many there are.
        size: of the disks of all of them, in bytes.
        data: bytes of chunks that they are made of, as often as they occur.
        unique: bytes of chunks that no other image has.
    """

    image: str
    snapshots: int
    size: int
    data: int
    unique: int


@dataclass
class Statistics:
    """Of a repository. Sizes are in bytes.

    Attributes:
        size: of the disks of all snapshots.
        data: of the chunks that these are made of, as often as they occur.
        chunks: how many different chunks snapshots need.
        unique: of these chunks, each once.
        nodes: how many different nodes snapshots need.
        packs: how many there are, by kind.
        groups_raw: of all groups of chunks of disks that the index knows, decoded.
        groups_stored: of the same, as stored.
        objects: of all objects by their first folder, such as ``packs``; ``format`` is in it.
        snapshots: of each.
        images: of each.
    """

    size: int = 0
    data: int = 0
    chunks: int = 0
    unique: int = 0
    nodes: int = 0
    packs: dict[str, int] = field(default_factory=dict)
    groups_raw: int = 0
    groups_stored: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    snapshots: list[SnapshotStatistics] = field(default_factory=list)
    images: list[ImageStatistics] = field(default_factory=list)

    @property
    def stored(self) -> int:
        """Of all objects together."""
        return sum(self.objects.values())

    @property
    def deduplication(self) -> float:
        """How often a byte of a chunk is used; 1 if there are none."""
        return self.data / self.unique if self.unique else 1.0

    @property
    def compression(self) -> float:
        """How long groups are for each byte that is stored; 1 if there are none."""
        return self.groups_raw / self.groups_stored if self.groups_stored else 1.0

    @property
    def index_per_tib(self) -> int:
        """Bytes of index objects for each TiB of different chunks; 0 if there are none."""
        return self.objects.get("index", 0) * TIB // self.unique if self.unique else 0


def statistics(
    repository: Repository,
    *,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> Statistics:
    """Count what a repository has.

    Raises:
        RepositoryError: if it is damaged.
        PassphraseError: if the key that opened it may only add.
        Cancelled: if that was asked for.
    """
    snapshots = repository.snapshots()
    found = Statistics()
    _count_objects(repository, found)
    owners = _Owners(repository, snapshots)
    pace = Pace(sum(item.manifest.size for item in snapshots), "count", on_event)
    done = 0
    for number, snapshot in enumerate(snapshots):
        if cancel is not None:
            cancel.check()
        owners.take(number, snapshot)
        done += snapshot.manifest.size
        pace.tell(done, 0)  # trees are next to nothing
    pace.tell(done, 0, force=True)
    owners.count(found)
    found.nodes = len(owners.nodes)
    return found


def _count_objects(repository: Repository, found: Statistics) -> None:
    sizes: Counter[str] = Counter()
    for info in repository.store.list(""):
        sizes[info.name.partition("/")[0]] += info.size
    found.objects = dict(sizes)
    kinds = repository.index.packs()
    counted = Counter(kinds.values())
    found.packs = {kind.name.lower(): counted[kind] for kind in PackKind}
    groups = repository.index.groups
    for number, raw, stored in zip(groups.pack, groups.raw, groups.stored, strict=True):
        if kinds.get(groups.packs[number]) is PackKind.DATA:
            found.groups_raw += raw
            found.groups_stored += stored


class _Owners:
    """Finds out who has what: first of nodes, from the roots down, then of the chunks of leaves.

    Attributes:
        nodes: for each, the only snapshot and the only image that have it.
    """

    def __init__(self, repository: Repository, snapshots: Sequence[Snapshot]) -> None:
        self._load = repository.chunks.read
        self._snapshots = snapshots
        names = sorted({snapshot.manifest.image for snapshot in snapshots})
        self._image_names = names
        self._images = [names.index(snapshot.manifest.image) for snapshot in snapshots]
        self._data = Fold(self._load, _data_of_leaf, _data_of_branch)
        self.nodes: dict[bytes, tuple[int, int]] = {}
        self._leaves: set[bytes] = set()

    def take(self, number: int, snapshot: Snapshot) -> None:
        """Take in a snapshot, by its number."""
        self._data.of(snapshot)  # which proves the shape of the tree
        waiting = [bytes.fromhex(snapshot.manifest.root)]
        while waiting:
            name = waiting.pop()
            own = (number, self._images[number])
            known = self.nodes.get(name)
            joined = own if known is None else _joined(known, own)
            if joined == known:
                continue
            self.nodes[name] = joined
            if name in self._leaves:
                continue
            node = parse(self._load(name), name)
            if isinstance(node, Leaf):
                self._leaves.add(name)
            else:
                waiting += (node.name_of(child) for child in range(len(node.starts)))

    def count(self, found: Statistics) -> None:
        """Put together what is known."""
        of_snapshots = [0] * len(self._snapshots)
        of_images = [0] * len(self._image_names)
        for bucket in self._chunks():
            owners: dict[int, tuple[int, int, int]] = {}
            for name, length, snapshot, image in zip(*bucket, strict=True):
                known = owners.get(name)
                if known is not None:
                    snapshot, image = _joined(known[1:], (snapshot, image))  # noqa: PLW2901
                owners[name] = (length, snapshot, image)
            found.chunks += len(owners)
            for length, snapshot, image in owners.values():
                found.unique += length
                if snapshot != _SEVERAL:
                    of_snapshots[snapshot] += length
                if image != _SEVERAL:
                    of_images[image] += length
        for snapshot_, unique in zip(self._snapshots, of_snapshots, strict=True):
            size, data = snapshot_.manifest.size, self._data.of(snapshot_)
            found.snapshots.append(SnapshotStatistics(snapshot_, size, data, unique))
        for image_, unique in zip(self._image_names, of_images, strict=True):
            own = [item for item in found.snapshots if item.snapshot.manifest.image == image_]
            size, data = sum(item.size for item in own), sum(item.data for item in own)
            found.images.append(ImageStatistics(image_, len(own), size, data, unique))
        found.size = sum(item.size for item in found.snapshots)
        found.data = sum(item.data for item in found.snapshots)

    def _chunks(self) -> list[tuple[array[int], array[int], array[int], array[int]]]:
        """Beginnings of names, lengths and owners of the chunks of all leaves, in buckets."""
        buckets = [(array("Q"), array("I"), array("I"), array("I")) for _ in range(_BUCKETS)]
        for name in self._leaves:
            leaf = parse(self._load(name), name)
            assert isinstance(leaf, Leaf)
            snapshot, image = self.nodes[name]
            lengths = (
                length
                for kind, length in zip(leaf.kinds, leaf.lengths, strict=True)
                if kind == Piece.DATA
            )
            for (chunk,), length in zip(_NAME.iter_unpack(leaf.names), lengths, strict=True):
                row = (chunk, length, snapshot, image)
                for column, value in zip(buckets[chunk % _BUCKETS], row, strict=True):
                    column.append(value)
        return buckets


def _joined(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, int]:
    """Who owns what two have."""
    snapshot, image = (a if a == b else _SEVERAL for a, b in zip(one, other, strict=True))
    return snapshot, image


def _data_of_leaf(_: bytes, leaf: Leaf) -> int:
    rows = zip(leaf.kinds, leaf.lengths, strict=True)
    return sum(length for kind, length in rows if kind == Piece.DATA)


def _data_of_branch(_: bytes, branch: Branch, below: list[int]) -> int:
    del branch
    return sum(below)
