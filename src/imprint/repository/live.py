"""What snapshots need: which chunks, and so which groups and packs.

Each distinct node is read once, however many snapshots have it. What is known of a chunk is a
byte, under the number of its record in the index; what is known of a group is a number. So ten
million chunks take as many bytes, beside the index itself.
"""

from __future__ import annotations

import enum
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import RepositoryError
from imprint.core.events import OnEvent, Progress, ignore
from imprint.core.units import MIB
from imprint.repository.chunks import ChunkReader
from imprint.repository.condemning import condemned_packs
from imprint.repository.nodes import NAME_BYTES, Leaf, parse
from imprint.repository.pack import CHUNK_MAX
from imprint.repository.pack_contents import list_packs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from imprint.core.cancel import CancelToken
    from imprint.repository.index_table import RecordTable
    from imprint.repository.nodes import Branch
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot

_DATA: Final = 1
_NODE: Final = 2
"""Marks of a chunk. Both may be set: a disk may hold the bytes of a node."""

_AHEAD_BYTES: Final = 4 * MIB
_AHEAD_NODES: Final = 64
"""Nodes that are read by one call: those of one pack by one request, where a request takes long."""

_ABSENT_KEPT: Final = 8
"""Names of chunks that are missing, for the message."""


class _State(enum.IntEnum):
    """What a pack is good for."""

    USABLE = 0
    CONDEMNED = 1
    MISSING = 2


class PackUse(NamedTuple):
    """How much of a pack is needed.

    Attributes:
        kind: of its chunks, as :class:`~imprint.repository.pack.PackKind`.
        groups: bytes of its groups, as stored.
        used: how many of these are needed, about: groups that are needed in part count so.
    """

    kind: int
    groups: int
    used: int


