"""Which files of a snapshot are damaged, when some ranges of its disk are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError, RepositoryError
from imprint.endpoints.files_on import files_on, first_of
from imprint.endpoints.gate import no_passphrase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Traits
    from imprint.core.extent import Extent
    from imprint.core.runs import Runs
    from imprint.repository.damage import FilesOf
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot
    from imprint.repository.source import SnapshotSource

FILES_MAX: Final = 10_000
"""Of one snapshot that are told."""


def damaged_files(repository: Repository) -> FilesOf:
    """What finds the files in ranges of snapshots: for checks of the repository.

    Encrypted volumes are not looked into: their passphrases are not the repository's.
    """

    def files_of(snapshot: Snapshot, ranges: Runs) -> list[str]:
        disk = _Medium(repository.source(snapshot))
        return first_of(files_on(disk, ranges, no_passphrase), FILES_MAX)

    return files_of


class _Medium:
    """A snapshot's disk whose damage is that of a medium, so that the rest of it is read."""

    def __init__(self, disk: SnapshotSource) -> None:
        self._disk = disk

    @property
    def name(self) -> str:
        return self._disk.name

    @property
    def size(self) -> int:
        return self._disk.size

    @property
    def traits(self) -> Traits:
        return self._disk.traits

    def readinto(self, buffer: memoryview, offset: int) -> None:
        try:
            self._disk.readinto(buffer, offset)
        except RepositoryError as failure:
            raise ReadError(
                str(failure.args[0]), name=self.name, offset=offset, length=len(buffer)
            ) from failure

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        return self._disk.extents(offset, length)

    def close(self) -> None:
        self._disk.close()
