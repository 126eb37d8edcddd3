"""Kept inputs as text: disk images are mostly zeros, and a diff should show the rest.

::

    # how it came about
    size 4194304
    00000000  76686478 66696c65
    00010000  00*4096 ff*16

Each line gives bytes at an offset: hexadecimal digits, or a byte times a count. What no line
gives is zero.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imprint.core.contracts import Source

SUFFIX: Final = ".hex"
_LINE_BYTES: Final = 32
_RUN_MIN: Final = 12  # shorter runs are as short when written out
_RUNS: Final = re.compile(rb"(.)\1{%d,}" % (_RUN_MIN - 1), re.DOTALL)


def load(text: str) -> bytes:
    """The input that ``text`` stands for."""
    content = bytearray()
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] == "size":
            content = bytearray(int(words[1]))
            continue
        at = int(words[0], 16)
        for word in words[1:]:
            digits, star, count = word.partition("*")
            piece = bytes.fromhex(digits) * (int(count) if star else 1)
            content[at : at + len(piece)] = piece
            at += len(piece)
    return bytes(content)


def dump(content: bytes, comment: str) -> str:
    """The text that stands for ``content``; ``comment`` says in a line where it came from."""
    lines = [f"# {comment}", f"size {len(content)}"]
    line: list[str] = []
    start, end = 0, 0
    for at, piece in _pieces(content):
        if line and (at != end or end - start >= _LINE_BYTES):
            lines.append(f"{start:08x}  {' '.join(line)}")
            line = []
        if not line:
            start = at
        is_run = len(piece) >= _RUN_MIN and piece.count(piece[0]) == len(piece)
        line.append(f"{piece[0]:02x}*{len(piece)}" if is_run else piece.hex())
        end = at + len(piece)
    if line:
        lines.append(f"{start:08x}  {' '.join(line)}")
    return "\n".join(lines) + "\n"


def load_folder(folder: Path) -> dict[str, bytes]:
    """All inputs that are kept in a folder, by their name, in the names' order."""
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    return {path.stem: load(path.read_text(encoding="ascii")) for path in paths}


def keep_read(content: bytes, parse: Callable[[Source], object]) -> bytes:
    """``content`` with zeros wherever ``parse`` does not look: a smaller seed that does the same.

    Cut off behind the last byte that was looked at.
    """
    storage = _Watching(content)
    parse(storage)
    kept = bytearray(max((end for _, end in storage.ranges), default=0))
    for start, end in storage.ranges:
        kept[start:end] = content[start:end]
    return bytes(kept)


class _Watching(MemoryStorage):
    """Remembers which ranges were read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content, writable=False)
        self.ranges: list[tuple[int, int]] = []

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Read and remember."""
        super().readinto(buffer, offset)
        self.ranges.append((offset, offset + len(buffer)))


def _pieces(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Runs of one byte, and what is between them; runs of zeros left out."""
    position = 0
    for run in _RUNS.finditer(content):
        yield from _lines(content, position, run.start())
        if content[run.start()]:
            yield run.start(), run.group()
        position = run.end()
    yield from _lines(content, position, len(content))


def _lines(content: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    for at in range(start, end, _LINE_BYTES):
        yield at, content[at : min(at + _LINE_BYTES, end)]
