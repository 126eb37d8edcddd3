"""Reading a medium that may not answer: in a thread that can be left behind."""

from __future__ import annotations

import errno
import mmap
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError

if TYPE_CHECKING:
    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Source

LOST_MAX: Final = 8
"""Reads that may hang at the same time: then it is not this area that does not answer."""

_LOOK_S: Final = 0.2
"""Between two looks at the cancel token while a read takes its time."""

_GONE: Final = frozenset(
    {
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        getattr(errno, "ENOMEDIUM", errno.ENODEV),
    }
)
"""What the system says of a medium that is not there any more."""


class VanishedError(ReadError):
    """The medium is gone: no read tells anything about its sectors."""


class TimedReader:
    """Reads a source with one thread that is replaced when it hangs. For one caller.

    Attributes:
        seconds: that the last read took.
    """

    def __init__(
        self,
        source: Source,
        *,
        bytes_max: int,
        timeout_s: float | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        """Read pieces of at most ``bytes_max``, waiting ``timeout_s`` for each; ``None``: ever."""
        self._source = source
        self._bytes_max = bytes_max
        self._timeout_s = timeout_s
        self._cancel = cancel
        self._lane: _Lane | None = None
        self._lost: list[_Lane] = []
        self.seconds = 0.0

    def read(self, offset: int, length: int) -> memoryview:
        """The bytes of a range; they are there until the next read.

        Raises:
            VanishedError: if the medium is gone, or too many reads do not come back.
            ReadError: if it cannot be read, or not in time.
            Cancelled: if the stop was asked for while it was waited.
        """
        assert length <= self._bytes_max
        lane = self._lane
        if lane is None:
            lane = self._lane = _Lane(self._source, self._bytes_max)
        began = time.monotonic()
        lane.ask(offset, length)
        while True:
            error = lane.answer(self._patience(began))
            self.seconds = time.monotonic() - began
            if error is None:
                return lane.buffer[:length]
            if not isinstance(error, Empty):
                if isinstance(error, ReadError) and is_gone(error):
                    raise VanishedError(str(error.args[0]), name=error.name) from error
                raise error
            if self._cancel is not None and self._cancel.is_cancelled:
                self._leave(lane)
                self._cancel.check()
            if self._timeout_s is not None and self.seconds >= self._timeout_s:
                self._leave(lane)
                raise self._late(offset, length)

    def close(self) -> None:
        """Let the thread end when it has nothing to read any more."""
        if self._lane is not None:
            self._lane.dismiss()
            self._lane = None

    def _patience(self, began: float) -> float:
        if self._timeout_s is None:
            return _LOOK_S
        left = began + self._timeout_s - time.monotonic()
        return max(0.0, min(_LOOK_S, left))

    def _leave(self, lane: _Lane) -> None:
        lane.dismiss()
        self._lane = None
        self._lost = [item for item in (*self._lost, lane) if item.is_alive]

    def _late(self, offset: int, length: int) -> ReadError:
        name = self._source.name
        what = f"no answer in {self._timeout_s:g} s"
        if len(self._lost) > LOST_MAX:
            return VanishedError(f"{len(self._lost)} reads did not come back: {what}", name=name)
        return ReadError(
            f"cannot read at 0x{offset:x}: {what}", name=name, offset=offset, length=length
        )


class _Lane:
    """A thread with a buffer of its own: what hangs may still write into it, much later.

    It is a daemon, so that the program can end while it hangs.
    """

    def __init__(self, source: Source, bytes_max: int) -> None:
        self.buffer = memoryview(mmap.mmap(-1, bytes_max))
        self._source = source
        self._asked: SimpleQueue[tuple[int, int] | None] = SimpleQueue()
        self._answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="rescue", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def ask(self, offset: int, length: int) -> None:
        self._asked.put((offset, length))

    def answer(self, timeout_s: float) -> BaseException | None:
        """What the read came to; ``Empty`` if it has come to nothing yet."""
        try:
            return self._answers.get(timeout=timeout_s)
        except Empty as nothing:
            return nothing

    def dismiss(self) -> None:
        self._asked.put(None)

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            offset, length = asked
            try:
                self._source.readinto(self.buffer[:length], offset)
            except BaseException as error:  # noqa: BLE001 - it is raised again by who asked
                self._answers.put(error)
            else:
                self._answers.put(None)


def is_gone(error: ReadError) -> bool:
    """Whether the system says that the medium is not there any more."""
    cause = error.__cause__
    return isinstance(error, VanishedError) or (isinstance(cause, OSError) and cause.errno in _GONE)
