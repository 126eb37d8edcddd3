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
from collections import deque
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    ImagingError,
    NetworkError,
    ReadError,
    RepositoryError,
    UnsupportedFeatureError,
)
from imprint.core.units import MIB, align_down
from imprint.filesystems.in_file import in_file
from imprint.filesystems.isolated_messages import (
    ALIVE,
    ANSWER,
    BYTES,
    CONTENT,
    HEAD,
    KNOWN,
    KNOWN_BYTES,
    NOTHING,
    OFFSET,
    QUESTION,
    RANGE,
    READ,
    THERE,
)
from imprint.filesystems.isolated_system import PIPE_BYTES, waits_for_disk, widened

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Source
    from imprint.filesystems.in_file import InFile

SILENCE_MAX_S: Final = 60
"""Without a word of the library."""

FAILURES: Final[dict[str, type[ImagingError]]] = {
    "corrupt": CorruptImageError,
    "read": ReadError,
    "unsupported": UnsupportedFeatureError,
}

_MESSAGE_MAX: Final = 256 * MIB
_READ_MAX: Final = 64 * MIB
_UNREADABLE: Final = (FormatError, NetworkError, ReadError, RepositoryError)
_CRASHED: Final = "the library has crashed"
_AHEAD_MAX: Final = 16
_AHEAD_BYTES_MAX: Final = 64 * MIB
_SENT_MAX: Final = 4
"""Answers that wait for who asks for them, and questions that wait in the process."""

_START: Final = """\
import sys
sys.path[:] = {path!r}
from imprint.filesystems.isolated_worker import main
main({module!r}, {arguments!r})
"""


class _Answer(NamedTuple):
    """What the worker says, and why it could not read the volume, if that was the last it did."""

    kind: bytes
    data: bytes
    failure: str


class Isolated:
    """A library over a volume. May be asked by any thread; questions have their turns."""

    def __init__(
        self,
        volume: Source,
        module: str,
        *arguments: int | str,
        library: str,
        size: int | None = None,
    ) -> None:
        """Start the process, which ends with this object.

        Args:
            volume: that the library may read; reads are in a thread of their own.
            module: below ``imprint.filesystems``: what the process runs; has a function
                ``opened(pipe, size, *arguments)`` that gives its answers by question.
            arguments: for that.
            library: name of the Python module that has to be there.
            size: what the process takes for the volume's, in bytes; ``None``: its own.

        Raises:
            UnsupportedFeatureError: if it is missing.
        """
        if importlib.util.find_spec(library) is None:
            raise UnsupportedFeatureError(
                f"listing its files needs the Python module {library}",
                name=volume.name,
                advice="pip install 'imprint[browse]' brings it",
            )
        self._name = volume.name
        self.failure = ""
        """Why the volume could not be read, if that was the last that happened to a question."""
        told = volume.size if size is None else size
        start = _START.format(path=sys.path, module=module, arguments=(int(told), *arguments))
        there = in_file(volume)
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-c", start],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=() if there is None else (there.fd,),
        )
        widened(self.process.stdout)
        self._talk = _Talk(volume, self.process, there, is_wide=widened(self.process.stdin))
        self._ahead: dict[bytes, _Question] = {}
        # Rubbish may be collected by whoever holds what a read of the volume waits for.
        self._end = weakref.finalize(self, self._talk.end)

    def close(self) -> None:
        """End the process, and no longer read the volume. Calling again changes nothing."""
        self._end()
        self._talk.join()

    def ask(self, *question: object) -> Any:  # noqa: ANN401 - parsed JSON, or bytes
        """The answer to a question: its name and arguments, as JSON has them.

        Raises:
            CorruptImageError: if the library makes nothing of it, crashes, or does not come to an
                end; in the latter cases it answers nothing any more.
            ReadError: if what it needs cannot be read.
            UnsupportedFeatureError: if it says that it cannot.
        """
        message = json.dumps(question).encode()
        answer = (self._ahead.pop(message, None) or self._talk.ask(message)).answer()
        self.failure = answer.failure
        if answer.kind == CONTENT:
            return answer.data
        try:
            told = json.loads(answer.data)
            if answer.kind == ANSWER:
                return told
            what, why = told
        except (ValueError, RecursionError):
            raise CorruptImageError(self._talk.lose(_CRASHED), name=self._name) from None
        if what == "read" and answer.failure:
            why = answer.failure
        raise FAILURES.get(what, CorruptImageError)(str(why), name=self._name)

    def ask_ahead(self, *question: object, reads: int | None = None) -> None:
        """Let the library find the answer to a question that will be asked soon, meanwhile.

        ``reads``: a place of the volume that it will want to read, in bytes.
        """
        message = json.dumps(question).encode()
        if message in self._ahead:
            return
        held = sum(question_.size for question_ in self._ahead.values())
        while self._ahead and (len(self._ahead) >= _AHEAD_MAX or held > _AHEAD_BYTES_MAX):
            held -= self._ahead.pop(next(iter(self._ahead))).size  # nobody has asked for the oldest
        self._ahead[message] = self._talk.ask(message, reads)

    def forget(self) -> None:
        """Ask again whatever was asked ahead: its answers will be others."""
        self._ahead.clear()


class _Question:
    """A question on its way."""

    def __init__(self, message: bytes, reads: int | None) -> None:
        self.message = message
        self.reads = reads
        self.size = 0
        """Of the answer, in bytes, once it is there."""
        self._answers: SimpleQueue[_Answer | BaseException] = SimpleQueue()

    def take(self, answer: _Answer | BaseException) -> None:
        """What has come of it."""
        self.size = len(answer.data) if isinstance(answer, _Answer) else 0
        self._answers.put(answer)

    def answer(self) -> _Answer:
        """Wait for it; only once."""
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer


