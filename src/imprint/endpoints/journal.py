"""The journal of a copy into a file: what lets it be resumed after a crash.

While ``NAME`` is written as ``NAME.partial``, ``NAME.partial.journal`` says how far the copy
has come, of which source, and into which format. It is replaced as a whole, so that it is
always the old one or the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import TargetError
from imprint.core.system import exists, fsync_folder
from imprint.storage.pending import partial_path

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = 1
_BYTES_MAX: Final = 1 << 20  # ours have some hundred bytes: more is not ours


@dataclass(frozen=True)
class Job:
    """What identifies a copy: it may be resumed only as the same one.

    Attributes:
        source: address of the source, made absolute.
        size: of its disk, in bytes.
        mtime_ns: when it was last changed, as far as it has such a time.
        format: of the target.
        options: of the target, as text.
    """

    source: str
    size: int
    mtime_ns: int | None
    format: str
    options: dict[str, str] = field(default_factory=dict)


class JournalFile:
    """A :class:`~imprint.transfer.copy.Journal` beside the target."""

    def __init__(self, target: Path, job: Job) -> None:
        self._path = journal_path(target)
        self._job = job

    def record(self, position: int) -> None:
        """Write the position durably."""
        text = json.dumps({"version": VERSION, "position": position, **asdict(self._job)})
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            temporary.replace(self._path)
            fsync_folder(self._path.parent)
        except OSError as failure:
            reason = (failure.strerror or str(failure)).lower()
            raise TargetError(reason, name=str(self._path)) from failure

    def discard(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def position(self) -> int | None:
        """Where the same job had come to; ``None``: there is nothing of it to resume."""
        try:
            if self._path.stat().st_size > _BYTES_MAX or not partial_path_of(self._path).exists():
                return None
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):  # the last: brackets without end
            return None
        if not isinstance(content, dict) or content.pop("version", None) != VERSION:
            return None
        position = content.pop("position", None)
        if content != asdict(self._job) or not isinstance(position, int):
            return None
        return position if 0 < position <= self._job.size else None

    @property
    def exists(self) -> bool:
        """Whether some job has left a journal here."""
        return exists(self._path)


def journal_path(target: Path) -> Path:
    """Where the journal of a copy into ``target`` is."""
    partial = partial_path(target)
    return partial.with_name(partial.name + ".journal")


def partial_path_of(journal: Path) -> Path:
    """The unfinished file that a journal belongs to."""
    return journal.with_name(journal.name.removesuffix(".journal"))
