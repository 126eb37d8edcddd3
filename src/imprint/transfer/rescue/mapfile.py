"""Map files in the syntax of GNU ddrescue: which parts of a medium were read.

Source: the GNU ddrescue manual, chapter "Mapfile structure".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.limits import DISK_SIZE_MAX
from imprint.transfer.rescue.states import Areas, State

if TYPE_CHECKING:
    from collections.abc import Iterable

BYTES_MAX: Final = 64 << 20
"""Of a map file: about two million areas. More were never seen, and would take GiB of memory."""

FINISHED: Final = "+"
MARKS: Final = (b"# Mapfile.", b"# Rescue Logfile.")
"""How map files begin; the second one until version 1.20 of ddrescue."""

_STATUSES: Final = "?*/-FG+"
_STATES: Final = {state.value: state for state in State}


@dataclass(frozen=True)
class Progress:
    """The status line: where a rescue is.

    Attributes:
        position: the byte that was read last.
        status: of the phase: ``?`` copying, ``*`` trimming, ``/`` scraping, ``-`` retrying,
            ``F`` filling, ``G`` generating, ``+`` finished.
        number: of the pass in that phase, from 1 on.
    """

    position: int = 0
    status: str = "?"
    number: int = 1


def render(areas: Iterable[tuple[int, int, State]], progress: Progress) -> str:
    """The text of a map file."""
    lines = [
        "# Mapfile. Created by imprint",
        "# current_pos  current_status  current_pass",
        f"0x{progress.position:08X}     {progress.status}               {progress.number}",
        "#      pos        size  status",
    ]
    lines += [f"0x{start:08X}  0x{length:08X}  {state.value}" for start, length, state in areas]
    return "\n".join(lines) + "\n"


def parse(text: str, *, name: str, size: int | None = None) -> tuple[Areas, Progress]:
    """Read a map file.

    Args:
        text: of the file.
        name: of the file, for errors.
        size: of the medium; what the map does not speak of was not tried. ``None``: it ends
            where the map ends.

    Raises:
        CorruptImageError: if it is no map file, or one of a larger medium.
    """
    progress: Progress | None = None
    runs: list[tuple[int, int, State]] = []
    end: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            if progress is None:
                progress = _progress(words)
                continue
            start, length, state = _run(words)
        except (ValueError, KeyError):
            raise CorruptImageError(
                f"line {number}: expected a line of a ddrescue map, found {line[:80]!r}", name=name
            ) from None
        if end is not None and start != end:
            raise CorruptImageError(
                f"line {number}: expected an area at 0x{end:X}, found 0x{start:X}", name=name
            )
        end = start + length
        runs.append((start, end, state))
    if progress is None:
        raise CorruptImageError("expected a ddrescue map, found no status line", name=name)
    last = end or 0
    if size is None:
        size = last
    if last > size or size > DISK_SIZE_MAX:
        raise CorruptImageError(
            f"expected the map of a disk of {size} bytes, found one of {last}", name=name
        )
    return _areas(size, runs), progress


def _areas(size: int, runs: list[tuple[int, int, State]]) -> Areas:
    areas = Areas(size)
    for start, end, state in runs:
        areas.set(start, end, state)
    return areas


def _progress(words: list[str]) -> Progress:
    position, status = words[:2]
    if status not in _STATUSES or len(words) > 3:  # noqa: PLR2004 - as the manual has it
        raise ValueError
    return Progress(_number(position), status, _number(words[2]) if words[2:] else 1)


def _run(words: list[str]) -> tuple[int, int, State]:
    position, size, state = words
    start, length = _number(position), _number(size)
    if not length:
        raise ValueError
    return start, length, _STATES[state]


def _number(text: str) -> int:
    """A number as in C: decimal, hexadecimal or octal; not negative."""
    base = 16 if text[:2] in ("0x", "0X") else 8 if text[:1] == "0" else 10
    value = int(text, base)
    if value < 0 or not text[:1].isdecimal():
        raise ValueError
    return value
