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
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from imprint.core.errors import ImagingError, RepositoryError
from imprint.objects.contract import MissingObjectError
from imprint.repository.envelope import What, unwrap, wrap
from imprint.repository.snapshots import canonical, time_text

if TYPE_CHECKING:
    from imprint.objects.contract import ObjectStore
    from imprint.repository.protection import Protection

RENEW_S: Final = 300
"""Between renewals: half of what the format demands."""

EXPIRY_S: Final = 24 * 3600
"""Without renewal for so long, a session is taken for dead."""

SESSIONS: Final = "sessions/"
CONDEMNED: Final = "condemned/"


class Session:
    """Somebody who adds to a repository, for as long as it takes.

    Attributes:
        name: of the session's object.
        condemned: names of packs that count as absent.
    """

    def __init__(self, store: ObjectStore, protection: Protection, verb: str) -> None:
        self._store = store
        self._protection = protection
        self.name = SESSIONS + secrets.token_hex(16)
        self._content = canonical(
            {
                "host": platform.node(),
                "pid": os.getpid(),
                "started": time_text(datetime.now(UTC)),
                "verb": verb,
            }
        )
        self._over = threading.Event()
        self._renew()
        self._thread = threading.Thread(target=self._keep, name="session", daemon=True)
        self._thread.start()
        try:
            self.condemned = condemned_packs(store, protection)
        except BaseException:
            self.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether nobody has taken it for dead so far."""
        return self._store.stat(self.name) is not None

    def close(self) -> None:
        """It is over, however it went."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self._store.delete(self.name)

    def _renew(self) -> None:
        data = wrap(What.SESSION, self._content, self._protection, name=self.name)
        self._store.put(self.name, (data,))

    def _keep(self) -> None:
        while not self._over.wait(RENEW_S):
            try:
                # Never back from the dead: somebody has gone on without this session.
                if not self.is_alive:
                    return
                self._renew()
            except ImagingError:
                continue  # it is tried again long before the session counts as dead

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def condemned_packs(store: ObjectStore, protection: Protection) -> frozenset[bytes]:
    """The packs that a prune means to remove.

    Raises:
        RepositoryError: if what says so is damaged.
    """
    found: set[bytes] = set()
    for item in store.list(CONDEMNED):
        try:
            found.update(read_condemned(store, protection, item.name))
        except MissingObjectError:
            continue  # that prune has come to its end meanwhile
    return frozenset(found)


def read_condemned(store: ObjectStore, protection: Protection, name: str) -> list[bytes]:
    """The packs that one object condemns.

    Raises:
        RepositoryError: if it is damaged.
        MissingObjectError: if it is gone.
    """
    content = unwrap(store.get(name), What.CONDEMNED, protection, name=name)
    try:
        packs = json.loads(content)["packs"]
        return [bytes.fromhex(pack) for pack in packs]
    except (ValueError, KeyError, TypeError, RecursionError) as failure:
        raise RepositoryError("expected a list of packs, found another thing", name=name) from (
            failure
        )
