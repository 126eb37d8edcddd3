"""Snapshots as a repository of their own, with the same keys: for taking along and bringing back.

Where it is put decides what it becomes: a tar file by :class:`imprint.objects.bundle.BundleWriter`,
a folder by a folder's store.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imprint.core.errors import RefusedError
from imprint.objects.contract import ObjectExistsError
from imprint.repository.copying import CopyOptions, CopyReport, copy_snapshots
from imprint.repository.format import NAME as FORMAT_NAME
from imprint.repository.keyring import FOLDER as KEYS
from imprint.repository.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.objects.contract import ObjectStore
    from imprint.repository.snapshots import Snapshot


def export_snapshots(
    source: Repository,
    store: ObjectStore,
    snapshots: Sequence[Snapshot],
    options: CopyOptions,
) -> CopyReport:
    """Make a repository of some snapshots, which opens with the same keys.

    Args:
        source: where they are.
        store: an empty place; the caller closes it, and finishes it if it is a tar file.
        snapshots: of ``source``.
        options: of copying.

    Raises:
        RefusedError: if there is a repository already.
        RepositoryError: if something is damaged.
        TargetError: if there is no room.
    """
    format_ = replace(source.format, parity=0)
    try:
        # First, so that whoever looks at the beginning of a tar file knows what it is.
        store.put(FORMAT_NAME, (format_.encode(),), only_new=True)
    except ObjectExistsError as failure:
        raise RefusedError("holds a repository already", name=store.name) from failure
    for info in source.store.list(KEYS):
        store.put(info.name, (source.store.get(info.name),))
    target = Repository(store, format_, source.protection, source.secrets)
    return copy_snapshots(source, target, snapshots, options)


def import_snapshots(bundle: Repository, target: Repository, options: CopyOptions) -> CopyReport:
    """Copy all snapshots of a bundle; see :func:`.copying.copy_snapshots`."""
    return copy_snapshots(bundle, target, bundle.snapshots(), options)
