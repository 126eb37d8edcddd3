"""Reading chunks: groups are fetched and decoded once, kept for a while, and proven by name.

Source: docs/repository-format.md, Packs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError, RepositoryError
from imprint.core.units import KIB, MIB
from imprint.objects.contract import MissingObjectError
from imprint.repository.group_reading import SLOW_S, CachedGroup, GroupCache, GroupFetcher
from imprint.repository.pack import PackKind, pack_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.objects.contract import ObjectStore
    from imprint.repository.index import ChunkIndex
    from imprint.repository.protection import Aead, Protection

CACHE_BYTES: Final = 64 * MIB
"""Of groups that are kept; what is in use at the moment comes on top of it."""

_NODES_SHARE: Final = 8
"""One part in so many is kept of nodes: reads all over a disk come back to these, and only these.
8 MiB are of 100 GiB or more."""

Part = tuple[bytes, int, memoryview]
"""A chunk's name, where to begin in the chunk, and what to fill."""

_Wanted = tuple[int, int, int, bytes, int, memoryview]
"""Group, offset in it and length of a chunk, and a :data:`Part`."""

_AHEAD_BYTES: Final = 8 * MIB
"""Fetched at once where a request takes long: 10 groups or more."""

_GAP_BYTES: Final = 256 * KIB
"""Between two groups that are wanted: read and thrown away rather than asked for separately."""


