"""An open repository: what is in it, and adding to it.

Source: ``docs/repository-format.md``.
"""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

from imprint.codecs.zstd import LEVEL_DEFAULT, LEVEL_MAX
from imprint.core.errors import (
    ImagingError,
    PassphraseError,
    RefusedError,
    RepositoryError,
    UsageError,
)
from imprint.objects.contract import MissingObjectError, ObjectExistsError
from imprint.repository.chunks import ChunkReader
from imprint.repository.envelope import What, unwrap, wrap
from imprint.repository.format import NAME as FORMAT_NAME
from imprint.repository.format import PARITY_MAX, RepositoryFormat, read_format
from imprint.repository.index import ChunkIndex
from imprint.repository.key_objects import Origin, Rights
from imprint.repository.keyring import read_keys
from imprint.repository.keys import new_secrets, unlock, wrap_key
from imprint.repository.pack import pack_object
from imprint.repository.pack_contents import list_packs
from imprint.repository.protection import Plain
from imprint.repository.sessions import Session
from imprint.repository.snapshots import Manifest, Snapshot, select
from imprint.repository.source import SnapshotSource
from imprint.repository.writing import ChunkWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Passphrase
    from imprint.objects.contract import ObjectStore
    from imprint.repository.keys import Secrets
    from imprint.repository.protection import Protection

SNAPSHOTS: Final = "snapshots/"
SIGNATURES: Final = "signatures/"
TAGS: Final = "tags/"

OnDamaged = Callable[[RepositoryError], None]
"""Is told of a snapshot that cannot be read."""

_READERS: Final = 8
"""Small objects that are read at a time: what it takes is waiting."""


