"""The index: which pack has a chunk. One for all index objects of a repository together.

Source: docs/repository-format.md, Index.
"""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Final

from imprint.objects.contract import MissingObjectError
from imprint.repository import envelope
from imprint.repository.columns import little
from imprint.repository.envelope import What
from imprint.repository.index_content import (
    BLOCK_CHUNKS,
    COUNTS,
    Groups,
    IndexContent,
    Place,
    assemble,
)
from imprint.repository.index_table import (
    RECORD_BYTES,
    TABLE_BYTES_MAX,
    RecordTable,
    join_columns,
    make_table,
    merge_tables,
    sorted_records,
)
from imprint.repository.pack import PackKind
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imprint.objects.contract import ObjectInfo, ObjectStore
    from imprint.repository.pack import Directory
    from imprint.repository.protection import Protection

_LOADERS: Final = 4
_TABLES_MAX: Final = 4
"""How many tables are searched one after the other before they are merged."""


def build_index(directories: Sequence[tuple[bytes, Directory]]) -> bytes:
    """The content of an index object that speaks of packs.

    Takes about twice as much memory as the index has bytes, and 1 µs for each chunk. More than a
    million chunks better go to several objects: a reader holds one in memory while it reads it.

    Args:
        directories: the packs' names, and what is in them.
    """
    pieces: list[RecordTable] = []
    long_pieces: list[RecordTable] = []
    base = 0
    waiting = bytearray()
    for _, directory in directories:
        groups = directory.groups()
        groups = array("I", map(base.__add__, groups)) if base else groups
        base += len(directory.stored)
        columns = (groups, directory.offsets(), directory.lengths)
        waiting += join_columns(directory.names, columns)
        if len(waiting) >= RECORD_BYTES * BLOCK_CHUNKS:
            pieces.append(_sorted_table(waiting))
            waiting = bytearray()
        if RECORD_BYTES * sum(map(len, pieces)) > TABLE_BYTES_MAX:
            long_pieces.append(merge_tables(pieces))  # which takes it out of memory
            pieces.clear()
    pieces = [*long_pieces, *pieces, _sorted_table(waiting)]
    return _content(directories, pieces[0] if len(pieces) == 1 else merge_tables(pieces))


def _sorted_table(records: bytearray) -> RecordTable:
    return make_table((sorted_records(records),), len(records) // RECORD_BYTES)


def _content(directories: Sequence[tuple[bytes, Directory]], table: RecordTable) -> bytes:
    listed = [directory for _, directory in directories]
    groups = sum(len(directory.stored) for directory in listed)
    front: list[bytes | bytearray] = [
        COUNTS.pack(len(listed), groups, len(table)),
        *(name for name, _ in directories),
        little(array("I", (len(directory.stored) for directory in listed))),
        bytes(directory.kind for directory in listed),
        *(little(directory.positions()) for directory in listed),
        *(little(directory.stored) for directory in listed),
        *(little(directory.raw) for directory in listed),
        *(directory.codecs for directory in listed),
    ]
    size = RECORD_BYTES * len(table)
    step = RECORD_BYTES * BLOCK_CHUNKS
    blocks = (table.read(at, min(at + step, size)) for at in range(0, size, step))
    return assemble(front, len(table), blocks)


class IndexTable:
    """One index object, searched by itself.

    Args:
        content: of the object.

    Raises:
        RepositoryError: if it contradicts itself.
    """

    def __init__(self, content: bytes | memoryview) -> None:
        index = IndexContent(content)
        self.groups = Groups()
        self._table = make_table(index.record_blocks(self.groups.add(index)), index.chunks)

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self._table)

    @property
    def packs(self) -> list[bytes]:
        """Names of the packs that it speaks of."""
        return self.groups.packs

    def find(self, name: bytes) -> Place | None:
        """Where the chunk ``name`` is."""
        found = self._table.find(name)
        return None if found is None else self.groups.place(found)


class _Loaded:
    """What several views of an index share."""

    def __init__(self, store: ObjectStore, protection: Protection, hidden: frozenset[str]) -> None:
        self.store = store
        self.protection = protection
        self.hidden = hidden
        self.lock = threading.RLock()
        self.groups = Groups()
        self.tables: tuple[RecordTable, ...] | None = None
        self.objects: set[str] = set()
        self.packs: dict[bytes, PackKind] = {}


