"""Timelines of files: the body file of The Sleuth Kit, and events in CSV.

Source: The Sleuth Kit, "Body file", version 3.0 and later; "Mactime output".
"""

from __future__ import annotations

import heapq
import re
import stat
import tempfile
from typing import TYPE_CHECKING, Final, Protocol

from imprint.endpoints.report.moments import Moments
from imprint.endpoints.report.records import code_of
from imprint.filesystems.ntfs.layout import FileName
from imprint.filesystems.tree import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import IO

    from imprint.filesystems.tree import Entry

_NS: Final = 1_000_000_000
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HIDDEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_QUOTED: Final = re.compile(r'[,"]')
_SORTED_MAX: Final = 1 << 18
"""Lines of a CSV timeline that are sorted in memory."""

_COLUMNS: Final = "time,macb,size,type,mode,uid,gid,inode,deleted,volume,path\n"
_LETTERS: Final = "macb"


class Timeline(Protocol):
    """What is told of each file, and written as text."""

    def begin(self, name: str, kind: str) -> None:
        """A volume, by its name in addresses, and the kind of its file system."""

    def add(self, entries: Iterable[Entry]) -> None:
        """Files of that volume."""

    def end(self) -> None:
        """There is nothing more."""


class BodyFile:
    """One line for each file, in any order, times in seconds; equal to that of ``fls -m``."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._prefix = ""
        self._kind = ""
        self._modes: dict[int, str] = {}

    def begin(self, name: str, kind: str) -> None:
        """See :class:`Timeline`."""
        self._prefix = f"/{name}" if name else ""
        self._kind = kind

    def add(self, entries: Iterable[Entry]) -> None:
        """See :class:`Timeline`; the root has no line."""
        self._write("".join([self._line(entry) for entry in _told(entries) if entry.path != "/"]))

    def end(self) -> None:
        """See :class:`Timeline`."""

    def _line(self, entry: Entry) -> str:
        letter, _ = code_of(entry, self._kind)
        times = entry.times
        modified, accessed, changed, created = (
            0 if when is None else when // _NS for when in times
        )
        mode = self._modes.get(entry.mode)
        if mode is None:
            mode = self._modes[entry.mode] = stat.filemode(entry.mode)[1:]
        name = self._prefix + entry.path
        if entry.target is not None:
            name = f"{name} -> {entry.target}"
        if not name.isprintable():
            name = _CONTROL.sub("^", shown(name))
        named = letter
        if entry.is_deleted and letter != "V":
            name = f"{name} (deleted-realloc)" if entry.is_allocated else f"{name} (deleted)"
            named = "-" if self._kind == "ntfs" else letter
        return (
            f"0|{name}|{entry.inode}|{named}/{letter}{mode}|{entry.owner}|{entry.group}|"
            f"{entry.size}|{accessed}|{modified}|{changed}|{created}\n"
        )


class Events:
    """CSV: one line for each moment of each file, by time; memory is bounded."""

    def __init__(self, write: Callable[[str], None], folder: Path | None) -> None:
        """What does not fit into memory waits in a nameless file in ``folder``."""
        self._write = write
        self._folder = folder
        self._lines: list[str] = []
        self._runs: list[IO[str]] = []
        self._volume = ""
        self._kind = ""
        self._moments = Moments()

    def begin(self, name: str, kind: str) -> None:
        """See :class:`Timeline`."""
        self._volume = name
        self._kind = kind

    def add(self, entries: Iterable[Entry]) -> None:
        """See :class:`Timeline`."""
        for entry in _told(entries):
            self._lines += self._of(entry)
        if len(self._lines) >= _SORTED_MAX:
            run = tempfile.TemporaryFile(  # noqa: SIM115 - it is read at the end
                "w+", encoding="utf-8", newline="\n", dir=self._folder
            )
            run.writelines(sorted(self._lines))
            self._runs.append(run)
            self._lines = []

    def end(self) -> None:
        """Write it all."""
        self._write(_COLUMNS)
        for run in self._runs:
            run.seek(0)
        part: list[str] = []
        for line in heapq.merge(*self._runs, sorted(self._lines)):
            part.append(line)
            if len(part) >= 1000:  # noqa: PLR2004 - lines that are written at once
                self._write("".join(part))
                part = []
        self._write("".join(part))
        for run in self._runs:
            run.close()

    def _of(self, entry: Entry) -> Iterator[str]:
        times = entry.times
        moments = (times.modified, times.accessed, times.changed, times.created)
        letter, _ = code_of(entry, self._kind)
        path = entry.path
        if not path.isprintable():
            path = _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", shown(path))
        if _QUOTED.search(path) is not None:
            path = '"' + path.replace('"', '""') + '"'
        facts = (
            f"{entry.size},{letter},{stat.filemode(entry.mode)[1:]},{entry.owner},{entry.group},"
            f"{entry.inode},{int(entry.is_deleted)},{self._volume},{path}\n"
        )
        for when in dict.fromkeys(moments):
            if when is not None:
                macb = "".join(
                    name if moment == when else "."
                    for name, moment in zip(_LETTERS, moments, strict=True)
                )
                yield f"{self._moments[when]},{macb},{facts}"


def _told(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Files, and behind those whose names have times of their own an entry for the name."""
    for entry in entries:
        yield entry
        if entry.named is not None and entry.path != "/":
            size = FileName.SIZE + len(entry.name.encode("utf-16-le", "surrogatepass"))
            path = f"{entry.path} ($FILE_NAME)"
            yield entry._replace(path=path, size=size, times=entry.named, target=None)
