"""Contents of files as sources: over the volume where that holds them, else bytes on demand."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, ReadError
from imprint.core.extent import Extent, Kind, check_range
from imprint.core.limits import DECODE_CACHE_BYTES, SPAN_BYTES
from imprint.core.recent import Recent
from imprint.filters.cutoff import Missing
from imprint.filters.pieces import Piece, Pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Entry

PIECES_MAX: Final = 1 << 18
"""Of one file: each costs some 200 bytes here."""


class Run(NamedTuple):
    """Where a part of a file lies. All in bytes.

    Attributes:
        position: in the file.
        offset: in the volume.
        length: never 0.
    """

    position: int
    offset: int
    length: int


def mapped(
    volume: Source, runs: Iterable[Run], size: int, *, name: str, valid: int | None = None
) -> Source:
    """A file that lies in its volume as it is. Safe for many threads, as the volume.

    What of it lies behind the volume's end, as in an image that was cut short, is ``BAD``.

    Args:
        volume: has to outlive it.
        runs: where it lies, ascending by position; between them, and behind them, are holes.
        size: of the file, in bytes.
        name: what errors call it.
        valid: as many bytes were ever written; what is behind them reads as zeros.

    Raises:
        CorruptImageError: if the runs overlap, are too many, or are all outside of the volume.
    """
    end = size if valid is None else min(valid, size)
    pieces: list[Piece] = []
    position = found = 0
    lost: Run | None = None
    for run in runs:
        if run.position < position or run.position < 0 or run.length < 0:
            raise CorruptImageError("expected runs one behind the other", name=name)
        length = min(run.length, end - run.position)
        if length <= 0:
            continue
        if run.position > position:
            pieces.append(Piece(position, run.position - position, None))
        there = max(0, min(length, volume.size - run.offset)) if run.offset >= 0 else 0
        if there:
            pieces.append(Piece(run.position, there, 0, run.offset))
            found += there
        position = run.position + length
        if there < length:
            lost = lost or run
            pieces.append(Piece(run.position + there, length - there, 1, run.position + there))
        if len(pieces) > PIECES_MAX:
            raise CorruptImageError(f"expected at most {PIECES_MAX} runs, found more", name=name)
    if position < size:
        pieces.append(Piece(position, size - position, None))
    if lost is None:
        return Pieces(name, [volume], pieces)
    why = (
        f"expected it inside of the volume's {volume.size} bytes, "
        f"found 0x{lost.offset:x} + 0x{lost.length:x}"
    )
    if not found:
        raise CorruptImageError(why, name=name)
    return Pieces(name, [volume, Missing(name, size, why)], pieces)


def extents_of(entry: Entry) -> Iterator[Run]:
    """Where the content of a plain file lies."""
    return in_a_row(entry.extents, entry.size)


def in_a_row(places: Iterable[tuple[int, int]], size: int) -> Iterator[Run]:
    """Runs of a content that lies at places of the volume, one behind the other."""
    position = 0
    for offset, length in places:
        if position >= size:
            return
        yield Run(position, offset, length)
        position += length


def inside(volume: Source, places: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """What a volume has of some places, ``(offset, length)``: it may have been cut short."""
    size = volume.size
    return tuple((offset, min(length, size - offset)) for offset, length in places if offset < size)


class OnDemand:
    """A source of bytes that somebody makes when they are wanted, a bounded block at a time.

    As thread-safe as whoever makes them.
    """

    def __init__(self, name: str, size: int, make: Callable[[int, int], bytes]) -> None:
        """``make`` gives the bytes of an offset and a length, all of them, or raises."""
        self.name = name
        self.size = size
        self.traits = Traits(grain=1)
        self._make = make

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        check_range(offset, len(buffer), size=self.size, name=self.name)
        for start in range(0, len(buffer), SPAN_BYTES):
            length = min(SPAN_BYTES, len(buffer) - start)
            made = self._make(offset + start, length)
            if len(made) != length:
                raise ReadError(
                    f"expected {length} bytes, found {len(made)}",
                    name=self.name,
                    offset=offset + start,
                    length=length,
                )
            buffer[start : start + length] = made

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All of it is made by somebody."""
        if length:
            yield Extent(offset, length, Kind.ENCODED)

    def close(self) -> None:
        """Nothing is its own."""


def held(name: str, content: bytes) -> Source:
    """Bytes that are at hand."""
    return OnDemand(name, len(content), lambda offset, length: content[offset : offset + length])


def unpacked_on_demand(
    name: str, size: int, starts: Sequence[int], unpack: Callable[[int], bytes]
) -> OnDemand:
    """A source of parts that are packed each by itself; those unpacked last are kept.

    Args:
        name: of the file, for errors.
        size: of it, in bytes.
        starts: where each part begins in it, ascending. Only what lies in parts is asked for.
        unpack: gives all of one, by its number.
    """
    kept: Recent[int] = Recent(DECODE_CACHE_BYTES)

    def unpacked(index: int) -> bytes:
        found = kept.get(index)
        if found is None:
            found = unpack(index)
            kept.put(index, found)
        return found

    def made(offset: int, length: int) -> bytes:
        found = bytearray()
        end = offset + length
        while offset < end:
            index = bisect_right(starts, offset) - 1
            within = offset - starts[index]
            part = unpacked(index)[within : within + end - offset]
            if not part:
                raise CorruptImageError(f"expected bytes at {offset}, found none", name=name)
            found += part
            offset += len(part)
        return bytes(found)

    return OnDemand(name, size, made)


def told_pairs(flat: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Pairs of numbers, which are told one behind the other."""
    if len(flat) == 2:  # as most files have, and this is asked of each
        return ((flat[0], flat[1]),)
    numbers = iter(flat)
    return tuple(zip(numbers, numbers, strict=True))
