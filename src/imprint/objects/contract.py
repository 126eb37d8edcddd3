"""What a place for objects has to do; the test suite of it is in ``imprint.testing.object_suite``.

An object is immutable content under a name such as ``packs/3f/3f2a…``: at most five parts of
letters, digits, ``-`` and ``_``, divided by slashes. All methods may be called from many threads
at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from imprint.core.errors import ImagingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class MissingObjectError(ImagingError):
    """There is no object of that name."""

    exit_code = 7


class ObjectExistsError(ImagingError):
    """There is an object of that name already."""

    exit_code = 7


class ObjectInfo(NamedTuple):
    """What is known of an object without reading it.

    Attributes:
        name: of the object.
        size: in bytes.
        modified: when it was put, in seconds since 1970, by the clock of the place.
    """

    name: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """A place for objects."""

    @property
    def name(self) -> str:
        """What errors call it: an address."""

    @property
    def latency_s(self) -> float:
        """About how long a request takes: whether reading ahead and fewer requests pay."""

    def get(self, name: str) -> bytes:
        """All of an object.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if it cannot be read.
            NetworkError: if the place does not answer.
        """

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Part of an object; shorter only where the object ends before.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if it cannot be read.
            NetworkError: if the place does not answer.
        """

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Make an object of the parts, one behind the other; it replaces one of that name.

        Whole and durable when this returns. Before, and after a crash or an error, there is the
        old object, or none, or the new one; never a part of it.

        Args:
            name: of the object.
            parts: its content.
            only_new: never replace: of several who try at once, at most one succeeds.

        Raises:
            ObjectExistsError: if ``only_new`` and there is one already.
            TargetError: if it cannot be stored: no room, no permission.
            NetworkError: if the place does not answer.
        """

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens if there is none.

        Raises:
            TargetError: if it cannot be removed.
            NetworkError: if the place does not answer.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects whose names begin with ``prefix``, which ends with a slash, ascending.

        What was put or deleted before the call by anybody is seen; unfinished objects are not.
        """

    def stat(self, name: str) -> ObjectInfo | None:
        """What is known of one object; ``None`` if there is none."""

    def close(self) -> None:
        """Give back connections and files. Calling again changes nothing."""
