"""Labels of snapshots. They are no part of a snapshot, so they may change.

Of two who change the tags of one snapshot at the same moment, the later wins.
Source: ``docs/repository-format.md``, Snapshots.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from imprint.core.errors import RepositoryError, UsageError
from imprint.objects.contract import MissingObjectError
from imprint.repository.envelope import What, unwrap, wrap
from imprint.repository.repository import SNAPSHOTS, TAGS
from imprint.repository.snapshots import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot

_TAG = re.compile(r"[^\x00-\x20\x7f,]{1,64}\Z")


def check_tag(tag: str) -> str:
    """The tag itself, if it can be one.

    Raises:
        UsageError: if not.
    """
    if not _TAG.match(tag):
        raise UsageError(
            f"expected a tag, found {tag!r:.80}",
            advice="1 to 64 characters, without blanks and commas",
        )
    return tag


def read_tags(repository: Repository, snapshot: str) -> tuple[str, ...]:
    """The tags of the snapshot of a name, sorted.

    Raises:
        RepositoryError: if they are damaged.
    """
    where = TAGS + snapshot
    try:
        data = repository.store.get(where)
    except MissingObjectError:
        return ()
    content = unwrap(data, What.TAGS, repository.protection, name=where)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as failure:
        raise RepositoryError("expected tags, found another thing", name=where) from failure
    if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
        raise RepositoryError("expected tags, found another thing", name=where)
    return tuple(sorted(set(found)))


def list_tags(repository: Repository) -> dict[str, tuple[str, ...]]:
    """The tags of all snapshots that have some, by the name of the snapshot.

    Raises:
        RepositoryError: if some are damaged.
    """
    names = [item.name.removeprefix(TAGS) for item in repository.store.list(TAGS)]
    found = ((name, read_tags(repository, name)) for name in names)
    return {name: tags for name, tags in found if tags}


def change_tags(
    repository: Repository,
    snapshot: Snapshot,
    *,
    add: Iterable[str] = (),
    remove: Iterable[str] = (),
) -> tuple[str, ...]:
    """Add and remove tags of a snapshot; gives what it has then.

    Raises:
        UsageError: if a tag cannot be one, or the snapshot was forgotten meanwhile.
        RepositoryError: if what it has is damaged.
    """
    before = read_tags(repository, snapshot.name)
    after = tuple(sorted(set(before).union(map(check_tag, add)).difference(remove)))
    where = TAGS + snapshot.name
    if after == before:
        return after
    if repository.store.stat(SNAPSHOTS + snapshot.name) is None:
        raise UsageError(f"has no snapshot {snapshot.short}", name=repository.name)
    if after:
        data = wrap(What.TAGS, canonical(list(after)), repository.protection, name=where)
        repository.store.put(where, (data,))
    else:
        repository.store.delete(where)
    return after
