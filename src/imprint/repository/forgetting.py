"""Removing snapshots. What only they needed is removed by a prune, later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import RefusedError
from imprint.repository.repository import SIGNATURES, SNAPSHOTS, TAGS
from imprint.repository.retention import PROTECTED
from imprint.repository.tags import list_tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.cancel import CancelToken
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot


def forget(
    repository: Repository,
    snapshots: Sequence[Snapshot],
    *,
    force: bool = False,
    dry_run: bool = False,
    cancel: CancelToken | None = None,
) -> None:
    """Remove snapshots, with their signatures and tags.

    Each is gone as soon as its object is. Whatever happens in between, none is without its
    signature: that goes after it.

    Args:
        repository: that they are in.
        snapshots: to be removed.
        force: even if one is protected.
        dry_run: find out whether it would be refused, and do nothing.
        cancel: stops it between two snapshots.

    Raises:
        RefusedError: if one is protected; nothing was removed.
        TargetError: if the store does not permit it.
        Cancelled: if ``cancel`` says so.
    """
    if not force:
        tags = list_tags(repository)
        kept = [item for item in snapshots if PROTECTED in tags.get(item.name, ())]
        if kept:
            raise RefusedError(
                f"snapshot {kept[0].short} of {kept[0].manifest.image} is protected",
                name=repository.name,
                advice="remove its tag `protected`, or use --force",
            )
    if dry_run:
        return
    for snapshot in snapshots:
        if cancel is not None:
            cancel.check()
        forget_named(repository, snapshot.name)


def forget_named(repository: Repository, name: str) -> None:
    """Remove a snapshot by its whole name, also one that cannot be read.

    Raises:
        TargetError: if the store does not permit it.
    """
    for folder in (SNAPSHOTS, SIGNATURES, TAGS):
        repository.store.delete(folder + name)
