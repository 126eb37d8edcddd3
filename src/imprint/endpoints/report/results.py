"""What hashing has come to, file by file: a few bytes for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.transfer.hashing import maker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NONE: Final = 0
WANTED: Final = 1
DONE: Final = 2
FAILED: Final = 3
"""States of a file: no hashes are wanted, they are, are there, cannot be had."""


class Results:
    """Of a batch of files, by their numbers in it.

    Attributes:
        names: of the hashes.
        width: of all digests of a file, in bytes.
        states: one of each file.
        rows: digests, ``width`` bytes for each file.
        errors: why a file failed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.makers = [maker(name) for name in names]
        self._empty = [make() for make in self.makers]
        sizes = [len(empty.digest()) for empty in self._empty]
        self.width = sum(sizes)
        ends = [2 * sum(sizes[: index + 1]) for index in range(len(sizes))]
        self.places = [slice(end - 2 * size, end) for end, size in zip(ends, sizes, strict=True)]
        """Of each hash among the hexadecimal digits of a file."""
        self.states = bytearray()
        self.rows = bytearray()
        self.errors: dict[int, str] = {}
        self.on_done: Callable[[int, bytes], None] | None = None
        """Told of each file that is done, and its digests."""

    def add(self, state: int) -> int:
        """One more file; its number."""
        self.states.append(state)
        return len(self.states) - 1

    def close(self) -> None:
        """There will be no more files: make room for their digests."""
        self.rows = bytearray(self.width * len(self.states))

    def digest(self, data: memoryview) -> bytes:
        """All digests of a content, one behind the other."""
        row = b""
        for empty in self._empty:
            hasher = empty.copy()  # half the price of a new one
            hasher.update(data)
            row += hasher.digest()
        return row

    def store(self, number: int, row: bytes) -> None:
        """Keep the digests of a file."""
        width = self.width
        self.rows[number * width : (number + 1) * width] = row
        self.states[number] = DONE
        if self.on_done is not None:
            self.on_done(number, row)

    def row(self, number: int) -> bytes:
        """The digests of a file that is done."""
        return bytes(self.rows[number * self.width : (number + 1) * self.width])

    def fail(self, number: int, why: str) -> None:
        """A file whose content cannot be had."""
        self.states[number] = FAILED
        self.errors[number] = why
