"""A volume as it is once its journal is replayed. Nothing is written, and no copy is kept."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from imprint.filesystems.allocation import READ_BYTES_MAX, VolumeReader
from imprint.filesystems.ext.layout import JOURNAL_MAGIC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.core.contracts import Source
    from imprint.filesystems.ext.journal import Copy


class ReplayedReader(VolumeReader):
    """Reads a block from the journal where it has a copy of it."""

    def __init__(
        self,
        volume: Source,
        copies: Mapping[int, Copy],
        block_size: int,
        *,
        budget: int = READ_BYTES_MAX,
    ) -> None:
        super().__init__(volume, budget=budget)
        self._source = volume
        self._copies = copies
        self._blocks = sorted(copies)
        self._block_size = block_size

    def read(self, offset: int, length: int, what: str) -> bytearray:
        """See :class:`~imprint.filesystems.allocation.VolumeReader`."""
        buffer = super().read(offset, length, what)
        size, end = self._block_size, offset + length
        index = bisect_left(self._blocks, offset // size)
        while index < len(self._blocks) and self._blocks[index] * size < end:
            block = self._blocks[index]
            data = self._copy(self._copies[block])
            start, stop = max(offset, block * size), min(end, (block + 1) * size)
            buffer[start - offset : stop - offset] = data[
                start - block * size : stop - block * size
            ]
            index += 1
        return buffer

    def _copy(self, copy: Copy) -> bytearray:
        data = bytearray(self._block_size)
        self._source.readinto(memoryview(data), copy.offset)
        if copy.is_escaped:
            data[:4] = JOURNAL_MAGIC.to_bytes(4, "big")
        return data
