"""The keys of a repository in its store: listing, adding, changing and removing them.

A new object is always there, and read back, before an old one goes: whoever is killed in between
leaves one key too many, never one too few.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.core.errors import PassphraseError, RefusedError, RepositoryError, UsageError
from imprint.objects.contract import MissingObjectError
from imprint.repository.key_objects import (
    COST_DEFAULT,
    KEY_OBJECT_BYTES_MAX,
    Cost,
    KeyObject,
    Origin,
    Rights,
)
from imprint.repository.keys import Encryption, Secrets, wrap_key

if TYPE_CHECKING:
    from imprint.objects.contract import ObjectStore

FOLDER: Final = "keys/"

KEYS_MAX: Final = 256
"""Trying them all with a wrong passphrase takes half a minute."""


@dataclass(frozen=True)
class ListedKey:
    """A key object in the store, which may be damaged.

    Attributes:
        name: of the object.
        key: what it says; ``None`` if that makes no sense.
        problem: what is wrong with it then.
    """

    name: str
    key: KeyObject | None
    problem: str = ""


def list_keys(store: ObjectStore) -> list[ListedKey]:
    """All keys of a repository, by name. Needs none of them.

    Raises:
        RepositoryError: if there are more than ``KEYS_MAX``.
    """
    found = list(islice(store.list(FOLDER), KEYS_MAX + 1))
    if len(found) > KEYS_MAX:
        raise RepositoryError(f"expected at most {KEYS_MAX} keys, found more", name=store.name)
    listed = []
    for info in found:
        try:
            if info.size > KEY_OBJECT_BYTES_MAX:
                raise RepositoryError(f"expected a key, found {info.size} bytes", name=info.name)
            listed.append(ListedKey(info.name, KeyObject.parse(store.get(info.name), info.name)))
        except MissingObjectError:  # removed since
            continue
        except RepositoryError as failure:
            listed.append(ListedKey(info.name, None, str(failure.args[0])))
    return listed


def read_keys(store: ObjectStore) -> list[KeyObject]:
    """The keys that can be tried.

    Raises:
        RepositoryError: if there are none, or more than ``KEYS_MAX``.
    """
    listed = list_keys(store)
    keys = [item.key for item in listed if item.key is not None]
    if not keys:
        found = f"{len(listed)} damaged ones" if listed else "none"
        raise RepositoryError(f"expected a key of the repository, found {found}", name=store.name)
    return keys


def add_key(
    store: ObjectStore,
    secrets: Secrets,
    encryption: Encryption,
    secret: bytes,
    *,
    rights: Rights,
    origin: Origin,
    label: str = "",
    cost: Cost = COST_DEFAULT,
) -> KeyObject:
    """Let ``secret`` unlock the repository, too; the arguments are those of :func:`wrap_key`.

    Raises:
        PassphraseError: if ``secrets`` permit less than ``rights``, or ``secret`` is empty.
        RepositoryError: if the store does not give back what was put, or has too many keys.
        TargetError: if it cannot be stored.
    """
    if len(list_keys(store)) >= KEYS_MAX:
        raise RepositoryError(f"has {KEYS_MAX} keys, and can have no more", name=store.name)
    key = wrap_key(
        secrets, encryption, secret, rights=rights, origin=origin, label=label, cost=cost
    )
    content = key.encode()
    store.put(key.name, [content], only_new=True)
    if store.get(key.name) != content:
        raise RepositoryError("expected the key that was put, found another", name=key.name)
    return key


def change_key(
    store: ObjectStore,
    secrets: Secrets,
    encryption: Encryption,
    name: str,
    secret: bytes,
    *,
    origin: Origin,
    label: str | None = None,
    cost: Cost = COST_DEFAULT,
) -> KeyObject:
    """Replace a key by a new one with the same rights, that ``secret`` opens.

    Who has the old passphrase, and a copy of the old object, still has what it holds.

    Args:
        store: of the repository.
        secrets: full ones; or those that this very key gave.
        encryption: of the repository.
        name: of the key, or the beginning of its digits.
        secret: the new passphrase, or the content of the new key file.
        origin: what ``secret`` is.
        label: of the new key; ``None``: the old one's.
        cost: of trying a passphrase.

    Raises:
        PassphraseError: if ``secrets`` do not permit it, or ``secret`` is empty.
        RepositoryError: if the store does not give back what was put; the old key stays then.
        TargetError: if it cannot be stored.
        UsageError: if there is no such key, or several.
    """
    old = find_key(list_keys(store), name, where=store.name)
    if old.key is None:
        raise RepositoryError(old.problem, name=old.name)
    if secrets.private is None and secrets.unlocked_by != old.name:
        raise _only_full("change the keys of others")
    new = add_key(
        store,
        secrets,
        encryption,
        secret,
        rights=old.key.rights,
        origin=origin,
        label=old.key.label if label is None else label,
        cost=cost,
    )
    store.delete(old.name)
    return new


def remove_key(store: ObjectStore, secrets: Secrets, name: str) -> str:
    """Remove a key, but never the last that has full rights; gives its name.

    Who has its passphrase, and a copy of the object, still has what it holds.

    Args:
        store: of the repository.
        secrets: full ones.
        name: of the key, or the beginning of its digits.

    Raises:
        PassphraseError: if ``secrets`` are not full.
        RefusedError: if nobody could read the repository any more.
        TargetError: if it cannot be removed.
        UsageError: if there is no such key, or several.
    """
    if secrets.private is None:
        raise _only_full("remove keys")
    listed = list_keys(store)
    found = find_key(listed, name, where=store.name)
    if not _has_full(listed, without=found.name):
        raise _last_full(found.name)
    content = store.get(found.name)
    store.delete(found.name)
    if not _has_full(list_keys(store)):  # somebody has removed another one at this moment
        store.put(found.name, [content])
        raise _last_full(found.name)
    return found.name


def find_key(listed: list[ListedKey], name: str, *, where: str) -> ListedKey:
    """The key of this name, whole or only the beginning of its digits.

    Raises:
        UsageError: if there is no such key, or several.
    """
    digits = name.removeprefix(FOLDER)
    found = [item for item in listed if digits and item.name.startswith(FOLDER + digits)]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"expected one key {digits!r:.80}, found {len(found) or 'none'}",
        name=where,
        advice="`imprint repo key list` shows their names",
    )


def _has_full(listed: list[ListedKey], *, without: str = "") -> bool:
    return any(
        item.key is not None and item.key.rights is Rights.FULL and item.name != without
        for item in listed
    )


def _only_full(what: str) -> PassphraseError:
    return PassphraseError(
        f"expected a key that may {what}, found one that may only add",
        advice="unlock the repository with a key that has the rights `full`",
    )


def _last_full(name: str) -> RefusedError:
    return RefusedError(
        "is the last key with full rights: without it, nobody could read the repository",
        name=name,
        advice="add another one first",
    )