class _Talk:
    """All that is said to the process, and by it, in a thread.

    Questions are sent before the ones in front of them are answered, so that the library never
    waits for us while there is something to do.
    """

    def __init__(
        self,
        volume: Source,
        process: subprocess.Popen[bytes],
        there: InFile | None,
        *,
        is_wide: bool,
    ) -> None:
        """The first is said.

        Args:
            volume: what it is about.
            process: who is talked to.
            there: what of the volume it reads by itself.
            is_wide: what all questions on their way want to read can wait in the pipe. Otherwise
                both sides might wait for each other to read on.
        """
        self._volume = volume
        self._there = there
        self._sends_ahead = is_wide and there is None
        self._process = process
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._sent: deque[_Question] = deque()
        self._lock = threading.Lock()
        self._is_closed = False
        self._lost = ""
        self._unread = ""
        self._taken = bytearray()
        self._bad: set[int] = set()
        # A daemon: a program that ends must not wait for an answer that nobody wants.
        self._thread = threading.Thread(target=self._serve, name="ask", daemon=True)
        self._thread.start()

    def ask(self, message: bytes, reads: int | None = None) -> _Question:
        """Put a question behind those that were asked."""
        question = _Question(message, reads)
        with self._lock:
            if self._is_closed:
                question.take(self._loss())
            else:
                self._questions.put(question)
        return question

    def lose(self, why: str) -> str:
        """End the process, which answers nothing any more; why, the first time that happened."""
        self._lost = self._lost or why
        self._process.kill()
        return self._lost

    def end(self) -> None:
        """Begin to end it all, when nobody asks any more."""
        self.lose("its files are closed")
        with self._lock:
            self._is_closed = True
            self._questions.put(None)

    def join(self) -> None:
        """Wait until it has ended, after which the volume is not read."""
        self._thread.join()

    def _serve(self) -> None:
        if self._there is not None:
            self._attempt(partial(self._send, THERE, self._there.packed()))
        while True:
            may_send = len(self._sent) < _SENT_MAX and not self._questions.empty()
            if self._sent and not may_send:
                self._attempt(self._hear)
                continue
            question = self._questions.get()
            if question is None:
                break
            self._sent.append(question)
            self._attempt(partial(self._put, question))
        self._fail()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _attempt(self, step: Callable[[], None]) -> None:
        """Go on with the talk, which any failure ends."""
        try:
            if not self._lost:
                step()
        except TimeoutError:
            self.lose(f"the library did not come to an end in {SILENCE_MAX_S} s")
        except (OSError, EOFError, struct.error):
            self.lose(_CRASHED)
        except BaseException as error:  # noqa: BLE001 - it is raised again, by who has asked
            # In the middle of a talk: what it is told next would be taken for an answer.
            self.lose("its files were closed, since a question was not answered to the end")
            self._sent.popleft().take(error)
        if self._lost:
            self._fail()

    def _fail(self) -> None:
        """There are no answers any more."""
        while self._sent:
            self._sent.popleft().take(self._loss())

    def _loss(self) -> CorruptImageError:
        return CorruptImageError(self._lost, name=self._volume.name)

    def _put(self, question: _Question) -> None:
        """Send a question, and before it what it will want to read."""
        start = -1 if question.reads is None else align_down(question.reads, KNOWN_BYTES // 2)
        if self._sends_ahead and start >= 0 and start not in self._bad:
            data = bytearray(max(0, min(KNOWN_BYTES, self._volume.size - start)))
            self._bad.add(start)  # unless it can be read: a disk takes seconds to say that
            with contextlib.suppress(*_UNREADABLE):  # told when it is asked for
                self._volume.readinto(memoryview(data), start)
                self._bad.remove(start)
                self._send(KNOWN, OFFSET.pack(start) + data)
        self._send(QUESTION, question.message)

    def _hear(self) -> None:
        """Give the process what it asks for, until it has an answer."""
        while True:
            kind, length = HEAD.unpack(self._exactly(HEAD.size))
            if length > _MESSAGE_MAX:
                raise EOFError
            data = self._exactly(length)
            if kind == READ:
                self._give(*RANGE.unpack(data))
            elif kind != ALIVE:
                break
        failure, self._unread = self._unread, ""
        self._sent.popleft().take(_Answer(kind, data, failure))

    def _give(self, offset: int, length: int) -> None:
        """Send bytes of the volume."""
        volume = self._volume
        buffer = bytearray(max(0, min(length, volume.size - offset, _READ_MAX)))
        try:
            volume.readinto(memoryview(buffer), offset)
        except _UNREADABLE as failure:
            self._unread = str(failure.args[0])
            self._send(BYTES, None)
            return
        self._unread = ""
        self._send(BYTES, buffer)

    def _send(self, kind: bytes, data: bytes | bytearray | None) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        head = HEAD.pack(kind, NOTHING if data is None else len(data))
        body = data or b""
        sent = os.writev(pipe.fileno(), (head, body))
        for part in (head[sent:], memoryview(body)[max(0, sent - len(head)) :]):
            left = memoryview(part)
            while left:
                left = left[os.write(pipe.fileno(), left) :]

    def _exactly(self, length: int) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        poll = select.poll()  # select.select() knows no more than 1024 open files
        poll.register(pipe, select.POLLIN)
        while len(self._taken) < length:
            if not poll.poll(SILENCE_MAX_S * 1000):
                if self._there is not None and waits_for_disk(self._process.pid):
                    continue
                raise TimeoutError
            part = os.read(pipe.fileno(), PIPE_BYTES)
            if not part:
                raise EOFError
            self._taken += part
        found = bytes(self._taken[:length])
        del self._taken[:length]
        return found