class Live:
    """What some snapshots need of a repository.

    A chunk that is in several packs is needed in one of them only: the first that is usable. If
    it is in condemned packs alone, it is needed in all of these.

    Args:
        repository: whose index is up to date.
        existing: names of the packs that there are; listed after the index was read, since an
            index speaks only of packs that were there before.
        condemned: packs that somebody means to remove.

    Attributes:
        snapshots: names of those that were counted in.
        absent: how many chunks that are needed no index object knows, or are in no pack.
    """

    def __init__(
        self, repository: Repository, existing: Collection[bytes], condemned: Collection[bytes]
    ) -> None:
        self._name = repository.name
        self._groups = repository.index.groups
        missing = [pack for pack in self._groups.packs if pack not in existing]
        self._index = repository.index.without(missing)
        self._chunks = ChunkReader(repository.store, self._index, repository.protection)
        self._tables: list[tuple[int, RecordTable]] = []
        records = 0
        for table in repository.index.tables():
            self._tables.append((records, table))
            records += len(table)
        self._marks = bytearray(records)
        self._used = array("Q", bytes(8 * len(self._groups.pack)))
        self._states = bytearray(
            _State.MISSING
            if pack not in existing
            else _State.CONDEMNED
            if pack in condemned
            else _State.USABLE
            for pack in self._groups.packs
        )
        self.snapshots: set[str] = set()
        self.absent = 0
        self._absent_names: list[str] = []

    def add_all(
        self,
        snapshots: Sequence[Snapshot],
        *,
        on_event: OnEvent = ignore,
        cancel: CancelToken | None = None,
    ) -> None:
        """Count in what snapshots need.

        Raises:
            RepositoryError: if a node is damaged or missing.
            Cancelled: if ``cancel`` says so.
        """
        total = sum(snapshot.manifest.size for snapshot in snapshots)
        done = 0
        for snapshot in snapshots:
            self.add(snapshot, cancel=cancel)
            done += snapshot.manifest.size
            on_event(Progress("survey", done, total, 0))

    def add(self, snapshot: Snapshot, *, cancel: CancelToken | None = None) -> None:
        """Count in what one snapshot needs, as :meth:`add_all`."""
        root = bytes.fromhex(snapshot.manifest.root)
        waiting = [root] if self._mark(root, _NODE) else []
        while waiting:
            if cancel is not None:
                cancel.check()
            batch = self._take(waiting)
            for node in self._read(batch):
                names = node.names
                mark = _DATA if isinstance(node, Leaf) else _NODE
                for at in range(0, len(names), NAME_BYTES):
                    name = names[at : at + NAME_BYTES]
                    if self._mark(name, mark) and mark == _NODE:
                        waiting.append(name)
        self.snapshots.add(snapshot.name)

    def check_complete(self) -> None:
        """Make sure that nothing is missing.

        Raises:
            RepositoryError: if something is.
        """
        if self.absent:
            raise RepositoryError(
                f"{self.absent} chunks that snapshots need are missing, such as "
                f"{self._absent_names[0]}; nothing is removed from a damaged repository",
                name=self._name,
                advice="rebuild the index and check the repository; forget what cannot be repaired",
            )

    def packs(self) -> dict[bytes, PackUse]:
        """How much is needed of each pack that the index knows."""
        groups = self._groups
        kinds: dict[bytes, int] = {}
        stored: dict[bytes, int] = {}
        used: dict[bytes, int] = {}
        for number in range(len(self._states)):
            kinds[groups.packs[number]] = groups.kinds[number]
        for group, wanted in enumerate(self._used):
            pack = groups.packs[groups.pack[group]]
            size = groups.stored[group]
            stored[pack] = stored.get(pack, 0) + size
            # Rounded up: what is needed is never nothing.
            share = -(-size * min(wanted, groups.raw[group]) // groups.raw[group])
            used[pack] = used.get(pack, 0) + share
        return {
            pack: PackUse(kind, stored.get(pack, 0), used.get(pack, 0))
            for pack, kind in kinds.items()
        }

    def is_needed(self, name: bytes, pack: bytes) -> bool:
        """Whether a chunk is needed, and this pack is where it is taken from."""
        groups = self._groups
        return any(
            self._marks[base + number] and groups.packs[groups.pack[group]] == pack
            for base, table in self._tables
            for number, (group, _, _) in table.numbered(name)
        )

    def _mark(self, name: bytes, mark: int) -> bool:
        """Set a mark of a chunk; whether it was not set."""
        spare: list[tuple[int, int, int]] = []
        for base, table in self._tables:
            for number, (group, _, length) in table.numbered(name):
                state = self._states[self._groups.pack[group]]
                if state == _State.USABLE:
                    return self._set(base + number, group, length, mark)
                if state == _State.CONDEMNED:
                    spare.append((base + number, group, length))
        if not spare:
            self.absent += 1
            if len(self._absent_names) < _ABSENT_KEPT:
                self._absent_names.append(name.hex())
            return False
        is_new = [self._set(*place, mark) for place in spare]
        return is_new[0]

    def _set(self, record: int, group: int, length: int, mark: int) -> bool:
        found = self._marks[record]
        if not found:
            self._used[group] += length
        self._marks[record] = found | mark
        return not found & mark

    def _take(self, waiting: list[bytes]) -> list[tuple[bytes, int]]:
        """Names and lengths of the nodes to be read next."""
        batch: list[tuple[bytes, int]] = []
        size = 0
        while waiting and len(batch) < _AHEAD_NODES and size < _AHEAD_BYTES:
            name = waiting.pop()
            found = self._index.locate(name)
            length = 0 if found is None else found[2]
            if not 0 < length <= CHUNK_MAX:
                raise RepositoryError(
                    f"node {name.hex()}: expected 1 to {CHUNK_MAX} bytes, found {length}",
                    name=self._name,
                )
            batch.append((name, length))
            size += length
        return batch

    def _read(self, batch: Sequence[tuple[bytes, int]]) -> Iterator[Leaf | Branch]:
        buffers = [memoryview(bytearray(length)) for _, length in batch]
        self._chunks.readinto_many(
            [(name, 0, buffer) for (name, _), buffer in zip(batch, buffers, strict=True)]
        )
        for (name, _), buffer in zip(batch, buffers, strict=True):
            yield parse(buffer, name)


class Survey:
    """What is in a repository, and what is needed of it.

    Args:
        repository: that is looked at.
        on_event: told of progress.
        cancel: stops it.

    Attributes:
        existing: all packs that there are.
        condemned: those that somebody means to remove.
        indexed: those that the index knows.
        missing: those of these that are not there.
        uses: how much is needed of each of these.
        live: what snapshots need.

    Raises:
        RepositoryError: if something that a snapshot needs is missing, or damaged.
        PassphraseError: if the key that opened the repository may only add.
        Cancelled: if ``cancel`` says so.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        on_event: OnEvent = ignore,
        cancel: CancelToken | None = None,
    ) -> None:
        # In this order: an index object is put before a snapshot that needs it, a pack before an
        # index object that speaks of it.
        snapshots = repository.snapshots()
        self.condemned = condemned_packs(repository.store, repository.protection)
        repository.index.reload()
        self.indexed = frozenset(repository.index.packs())
        self.existing = list_packs(repository.store)
        self.missing = self.indexed - self.existing.keys()
        self.live = Live(repository, self.existing, self.condemned)
        self.live.add_all(snapshots, on_event=on_event, cancel=cancel)
        self.live.check_complete()
        self.uses = self.live.packs()

    def used_of(self, pack: bytes) -> int:
        """How many bytes of a pack are needed, about; 0 only if none is."""
        return self.uses[pack].used if pack in self.indexed else 0
