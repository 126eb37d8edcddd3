"""A place that is asked again when it does not answer."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from imprint.core.errors import NetworkError
from imprint.objects.contract import MissingObjectError, ObjectExistsError
from imprint.objects.over import OverStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imprint.objects.contract import ObjectInfo, ObjectStore

_T = TypeVar("_T")


@dataclass(frozen=True)
class Retries:
    """How patient to be.

    Attributes:
        attempts: at one request before it counts as failed; 1 is no second one.
        pause_s: about how long to wait before the second; doubled for each further one.
        pause_max_s: no wait is longer.
    """

    attempts: int = 6
    pause_s: float = 0.5
    pause_max_s: float = 30.0

    def pauses(self) -> Iterator[float]:
        """How long to wait after each failure but the last, in seconds.

        Each is drawn from the upper half of its range: many hosts that lost the same server
        do not come back in the same moment.
        """
        longest = self.pause_s
        for _ in range(self.attempts - 1):
            yield longest * random.uniform(0.5, 1.0)  # noqa: S311 - nobody must not guess it
            longest = min(longest * 2, self.pause_max_s)


class RetryingStore(OverStore):
    """A place whose ``NetworkError`` comes only after several attempts.

    Everything but ``put`` with ``only_new`` may be done twice with the same result. That one
    may have succeeded unseen: then the second attempt finds an object, and looks whether it
    is its own.
    """

    def __init__(self, inner: ObjectStore, retries: Retries | None = None) -> None:
        """Takes over ``inner``."""
        super().__init__(inner)
        self._retries = retries or Retries()

    def get(self, name: str) -> bytes:
        """All of an object."""
        return self._retry(lambda: self._inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Part of an object."""
        return self._retry(lambda: self._inner.get_range(name, offset, length))

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Make an object."""
        is_doubtful = False

        def attempt() -> None:
            nonlocal is_doubtful
            try:
                self._inner.put(name, parts, only_new=only_new)
            except NetworkError:
                is_doubtful = True
                raise
            except ObjectExistsError:
                if not is_doubtful or not self._is_ours(name, parts):
                    raise

        self._retry(attempt)

    def delete(self, name: str) -> None:
        """Remove an object."""
        self._retry(lambda: self._inner.delete(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below a prefix; a listing that breaks off goes on behind its last name."""
        last = ""
        pauses = self._retries.pauses()
        while True:
            try:
                for info in self._inner.list(prefix):
                    if info.name > last:
                        last = info.name
                        yield info
            except NetworkError:
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                return

    def stat(self, name: str) -> ObjectInfo | None:
        """What is known of one object."""
        return self._retry(lambda: self._inner.stat(name))

    def _retry(self, attempt: Callable[[], _T]) -> _T:
        for pause in self._retries.pauses():
            try:
                return attempt()
            except NetworkError:
                time.sleep(pause)
        return attempt()

    def _is_ours(self, name: str, parts: Sequence[bytes | memoryview]) -> bool:
        try:
            found = memoryview(self.get(name))
        except MissingObjectError:
            return False
        for part in parts:
            if found[: len(part)] != part:
                return False
            found = found[len(part) :]
        return not found
