"""Condemned packs: how those who remove from a repository are seen by those who add to it.

Source: ``docs/repository-format.md``, "Who may remove what".
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import RepositoryError
from imprint.objects.contract import MissingObjectError
from imprint.repository.envelope import What, unwrap, wrap
from imprint.repository.protection import NAME_BYTES
from imprint.repository.snapshots import canonical

if TYPE_CHECKING:
    from collections.abc import Collection

    from imprint.objects.contract import ObjectStore
    from imprint.repository.protection import Protection

CONDEMNED: Final = "condemned/"

PACKS_MAX: Final = 500_000
"""In one object: 34 MB of JSON, 16 TiB of packs."""


class Condemned(NamedTuple):
    """An object that condemns packs.

    Attributes:
        name: of the object.
        packs: names of what it condemns.
        waits: names of the sessions that have to end before; ``None``: whoever made it did not
            come so far as to find out.
    """

    name: str
    packs: frozenset[bytes]
    waits: frozenset[str] | None = None


def put_condemned(
    store: ObjectStore,
    protection: Protection,
    packs: Collection[bytes],
    *,
    name: str | None = None,
    waits: Collection[str] | None = None,
) -> Condemned:
    """Condemn packs; with ``name``: say of an object that there is what it has to wait for."""
    name = CONDEMNED + secrets.token_hex(16) if name is None else name
    says: dict[str, list[str]] = {"packs": sorted(pack.hex() for pack in packs)}
    if waits is not None:
        says["waits"] = sorted(waits)
    store.put(name, (wrap(What.CONDEMNED, canonical(says), protection, name=name),))
    return Condemned(name, frozenset(packs), None if waits is None else frozenset(waits))


def list_condemned(store: ObjectStore, protection: Protection) -> list[Condemned]:
    """All objects that condemn packs.

    Raises:
        RepositoryError: if one is damaged.
    """
    found = []
    for item in store.list(CONDEMNED):
        try:
            found.append(_read(store, protection, item.name))
        except MissingObjectError:
            continue  # that prune has come to its end meanwhile
        except RepositoryError as failure:
            failure.advice = failure.advice or "imprint repo check --repair puts it right"
            raise
    return found


def condemned_packs(store: ObjectStore, protection: Protection) -> frozenset[bytes]:
    """The packs that a prune means to remove.

    Raises:
        RepositoryError: if what says so is damaged.
    """
    return frozenset[bytes]().union(*(item.packs for item in list_condemned(store, protection)))


def _read(store: ObjectStore, protection: Protection, name: str) -> Condemned:
    content = unwrap(store.get(name), What.CONDEMNED, protection, name=name)
    try:
        says = json.loads(content)
        packs = frozenset(map(bytes.fromhex, says["packs"]))
        waits = says.get("waits")
        if waits is not None:
            waits = frozenset(map(str, waits))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as failure:
        message = "expected a list of packs, found another thing"
        raise RepositoryError(message, name=name) from failure
    if any(len(pack) != NAME_BYTES for pack in packs):
        raise RepositoryError("expected names of packs, found others", name=name)
    return Condemned(name, packs, waits)
