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
from collections import deque
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from imprint.core.system import collecting_rarely
from imprint.core.units import GIB, KIB
from imprint.filesystems.in_file import unpacked
from imprint.filesystems.isolated_messages import (
    ALIVE,
    ANSWER,
    BYTES,
    CONTENT,
    FAILED,
    HEAD,
    KNOWN,
    NOTHING,
    OFFSET,
    RANGE,
    READ,
    THERE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.filesystems.in_file import InFile

    Answers = dict[str, Callable[..., Any]]

MEMORY_MAX: Final = 2 * GIB
"""Of the process."""

CPU_MAX_S: Final = 900
"""Of the process: a file system of a hundred million names."""

PIECE_BYTES: Final = 64 * KIB
PIECES_MAX: Final = 1024
"""What is kept of a volume: 64 MiB, the inodes of a quarter of a million files."""

_GOT_BYTES: Final = 16 * PIECE_BYTES
_AHEAD_BYTES: Final = 3 * PIECE_BYTES
"""What is asked for at once at most, and what of that nobody needs yet."""

_ALIVE_S: Final = 1
"""Between two words of a process that reads by itself."""

_SAID_CHARS: Final = 200
_ENCODE: Final = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


class Refusal(Exception):  # noqa: N818 - an answer
    """What cannot be answered: one of ``isolated.FAILURES``, and why."""


class Pipe:
    """Messages, both ways."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self.there: InFile | None = None
        """What of the volume can be read without asking for it."""
        self._questions: deque[bytes] = deque()
        self.on_known: Callable[[int, bytes], object] = lambda _offset, _data: None
        """Given bytes of the volume that are going to be wanted, and where they lie."""
        self.alive_at = 0.0
        """When it is said again that there is progress, at the earliest."""
        self.read_failed = False
        """Whether the volume could not be read the last time that this question wanted it."""

    def send(self, kind: bytes, data: bytes) -> None:
        """One message."""
        self._sink.write(HEAD.pack(kind, len(data)) + data)
        self._sink.flush()

    def alive(self) -> None:
        """Say that there is progress, now and then: much that is read by itself takes long."""
        now = time.monotonic()
        if now >= self.alive_at:
            self.alive_at = now + _ALIVE_S
            self.send(ALIVE, b"")

    def read(self, offset: int, length: int) -> bytes | None:
        """Bytes of the volume; ``None`` if they cannot be read."""
        self.send(READ, RANGE.pack(offset, length))
        while True:
            kind, found = self._message()
            if kind == BYTES:
                break
            if found is not None:
                self._questions.append(found)
        self.read_failed = found is None
        return found

    def question(self) -> bytes:
        """The next one.

        Raises:
            EOFError: if there is nobody any more.
        """
        if self._questions:
            return self._questions.popleft()
        _, found = self._message()
        assert found is not None
        return found

    def _message(self) -> tuple[bytes, bytes | None]:
        """A question, or bytes; ``None`` if there are none to be had."""
        while True:
            head = self._source.read(HEAD.size)
            if len(head) < HEAD.size:
                raise EOFError
            kind, length = HEAD.unpack(head)
            if length == NOTHING:
                return kind, None
            data = self._source.read(length)
            if kind == THERE:
                self.there = unpacked(data)
            elif kind == KNOWN:
                self.on_known(OFFSET.unpack_from(data)[0], data[OFFSET.size :])
            else:
                return kind, data

    def note(self, failure: Exception) -> list[object]:
        """What could not be followed: why, and whether that is since it could not be read."""
        return [said(failure), self.read_failed]


class Kept:
    """The volume, of which what was asked for last is kept: inodes of a folder lie anywhere."""

    def __init__(self, pipe: Pipe, size: int) -> None:
        self._pipe = pipe
        self._size = size
        self._pieces: dict[int, bytes] = {}
        self._bad: set[int] = set()
        """Pieces that cannot be read whole: a disk takes seconds to say so each time."""
        self._lately: set[int] = set()
        """Pieces that were read in the file itself."""
        pipe.on_known = self._keep

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the volume, fewer at its end; nothing if they cannot be read."""
        end = max(offset, min(offset + length, self._size))
        there = self._pipe.there
        if there is not None and (told := there.read(offset, end - offset)) is not None:
            self._pipe.read_failed = False
            self._progress(offset - offset % PIECE_BYTES)
            return told
        start = offset - offset % PIECE_BYTES
        if end <= start + PIECE_BYTES and (piece := self._pieces.get(start)) is not None:
            return piece[offset - start : end - start]
        found = bytearray()
        position = offset
        while position < end:
            start = position - position % PIECE_BYTES
            piece = self._piece(start, end)
            if piece is None:  # what is asked for may be readable, although not all beside it
                return self._pipe.read(offset, end - offset) or b""
            part = piece[position - start : end - start]
            found += part
            position += len(part)
        return bytes(found)

    def _progress(self, start: int) -> None:
        """Say so if a piece was not read lately: a library may turn in circles for ever."""
        if start not in self._lately:
            if len(self._lately) >= PIECES_MAX:
                self._lately.clear()
            self._lately.add(start)
            self._pipe.alive()

    def _piece(self, start: int, end: int) -> bytes | None:
        """The piece at ``start``; those behind it up to ``end`` are got along with it."""
        if start in self._bad:
            return None
        piece = self._pieces.pop(start, None)
        if piece is None:
            self._get(start, end)
            return self._pieces.get(start)
        self._pieces[start] = piece
        return piece

    def _get(self, start: int, end: int) -> None:
        """Ask for pieces that are not kept, as many as lie side by side."""
        stop = start + PIECE_BYTES
        while stop < min(end, start + _GOT_BYTES) and stop not in self._pieces:
            stop += PIECE_BYTES
        ahead = stop
        if start - PIECE_BYTES in self._pieces:  # a table, read from its beginning
            ahead += _AHEAD_BYTES
        got = None
        for until in dict.fromkeys(
            min(at, self._size) for at in (ahead, stop, start + PIECE_BYTES)
        ):
            got = self._pipe.read(start, until - start)
            if got is not None:
                break
        else:
            self._bad.add(start)
        self._keep(start, got or b"")

    def _keep(self, start: int, data: bytes) -> None:
        for at in range(0, len(data), PIECE_BYTES):
            if len(self._pieces) >= PIECES_MAX:
                del self._pieces[next(iter(self._pieces))]
            self._pieces[start + at] = data[at : at + PIECE_BYTES]


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
    with collecting_rarely(), contextlib.suppress(EOFError):
        answers: Answers = {}
        while True:
            name, *rest = json.loads(pipe.question())
            pipe.read_failed = False
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
