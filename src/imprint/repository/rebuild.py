"""The index, made again of what packs say of themselves."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError, NetworkError, RepositoryBusyError
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.objects.contract import MissingObjectError
from imprint.repository.envelope import What, unwrap
from imprint.repository.index import ChunkIndex, build_index
from imprint.repository.index_content import IndexContent
from imprint.repository.index_rewriting import INDEX
from imprint.repository.pack import Directory, Group, pack_object
from imprint.repository.pack_contents import indexed_groups, list_packs
from imprint.repository.pack_reading import read_directory
from imprint.repository.sessions import is_process_gone, list_sessions, remover
from imprint.repository.writing import index_object
from imprint.transfer.pace import Pace
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from imprint.core.cancel import CancelToken
    from imprint.objects.contract import ObjectStore
    from imprint.repository.pack import PackKind
    from imprint.repository.pack_contents import GroupAt
    from imprint.repository.protection import Protection
    from imprint.repository.repository import Repository
    from imprint.repository.sessions import Session

_OBJECT_CHUNKS: Final = 1_000_000
"""Of one new index object: 44 MB, and as much again while it is sorted."""


@dataclass
class RebuildReport:
    """What was done.

    Attributes:
        packs: that the new index speaks of.
        chunks: that it has.
        added: names of new index objects.
        removed: how many old ones there were.
        findings: packs that the new index does not have, or has only from the old one.
    """

    packs: int = 0
    chunks: int = 0
    added: list[str] = field(default_factory=list)
    removed: int = 0
    findings: list[Finding] = field(default_factory=list)


def rebuild_index(
    repository: Repository,
    *,
    workers: int | None = None,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> RebuildReport:
    """Make the index again. The old one is removed when the new one is there.

    What a damaged pack cannot tell is taken from index objects that can be read.

    Args:
        repository: nothing of its index is needed. Whoever has it open may go on reading.
        workers: threads that read; ``None``: one for each processor.
        on_event: told of findings and progress.
        cancel: stops it; the old index stays then.

    Raises:
        RepositoryBusyError: if somebody else adds or prunes: the new index might name packs that a
            prune removes at the same moment.
        TargetError: if there is no room.
        Cancelled: if that was asked for.
    """
    with remover(repository.store, repository.protection, "rebuild-index") as session:
        return rebuild_in(repository, session, workers=workers, on_event=on_event, cancel=cancel)


def rebuild_in(
    repository: Repository,
    session: Session,
    *,
    workers: int | None = None,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> RebuildReport:
    """:func:`rebuild_index` in a session that has begun already."""
    refuse_beside_others(repository, session.name)
    run = _Rebuild(repository, workers or os.cpu_count() or 1, on_event, cancel)
    report = run.run()
    repository.index.reload()
    return report


def refuse_beside_others(repository: Repository, own: str = "") -> None:
    """Make sure that nobody has a session, but for the one of the name ``own``.

    Raises:
        RepositoryBusyError: if somebody has.
    """
    for other in list_sessions(repository.store, repository.protection):
        if other.name != own and not is_process_gone(other):
            raise RepositoryBusyError(
                f"{other.verb or 'somebody'} is at work on {other.host or 'another host'}",
                name=repository.name,
                advice="wait until it has come to its end; a dead session expires after a day, "
                "or by imprint repo prune --expire-sessions 1h",
            )


class _Rebuild:
    def __init__(
        self,
        repository: Repository,
        workers: int,
        on_event: OnEvent,
        cancel: CancelToken | None,
    ) -> None:
        self._store = repository.store
        self._protection = repository.protection
        self._workers = workers
        self._on_event = on_event
        self._cancel = cancel
        self.report = RebuildReport()

    def run(self) -> RebuildReport:
        # Before packs are listed: what comes later speaks of packs that may not be listed.
        old = [info.name for info in self._store.list(INDEX)]
        packs = {pack: info.size for pack, info in list_packs(self._store).items()}
        waiting: list[tuple[bytes, Directory]] = []
        chunks = 0
        for pack, directory in self._directories(packs, old):
            if waiting and chunks + len(directory) > _OBJECT_CHUNKS:
                self._put(waiting)
                waiting, chunks = [], 0
            waiting.append((pack, directory))
            chunks += len(directory)
        if waiting:
            self._put(waiting)
        for name in old:
            if name not in self.report.added:
                self._store.delete(name)
        self.report.removed = len(old)
        return self.report

    def _put(self, directories: Sequence[tuple[bytes, Directory]]) -> None:
        name, data = index_object(build_index(directories), self._protection)
        self._store.put(name, (data,))
        self.report.added.append(name)
        self.report.packs += len(directories)
        self.report.chunks += sum(len(directory) for _, directory in directories)

    def _directories(
        self, packs: Mapping[bytes, int], old: Sequence[str]
    ) -> Iterator[tuple[bytes, Directory]]:
        """Of packs, whose sizes are given; last of those that cannot tell it themselves."""
        pace, done = Pace(sum(packs.values()), "rebuild", self._on_event), 0
        broken = {}
        work = windowed(self._read, packs, workers=self._workers, window=self._workers)
        for pack, found in zip(packs, work, strict=True):
            if self._cancel is not None:
                self._cancel.check()
            if isinstance(found, Directory):
                yield pack, found
            else:
                broken[pack] = found
            done += packs[pack]
            pace.tell(done, 0)  # directories are next to nothing
        pace.tell(done, 0, force=True)
        if not broken:
            return
        sound = sound_index(self._store, self._protection, old)
        known, kinds = indexed_groups(sound, broken.keys()), sound.packs()
        for pack, failure in broken.items():
            own = known.get(pack)
            directory = None if own is None else directory_from(own, kinds[pack])
            then = "what the old index said of it is kept" if directory else "its chunks are lost"
            finding = Finding(Severity.ERROR, pack_object(pack), f"{failure.args[0]}; {then}")
            self.report.findings.append(finding)
            self._on_event(finding)
            if directory is not None:
                yield pack, directory

    def _read(self, pack: bytes) -> Directory | ImagingError:
        try:
            return read_directory(self._store, pack, self._protection)
        except NetworkError:
            raise
        except ImagingError as failure:
            return failure


def sound_index(store: ObjectStore, protection: Protection, names: Sequence[str]) -> ChunkIndex:
    """The index of those objects that can be read."""
    broken = []
    for name in names:
        try:
            IndexContent(unwrap(store.get(name), What.INDEX, protection, name=name))
        except MissingObjectError:
            continue
        except NetworkError:
            raise
        except ImagingError:
            broken.append(name)
    return ChunkIndex(store, protection, hidden=broken)


def directory_from(groups: Sequence[GroupAt], kind: PackKind) -> Directory | None:
    """What an index says of a pack, as a directory; ``None`` if it does not know all of it."""
    directory = Directory(kind, start=groups[0].position)
    end = groups[0].position
    for group in groups:
        if group.position != end or not group.is_full:
            return None
        lengths = tuple(chunk.length for chunk in group.chunks)
        names = [chunk.name for chunk in group.chunks]
        directory.append(Group(b"", group.raw, group.codec, lengths), group.stored, names)
        end += group.stored
    return directory
