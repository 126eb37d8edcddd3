"""Which files of a snapshot are damaged, when some ranges of its disk are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.endpoints.files_on import files_on, first_of
from imprint.endpoints.gate import no_passphrase

if TYPE_CHECKING:
    from imprint.core.runs import Runs
    from imprint.repository.damage import FilesOf
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot

FILES_MAX: Final = 10_000
"""Of one snapshot that are told."""


def damaged_files(repository: Repository) -> FilesOf:
    """What finds the files in ranges of snapshots: for checks of the repository.

    Encrypted volumes are not looked into: their passphrases are not the repository's.
    """

    def files_of(snapshot: Snapshot, ranges: Runs) -> list[str]:
        disk = repository.source(snapshot)
        return first_of(files_on(disk, ranges, no_passphrase), FILES_MAX)

    return files_of
