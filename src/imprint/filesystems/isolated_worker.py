"""What runs in a process of its own; see :mod:`imprint.filesystems.isolated`.

Questions come by standard input, and answers go to standard output.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from imprint.core.system import collect_rarely
from imprint.core.units import GIB, KIB
from imprint.filesystems.isolated import (
    ANSWER,
    CONTENT,
    FAILED,
    HEAD,
    LENGTH,
    NOTHING,
    RANGE,
    READ,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Answers = dict[str, Callable[..., Any]]

MEMORY_MAX: Final = 2 * GIB
"""Of the process."""

CPU_MAX_S: Final = 900
"""Of the process: a file system of a hundred million names."""

PIECE_BYTES: Final = 64 * KIB
PIECES_MAX: Final = 1024
"""What is kept of a volume: 64 MiB, the inodes of a quarter of a million files."""

_SAID_CHARS: Final = 200
_ENCODE: Final = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


class Refusal(Exception):  # noqa: N818 - an answer
    """What cannot be answered: one of ``isolated.FAILURES``, and why."""


class Pipe:
    """Messages, both ways."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self.read_failed = False
        """Whether the volume could not be read the last time."""

    def send(self, kind: bytes, data: bytes) -> None:
        """One message."""
        self._sink.write(HEAD.pack(kind, len(data)) + data)
        self._sink.flush()

    def read(self, offset: int, length: int) -> bytes | None:
        """Bytes of the volume; ``None`` if they cannot be read."""
        self.send(READ, RANGE.pack(offset, length))
        found = self.take()
        self.read_failed = found is None
        return found

    def take(self) -> bytes | None:
        """The next message; ``None`` for a failure.

        Raises:
            EOFError: if there is nobody any more.
        """
        head = self._source.read(LENGTH.size)
        if len(head) < LENGTH.size:
            raise EOFError
        (length,) = LENGTH.unpack(head)
        return None if length == NOTHING else self._source.read(length)

    def note(self, failure: Exception) -> list[object]:
        """What could not be followed: why, and whether that is since it could not be read."""
        return [said(failure), self.read_failed]


class Kept:
    """The volume, of which what was read last is kept: inodes of a folder lie anywhere."""

    def __init__(self, pipe: Pipe, size: int) -> None:
        self._pipe = pipe
        self._size = size
        self._pieces: dict[int, bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the volume, fewer at its end; nothing if they cannot be read."""
        end = max(offset, min(offset + length, self._size))
        start = offset - offset % PIECE_BYTES
        if end <= start + PIECE_BYTES and (piece := self._pieces.get(start)) is not None:
            return piece[offset - start : end - start]
        found = bytearray()
        position = offset
        while position < end:
            start = position - position % PIECE_BYTES
            piece = self._piece(start)
            if piece is None:  # what is asked for may be readable, although not all beside it
                return self._pipe.read(offset, end - offset) or b""
            part = piece[position - start : end - start]
            found += part
            position += len(part)
        return bytes(found)

    def _piece(self, start: int) -> bytes | None:
        piece = self._pieces.pop(start, None)
        if piece is None:
            piece = self._pipe.read(start, min(PIECE_BYTES, self._size - start))
            if not piece:
                return None
            if len(self._pieces) >= PIECES_MAX:
                del self._pieces[next(iter(self._pieces))]
        self._pieces[start] = piece
        return piece


def said(failure: Exception) -> str:
    """What a library says, without its own function names."""
    text = " ".join(str(failure).split())
    inner = re.search(r"\(\w+: ([^()]+)\)$", text)
    if "error: " in text:
        text = text.rpartition("error: ")[2]
    elif inner is not None:
        text = inner[1]
    elif ". lib" in text:  # libyal tells a chain of its functions
        text = text.split(". lib")[0].rpartition(": ")[2]
    return text[:_SAID_CHARS] or "it is damaged"


def main(module: str, arguments: tuple[Any, ...]) -> None:
    """Serve until nobody asks any more; what is asked first has to wait until all is open."""
    pipe = Pipe(sys.stdin.buffer, sys.stdout.buffer)
    _bound()
    collect_rarely()
    with contextlib.suppress(EOFError):
        answers: Answers = {}
        while True:
            question = pipe.take()
            assert question is not None
            name, *rest = json.loads(question)
            try:
                if not answers:
                    made = importlib.import_module(f"imprint.filesystems.{module}")
                    answers = made.opened(pipe, *arguments)
                answer = answers[name](*rest)
            except Refusal as failure:
                pipe.send(FAILED, json.dumps(failure.args).encode())
            except (OSError, RuntimeError, OverflowError) as failure:
                what = "read" if pipe.read_failed else "corrupt"
                pipe.send(FAILED, json.dumps([what, said(failure)]).encode())
            else:
                if isinstance(answer, bytes):
                    pipe.send(CONTENT, answer)
                else:
                    pipe.send(ANSWER, _ENCODE(answer).encode())


def _bound() -> None:
    """Take no more memory and time than any sound file system needs; local time is UTC."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_MAX_S, CPU_MAX_S))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.putenv("TZ", "UTC0")
    with contextlib.suppress(AttributeError):
        time.tzset()
