"""One group of a pack: fetched, decrypted, and decoded as far as somebody needs it.

Source: docs/repository-format.md, Packs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from imprint.codecs import zstd
from imprint.core.errors import CorruptImageError, RepositoryError
from imprint.repository.pack import HEAD, PLAIN, nonce, pack_object
from imprint.repository.pack_reading import parse_head
from imprint.repository.protection import KEY_BYTES, decrypt

if TYPE_CHECKING:
    from imprint.objects.contract import ObjectStore
    from imprint.repository.index_content import Place
    from imprint.repository.protection import Aead, Protection


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
    """A group that is kept, decoded as far as somebody needed it."""

    __slots__ = ("_content", "_decoder", "_fetched", "_fetcher", "_lock", "cost", "place", "proven")

    def __init__(self, fetcher: GroupFetcher, place: Place) -> None:
        self.place = place
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

        The first time no more than that is decoded: a small read needs one chunk. Whoever needs
        more of it is reading along, and gets all.

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
                self._decode_or_forget(raw if self._decoder is not None or 2 * end > raw else end)
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
        except CorruptImageError:
            self._decoder = None
            self._content = memoryview(b"")
            raise

    def _decode(self, end: int) -> None:
        if self._decoder is None:
            stored = self._fetcher.fetch(self.place, self._fetched)
            self._fetched = None
            if self.place.codec == PLAIN:
                if len(stored) != self.place.group_raw:
                    raise CorruptImageError(
                        f"expected {self.place.group_raw} bytes, found {len(stored)}"
                    )
                self._content = memoryview(stored)
                return
            decoder = zstd.Decoder(stored)
            self._content = memoryview(decoder.read(end))
            if end < self.place.group_raw:
                self._decoder = decoder
            return
        more = self._decoder.read(end - len(self._content))
        self._content = memoryview(b"".join((self._content, more)))
        self._decoder = None
