"""A disk as it shall be on its target: with another size, and a table that fits."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from imprint.core.units import align_down, align_up
from imprint.filters.pieces import Piece, Pieces
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source
    from imprint.volumes.changing import Patch

_BLOCK: Final = 4096
"""What is replaced as a whole, so that the copy can look for zeros in blocks of that size."""


class FittedSource(Pieces):
    """Another disk with some bytes replaced, cut off or with a hole behind it. Owns that disk.

    Attributes:
        digest: of what is other than in the disk below; the same change gives the same one.
        untouched: which bytes nobody has given a meaning: the hole behind the disk's old end.
    """

    def __init__(self, source: Source, size: int, patches: Sequence[Patch]) -> None:
        """``patches`` are applied in their order; all are inside ``size``."""
        blocks = _blocks(source, size, patches)
        blob = MemoryStorage(
            b"".join(blocks.values()), name=f"table of {source.name}", writable=False
        )
        pieces = list(_pieces(source.size, size, list(blocks)))
        super().__init__(source.name, [source, blob], pieces)
        self._source = source
        state = hashlib.sha256(str(size).encode())
        for patch in patches:
            state.update(patch.offset.to_bytes(8, "little") + patch.data)
        self.digest = state.hexdigest()
        holes = [(piece.offset, piece.end) for piece in pieces if piece.member is None]
        self.untouched = max(holes, key=lambda hole: hole[1] - hole[0], default=(0, 0))

    def close(self) -> None:
        """Close the disk."""
        self._source.close()


def _blocks(source: Source, size: int, patches: Sequence[Patch]) -> dict[int, bytearray]:
    """All blocks that are not as they were, by their place, ascending."""
    blocks: dict[int, bytearray] = {}

    def block(start: int) -> bytearray:
        if start not in blocks:
            content = bytearray(min(_BLOCK, size - start))
            inside = max(0, min(len(content), source.size - start))
            if inside:
                source.readinto(memoryview(content)[:inside], start)
            blocks[start] = content
        return blocks[start]

    if source.size % _BLOCK and source.size < size:
        block(align_down(source.size, _BLOCK))
    for patch in patches:
        end = patch.offset + len(patch.data)
        for start in range(align_down(patch.offset, _BLOCK), end, _BLOCK):
            first, last = max(start, patch.offset), min(start + _BLOCK, end)
            part = patch.data[first - patch.offset : last - patch.offset]
            block(start)[first - start : last - start] = part
    return dict(sorted(blocks.items()))


def _pieces(old_size: int, size: int, starts: Sequence[int]) -> Iterator[Piece]:
    """The disk in pieces: from the old one, from the blocks, and holes."""
    position, stored = 0, 0
    for start in [*starts, align_up(size, _BLOCK)]:
        border = min(start, size)
        inside = min(border, old_size)
        if position < inside:
            yield Piece(position, inside - position, 0, position)
        hole = max(position, inside)
        if hole < border:
            yield Piece(hole, border - hole, None)
        if start < size:
            length = min(_BLOCK, size - start)
            yield Piece(start, length, 1, stored)
            stored += length
            position = start + length


def untouched_of(source: Source) -> tuple[int, int]:
    """From where to where a target may keep what it holds; nothing if all has a meaning."""
    return source.untouched if isinstance(source, FittedSource) else (0, 0)
