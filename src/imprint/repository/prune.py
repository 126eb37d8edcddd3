"""Removing what no snapshot needs, while others go on adding.

Nothing is removed at once. First packs are condemned: sessions that begin later take their chunks
for absent. When all sessions that were there have ended, it is found out once more what is needed,
and the rest is removed. Without other sessions both happens in one call; else a later prune goes
on. Whatever happens in between, a later prune goes on.

Source: ``docs/repository-format.md``, "Who may remove what".
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import PassphraseError, RepositoryError, TargetError
from imprint.core.events import OnEvent, Progress, ignore
from imprint.repository.condemning import (
    PACKS_MAX,
    condemned_packs,
    list_condemned,
    put_condemned,
)
from imprint.repository.index_rewriting import replace_index
from imprint.repository.live import Survey
from imprint.repository.pack import pack_object
from imprint.repository.pack_contents import list_packs
from imprint.repository.parity import PARITY, parity_object
from imprint.repository.repacking import copy_needed, find_wasteful
from imprint.repository.repository import SIGNATURES, SNAPSHOTS, TAGS
from imprint.repository.sessions import EXPIRY_S, list_sessions, remover

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from imprint.core.cancel import CancelToken
    from imprint.objects.contract import ObjectInfo
    from imprint.repository.condemning import Condemned
    from imprint.repository.repacking import Wasteful
    from imprint.repository.repository import Repository
    from imprint.repository.sessions import Session, SessionInfo
    from imprint.repository.writing import ChunkWriter

_BATCH_PACKS: Final = 64
"""Repacked at a time: 2 GiB of room."""

_SURE_S: Final = 60.0
"""For so long it is believed that nobody has taken this session for dead."""


@dataclass(frozen=True)
class Options:
    """How a repository is pruned.

    Attributes:
        waste_max: a pack of which a larger part is waste is repacked; 0 to 1.
        small_max: when there are more small packs than this, of a kind, they are merged.
        expiry_s: sessions that were not renewed for so long are taken for dead.
        dry_run: find out what would be removed, and do nothing.
        on_event: told of progress.
        cancel: stops it; a later prune goes on.
    """

    waste_max: float = 0.3
    small_max: int = 64
    expiry_s: float = EXPIRY_S
    dry_run: bool = False
    on_event: OnEvent = ignore
    cancel: CancelToken | None = None


@dataclass
class Report:
    """What a prune did, or would do.

    Attributes:
        packs: how many there were before.
        bytes: of these packs.
        removed_packs: how many were removed; those that were repacked among them.
        removed_bytes: of these.
        repacked_packs: how many were repacked.
        copied_bytes: of what was put anew for that.
        waiting_packs: how many are condemned, and left for a later prune.
        waiting_bytes: of these.
        waits_for: the sessions that have to end before.
        strays: other objects that belonged to nothing.
        is_full: whether there was no room to do all.
    """

    packs: int = 0
    bytes: int = 0
    removed_packs: int = 0
    removed_bytes: int = 0
    repacked_packs: int = 0
    copied_bytes: int = 0
    waiting_packs: int = 0
    waiting_bytes: int = 0
    waits_for: tuple[SessionInfo, ...] = ()
    strays: int = 0
    is_full: bool = False

    @property
    def freed_bytes(self) -> int:
        """By how much the repository became smaller."""
        return self.removed_bytes - self.copied_bytes


def prune(repository: Repository, options: Options | None = None) -> Report:
    """Remove what no snapshot needs.

    Raises:
        PassphraseError: if the key that opened the repository may only add.
        RepositoryBusyError: if somebody else prunes.
        RepositoryError: if something that a snapshot needs is missing or damaged: then nothing is
            removed.
        TargetError: if the store does not permit it.
        Cancelled: if ``options.cancel`` says so.
    """
    options = Options() if options is None else options
    if not repository.protection.can_read:
        raise PassphraseError(
            "expected a key that may read, found one that may only add", name=repository.name
        )
    if options.dry_run:
        return _Prune(repository, options, None).estimate()
    with remover(
        repository.store, repository.protection, "prune", expiry_s=options.expiry_s
    ) as session:
        return _Prune(repository, options, session).run()


class _Prune:
    """One prune; ``session`` is ``None`` for a dry run."""

    def __init__(self, repository: Repository, options: Options, session: Session | None) -> None:
        self._repository = repository
        self._store = repository.store
        self._protection = repository.protection
        self._options = options
        self._session = session
        self._sure = _clock()
        self._oldest = 0.0
        self._report = Report()

    def run(self) -> Report:
        """Do it all."""
        survey = self._look()
        if survey.missing:
            # Who was taken for dead, and went on, has put an index of what was pruned meanwhile.
            self._forget_in_index(survey.missing)
        self._condemn([pack for pack in survey.existing if self._is_garbage(survey, pack)])
        survey = self._finish(survey)
        self._repack(survey)
        self._remove_strays()
        return self._report

    def estimate(self) -> Report:
        """Find out what :meth:`run` would do, if nobody else were there."""
        survey = self._look()
        report = self._report
        doomed = {pack for pack in survey.condemned if not survey.used_of(pack)}
        doomed |= {pack for pack in survey.existing if self._is_garbage(survey, pack)}
        wasteful = self._wasteful(survey)
        report.repacked_packs = len(wasteful)
        report.copied_bytes = sum(item.used for item in wasteful)
        for pack in doomed | {item.name for item in wasteful}:
            if pack in survey.existing:
                report.removed_packs += 1
                report.removed_bytes += survey.existing[pack].size
        return report

    def _look(self) -> Survey:
        """See what is there, with the sessions that are there before."""
        others = self._others()
        self._oldest = min((other.began for other in others), default=float("inf"))
        survey = Survey(
            self._repository, on_event=self._options.on_event, cancel=self._options.cancel
        )
        self._report.packs = self._report.packs or len(survey.existing)
        self._report.bytes = self._report.bytes or sum(
            item.size for item in survey.existing.values()
        )
        return survey

    def _others(self) -> list[SessionInfo]:
        own = None if self._session is None else self._session.name
        found = list_sessions(self._store, self._protection)
        return [item for item in found if item.name != own]

    def _is_garbage(self, survey: Survey, pack: bytes) -> bool:
        """Whether a pack is to be condemned."""
        return (
            pack not in survey.condemned
            and not survey.used_of(pack)
            and self._is_old(survey.existing[pack])
        )

    def _is_old(self, item: ObjectInfo) -> bool:
        """Whether it was there before all sessions that are there: not what one of them adds.

        That is a matter of economy; what is needed is kept by what is done at the end.
        """
        return item.modified < self._oldest

    def _condemn(self, packs: Sequence[bytes]) -> None:
        for start in range(0, len(packs), PACKS_MAX):
            self._check()
            put_condemned(self._store, self._protection, packs[start : start + PACKS_MAX])

    def _finish(self, survey: Survey, repacked: Collection[bytes] = ()) -> Survey:
        """Remove condemned packs for which nobody has to be waited for any more.

        Args:
            survey: of what is needed.
            repacked: packs, all of whose needed chunks have been copied since.
        """
        others = {item.name: item for item in self._others()}
        ready: list[Condemned] = []
        waiting: list[Condemned] = []
        for item in list_condemned(self._store, self._protection):
            settled = item
            if item.waits is None and others:
                settled = put_condemned(
                    self._store, self._protection, item.packs, name=item.name, waits=others
                )
            (waiting if others.keys() & (settled.waits or ()) else ready).append(settled)
        names = {item.name.removeprefix(SNAPSHOTS) for item in self._store.list(SNAPSHOTS)}
        if ready and not names <= survey.live.snapshots:
            survey = self._look()  # snapshots that may need what was condemned
            repacked = ()
        doomed = {
            pack
            for item in ready
            for pack in item.packs
            if pack in repacked or not survey.used_of(pack)
        }
        self._remove(survey, sorted(doomed), [item.name for item in ready])
        self._tell_waiting(survey, waiting, others)
        return survey

    def _tell_waiting(
        self, survey: Survey, waiting: Sequence[Condemned], others: Mapping[str, SessionInfo]
    ) -> None:
        report = self._report
        waits = set[str]().union(*(item.waits or () for item in waiting))
        packs = set[bytes]().union(*(item.packs for item in waiting)) & survey.existing.keys()
        report.waits_for = tuple(others[name] for name in sorted(others.keys() & waits))
        report.waiting_packs = len(packs)
        report.waiting_bytes = sum(survey.existing[pack].size for pack in packs)

    def _remove(self, survey: Survey, doomed: Sequence[bytes], objects: Sequence[str]) -> None:
        """Remove packs, and then the objects that condemn them."""
        if not objects:
            return
        self._check(now=True)
        is_told = self._forget_in_index(doomed)
        sizes = {pack: survey.existing[pack].size for pack in doomed if pack in survey.existing}
        total, done = sum(sizes.values()), 0
        for pack in doomed:
            self._check()
            self._store.delete(pack_object(pack))
            self._store.delete(parity_object(pack))
            done += sizes.get(pack, 0)
            self._options.on_event(Progress("prune", done, total, 0))
        self._report.removed_packs += len(sizes)
        self._report.removed_bytes += done
        if not is_told and not self._forget_in_index(doomed):
            # As long as these are there, nobody believes what the index says of those packs.
            self._report.is_full = True
            return
        for name in objects:
            self._store.delete(name)

    def _forget_in_index(self, packs: Collection[bytes]) -> bool:
        """Whether there was room to do it."""
        gone = frozenset(packs)
        try:
            replace_index(self._store, self._protection, gone, cancel=self._options.cancel)
        except TargetError:
            return False
        return True

    def _wasteful(self, survey: Survey) -> list[Wasteful]:
        uses = {
            pack: survey.uses[pack]
            for pack, item in survey.existing.items()
            if pack not in survey.condemned and survey.used_of(pack) and self._is_old(item)
        }
        return find_wasteful(
            uses, waste_max=self._options.waste_max, small_max=self._options.small_max
        )

    def _repack(self, survey: Survey) -> None:
        wasteful = [item.name for item in self._wasteful(survey)]
        start, size = 0, _BATCH_PACKS
        while start < len(wasteful):
            batch = wasteful[start : start + size]
            writer = self._writer(wasteful)
            try:
                copy_needed(self._repository, survey.live, batch, writer, self._copied)
            except TargetError:
                # No room. What was put so far goes again, and then it is tried with less.
                if not writer.packs:
                    self._report.is_full = True
                    return
                self._condemn(sorted(writer.packs))
                after = self._finish(survey)
                size = len(batch) // 2
            else:
                self._report.copied_bytes += writer.stored
                self._report.repacked_packs += len(batch)
                self._condemn(batch)
                after = self._finish(survey, batch)
                start += len(batch)
            finally:
                writer.close()
            if after is not survey or size == 0:
                self._report.is_full |= size == 0
                return

    def _writer(self, wasteful: Collection[bytes]) -> ChunkWriter:
        """To which nothing is there but what stays."""
        assert self._session is not None
        condemned = condemned_packs(self._store, self._protection)
        return self._repository.writer(self._session, without=condemned.union(wasteful))

    def _copied(self, size: int) -> None:
        self._check()
        self._options.on_event(Progress("repack", size, size, size))

    def _remove_strays(self) -> None:
        """Remove what belongs to a snapshot or pack that is not there."""
        # In this order: a session puts these, then what they belong to, and then it ends.
        found = {
            prefix: [item.name for item in self._store.list(prefix)]
            for prefix in (SIGNATURES, TAGS, PARITY)
        }
        if self._others():
            return
        names = {item.name.removeprefix(SNAPSHOTS) for item in self._store.list(SNAPSHOTS)}
        names.update(pack.hex() for pack in list_packs(self._store))
        for name in (name for listed in found.values() for name in listed):
            if name.rpartition("/")[2] not in names:
                self._check()
                self._store.delete(name)
                self._report.strays += 1

    def _check(self, *, now: bool = False) -> None:
        """Go on only if nobody wants it to stop, and nobody took this session for dead."""
        if self._options.cancel is not None:
            self._options.cancel.check()
        if self._session is None or (not now and _clock() - self._sure < _SURE_S):
            return
        if not self._session.is_alive:
            raise RepositoryError(
                "the prune was taken for dead, and somebody else may go on with it",
                name=self._repository.name,
            )
        self._sure = _clock()


def _clock() -> float:
    """Seconds, those in which the machine was asleep among them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_REALTIME))
