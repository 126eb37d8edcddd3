"""Text that waits until the hashes are known: in memory, or in a nameless file if it is much."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import IO

MEMORY_MAX: Final = 128 << 20
_BETWEEN: Final = "\0"
"""Between two texts; no text of XML has it."""


class Spool:
    """Blocks of texts, first in, first out."""

    def __init__(self, folder: Path | None) -> None:
        """``folder`` is where the file is made, if one is needed; ``None``: the usual place."""
        self._folder = folder
        self._blocks: list[Sequence[str]] = []
        self._lengths: list[int] = []
        self._held = 0
        self._file: IO[bytes] | None = None

    def add(self, texts: Sequence[str]) -> bytes:
        """One more block; gives it as bytes."""
        block = _packed(texts)
        self._blocks.append(texts)
        self._held += len(block)
        if self._held > MEMORY_MAX:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - see close
            self._lengths += [self._file.write(_packed(held)) for held in self._blocks]
            self._blocks, self._held = [], 0
        return block

    def taken(self) -> Iterator[Sequence[str]]:
        """All blocks, in order; it is empty then."""
        if self._file is not None:
            self._file.seek(0)
            for length in self._lengths:
                yield self._file.read(length).decode().split(_BETWEEN)
            self.close()
        blocks, self._blocks, self._held = self._blocks, [], 0
        yield from blocks

    def close(self) -> None:
        """Forget it all."""
        self._lengths = []
        if self._file is not None:
            self._file.close()
            self._file = None


def _packed(texts: Sequence[str]) -> bytes:
    return _BETWEEN.join(texts).encode()