class ChunkReader:
    """Reads chunks. Thread-safe; a group is fetched and decoded once, however many want it.

    Args:
        store: the repository's objects.
        index: where chunks are.
        protection: of the repository.
        cache_bytes: of groups that are kept.
    """

    def __init__(
        self,
        store: ObjectStore,
        index: ChunkIndex,
        protection: Protection,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._store = store
        self._index = index
        self._fetcher = GroupFetcher(store, protection)
        self._name_of = protection.name_of
        self._ahead_bytes = min(_AHEAD_BYTES, cache_bytes // 8)  # of which decoding makes more
        self._lock = threading.Lock()
        nodes_bytes = cache_bytes // _NODES_SHARE
        self._caches = {
            PackKind.DATA: GroupCache(cache_bytes - nodes_bytes),
            PackKind.NODES: GroupCache(nodes_bytes),
        }

    def read(self, name: bytes) -> memoryview:
        """All bytes of a chunk, read only.

        Raises:
            RepositoryError: if it is missing or damaged.
            PassphraseError: if the repository was unlocked for adding only.
            ReadError: if the store cannot be read.
            NetworkError: if the store does not answer.
        """
        group, offset, length = self._locate(name)
        try:
            return self._chunk(group, offset, length, name)
        except MissingObjectError:
            return self._chunk(*self._moved(group, name), name)

    def readinto(self, name: bytes, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes of a chunk from ``offset`` on.

        Raises:
            RepositoryError: if the chunk is missing, damaged, or ends before.
            PassphraseError: if the repository was unlocked for adding only.
            ReadError: if the store cannot be read.
            NetworkError: if the store does not answer.
        """
        self._copy(self.read(name), name, offset, buffer)

    def readinto_many(self, parts: Sequence[Part]) -> None:
        """Fill several buffers; each group is fetched and decoded once, in the pack's order.

        Raises:
            RepositoryError: if a chunk is missing, damaged, or ends before.
            PassphraseError: if the repository was unlocked for adding only.
            ReadError: if the store cannot be read.
            NetworkError: if the store does not answer.
        """
        locate = self._index.locate
        wanted: list[_Wanted] = []
        for name, offset, buffer in parts:
            found = locate(name) or self._locate(name)
            wanted.append((*found, name, offset, buffer))
        if len(wanted) > 1:
            wanted.sort(key=_order)
        if self._store.latency_s >= SLOW_S:
            self._fetch_ahead(wanted)
        at = 0
        while at < len(wanted):
            group = wanted[at][0]
            end = at + 1
            while end < len(wanted) and wanted[end][0] == group:
                end += 1
            self._fill(group, wanted[at:end])
            at = end

    def aead(self, pack: bytes) -> Aead:
        """The cipher of a sealed pack.

        Raises:
            RepositoryError: if its head is damaged.
            MissingObjectError: if there is no such pack.
            PassphraseError: if the repository was unlocked for adding only.
        """
        return self._fetcher.aead(pack)

    def _fill(self, group: int, wanted: Sequence[_Wanted]) -> None:
        """Fill what lies in one group."""
        try:
            cached = self._group(group)
            # One after the other, a group would be decoded by pieces; the last piece counts.
            content = cached.decoded(max(offset + length for _, offset, length, _, _, _ in wanted))
        except MissingObjectError:
            for _, _, _, name, offset, buffer in wanted:
                self._copy(self._chunk(*self._moved(group, name), name), name, offset, buffer)
            return
        for _, start, length, name, offset, buffer in wanted:
            chunk = content[start : start + length]
            if name not in cached.proven:
                self._prove(cached, group, chunk, length, name)
            size = len(buffer)
            if offset + size <= length and offset >= 0:
                buffer[:] = chunk[offset : offset + size]
            else:
                self._copy(chunk, name, offset, buffer)

    def _copy(self, chunk: memoryview, name: bytes, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        if not 0 <= offset <= end <= len(chunk):
            raise RepositoryError(
                f"chunk {name.hex()}: expected {end} bytes or more, found {len(chunk)}",
                name=self._store.name,
            )
        buffer[:] = chunk[offset:end]

    def _locate(self, name: bytes) -> tuple[int, int, int]:
        """Where the chunk is; somebody else may have put it since the index was read."""
        found = self._index.locate(name)
        if found is None and self._index.reload():
            found = self._index.locate(name)
        if found is None:
            raise RepositoryError(
                f"chunk {name.hex()} is in no index",
                name=self._store.name,
                advice="rebuild the index, and check the repository",
            )
        return found

    def _moved(self, group: int, name: bytes) -> tuple[int, int, int]:
        """Where a chunk is now, after its pack was found to be gone."""
        groups = self._index.groups
        pack = groups.packs[groups.pack[group]]
        self._index.reload()
        gone = {pack}
        while (found := self._index.without(gone).locate(name)) is not None:
            other = groups.packs[groups.pack[found[0]]]
            if self._store.stat(pack_object(other)) is not None:
                return found
            gone.add(other)
        raise RepositoryError(
            "a pack that is needed is missing",
            name=f"{self._store.name}/{pack_object(pack)}",
            advice="check the repository",
        )

    def _chunk(self, group: int, offset: int, length: int, name: bytes) -> memoryview:
        cached = self._group(group)
        chunk = cached.decoded(offset + length)[offset : offset + length]
        if name not in cached.proven:
            self._prove(cached, group, chunk, length, name)
        return chunk

    def _prove(
        self, cached: CachedGroup, group: int, chunk: memoryview, length: int, name: bytes
    ) -> None:
        """Make sure that a chunk is what its name says; once while its group is kept."""
        if len(chunk) != length or self._name_of(chunk) != name:
            self._forget(group, cached)
            raise cached.failure(f"chunk {name.hex()} is damaged")
        cached.proven.add(name)

    def _group(self, number: int) -> CachedGroup:
        """A group, perhaps not fetched yet. It is the newest of those that are kept, now."""
        cache = self._cache_of(number)
        with self._lock:
            cached = cache.get(number)
            if cached is None:
                before = cache.peek(number - 1)
                is_next = before is not None and (before.is_next or before.is_read_to_its_end)
                place = self._index.groups.place((number, 0, 0))
                cached = CachedGroup(self._fetcher, place, is_next=is_next)
                cache.add(number, cached)
            return cached

    def _cache_of(self, number: int) -> GroupCache:
        groups = self._index.groups
        return self._caches[PackKind(groups.kinds[groups.pack[number]])]

    def _forget(self, number: int, cached: CachedGroup) -> None:
        """Do not keep what is damaged: it may be read rightly the next time."""
        with self._lock:
            self._cache_of(number).remove(number, cached)

    def _fetch_ahead(self, wanted: Sequence[_Wanted]) -> None:
        """Fetch groups that lie together by one request each time."""
        groups = self._index.groups
        run: list[int] = []
        start = end = 0
        for number in dict.fromkeys(item[0] for item in wanted):
            position, stored = groups.position[number], groups.stored[number]
            is_near = (
                run
                and groups.pack[number] == groups.pack[run[0]]
                and end <= position <= end + _GAP_BYTES
                and position + stored - start <= self._ahead_bytes
            )
            if not is_near:
                self._fetch_run(run)
                run, start = [], position
            run.append(number)
            end = position + stored
        self._fetch_run(run)

    def _fetch_run(self, run: Sequence[int]) -> None:
        """Fetch groups of one pack by one request, but for those that are there."""
        cached = [group for group in map(self._group, run) if not group.is_fetched]
        if cached and self._is_read_along(run[0]):
            cached += [
                group for group in map(self._group, self._behind(run[-1])) if not group.is_fetched
            ]
        if len(cached) < 2:  # noqa: PLR2004 - one is fetched when it is needed
            return
        start = cached[0].place.group_position
        last = cached[-1].place
        length = last.group_position + last.group_stored - start
        try:
            data = memoryview(self._store.get_range(pack_object(last.pack), start, length))
        except (MissingObjectError, ReadError):
            return  # each group finds out by itself what is wrong
        for group in cached:
            at = group.place.group_position - start
            group.offer(data[at : at + group.place.group_stored])

    def _is_read_along(self, number: int) -> bool:
        """Whether the group before was read not long ago."""
        with self._lock:
            before = self._cache_of(number).peek(number - 1)
        return before is not None and before.is_read

    def _behind(self, number: int) -> Iterator[int]:
        """The groups behind a group, in its pack, that one request may fetch with it."""
        groups = self._index.groups
        start = groups.position[number]
        end = start + groups.stored[number]
        for behind in range(number + 1, len(groups.pack)):
            is_next = groups.pack[behind] == groups.pack[number] and groups.position[behind] == end
            end += groups.stored[behind]
            if not is_next or end - start > self._ahead_bytes:
                break
            yield behind


def _order(wanted: _Wanted) -> tuple[int, int]:
    return wanted[0], wanted[1]
