"""Where text goes that is made piece by piece: a file that shows when it is whole, or a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.storage.pending import PendingFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BUFFER_CHARS: Final = 1 << 20


class Sink:
    """Takes text, as UTF-8."""

    def __init__(self, write: Callable[[memoryview, int], None]) -> None:
        """``write`` takes bytes and how many there were before them."""
        self._put = write
        self._parts: list[str] = []
        self._held = 0
        self._file: PendingFile | None = None
        self.bytes_written = 0

    @classmethod
    def to_file(cls, path: Path, *, force: bool) -> Sink:
        """A file.

        Raises:
            RefusedError: if it exists, unless ``force`` is set.
            TargetError: if it cannot be made.
        """
        file = PendingFile.create(path, may_replace=force)
        sink = cls(file.write)
        sink._file = file
        return sink

    def write(self, text: str) -> None:
        """More text."""
        self._parts.append(text)
        self._held += len(text)
        if self._held >= _BUFFER_CHARS:
            self._flush()

    def commit(self) -> None:
        """It is whole."""
        self._flush()
        if self._file is not None:
            self._file.commit()

    def abort(self) -> None:
        """It never will be."""
        if self._file is not None:
            self._file.abort()

    def _flush(self) -> None:
        data = memoryview("".join(self._parts).encode("utf-8", "backslashreplace"))
        self._parts, self._held = [], 0
        if data:
            self._put(data, self.bytes_written)
            self.bytes_written += len(data)
