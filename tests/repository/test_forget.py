"""Forgetting snapshots, and their tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import RefusedError, UsageError
from imprint.objects.memory import MemoryStore
from imprint.repository.forgetting import forget
from imprint.repository.retention import PROTECTED
from imprint.repository.tags import change_tags, list_tags, read_tags
from imprint.testing.small_packs import encrypted
from imprint.testing.small_repositories import disk_content, put_disk, reopened, small_repository

if TYPE_CHECKING:
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot


@pytest.fixture(params=["plain", "encrypted"])
def repository(request: pytest.FixtureRequest) -> Repository:
    return small_repository(encrypted() if request.param == "encrypted" else None)


def disk(repository: Repository, minute: int) -> Snapshot:
    return put_disk(repository, disk_content(9, seed=minute), minute=minute, sign=lambda _: b"[]")


def names(repository: Repository, prefix: str) -> list[str]:
    return [item.name.rpartition("/")[2] for item in repository.store.list(prefix)]


def test_a_snapshot_goes_with_its_signature_and_tags(repository: Repository) -> None:
    """Fails if something of it stays, or something of another goes."""
    first, second = disk(repository, 1), disk(repository, 2)
    for snapshot in (first, second):
        change_tags(repository, snapshot, add=["x"])
    forget(repository, [first])
    for prefix in ("snapshots/", "signatures/", "tags/"):
        assert names(repository, prefix) == [second.name]


def test_a_protected_snapshot_stays_unless_it_is_forced(repository: Repository) -> None:
    """Fails if a protected snapshot goes, or if others go although one was refused."""
    first, second = disk(repository, 1), disk(repository, 2)
    change_tags(repository, second, add=[PROTECTED])
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match="protected"):
            forget(repository, [first, second], dry_run=dry_run)
    assert len(names(repository, "snapshots/")) == 2
    forget(repository, [second], force=True)
    assert names(repository, "snapshots/") == [first.name]


def test_a_dry_run_removes_nothing(repository: Repository) -> None:
    """Fails if looking removes."""
    snapshot = disk(repository, 1)
    forget(repository, [snapshot], dry_run=True)
    assert names(repository, "snapshots/") == [snapshot.name]


def test_tags_are_added_removed_and_listed(repository: Repository) -> None:
    """Fails if tags are lost, doubled, unsorted or kept after their last was removed."""
    first, second = disk(repository, 1), disk(repository, 2)
    assert read_tags(repository, first.name) == ()
    assert change_tags(repository, first, add=["weekly", "golden", "weekly"]) == (
        "golden",
        "weekly",
    )
    assert change_tags(repository, first, add=["a"], remove=["golden"]) == ("a", "weekly")
    assert change_tags(repository, second, add=["ä/+=é"]) == ("ä/+=é",)
    assert list_tags(reopened(repository)) == {
        first.name: ("a", "weekly"),
        second.name: ("ä/+=é",),
    }
    assert change_tags(repository, first, remove=["a", "weekly", "none"]) == ()
    assert names(repository, "tags/") == [second.name]


@pytest.mark.parametrize("tag", ["", "a b", "a,b", "a\n", "x" * 65])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    """Fails if a tag cannot be told from two, or from none."""
    repository = small_repository()
    snapshot = disk(repository, 1)
    with pytest.raises(UsageError):
        change_tags(repository, snapshot, add=[tag])


def test_a_forgotten_snapshot_gets_no_tags() -> None:
    """Fails if tags of nothing are made."""
    repository = small_repository()
    snapshot = disk(repository, 1)
    forget(repository, [snapshot])
    with pytest.raises(UsageError):
        change_tags(repository, snapshot, add=["x"])
    assert names(repository, "tags/") == []


class Counting(MemoryStore):
    """Remembers what was deleted, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[str] = []

    def delete(self, name: str) -> None:
        self.deleted.append(name.split("/", maxsplit=1)[0])
        super().delete(name)


def test_the_snapshot_goes_first() -> None:
    """Fails if a crash can leave a snapshot without the signature that it had."""
    store = Counting()
    repository = small_repository(store=store)
    snapshot = disk(repository, 1)
    store.deleted.clear()
    forget(repository, [snapshot])
    assert store.deleted == ["snapshots", "signatures", "tags"]