class Repository:
    """A repository that was opened. Reading is safe from many threads at once.

    Attributes:
        store: where its objects are.
        format: what kind of repository it is.
        protection: how its objects are named and hidden.
        secrets: that opened it; ``None`` if it is not encrypted.
    """

    def __init__(
        self,
        store: ObjectStore,
        format_: RepositoryFormat,
        protection: Protection,
        secrets: Secrets | None = None,
    ) -> None:
        """Take over a store; see :meth:`open` and :meth:`create`."""
        self.store = store
        self.format = format_
        self.protection = protection
        self.secrets = secrets

    @classmethod
    def open(cls, store: ObjectStore, passphrase: Passphrase) -> Self:
        """Open what is in a place.

        Args:
            store: the place; the repository owns it from now on.
            passphrase: asked for a secret only if the repository is encrypted.

        Raises:
            RepositoryError: if there is no repository, or a damaged one.
            PassphraseError: if it is encrypted, and the secret opens none of its keys.
        """
        format_ = read_format(store)
        if format_.encryption is None:
            return cls(store, format_, Plain())
        keys = read_keys(store)
        secrets = unlock(keys, passphrase(store.name), format_.encryption, where=store.name)
        return cls(store, format_, secrets.protection(), secrets)

    @classmethod
    def create(
        cls,
        store: ObjectStore,
        *,
        secret: bytes | None = None,
        origin: Origin = Origin.PASSPHRASE,
        level: int = LEVEL_DEFAULT,
        parity: int = 0,
    ) -> Self:
        """Make a repository in an empty place.

        Args:
            store: the place; the repository owns it from now on.
            secret: a passphrase or the content of a key file; ``None``: it is not encrypted.
            origin: what ``secret`` is.
            level: of Zstandard, 1 to ``LEVEL_MAX``.
            parity: percentage of redundancy that packs get, 0 to ``PARITY_MAX``.

        Raises:
            RefusedError: if there is a repository, or something else.
            UsageError: for values that a repository cannot have.
        """
        if not (1 <= level <= LEVEL_MAX and 0 <= parity <= PARITY_MAX):
            raise UsageError(
                f"expected a level of 1 to {LEVEL_MAX} and a parity of 0 to {PARITY_MAX}, "
                f"found {level} and {parity}"
            )
        if store.stat(FORMAT_NAME) is not None:
            raise RefusedError("holds a repository already", name=store.name)
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        format_ = RepositoryFormat(randomness.token_hex(16), created, None, level, parity)
        made = cls(store, format_, Plain())
        if secret is not None:
            own = new_secrets()
            encryption = own.encryption(format_.id)
            made = cls(store, replace(format_, encryption=encryption), own.protection(), own)
            key = wrap_key(own, encryption, secret, rights=Rights.FULL, origin=origin)
            store.put(key.name, (key.encode(),))
        try:
            # Last, and only once: who finds it finds a repository that can be opened.
            store.put(FORMAT_NAME, (made.format.encode(),), only_new=True)
        except ObjectExistsError as failure:
            raise RefusedError("holds a repository already", name=store.name) from failure
        return made

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.store.name

    @cached_property
    def index(self) -> ChunkIndex:
        """Where all chunks are."""
        return ChunkIndex(self.store, self.protection)

    @cached_property
    def chunks(self) -> ChunkReader:
        """For reading chunks."""
        return ChunkReader(self.store, self.index, self.protection)

    def snapshots(self, on_damaged: OnDamaged | None = None) -> list[Snapshot]:
        """All of them, by time.

        Args:
            on_damaged: told of those that are damaged, which are left out then.

        Raises:
            RepositoryError: if one is damaged, and nobody is to be told.
            PassphraseError: if the key that opened the repository may only add.
        """
        if not self.protection.can_read:
            raise PassphraseError(
                "expected a key that may read, found one that may only add", name=self.name
            )
        names = [item.name for item in self.store.list(SNAPSHOTS)]
        found = []
        for item in self._in_parallel(self._read_listed, names):
            if isinstance(item, Snapshot):
                found.append(item)
            elif item is not None and on_damaged is None:
                raise item
            elif item is not None and on_damaged is not None:
                on_damaged(item)
        return sorted(found, key=lambda item: (item.manifest.time, item.name))

    def snapshot(self, name: str) -> Snapshot:
        """The snapshot of a whole name.

        Raises:
            RepositoryError: if it is damaged.
            MissingObjectError: if there is none.
        """
        where = SNAPSHOTS + name
        content = unwrap(self.store.get(where), What.SNAPSHOT, self.protection, name=where)
        if self.protection.name_of(content).hex() != name:
            raise RepositoryError("expected the snapshot of its name, found another", name=where)
        return Snapshot(name, Manifest.parse(content, where))

    def select(
        self, image: str, selector: str | None, on_damaged: OnDamaged | None = None
    ) -> Snapshot:
        """The snapshot of an image that the user means; see :func:`.snapshots.select`."""
        return select(self.snapshots(on_damaged), image, selector, self.name)

    def source(
        self, snapshot: Snapshot, *, on_close: Callable[[], None] | None = None
    ) -> SnapshotSource:
        """The disk of a snapshot; ``on_close`` as in :class:`SnapshotSource`."""
        name = f"repo:{self.name}::{snapshot.manifest.image}@{snapshot.short}"
        return SnapshotSource(snapshot, self.chunks, self.protection, name, on_close=on_close)

    def session(self, verb: str) -> Session:
        """Begin to add."""
        return Session(self.store, self.protection, verb)

    def writer(self, session: Session, *, without: Iterable[bytes] = ()) -> ChunkWriter:
        """For adding chunks in a session; what is only in the packs ``without`` counts as new."""
        # What the index said before the session began may have been pruned since. And who was
        # taken for dead, and went on, may have put an index of what was pruned meanwhile.
        self.index.reload()
        there = list_packs(self.store)
        missing = self.index.packs().keys() - there.keys()
        ignored = session.condemned.union(without, missing)
        return ChunkWriter(
            self.store,
            self.protection,
            self.index.without(ignored) if ignored else self.index,
            level=self.format.level,
            parity=self.format.parity,
            condemned=ignored,
            there=frozenset(there),
        )

    def commit(
        self,
        manifest: Manifest,
        session: Session,
        writer: ChunkWriter,
        *,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> Snapshot:
        """Make a snapshot visible, whose chunks are all durable.

        Args:
            manifest: of the snapshot.
            session: in which it was made.
            writer: that made it, and is finished.
            sign: given the name of a snapshot, the content of its signature.

        Raises:
            RepositoryError: if something that the snapshot needs is gone.
        """
        content = manifest.encode()
        name = self.protection.name_of(content)
        snapshot = Snapshot(name.hex(), manifest)
        self._check_late(writer)
        if not session.is_alive:
            session.revive()
            self._check_survived(session, writer)
        if sign is not None:
            where = SIGNATURES + snapshot.name
            data = wrap(What.SIGNATURE, sign(name), self.protection, name=where)
            self.store.put(where, (data,))
        where = SNAPSHOTS + snapshot.name
        self.store.put(where, (wrap(What.SNAPSHOT, content, self.protection, name=where),))
        if not session.is_alive:
            try:
                session.revive()
                self._check_survived(session, writer)
            except ImagingError:
                self.store.delete(where)
                raise
        return snapshot

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def _check_late(self, writer: ChunkWriter) -> None:
        """Make sure of packs that were found by an index from after the session's beginning."""
        for pack in writer.used_packs() - writer.packs - writer.there:
            if self.store.stat(pack_object(pack)) is None:
                raise RepositoryError(
                    "a pack that the index speaks of is missing",
                    name=f"{self.name}/{pack_object(pack)}",
                    advice="the same command starts over",
                )

    def _check_survived(self, session: Session, writer: ChunkWriter) -> None:
        """Somebody took the session for dead: make sure that all is there that it has found."""
        self.index.reload()
        indexed = self.index.packs()
        for pack in sorted(writer.used_packs()):
            is_there = pack in indexed and pack not in session.condemned
            if not is_there or self.store.stat(pack_object(pack)) is None:
                raise RepositoryError(
                    "the session was taken for dead, and what it needs was pruned meanwhile",
                    name=self.name,
                    advice="the same command starts over",
                )

    def _read_listed(self, where: str) -> Snapshot | RepositoryError | None:
        try:
            return self.snapshot(where.removeprefix(SNAPSHOTS))
        except MissingObjectError:
            return None  # forgotten since it was listed
        except RepositoryError as error:
            return error

    def _in_parallel(
        self, work: Callable[[str], Snapshot | RepositoryError | None], names: list[str]
    ) -> Iterator[Snapshot | RepositoryError | None]:
        if len(names) < _READERS or self.store.latency_s == 0:
            yield from map(work, names)
            return
        with ThreadPoolExecutor(_READERS, "snapshots") as pool:
            yield from pool.map(work, names)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
