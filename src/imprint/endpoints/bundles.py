"""Bundles: some snapshots of a repository as one tar file, which is a repository to read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, cast

from imprint.endpoints.location import Where
from imprint.objects.bundle import BundleStore, BundleWriter
from imprint.repository.bundle import export_snapshots
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imprint.core.contracts import Storage
    from imprint.endpoints.target import TargetRequest
    from imprint.repository.copying import CopyOptions, CopyReport
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot


class _FrontToBack(io.RawIOBase):
    """A storage as a file that is written once, from its start on."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage
        self._position = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        """Append."""
        self._storage.write(data, self._position)
        self._position += len(data)
        return len(data)


def export_bundle(
    repository: Repository,
    snapshots: Sequence[Snapshot],
    target: TargetRequest,
    options: CopyOptions,
) -> CopyReport:
    """Write snapshots into a tar file, or to standard output.

    Raises:
        RefusedError: if the file exists and may not be replaced.
        ImagingError: whatever reading or writing raises; there is no new file then.
    """
    location = target.location
    storage: Storage
    if location.where is Where.STREAM:
        from imprint.storage.stream import StreamStorage  # only for streams

        storage = StreamStorage.output()
    else:
        storage = PendingFile.create(location.path, may_replace=target.force)
    try:
        file = cast("BinaryIO", _FrontToBack(storage))
        writer = BundleWriter(file, target.address, time_s=target.time_s)
        report = export_snapshots(repository, writer, snapshots, options)
        writer.finish()
        storage.commit()
    except BaseException:
        storage.abort()
        raise
    return report


def open_bundle(path: Path) -> BundleStore:
    """The objects in a tar file.

    Raises:
        CorruptImageError: if it is no sound one.
    """
    storage = FileStorage.open(path)
    try:
        return BundleStore(storage)
    except BaseException:
        storage.close()
        raise
