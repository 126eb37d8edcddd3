"""What is to be reported, and what has come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imprint.filesystems.tree import has_failures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class ReportRequest:
    """What is to be made.

    Attributes:
        dfxml: file for the DFXML; ``None``: none, unless there is a ``stream``.
        stream: takes the DFXML instead: bytes, and how many there were before them.
        timeline: file for a timeline.
        timeline_is_csv: whether that is CSV; else it is a body file.
        html: file for a page.
        hashes: names of those to take of each file.
        deleted: tell deleted files, too.
        force: replace files.
        resume: go on with a report that was interrupted.
        workers: threads that read and hash.
        command_line: as it was given.
    """

    dfxml: Path | None = None
    stream: Callable[[memoryview, int], None] | None = None
    timeline: Path | None = None
    timeline_is_csv: bool = False
    html: Path | None = None
    hashes: tuple[str, ...] = ()
    deleted: bool = False
    force: bool = False
    resume: bool = True
    workers: int = 2
    command_line: tuple[str, ...] = ()

    @property
    def has_dfxml(self) -> bool:
        """Whether there is a DFXML to be made."""
        return self.dfxml is not None or self.stream is not None


@dataclass
class VolumeOutcome:
    """Of a volume.

    Attributes:
        name: in addresses; empty for a disk that is one volume.
        filesystem: its kind; ``None``: not known.
        size: in bytes.
        files: that are no folders, deleted ones included; streams count.
        folders: the root included.
        deleted: names that were given up.
        problems: what could not be followed, one sentence each.
    """

    name: str
    filesystem: str | None
    size: int
    files: int = 0
    folders: int = 0
    deleted: int = 0
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """For scripts."""
        return {
            "name": self.name,
            "filesystem": self.filesystem,
            "size": self.size,
            "files": self.files,
            "folders": self.folders,
            "deleted": self.deleted,
            "problems": self.problems,
        }


@dataclass
class ReportOutcome:
    """What has come of a report.

    Attributes:
        volumes: of the disk.
        hashed: files whose hashes were taken, now or before an interruption.
        resumed: files whose hashes an interrupted report had taken.
        unreadable: files that could not be read, or not as a whole.
        bytes_read: of volumes, for hashes.
    """

    volumes: list[VolumeOutcome] = field(default_factory=list)
    hashed: int = 0
    resumed: int = 0
    unreadable: int = 0
    bytes_read: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return not self.unreadable and not any(has_failures(item.problems) for item in self.volumes)
