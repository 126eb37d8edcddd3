"""Reading a folder piece by piece, as the kernel asks for it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from imprint.core.errors import ImagingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.exports.fuse.facts import Facts


class Reading:
    """The entries of a folder, from any place on; the usual one is where it ended last."""

    def __init__(self, entries: Callable[[], Iterator[tuple[str, Facts]]], own: Facts) -> None:
        self._entries = entries
        self._own = own
        self._left: Iterator[tuple[str, Facts]] = iter(())
        self._next: tuple[str, Facts] | None = None
        self._failure: ImagingError | None = None
        self._position = -1

    def after(self, offset: int) -> Iterator[tuple[int, str, Facts]]:
        """What comes behind an offset, each with its own; the first one's is 1.

        Raises:
            ImagingError: if that cannot be read, once all before it was told: what is told in one
                answer with an error is forgotten.
        """
        if offset != self._position:
            dots = ((".", self._own), ("..", self._own))
            self._left = itertools.islice(itertools.chain(dots, self._entries()), offset, None)
            self.has_taken(offset)
        if self._failure is not None:
            raise self._failure
        while self._next is not None:
            yield self._position + 1, *self._next

    def has_taken(self, position: int) -> None:
        """The one that was told last is not told again."""
        self._position, self._next, self._failure = position, None, None
        try:
            self._next = next(self._left, None)
        except ImagingError as failure:
            self._failure = failure
