"""Adding chunks to a repository: which are new, the packs that they go to, the index of these.

Packs are put by threads of their own, some at a time. An index object speaks only of packs that
are durable, so that a crash leaves packs without an index, and never an index without packs.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from imprint.core.units import MIB
from imprint.repository.envelope import What, wrap
from imprint.repository.index import build_index
from imprint.repository.pack import PACK_BYTES, PackBuilder, PackKind, encode_group, pack_object
from imprint.repository.parity import encode_parity, parity_object
from imprint.repository.protection import NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from imprint.objects.contract import ObjectStore
    from imprint.repository.index import ChunkIndex
    from imprint.repository.pack import Directory, FinishedPack, Group
    from imprint.repository.protection import Protection

_UPLOADS: Final = 2
"""Packs on their way at a time: these and those being built are what a session holds in memory."""

_INDEX_EVERY_BYTES: Final = 256 * MIB
"""Of packs: what a crash may cost is as much, or a quarter of what was indexed before, so that the
number of index objects grows with the logarithm of what a session adds."""

_INDEX_CHUNKS_MAX: Final = 1 << 19
"""In an index object, about: making one takes memory for each."""

_NODE_GROUP_BYTES: Final = 64 << 10

_SALT_BYTES: Final = 32


class ChunkWriter:
    """Adds chunks. :meth:`claim` may be called from any thread, the rest from one.

    Attributes:
        stored: bytes of all objects that were put so far.
    """

    def __init__(
        self,
        store: ObjectStore,
        protection: Protection,
        index: ChunkIndex,
        *,
        level: int,
        parity: int = 0,
        uploads: int = _UPLOADS,
        condemned: frozenset[bytes] = frozenset(),
        there: frozenset[bytes] = frozenset(),
    ) -> None:
        """See :meth:`.Repository.writer`.

        Args:
            store: where packs are put.
            protection: of the repository.
            index: what counts as there already.
            level: of Zstandard.
            parity: percentage of redundancy that packs get.
            uploads: packs on their way at a time.
            condemned: packs that somebody means to remove, and no new pack may be one of.
            there: packs that there were when the session began, and that stay until it ends.
        """
        self._store = store
        self._protection = protection
        self._index = index
        self._level = level
        self._parity = parity
        self._condemned = condemned
        self.there = there
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()
        self._builders: dict[PackKind, PackBuilder] = {}
        self._pool = ThreadPoolExecutor(uploads, "upload")
        self._uploads = uploads
        self._pending: deque[Future[tuple[FinishedPack, int]]] = deque()
        self._durable: list[tuple[bytes, Directory]] = []
        self._durable_bytes = 0
        self._indexed_bytes = 0
        self._nodes: list[tuple[bytes, bytes]] = []
        self._node_bytes = 0
        self.stored = 0
        self._packs: set[bytes] = set()
        self._found_in: set[int] = set()

    def claim(self, names: Sequence[bytes]) -> list[bool]:
        """For each chunk whether the caller has to add it: nobody has, and nobody else will."""
        with self._lock:
            return [self._is_new(name) for name in names]

    def _is_new(self, name: bytes) -> bool:
        if name in self._claimed or self._has(name):
            return False
        self._claimed.add(name)
        return True

    @property
    def packs(self) -> frozenset[bytes]:
        """Names of the packs that were put so far."""
        return frozenset(self._packs)

    def has_all(self, names: Sequence[bytes]) -> bool:
        """Whether all these chunks are there already; from any thread."""
        return all(map(self._has, names))

    def used_packs(self) -> set[bytes]:
        """The packs of all chunks that were asked for and found, or added."""
        groups = self._index.groups
        return self._packs | {groups.packs[groups.pack[group]] for group in self._found_in}

    def _has(self, name: bytes) -> bool:
        found = self._index.locate(name)
        if found is None:
            return False
        self._found_in.add(found[0])
        return True

    def add(self, group: Group, names: Sequence[bytes], kind: PackKind = PackKind.DATA) -> None:
        """Keep chunks that were claimed."""
        builder = self._builders.get(kind)
        if builder is None:
            builder = self._builders[kind] = PackBuilder(kind, self._protection)
        builder.add(group, names)
        if builder.size >= PACK_BYTES:
            self._close(kind)

    def add_node(self, content: bytes) -> bytes:
        """Keep a node, if it is new; gives its name."""
        name = self._protection.name_of(content)
        if self.claim((name,))[0]:
            self._nodes.append((name, content))
            self._node_bytes += len(content)
            if self._node_bytes >= _NODE_GROUP_BYTES:
                self._flush_nodes()
        return name

    def finish(self) -> None:
        """Make all that was added durable, and index it."""
        self._flush_nodes()
        for kind in list(self._builders):
            self._close(kind)
        while self._pending:
            self._collect()
        self._put_index()

    def close(self) -> None:
        """Give up what is not finished; calling it after :meth:`finish` is harmless."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _flush_nodes(self) -> None:
        if self._nodes:
            names = [name for name, _ in self._nodes]
            contents = [content for _, content in self._nodes]
            self._nodes, self._node_bytes = [], 0
            self.add(encode_group(contents, self._level), names, PackKind.NODES)

    def _close(self, kind: PackKind) -> None:
        builder = self._builders.pop(kind)
        pack = builder.finish()
        while pack.name in self._condemned:
            # It was made of the same chunks before, and whoever removes that would remove this.
            salt = os.urandom(_SALT_BYTES)
            builder.add(encode_group((salt,), self._level), (self._protection.name_of(salt),))
            pack = builder.finish()
        while len(self._pending) >= self._uploads:
            self._collect()
        self._pending.append(self._pool.submit(self._put_pack, pack))

    def _put_pack(self, pack: FinishedPack) -> tuple[FinishedPack, int]:
        """The pack, and how many bytes were put."""
        self._store.put(pack_object(pack.name), pack.parts)
        size = sum(map(len, pack.parts))
        if self._parity:
            parts = encode_parity(b"".join(pack.parts), pack.name, self._parity)
            self._store.put(parity_object(pack.name), parts)
            size += sum(map(len, parts))
        return pack, size

    def _collect(self) -> None:
        """Wait for the pack that was sent first."""
        pack, size = self._pending.popleft().result()
        self._packs.add(pack.name)
        self.stored += size
        self._durable.append((pack.name, pack.directory))
        self._durable_bytes += size
        is_much = self._durable_bytes >= max(_INDEX_EVERY_BYTES, self._indexed_bytes // 4)
        if is_much or sum(len(directory) for _, directory in self._durable) >= _INDEX_CHUNKS_MAX:
            self._put_index()

    def _put_index(self) -> None:
        if not self._durable:
            return
        content = build_index(self._durable)
        name, data = index_object(content, self._protection)
        self._store.put(name, (data,))
        self.stored += len(data)
        with self._lock:
            self._index.add(content, name)
            for _, directory in self._durable:
                names = directory.names
                for at in range(0, len(names), NAME_BYTES):
                    self._claimed.discard(bytes(names[at : at + NAME_BYTES]))
        self._indexed_bytes += self._durable_bytes
        self._durable, self._durable_bytes = [], 0


def put_index(store: ObjectStore, protection: Protection, content: bytes) -> int:
    """Store an index object under the name that follows from its bytes; gives its size."""
    name, data = index_object(content, protection)
    store.put(name, (data,))
    return len(data)


def index_object(content: bytes, protection: Protection) -> tuple[str, bytes]:
    """Name and bytes of an index object."""
    from blake3 import blake3

    data = wrap(What.INDEX, content, protection)
    return f"index/{blake3(data).hexdigest()}", data
