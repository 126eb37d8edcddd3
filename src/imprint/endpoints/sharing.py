"""What the threads of one capture into several targets tell each other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from imprint.core.cancel import CancelToken
from imprint.core.errors import Cancelled
from imprint.transfer.hashing import HashSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ANOTHER_FAILED: Final = "stopped, since another target has failed"


class Stop(CancelToken):
    """Set if all that was asked for is to stop, or because of a target."""

    def __init__(self, outer: CancelToken | None) -> None:
        super().__init__()
        self._outer = outer

    @property
    def is_from_outside(self) -> bool:
        """Whether the user has asked for it."""
        return self._outer is not None and self._outer.is_cancelled

    @property
    def is_cancelled(self) -> bool:
        """Whether anybody has."""
        return self.is_from_outside or super().is_cancelled

    def check(self) -> None:
        """Raise if so.

        Raises:
            Cancelled: if so.
        """
        if self.is_from_outside:
            raise Cancelled("interrupted")
        if super().is_cancelled:
            raise Cancelled(_ANOTHER_FAILED)


class Taken:
    """Digests that come some time, or an error."""

    def __init__(self) -> None:
        self._there = threading.Event()
        self._digests: dict[str, str] = {}
        self._error: BaseException | None = None

    def give(self, digests: dict[str, str]) -> None:
        """They are there."""
        self._digests = digests
        self._there.set()

    def fail(self, error: BaseException) -> None:
        """They will not come."""
        self._error = error
        self._there.set()

    def wait(self) -> dict[str, str]:
        """Wait for them.

        Raises:
            Cancelled: if they do not come.
        """
        self._there.wait()
        if isinstance(self._error, Cancelled):
            raise Cancelled(str(self._error.args[0])) from self._error
        if self._error is not None:
            raise Cancelled("stopped, since the source could not be hashed") from self._error
        return self._digests


class Elsewhere(HashSet):
    """Hashes that another thread takes of the same disk.

    They are asked for when all is written but not visible yet: that is where targets of which
    none shall appear without the others wait for each other, at ``gate``.
    """

    def __init__(self, taken: Taken, gate: threading.Barrier | None) -> None:
        super().__init__(())
        self._taken = taken
        self._gate = gate

    def add(self, names: Iterable[str]) -> None:
        """They are among those that are taken."""

    def feed(
        self, data: memoryview | None, length: int, release: Callable[[], None] | None = None
    ) -> None:
        """The other thread gets the same bytes."""
        del data, length
        if release is not None:
            release()

    def digests(self) -> dict[str, str]:
        """Of the other thread, when it is done.

        Raises:
            Cancelled: if they do not come, or another target has failed.
        """
        digests = dict(self._taken.wait())
        gate, self._gate = self._gate, None
        if gate is not None:
            try:
                gate.wait()
            except threading.BrokenBarrierError:
                raise Cancelled(_ANOTHER_FAILED) from None
        return digests
