"""Maps: which part of a disk comes from where.

Source: *AFF4 Standard* 1.0, sections 4 (Map) and 4.4 (Symbolic Streams).
"""

from __future__ import annotations

import itertools
import re
import struct
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.core.units import MIB
from imprint.formats.aff4.turtle import folded

if TYPE_CHECKING:
    from imprint.formats.aff4.streams import ImageStream

Leaf: TypeAlias = "Symbol | ImageStream"
"""Where a map ends: at bytes that somebody stores, or nobody needs to."""

ENTRY: Final = struct.Struct("<QQQI")
ENTRIES_MAX: Final = 1 << 20
"""28 MiB, half a second. Each entry of a real map stands for many chunks."""

ENTRIES_BYTES_MAX: Final = ENTRIES_MAX * ENTRY.size
TARGETS_BYTES_MAX: Final = 1 * MIB
TARGETS_MAX: Final = 4096
DEPTH_MAX: Final = 8
SIZE_MAX: Final = (1 << 63) - 1

_SYMBOL: Final = re.compile(r"symbolicstream([0-9a-f]{2})")
_TILE_BYTES: Final = 1 * MIB


@dataclass(frozen=True)
class Symbol:
    """A stream without end that nobody stores.

    Attributes:
        kind: what a disk is there.
        text: what it is made of: repeated, and begun again at each MiB.
    """

    kind: Kind
    text: bytes

    def fill(self, buffer: memoryview, offset: int) -> None:
        """The bytes that the standard gives the stream, from ``offset`` on."""
        for start in range(0, len(buffer), _TILE_BYTES):
            part = buffer[start : start + _TILE_BYTES]
            within = (offset + start) % _TILE_BYTES
            part[:] = _two_tiles(self.text)[within : within + len(part)]


@lru_cache(maxsize=8)
def _two_tiles(text: bytes) -> memoryview:
    """Two MiB of a repeated text; there are 258 texts, and a disk uses few."""
    tile = text * (_TILE_BYTES // len(text) + 1)
    return memoryview(tile[:_TILE_BYTES] * 2)


ZERO: Final = Symbol(Kind.ZERO, b"\0")
UNKNOWN: Final = Symbol(Kind.UNUSED, b"UNKNOWN")
UNREADABLE: Final = Symbol(Kind.BAD, b"UNREADABLEDATA")


def symbol_named(iri: str) -> Symbol | None:
    """The symbolic stream that an IRI names, if it does.

    Before the standard, ``FF`` had a name of its own and the others stood behind a ``#``.
    """
    name = folded(iri)
    if iri.lower().startswith("aff4:"):
        return None
    if name in ("zero", "zerostream"):
        return ZERO
    if name == "unknowndata":
        return UNKNOWN
    if name == "unreadabledata":
        return UNREADABLE
    match = _SYMBOL.fullmatch(name) or re.fullmatch(r"([0-9a-f]{2})", name)
    if match is None:
        return None
    value = bytes.fromhex(match.group(1))
    return ZERO if value == b"\0" else Symbol(Kind.ENCODED, value)


class Piece(NamedTuple):
    """A run of a stream that lies in one target.

    Attributes:
        start: of the run, in the stream that was asked.
        end: of it.
        leaf: where its bytes are.
        offset: in the leaf, of ``start``.
    """

    start: int
    end: int
    leaf: Leaf
    offset: int


class MapStream:
    """A map's entries, ascending and without an overlap."""

    def __init__(
        self,
        urn: str,
        size: int,
        points: bytes,
        targets: list[Leaf | MapStream],
        gaps: Leaf,
        *,
        where: str,
    ) -> None:
        """Read the entries.

        Args:
            urn: its name.
            size: of the stream, in bytes.
            points: the member ``map``.
            targets: what the numbers in it stand for.
            gaps: what is where no entry is.
            where: the image's name.

        Raises:
            CorruptImageError: if entries overlap, or name what is not there.
        """
        self.urn = urn
        self.size = size
        self.targets = targets
        self.gaps = gaps
        self._where = where
        self.starts, self.ends = array("Q"), array("Q")
        self.offsets, self.numbers = array("Q"), array("I")
        self._parse(points)

    def piece(self, offset: int, depth: int = 0) -> Piece:
        """What is at ``offset``, as far as it goes on.

        Raises:
            CorruptImageError: if a target ends before the entry does.
        """
        index = bisect_right(self.starts, offset) - 1
        if index >= 0 and offset < self.ends[index]:
            return self._inside(index, offset, depth)
        start = self.ends[index] if index >= 0 else 0
        end = self.starts[index + 1] if index + 1 < len(self.starts) else self.size
        return Piece(start, min(max(end, offset + 1), self.size), self.gaps, start)

    def _inside(self, index: int, offset: int, depth: int) -> Piece:
        start, end = self.starts[index], min(self.ends[index], self.size)
        target, at = self.targets[self.numbers[index]], self.offsets[index]
        if not isinstance(target, Symbol):
            size = target.size if isinstance(target, MapStream) else target.shape.size
            if at + end - start > size:
                raise CorruptImageError(
                    f"map at 0x{start:x}: expected 0x{end - start:x} bytes at 0x{at:x} inside "
                    f"a stream of 0x{size:x}",
                    name=self._where,
                )
        if not isinstance(target, MapStream):
            return Piece(start, end, target, at)
        assert depth < DEPTH_MAX
        below = target.piece(at + offset - start, depth + 1)
        first = max(start, start + below.start - at)
        last = min(end, start + below.end - at)
        return Piece(first, last, below.leaf, below.offset + (at + first - start) - below.start)

    def _parse(self, points: bytes) -> None:
        if len(points) % ENTRY.size:
            raise self._error(f"expected entries of {ENTRY.size} bytes, found {len(points)} bytes")
        entries = list(ENTRY.iter_unpack(points))
        if any(before > after for before, after in itertools.pairwise(entries)):
            entries.sort()
        behind = 0
        for start, length, offset, number in entries:
            if not length:
                continue
            if start < behind:
                raise self._error(f"expected no overlap, found one at 0x{start:x}")
            if number >= len(self.targets):
                raise self._error(f"expected one of {len(self.targets)} targets, found {number}")
            behind = start + length
            if behind > SIZE_MAX or offset + length > 1 << 64:
                raise self._error(f"expected 63 bits, found an end at 0x{behind:x}")
            self.starts.append(start)
            self.ends.append(behind)
            self.offsets.append(offset)
            self.numbers.append(number)

    def _error(self, message: str) -> CorruptImageError:
        return CorruptImageError(f"map {self.urn}: {message}", name=self._where)


def target_names(content: bytes, *, where: str) -> list[str]:
    """The lines of ``idx``.

    Raises:
        CorruptImageError: if they are not text.
        UnsupportedFeatureError: if there are too many.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as failure:
        raise CorruptImageError(f"idx: expected UTF-8: {failure.reason}", name=where) from failure
    if len(lines) > TARGETS_MAX:
        raise UnsupportedFeatureError(
            f"idx: expected at most {TARGETS_MAX} targets, found {len(lines)}", name=where
        )
    return [line.strip() for line in lines]
