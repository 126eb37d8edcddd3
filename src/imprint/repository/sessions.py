"""Sessions: how those who add to a repository are seen by those who remove from it.

There are no locks. Who adds puts a session object first and looks for condemned packs then; who
removes puts a condemned object first and looks for sessions then. So at least one of the two sees
the other. Source: ``docs/repository-format.md``, "Who may remove what".
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from imprint.core.errors import ImagingError, RepositoryBusyError, RepositoryError
from imprint.objects.contract import MissingObjectError
from imprint.repository.condemning import condemned_packs
from imprint.repository.envelope import What, unwrap, wrap
from imprint.repository.snapshots import canonical, time_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.objects.contract import ObjectStore
    from imprint.repository.protection import Protection

RENEW_S: Final = 300
"""Between renewals: half of what the format demands."""

EXPIRY_S: Final = 24 * 3600
"""Without renewal for so long, a session is taken for dead."""

EXPIRY_MIN_S: Final = 3600
"""The least that somebody may ask for instead."""

_LATE_S: Final = EXPIRY_MIN_S / 2
"""After so long a session takes itself for dead: whoever removes it has begun later than that."""

SESSIONS: Final = "sessions/"


class Session:
    """Somebody who adds to a repository, for as long as it takes.

    Attributes:
        name: of the session's object.
        condemned: names of packs that count as absent. What is there has to be looked for after
            this was read: an index from before may name packs that are gone.
    """

    def __init__(
        self,
        store: ObjectStore,
        protection: Protection,
        verb: str,
        *,
        removes: bool = False,
        is_blind: bool = False,
    ) -> None:
        """Begin.

        Args:
            store: of the repository.
            protection: of the repository.
            verb: what is done.
            removes: it removes packs or index objects; see :func:`remover`.
            is_blind: it does not find out what is condemned, and adds nothing before :meth:`look`.

        Raises:
            RepositoryError: if what condemns packs is damaged.
        """
        self._store = store
        self._protection = protection
        self.name = SESSIONS + secrets.token_hex(16)
        self._says: dict[str, str | int] = {
            "host": platform.node(),
            "pid": os.getpid(),
            "process": _process(os.getpid()),
            "removes": int(removes),
            "started": time_text(datetime.now(UTC)),
            "verb": verb,
        }
        self._lock = threading.Lock()
        self._is_lost = False
        self._over = threading.Event()
        self._put()
        self._thread = threading.Thread(target=self._keep, name="session", daemon=True)
        self._thread.start()
        self.condemned = frozenset[bytes]()
        if is_blind:
            return
        try:
            self.look()
        except BaseException:
            self.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether nobody has taken it for dead so far."""
        with self._lock:
            return not self._is_lost and self._store.stat(self.name) is not None

    def revive(self) -> None:
        """Begin anew, after somebody has taken it for dead.

        Whatever was found before has to be looked for again, and :attr:`condemned` read again: as
        for any session that begins.
        """
        with self._lock:
            self._store.delete(self.name)
            # Another name: whoever is about to remove the old one does not mean this.
            self.name = SESSIONS + secrets.token_hex(16)
            self._says.pop("began", None)
            self._put()
            self._is_lost = False
        self.look()

    def look(self) -> None:
        """Find out what is condemned now.

        Raises:
            RepositoryError: if what says so is damaged.
        """
        self.condemned = condemned_packs(self._store, self._protection)

    def close(self) -> None:
        """It is over, however it went."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self._store.delete(self.name)

    def renew(self) -> None:
        """Tell that it goes on, unless it was taken for dead."""
        with self._lock:
            before = self._store.stat(self.name)
            if before is None:
                # Never back from the dead: somebody has gone on without this session.
                self._is_lost = True
            if self._is_lost or before is None:
                return
            self._says.setdefault("began", int(before.modified))
            self._put()
            after = self._store.stat(self.name)
            # Between the two somebody may have removed it, if it looked dead already.
            self._is_lost = after is None or after.modified - before.modified > _LATE_S

    def _put(self) -> None:
        data = wrap(What.SESSION, canonical(self._says), self._protection, name=self.name)
        self._store.put(self.name, (data,))

    def _keep(self) -> None:
        while not self._over.wait(RENEW_S):
            try:
                self.renew()
            except ImagingError:
                continue  # it is tried again long before the session counts as dead

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SessionInfo(NamedTuple):
    """What is known of a session that somebody else may have.

    Attributes:
        name: of its object.
        renewed: when it was put, by the store's clock.
        began: at the latest then it was there, by the store's clock, in seconds since 1970.
        verb: what it does.
        host: where.
        pid: which process of that.
        process: which of all processes that ever were; see :func:`is_process_gone`.
        removes: whether it removes packs or index objects.
    """

    name: str
    renewed: float
    began: float
    verb: str
    host: str
    pid: int
    process: str
    removes: bool

    def __str__(self) -> str:
        return f"`{self.verb}` on {self.host or 'an unknown host'}, process {self.pid}"


def list_sessions(store: ObjectStore, protection: Protection) -> list[SessionInfo]:
    """All sessions, dead ones as well. What is damaged counts as a session of nobody known."""
    found = []
    for item in store.list(SESSIONS):
        try:
            says = json.loads(
                unwrap(store.get(item.name), What.SESSION, protection, name=item.name)
            )
        except MissingObjectError:
            continue
        except (RepositoryError, ValueError, RecursionError):
            says = None
        says = says if isinstance(says, dict) else {}
        began = says.get("began", item.modified)
        pid = says.get("pid")
        found.append(
            SessionInfo(
                item.name,
                item.modified,
                # What is not a time by the store's clock up to now says nothing.
                began if isinstance(began, int) and 0 <= began <= item.modified else item.modified,
                str(says.get("verb", "")),
                str(says.get("host", "")),
                pid if isinstance(pid, int) else 0,
                str(says.get("process", "")),
                says.get("removes") == 1,
            )
        )
    return found


@contextmanager
def remover(
    store: ObjectStore,
    protection: Protection,
    verb: str,
    *,
    expiry_s: float = EXPIRY_S,
    is_blind: bool = False,
) -> Iterator[Session]:
    """A session that removes packs or index objects. There is one at a time.

    Sessions of those who are dead are removed first: who did not renew for ``expiry_s`` by the
    store's clock, or whose process was one of this machine and is gone. ``is_blind`` as in
    :class:`Session`.

    Raises:
        RepositoryBusyError: if somebody else removes. Of two who begin at once, perhaps both.
    """
    with Session(store, protection, verb, removes=True, is_blind=is_blind) as session:
        own = store.stat(session.name)
        for other in list_sessions(store, protection):
            if other.name == session.name:
                continue
            age = 0.0 if own is None else own.modified - other.renewed
            if age > expiry_s or is_process_gone(other):
                store.delete(other.name)
            elif other.removes:
                raise RepositoryBusyError(f"is in use by {other}, which removes", name=store.name)
        yield session


def _process(pid: int) -> str:
    """Which process it is, among all of all machines; empty if the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink()
        return f"{boot} {space} {pid} {_started(pid)}"
    except (OSError, ValueError, IndexError):
        return ""


def _started(pid: int) -> str:
    """When a process of this machine was started, in ticks since boot."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def is_process_gone(session: SessionInfo) -> bool:
    """Whether it is certain that the process that had a session lives no more.

    That can be told only of processes of this machine, since it was started.
    """
    own, parts = _process(os.getpid()).split(" "), session.process.split(" ")
    if own[:-2] != parts[:-2] or not own[:-2] or session.host != platform.node():
        return False
    try:
        os.kill(int(parts[-2]), 0)
        return _started(int(parts[-2])) != parts[-1]
    except ProcessLookupError:
        return True
    except (OSError, ValueError, IndexError, OverflowError):
        return False