class ChunkIndex:
    """All index objects of a repository together. Thread-safe; read when it is first asked.

    Args:
        store: the repository's objects.
        protection: of the repository.
        hidden: index objects that are not read: they are damaged.
    """

    def __init__(
        self, store: ObjectStore, protection: Protection, *, hidden: Iterable[str] = ()
    ) -> None:
        self._loaded = _Loaded(store, protection, frozenset(hidden))
        self._ignored: frozenset[bytes] = frozenset()

    @property
    def groups(self) -> Groups:
        """What :meth:`locate` has numbers of."""
        return self._loaded.groups

    def without(self, packs: Iterable[bytes]) -> ChunkIndex:
        """The same index, in which the chunks of some packs are absent.

        What is added to one of both is seen in the other.
        """
        view = ChunkIndex.__new__(ChunkIndex)
        view._loaded = self._loaded  # noqa: SLF001 - it is one of us
        view._ignored = self._ignored.union(packs)  # noqa: SLF001
        return view

    def find(self, name: bytes) -> Place | None:
        """Where the chunk ``name`` is; ``None`` if no index object speaks of it."""
        found = self.locate(name)
        return None if found is None else self._loaded.groups.place(found)

    def __contains__(self, name: bytes) -> bool:
        """Whether :meth:`find` would find it; a third faster."""
        return self.locate(name) is not None

    def __len__(self) -> int:
        """Number of chunks; those that are in several packs or index objects count for each."""
        return sum(map(len, self._tables()))

    @property
    def memory_bytes(self) -> int:
        """What its tables take, about."""
        return sum(table.memory_bytes for table in self._tables())

    def packs(self) -> dict[bytes, PackKind]:
        """All packs that some index object speaks of."""
        self._tables()
        with self._loaded.lock:
            return dict(self._loaded.packs)

    def tables(self) -> tuple[RecordTable, ...]:
        """What :meth:`locate` searches, as it is now. Tables never change."""
        return self._tables()

    def locate(self, name: bytes) -> tuple[int, int, int] | None:
        """Number in :attr:`groups`, offset in the decoded group and length of a chunk."""
        tables = self._loaded.tables
        for table in self._tables() if tables is None else tables:
            found = table.find(name)
            if found is not None:
                if not self._ignored or self._is_visible(found):
                    return found
                return self._locate_other(name)
        return None

    def _locate_other(self, name: bytes) -> tuple[int, int, int] | None:
        """Of a chunk whose first place is in a pack that is ignored."""
        for table in self._tables():
            for found in table.find_all(name):
                if self._is_visible(found):
                    return found
        return None

    def _is_visible(self, found: tuple[int, int, int]) -> bool:
        groups = self._loaded.groups
        return groups.packs[groups.pack[found[0]]] not in self._ignored

    def add(self, content: bytes | memoryview, name: str | None = None) -> None:
        """Take the content of an index object that was put just now.

        Args:
            content: of the object.
            name: of the object: when it is gone, what it says is no longer true.

        Raises:
            RepositoryError: if it contradicts itself.
        """
        self._tables()
        loaded = self._loaded
        with loaded.lock:
            table = _read_content(content, loaded)
            loaded.tables = _with_one_more(loaded.tables or (), table)
            if name is not None:
                loaded.objects.add(name)

    def reload(self) -> bool:
        """Read index objects that are new; says whether there were any, or some are gone.

        Raises:
            RepositoryError: if one is damaged.
        """
        loaded = self._loaded
        with loaded.lock:
            found = loaded.store.list("index/")
            listed = [info for info in found if info.name not in loaded.hidden]
            names = {info.name for info in listed}
            if names == loaded.objects and loaded.tables is not None:
                return False
            tables = loaded.tables or ()
            if not names >= loaded.objects:
                # Some were replaced, and packs that they spoke of may be gone: start again.
                tables = ()
                loaded.objects = set()
                loaded.packs = {}
            new = self._load([info for info in listed if info.name not in loaded.objects])
            loaded.tables = _merged((*tables, *new))
            loaded.objects = names
            return True

    def _tables(self) -> tuple[RecordTable, ...]:
        loaded = self._loaded
        if loaded.tables is None:
            with loaded.lock:
                if loaded.tables is None:
                    self.reload()
        assert loaded.tables is not None
        return loaded.tables

    def _load(self, listed: Sequence[ObjectInfo]) -> list[RecordTable]:
        """Tables of index objects; what vanishes meanwhile was replaced by a new one."""
        loaded = self._loaded
        tables: list[RecordTable] = []
        memory = sum(table.memory_bytes for table in loaded.tables or ())
        longest = max((info.size for info in listed), default=0)
        # As many long ones at a time as memory is there for, and many short ones.
        loaders = max(1, min(_LOADERS, TABLE_BYTES_MAX // max(1, longest)))
        names = [info.name for info in listed]
        for content in windowed(self._read, names, workers=loaders, window=loaders):
            if content is None:
                continue
            is_full = memory + len(content) > TABLE_BYTES_MAX
            table = _read_content(content, loaded, in_file=is_full)
            memory += table.memory_bytes
            tables.append(table)
        return tables

    def _read(self, name: str) -> bytes | None:
        loaded = self._loaded
        try:
            data = loaded.store.get(name)
        except MissingObjectError:
            return None
        return envelope.unwrap(
            data, What.INDEX, loaded.protection, name=f"{loaded.store.name}/{name}"
        )


def _read_content(
    content: bytes | memoryview, loaded: _Loaded, *, in_file: bool | None = None
) -> RecordTable:
    index = IndexContent(content)
    blocks = index.record_blocks(loaded.groups.add(index))
    table = make_table(blocks, index.chunks, in_file=in_file)
    loaded.packs.update(zip(index.packs, map(PackKind, index.kinds), strict=True))
    return table


def _with_one_more(tables: Sequence[RecordTable], table: RecordTable) -> tuple[RecordTable, ...]:
    """Tables, so that each is at least twice as long as the next: there are never many."""
    kept = list(tables)
    joined = [table]
    while kept and len(kept[-1]) < 2 * sum(map(len, joined)):
        joined.append(kept.pop())
    return (*kept, merge_tables(joined) if len(joined) > 1 else table)


def _merged(tables: Sequence[RecordTable]) -> tuple[RecordTable, ...]:
    """Few tables, the longest first."""
    if len(tables) > _TABLES_MAX:
        return (merge_tables(tables),)
    return tuple(sorted(tables, key=len, reverse=True))
