"""The keys in a store: listing, adding, changing, removing them; killed in between, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import (
    PassphraseError,
    RefusedError,
    RepositoryError,
    TargetError,
    UsageError,
)
from imprint.objects.memory import MemoryStore
from imprint.repository.key_objects import KeyObject, Origin, Rights
from imprint.repository.keyring import (
    KEYS_MAX,
    add_key,
    change_key,
    list_keys,
    read_keys,
    remove_key,
)
from imprint.testing.repository_keys import CHEAP, ENCRYPTION, SECRETS, key_of, unlocked
from imprint.testing.small_repositories import MortalStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.repository.keys import Secrets


def store_with(**rights: Rights) -> MemoryStore:
    """A store whose keys are opened by their labels."""
    store = MemoryStore()
    for label, permitted in rights.items():
        add(store, label, permitted)
    return store


def add(store: MemoryStore, label: str, rights: Rights, secrets: Secrets = SECRETS) -> KeyObject:
    return add_key(
        store,
        secrets,
        ENCRYPTION,
        label.encode(),
        rights=rights,
        origin=Origin.PASSPHRASE,
        label=label,
        cost=CHEAP,
    )


def change(store: MemoryStore, name: str, secret: bytes, secrets: Secrets = SECRETS) -> KeyObject:
    return change_key(
        store, secrets, ENCRYPTION, name, secret, origin=Origin.PASSPHRASE, cost=CHEAP
    )


def name_of(store: MemoryStore, label: str) -> str:
    (name,) = (key.name for key in read_keys(store) if key.label == label)
    return name


def test_keys_are_listed_with_those_that_are_damaged() -> None:
    """Broken: damage would hide the good keys, or itself."""
    store = store_with(admin=Rights.FULL, host=Rights.ADD)
    store.put("keys/" + "0" * 16, [b"{}"])
    store.put("keys/" + "f" * 16, [b" " * 100_000])
    listed = list_keys(store)
    assert [bool(item.key) for item in listed] == [False, True, True, False]
    assert "100000 bytes" in listed[-1].problem
    assert {key.label for key in read_keys(store)} == {"admin", "host"}
    assert unlocked(read_keys(store), b"admin").private == SECRETS.private


def test_a_store_with_no_key_that_can_be_read_is_damaged() -> None:
    """Broken: the user would be asked for passphrases that cannot be right."""
    store = MemoryStore()
    with pytest.raises(RepositoryError, match="found none"):
        read_keys(store)
    store.put("keys/" + "0" * 16, [b"{}"])
    with pytest.raises(RepositoryError, match="found 1 damaged"):
        read_keys(store)


def test_there_is_a_limit_to_keys() -> None:
    """Broken: a wrong passphrase would take hours."""
    store = MemoryStore()
    content = key_of(b"pw").encode()
    for number in range(KEYS_MAX):
        store.put(f"keys/{number:016x}", [content])
    with pytest.raises(RepositoryError, match="no more"):
        add(store, "more", Rights.ADD)
    store.put("keys/" + "f" * 16, [content])
    with pytest.raises(RepositoryError, match="found more"):
        list_keys(store)


def test_a_changed_key_opens_with_the_new_secret_only() -> None:
    """Broken: the old passphrase would still open the repository."""
    store = store_with(admin=Rights.FULL, host=Rights.ADD)
    change(store, name_of(store, "admin"), b"new")
    assert unlocked(read_keys(store), b"new").private == SECRETS.private
    with pytest.raises(PassphraseError):
        unlocked(read_keys(store), b"admin")
    assert len(read_keys(store)) == 2
    change(store, name_of(store, "host"), b"newer")
    assert unlocked(read_keys(store), b"newer").private is None


def test_the_last_full_key_stays() -> None:
    """Broken: nobody could ever read the repository again."""
    store = store_with(admin=Rights.FULL, second=Rights.FULL, host=Rights.ADD)
    removed = name_of(store, "second")
    assert remove_key(store, SECRETS, removed.removeprefix("keys/")[:8]) == removed
    with pytest.raises(RefusedError, match="last key"):
        remove_key(store, SECRETS, name_of(store, "admin"))
    remove_key(store, SECRETS, name_of(store, "host"))
    assert [key.label for key in read_keys(store)] == ["admin"]


def test_two_who_remove_at_once_leave_a_full_key() -> None:
    """Broken: each would leave the key that the other removes."""

    class Racing(MemoryStore):
        other: str | None = None

        def delete(self, name: str) -> None:
            if self.other is not None:
                other, self.other = self.other, None
                super().delete(other)
            super().delete(name)

    store = Racing()
    for label in ("one", "two"):
        add(store, label, Rights.FULL)
    store.other = name_of(store, "two")
    with pytest.raises(RefusedError, match="last key"):
        remove_key(store, SECRETS, name_of(store, "one"))
    assert unlocked(read_keys(store), b"one").private == SECRETS.private


def test_a_damaged_key_can_be_removed() -> None:
    """Broken: it would be complained of for ever."""
    store = store_with(admin=Rights.FULL)
    store.put("keys/" + "0" * 16, [b"{}"])
    remove_key(store, SECRETS, "0000")
    assert [key.label for key in read_keys(store)] == ["admin"]


@pytest.mark.parametrize("name", ["", "keys/", "zz", "0123456789abcdef0", "../format"])
def test_a_name_that_means_no_key_or_several_is_refused(name: str) -> None:
    """Broken: the wrong key would go."""
    store = store_with(admin=Rights.FULL, second=Rights.FULL)
    with pytest.raises(UsageError, match="expected one key"):
        remove_key(store, SECRETS, name)
    with pytest.raises(UsageError, match="expected one key"):
        change(store, name, b"new")
    assert len(read_keys(store)) == 2


def test_who_may_only_add_adds_only_such_keys() -> None:
    """Broken: a host that was broken into could read, or lock everybody out."""
    store = store_with(admin=Rights.FULL, second=Rights.FULL, host=Rights.ADD)
    host = unlocked(read_keys(store), b"host")
    with pytest.raises(PassphraseError, match="only add"):
        add(store, "more", Rights.FULL, host)
    add(store, "more", Rights.ADD, host)
    assert unlocked(read_keys(store), b"more").private is None
    for label in ("admin", "more"):
        with pytest.raises(PassphraseError, match="only add"):
            change(store, name_of(store, label), b"new", host)
        with pytest.raises(PassphraseError, match="only add"):
            remove_key(store, host, name_of(store, label))
    change(store, name_of(store, "host"), b"its own", host)
    assert unlocked(read_keys(store), b"its own").private is None
    assert len(read_keys(store)) == 4


def test_the_last_full_key_is_not_even_gone_for_a_moment() -> None:
    """Broken: whoever is killed in this moment would lock everybody out."""
    store = MortalStore(TargetError("killed"))
    add(store, "admin", Rights.FULL)
    store.left = 0
    with pytest.raises(RefusedError, match="last key"):
        remove_key(store, SECRETS, name_of(store, "admin"))


@pytest.mark.parametrize("changes", range(3))
def test_whoever_is_killed_while_changing_a_key_leaves_one_that_opens(changes: int) -> None:
    """Broken: a power cut would lock everybody out."""
    store = MortalStore(TargetError("killed"))
    add(store, "old", Rights.FULL)
    store.left = changes
    try:
        change(store, name_of(store, "old"), b"new")
    except TargetError:
        assert changes < 2
    opening = []
    for secret in (b"old", b"new"):
        try:
            assert unlocked(read_keys(store), secret).private == SECRETS.private
            opening.append(secret)
        except PassphraseError:
            pass
    assert opening == [[b"old"], [b"old", b"new"], [b"new"]][changes]


def test_a_store_that_keeps_something_else_does_not_lose_the_old_key() -> None:
    """Broken: a failing store would lock everybody out."""

    class Forgetting(MemoryStore):
        def put(
            self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
        ) -> None:
            super().put(name, [b"".join(parts)[: None if not self.broken else 100]])

        broken = False

    store = Forgetting()
    add(store, "old", Rights.FULL)
    store.broken = True
    with pytest.raises(RepositoryError, match="found another"):
        change(store, name_of(store, "old"), b"new")
    assert unlocked(read_keys(store), b"old").private == SECRETS.private
