"""A library in a process of its own, which is asked by messages.

Libraries in C were made for evidence, and have faults all the same: if an image makes one crash,
or calculate without end, that process ends, and the question has an error for an answer.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import struct
import subprocess
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    ImagingError,
    NetworkError,
    ReadError,
    RepositoryError,
    UnsupportedFeatureError,
)
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from imprint.core.contracts import Source

SILENCE_MAX_S: Final = 60
"""Without a word of the library."""

HEAD: Final = struct.Struct("<cI")
"""Of a message of the worker: what it is, and the length of what follows."""

READ: Final = b"r"
"""The worker wants bytes of the volume: :data:`RANGE`."""
ANSWER: Final = b"a"
"""JSON."""
CONTENT: Final = b"c"
"""Bytes of a file."""
FAILED: Final = b"f"
"""JSON: one of :data:`FAILURES`, and why."""

RANGE: Final = struct.Struct("<QI")
LENGTH: Final = struct.Struct("<I")
"""Before what the worker is sent: JSON of a question, or bytes that it wants."""
NOTHING: Final = 0xFFFFFFFF
"""In place of a length: they could not be read."""

FAILURES: Final[dict[str, type[ImagingError]]] = {
    "corrupt": CorruptImageError,
    "read": ReadError,
    "unsupported": UnsupportedFeatureError,
}

_MESSAGE_MAX: Final = 256 * MIB
_READ_MAX: Final = 64 * MIB
_PIPE_BYTES: Final = MIB
_START: Final = """\
import sys
sys.path[:] = {path!r}
from imprint.filesystems.isolated_worker import main
main({module!r}, {arguments!r})
"""


class _AnsweredError(Exception):
    """The answer to a question, which is an error."""

    def __init__(self, error: ImagingError) -> None:
        super().__init__()
        self.error = error


class Isolated:
    """A library over a volume. May be asked by any thread; one question has its turn at a time."""

    def __init__(self, volume: Source, module: str, *arguments: int | str, library: str) -> None:
        """Start the process, which ends with this object.

        Args:
            volume: that the library may read; reads are in the thread that asks.
            module: below ``imprint.filesystems``: what the process runs; has a function
                ``opened(pipe, size, *arguments)`` that gives its answers by question.
            arguments: for that.
            library: name of the Python module that has to be there.

        Raises:
            UnsupportedFeatureError: if it is missing.
        """
        if importlib.util.find_spec(library) is None:
            raise UnsupportedFeatureError(
                f"listing its files needs the Python module {library}",
                name=volume.name,
                advice="pip install 'imprint[browse]' brings it",
            )
        self._volume = volume
        self._failure = ""
        self._lock = threading.Lock()
        self._lost = ""
        self._taken = bytearray()
        start = _START.format(
            path=sys.path, module=module, arguments=(int(volume.size), *arguments)
        )
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-c", start],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _widen(self.process.stdin)
        _widen(self.process.stdout)
        self.close = weakref.finalize(self, _end, self.process)
        """Ends the process; it is called by itself when nobody needs this any more."""

    def ask(self, *question: object) -> Any:  # noqa: ANN401 - parsed JSON, or bytes
        """The answer to a question: its name and arguments, as JSON has them.

        Raises:
            CorruptImageError: if the library makes nothing of it, crashes, or does not come to an
                end; in the latter cases it answers nothing any more.
            ReadError: if what it needs cannot be read.
            UnsupportedFeatureError: if it says that it cannot.
        """
        with self._lock:
            if not self.close.alive:
                raise self._error(CorruptImageError, self._lost or "its files are closed")
            self._failure = ""
            try:
                return self._asked(json.dumps(question).encode())
            except TimeoutError:
                self._lost = f"the library did not come to an end in {SILENCE_MAX_S} s"
            except (OSError, EOFError, ValueError, RecursionError, struct.error):
                self._lost = "the library has crashed"
            except _AnsweredError as answer:
                raise answer.error from None
            except BaseException:
                # In the middle of a talk: what it is told next would be taken for an answer.
                self._lost = "its files were closed, since a question was not answered to the end"
                self.close()
                raise
            self.close()
            raise self._error(CorruptImageError, self._lost)

    @property
    def failure(self) -> str:
        """Why the volume could not be read, if that was the last that happened to a question."""
        return self._failure

    def _asked(self, question: bytes) -> Any:  # noqa: ANN401 - parsed JSON, or bytes
        self._send(question)
        while True:
            kind, length = HEAD.unpack(self._exactly(HEAD.size))
            if length > _MESSAGE_MAX:
                raise EOFError
            data = self._exactly(length)
            if kind == READ:
                self._answer(*RANGE.unpack(data))
            elif kind == CONTENT:
                return data
            elif kind == ANSWER:
                return json.loads(data)
            else:
                what, why = json.loads(data)
                if what == "read" and self._failure:
                    why = self._failure
                raise _AnsweredError(self._error(FAILURES.get(what, CorruptImageError), str(why)))

    def _answer(self, offset: int, length: int) -> None:
        volume = self._volume
        buffer = bytearray(max(0, min(length, volume.size - offset, _READ_MAX)))
        try:
            volume.readinto(memoryview(buffer), offset)
        except (FormatError, NetworkError, ReadError, RepositoryError) as failure:
            self._failure = str(failure.args[0])
            self._send(None)
            return
        self._failure = ""
        self._send(buffer)

    def _send(self, data: bytes | bytearray | None) -> None:
        pipe = self.process.stdin
        assert pipe is not None
        message = LENGTH.pack(NOTHING) if data is None else LENGTH.pack(len(data)) + data
        left = memoryview(message)
        while left:
            left = left[os.write(pipe.fileno(), left) :]

    def _exactly(self, length: int) -> bytes:
        pipe = self.process.stdout
        assert pipe is not None
        while len(self._taken) < length:
            if not select.select([pipe], [], [], SILENCE_MAX_S)[0]:
                raise TimeoutError
            part = os.read(pipe.fileno(), _PIPE_BYTES)
            if not part:
                raise EOFError
            self._taken += part
        found = bytes(self._taken[:length])
        del self._taken[:length]
        return found

    def _error(self, kind: type[ImagingError], why: str) -> ImagingError:
        return kind(why, name=self._volume.name)


def _widen(pipe: IO[bytes] | None) -> None:
    """Let as much through at once as the system allows."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        assert pipe is not None
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def told_pairs(flat: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Pairs of numbers, which are told one behind the other."""
    numbers = iter(flat)
    return tuple(zip(numbers, numbers, strict=True))
