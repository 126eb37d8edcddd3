"""One group of a pack: fetched, decrypted, and decoded as far as somebody needs it.

Source: docs/repository-format.md, Packs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Final

from imprint.codecs import zstd
from imprint.core.errors import CorruptImageError, ImagingError, RepositoryError
from imprint.core.units import KIB
from imprint.repository.pack import HEAD, PLAIN, nonce, pack_object
from imprint.repository.pack_reading import parse_head
from imprint.repository.protection import KEY_BYTES, decrypt

if TYPE_CHECKING:
    from imprint.objects.contract import ObjectStore
    from imprint.repository.index_content import Place
    from imprint.repository.protection import Aead, Protection


SLOW_S: Final = 0.002
"""From here on a request takes longer than to decode a group."""

_MARGIN_BYTES: Final = 16 * KIB
"""Fetched beyond what a chunk needs if all of its group is compressed equally well."""


class GroupFetcher:
    """Knows how groups get here. Thread-safe.

    Args:
        store: the repository's objects.
        protection: of the repository.
    """

    def __init__(self, store: ObjectStore, protection: Protection) -> None:
        self._store = store
        self._protection = protection
        self._senders: dict[bytes, bytes] = {}

    def aead(self, pack: bytes) -> Aead:
        """The cipher of a sealed pack, whose head is read once."""
        sender = self._senders.get(pack)
        if sender is None:
            head_bytes = HEAD.size + KEY_BYTES
            object_name = pack_object(pack)
            data = self._store.get_range(object_name, 0, head_bytes)
            try:
                sender = parse_head(data, is_sealed=True).sender
            except RepositoryError as failure:
                where = f"{self._store.name}/{object_name}"
                raise RepositoryError(str(failure.args[0]), name=where, offset=0) from failure
            self._senders[pack] = sender
        return self._protection.unseal(sender)

    def fetch(self, place: Place, fetched: memoryview | None) -> bytes | memoryview:
        """What the pack has of a group, decrypted but not decoded."""
        stored: bytes | memoryview
        if fetched is not None:
            stored = fetched
        else:
            stored = self._store.get_range(
                pack_object(place.pack), place.group_position, place.group_stored
            )
        if len(stored) != place.group_stored:
            raise self.failure(place, f"expected {place.group_stored} bytes, found {len(stored)}")
        if not self._protection.is_encrypted:
            return stored
        aead = self.aead(place.pack)
        where = f"{self._store.name}/{pack_object(place.pack)}"
        try:
            return decrypt(aead, nonce(place.group_number), stored, None, what=where)
        except RepositoryError as failure:
            raise self.failure(place, str(failure.args[0])) from failure

    def decoder(self, place: Place, fetched: memoryview | None, end: int) -> zstd.Decoder:
        """For a group, which is to be decoded up to ``end`` at first.

        No more is fetched than that probably takes, unless asking again takes longer.
        """
        share = place.group_stored * end // place.group_raw
        size = share + place.group_stored // 8 + _MARGIN_BYTES
        is_all = fetched is not None or self._protection.is_encrypted
        if is_all or size >= place.group_stored or self._store.latency_s >= SLOW_S:
            return zstd.Decoder(self.fetch(place, fetched))
        return zstd.Decoder(self._part(place, 0, size), partial(self._part, place, size))

    def _part(self, place: Place, start: int, end: int | None = None) -> bytes:
        """A part of what the pack has of a group that is not encrypted."""
        length = (place.group_stored if end is None else end) - start
        position = place.group_position + start
        found = self._store.get_range(pack_object(place.pack), position, length)
        if len(found) != length:
            raise self.failure(place, f"expected {length} bytes, found {len(found)}")
        return found

    def failure(self, place: Place, message: str) -> RepositoryError:
        """The error that a group is damaged."""
        return RepositoryError(
            f"group {place.group_number}: {message}",
            name=f"{self._store.name}/{pack_object(place.pack)}",
            offset=place.group_position,
            length=place.group_stored,
            advice="check the repository",
        )


class CachedGroup:
    """A group that is kept, decoded as far as somebody needed it.

    Args:
        fetcher: of groups.
        place: of this one.
        is_next: somebody has read the group before it to its end, and probably reads along.
    """

    __slots__ = (
        "_content",
        "_decoder",
        "_fetched",
        "_fetcher",
        "_lock",
        "cost",
        "is_next",
        "place",
        "proven",
    )

    def __init__(self, fetcher: GroupFetcher, place: Place, *, is_next: bool = False) -> None:
        self.place = place
        self.is_next = is_next
        self.proven: set[bytes] = set()
        self.cost = place.group_raw + place.group_stored
        self._fetcher = fetcher
        self._lock = threading.Lock()  # who waits for it wants the same group
        self._fetched: memoryview | None = None
        self._decoder: zstd.Decoder | None = None
        self._content = memoryview(b"")

    @property
    def is_read(self) -> bool:
        """Whether some of it was decoded."""
        return bool(self._content)

    @property
    def is_read_to_its_end(self) -> bool:
        """Whether all of it was decoded."""
        return len(self._content) == self.place.group_raw

    @property
    def is_fetched(self) -> bool:
        """Whether nothing has to be asked of the store, or somebody is asking already."""
        return self.is_read or self._fetched is not None or self._lock.locked()

    def offer(self, stored: memoryview) -> None:
        """Take what somebody else has fetched."""
        with self._lock:
            if not self._content:
                self._fetched = stored

    def failure(self, message: str) -> RepositoryError:
        """The error that this group is damaged."""
        return self._fetcher.failure(self.place, message)

    def decoded(self, end: int) -> memoryview:
        """The group up to ``end`` at least.

        The first time no more than that is decoded: a small read needs one chunk. Whoever is
        reading along, or needs more of it later, gets all.

        Raises:
            RepositoryError: if it is damaged.
            MissingObjectError: if there is no such pack.
        """
        content = self._content
        if end <= len(content):
            return content
        with self._lock:
            if end <= len(self._content):
                return self._content
            raw = self.place.group_raw
            if end > raw:
                raise self.failure(f"expected chunks inside of its {raw} bytes, found one to {end}")
            try:
                self._decode_or_forget(raw if self._decoder is not None or self.is_next else end)
            except CorruptImageError as failure:
                # What is before the damage can be had, if no more is asked for.
                try:
                    self._decode_or_forget(end)
                except CorruptImageError:
                    raise self.failure(str(failure.args[0])) from failure
            return self._content

    def _decode_or_forget(self, end: int) -> None:
        try:
            self._decode(end)
        except ImagingError:
            self._decoder = None
            self._content = memoryview(b"")
            raise

    def _decode(self, end: int) -> None:
        place = self.place
        fetched, self._fetched = self._fetched, None
        if self._decoder is not None:
            more = self._decoder.read(end - len(self._content))
            self._content = memoryview(b"".join((self._content, more)))
            self._decoder = None
        elif place.codec == PLAIN:
            stored = self._fetcher.fetch(place, fetched)
            if len(stored) != place.group_raw:
                raise CorruptImageError(f"expected {place.group_raw} bytes, found {len(stored)}")
            self._content = memoryview(stored)
        else:
            decoder = self._fetcher.decoder(place, fetched, end)
            self._content = memoryview(decoder.read(end))
            if end < place.group_raw:
                self._decoder = decoder


class GroupCache:
    """Groups that are kept: as many of those that were wanted last as some bytes have room for.

    For one thread at a time.

    Args:
        bytes_max: of all groups, unless there is only one.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._groups: OrderedDict[int, CachedGroup] = OrderedDict()

    def get(self, number: int) -> CachedGroup | None:
        """A group that is kept, which is the newest of them now."""
        cached = self._groups.get(number)
        if cached is not None:
            self._groups.move_to_end(number)
        return cached

    def peek(self, number: int) -> CachedGroup | None:
        """A group that is kept, which gets no older and no newer."""
        return self._groups.get(number)

    def add(self, number: int, group: CachedGroup) -> None:
        """Keep a group that was not there, in place of the oldest ones."""
        self._groups[number] = group
        self._bytes += group.cost
        while self._bytes > self._bytes_max and len(self._groups) > 1:
            self._bytes -= self._groups.popitem(last=False)[1].cost

    def remove(self, number: int, group: CachedGroup) -> None:
        """Do not keep a group any longer, if it is still this one."""
        if self._groups.get(number) is group:
            del self._groups[number]
            self._bytes -= group.cost
