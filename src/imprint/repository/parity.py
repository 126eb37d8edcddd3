"""Parity of packs: redundancy from which damaged parts of a pack are computed again.

A pack is cut into ``k`` shards, a shard into cells of 4 KiB; the cells of one number in all
shards, with ``m`` cells of parity, are a stripe. A checksum for each cell tells which are damaged,
so that any ``m`` of a stripe can be lost, and so can any ``m`` whole shards.

The arithmetic of GF(2^8) is ``bytes.translate``, the sum is the XOR of long integers: both loop in
C. No library with wheels for all Pythons and systems, and a licence that fits, was found that does
more than half as much again.

Source: ``docs/repository-format.md``, Parity; J. Blömer and others, "An XOR-Based
Erasure-Resilient Coding Scheme" (1995), for Cauchy matrices.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import RepositoryError
from imprint.core.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

PARITY: Final = "parity/"

MAGIC: Final = b"IMPr"
VERSION: Final = 1
_HEAD: Final = struct.Struct("<4sBBBBQ32s")
_HEAD_BYTES: Final = 64
"""Head and the first 16 bytes of its hash; it is there twice, at both ends."""

_CHECK_BYTES: Final = 16
_CELL_BITS: Final = 12
_CELL_BITS_MIN: Final = 9
_CELL_BITS_MAX: Final = 20
_PARITY_SHARDS: Final = 2
"""With two, an XOR and one multiplication for each byte of the pack do."""

_SHARDS_MAX: Final = 256
_PIECE_CELLS: Final = 4
"""Of a shard, handled at a time: what is added up stays in the processor's cache."""

_POLYNOMIAL: Final = 0x11D
_SIZE_FREE_BYTES: Final = 64 * MIB
"""What a parity object may say a pack has, however little of it there is."""


class Mended(NamedTuple):
    """What parity could do for a pack.

    Attributes:
        data: the pack, as well as it is known now.
        is_whole: whether it is what its name says.
        cells: how many cells were computed again.
    """

    data: bytes
    is_whole: bool
    cells: int


class _Shape(NamedTuple):
    """How a pack is cut."""

    data: int
    parity: int
    cell_bytes: int
    size: int

    @property
    def stripes(self) -> int:
        return -(-self.size // (self.data * self.cell_bytes))

    @property
    def shard_bytes(self) -> int:
        return self.stripes * self.cell_bytes

    @property
    def object_bytes(self) -> int:
        shards = (self.data + self.parity) * self.stripes
        return 2 * _HEAD_BYTES + _CHECK_BYTES * shards + self.parity * self.shard_bytes


def parity_object(pack: bytes) -> str:
    """The object that holds the parity of the pack ``pack``."""
    digits = pack.hex()
    return f"{PARITY}{digits[:2]}/{digits}"


def encode_parity(pack: bytes, name: bytes, percent: int) -> list[bytes]:
    """The parity object of a pack, in parts.

    Args:
        pack: all of it.
        name: of it.
        percent: about how long parity is, compared with the pack: 1 to 100. A short pack gets more.
    """
    assert pack
    cell_bytes = 1 << _CELL_BITS
    shards = min(_SHARDS_MAX - _PARITY_SHARDS, 100 * _PARITY_SHARDS // percent)
    shards = min(shards, -(-len(pack) // cell_bytes))
    shape = _Shape(shards, _PARITY_SHARDS, cell_bytes, len(pack))
    parity = _parity_of(pack, shape)
    padded = pack.ljust(shape.data * shape.shard_bytes, b"\0")
    head = _head(shape, name)
    return [head, _checks(padded, cell_bytes), _checks(parity, cell_bytes), parity, head]


def check_parity(parity: bytes, name: bytes, pack: bytes | None = None) -> None:
    """Make sure that a parity object is sound.

    Args:
        parity: the object.
        name: of the pack that it is of.
        pack: the bytes of that, if they are known to be right; without them, the checksums of
            its cells are not looked at.

    Raises:
        RepositoryError: if it is damaged, or of another pack.
    """
    shape = _shape_of(parity, name, len(parity) if pack is None else len(pack))
    view = memoryview(parity)
    own = _HEAD_BYTES + _CHECK_BYTES * shape.stripes * shape.data
    whole = b"" if pack is None else pack.ljust(shape.data * shape.shard_bytes, b"\0")
    cells = own + _CHECK_BYTES * shape.stripes * shape.parity
    is_sound = (
        len(parity) == shape.object_bytes
        and view[:_HEAD_BYTES] == view[-_HEAD_BYTES:] == _head(shape, name)
        and _checks(view[cells:-_HEAD_BYTES], shape.cell_bytes) == view[own:cells]
        and (not whole or _checks(whole, shape.cell_bytes) == view[_HEAD_BYTES:own])
    )
    if not is_sound:
        raise RepositoryError("expected the parity of a pack, found a damaged one")


def mend(pack: bytes, parity: bytes, name: bytes) -> Mended:
    """Compute again what is damaged of a pack.

    Args:
        pack: what there is of it, too short or with wrong bytes; empty if there is none.
        parity: its parity object, which may be damaged as well.
        name: of the pack.

    Raises:
        RepositoryError: if ``parity`` is nothing that could be used.
    """
    from blake3 import blake3

    shape = _shape_of(parity, name, len(pack))
    mender = _Mender(pack, parity, shape)
    cells = sum(mender.mend_stripe(stripe) for stripe in range(shape.stripes))
    data = bytes(memoryview(mender.data)[: shape.size])
    return Mended(data, blake3(data).digest() == name, cells)


class _Mender:
    """A pack that is being mended, cell by cell."""

    def __init__(self, pack: bytes, parity: bytes, shape: _Shape) -> None:
        self.data = bytearray(pack[: shape.size])
        self.data.extend(bytes(shape.data * shape.shard_bytes - len(self.data)))
        self._shape = shape
        count = _CHECK_BYTES * shape.stripes
        front = _HEAD_BYTES + count * (shape.data + shape.parity)
        self._checks = parity[_HEAD_BYTES:front]
        rest = parity[front : front + shape.parity * shape.shard_bytes]
        self._parity = rest.ljust(shape.parity * shape.shard_bytes, b"\0")

    def mend_stripe(self, stripe: int) -> int:
        """Compute what is damaged of a stripe, if that can be done: how many cells."""
        shape = self._shape
        cells = [self._cell(self.data, shard, stripe) for shard in range(shape.data)]
        bad = [shard for shard, cell in enumerate(cells) if not self._is_sound(shard, stripe, cell)]
        if not bad:
            return 0
        rows = []
        for row in range(shape.parity):
            cell = self._cell(self._parity, row, stripe)
            if self._is_sound(shape.data + row, stripe, cell):
                rows.append((row, cell))
        if len(rows) < len(bad):
            return 0
        rows = rows[: len(bad)]
        for shard in bad:
            cells[shard] = bytes(shape.cell_bytes)
        missing = [
            _number(cell) ^ _weighted([_row(row, shape.data)], cells)[0] for row, cell in rows
        ]
        inverse = _inverse([[_row(row, shape.data)[shard] for shard in bad] for row, _ in rows])
        known = [_bytes(value, shape.cell_bytes) for value in missing]
        for shard, value in zip(bad, _weighted(inverse, known), strict=True):
            at = shard * shape.shard_bytes + stripe * shape.cell_bytes
            self.data[at : at + shape.cell_bytes] = _bytes(value, shape.cell_bytes)
        return len(bad)

    def _cell(self, shards: bytes | bytearray, shard: int, stripe: int) -> bytes:
        at = shard * self._shape.shard_bytes + stripe * self._shape.cell_bytes
        return bytes(shards[at : at + self._shape.cell_bytes])

    def _is_sound(self, shard: int, stripe: int, cell: bytes) -> bool:
        at = _CHECK_BYTES * (shard * self._shape.stripes + stripe)
        return _check(cell) == self._checks[at : at + _CHECK_BYTES]


def _head(shape: _Shape, name: bytes) -> bytes:
    bits = shape.cell_bytes.bit_length() - 1
    head = _HEAD.pack(MAGIC, VERSION, shape.data, shape.parity, bits, shape.size, name)
    return head + _check(head)


def _shape_of(parity: bytes, name: bytes, known: int) -> _Shape:
    """From one of both heads; ``known``: how long the pack is, as far as it is there."""
    for head in (parity[:_HEAD_BYTES], parity[-_HEAD_BYTES:]):
        if len(head) < _HEAD_BYTES or _check(head[: _HEAD.size]) != head[_HEAD.size :]:
            continue
        magic, version, data, parities, bits, size, pack = _HEAD.unpack_from(head)
        if magic != MAGIC or version != VERSION or pack != name:
            continue
        is_possible = (
            data >= 1
            and 1 <= parities <= _SHARDS_MAX - data
            and _CELL_BITS_MIN <= bits <= _CELL_BITS_MAX
            and 0 < size <= max(_SIZE_FREE_BYTES, 2 * known)
        )
        # A cut object is of use still, but not one that claims to have lost nearly all of it.
        shape = _Shape(data, parities, 1 << bits, size)
        if is_possible and shape.object_bytes <= 16 * len(parity) + 64 * KIB:
            return shape
    raise RepositoryError("expected the parity of a pack, found none")


def _parity_of(pack: bytes, shape: _Shape) -> bytes:
    """The shards of parity, one behind the other."""
    shards = [
        pack[shard * shape.shard_bytes : (shard + 1) * shape.shard_bytes]
        for shard in range(shape.data)
    ]
    shards = [shard for shard in shards if shard]  # what is behind the end adds nothing
    shards[-1] = shards[-1].ljust(shape.shard_bytes, b"\0")
    matrix = [_row(row, shape.data)[: len(shards)] for row in range(shape.parity)]
    piece_bytes = _PIECE_CELLS * shape.cell_bytes
    pieces: list[list[bytes]] = [[] for _ in matrix]
    for start in range(0, shape.shard_bytes, piece_bytes):
        columns = [shard[start : start + piece_bytes] for shard in shards]
        for row, value in zip(pieces, _weighted(matrix, columns), strict=True):
            row.append(_bytes(value, len(columns[0])))
    return b"".join(map(b"".join, pieces))


def _weighted(matrix: Sequence[Sequence[int]], columns: Sequence[bytes]) -> list[int]:
    """The product of a matrix with a vector of strings of bytes; each row is a long integer."""
    sums = []
    for row in matrix:
        total = 0
        for factor, column in zip(row, columns, strict=True):
            if factor == 1:
                total ^= int.from_bytes(column, "little")
            elif factor:
                total ^= int.from_bytes(column.translate(_times(factor)), "little")
        sums.append(total)
    return sums


def _checks(cells: bytes | memoryview, cell_bytes: int) -> bytes:
    """The checksums of cells, one behind the other."""
    view = memoryview(cells)
    return b"".join(
        _check(view[start : start + cell_bytes]) for start in range(0, len(view), cell_bytes)
    )


def _check(data: bytes | memoryview) -> bytes:
    from blake3 import blake3

    return blake3(data).digest(_CHECK_BYTES)


def _number(cell: bytes) -> int:
    return int.from_bytes(cell, "little")


def _bytes(value: int, length: int) -> bytes:
    return value.to_bytes(length, "little")


@lru_cache(maxsize=_SHARDS_MAX)
def _row(row: int, shards: int) -> tuple[int, ...]:
    """The factors of a shard of parity: of a Cauchy matrix whose first row was made ones.

    ``1 / (x + y)`` with x = shards + row and y = shard, divided by the first row's.
    """
    return tuple(
        _product(shards ^ shard, _reciprocal((shards + row) ^ shard)) for shard in range(shards)
    )


def _inverse(matrix: Sequence[Sequence[int]]) -> list[list[int]]:
    """Of a small matrix that has one, by Gauss and Jordan."""
    size = len(matrix)
    rows = [[*row, *(int(at == line) for at in range(size))] for line, row in enumerate(matrix)]
    for at in range(size):
        pivot = next(line for line in range(at, size) if rows[line][at])
        rows[at], rows[pivot] = rows[pivot], rows[at]
        factor = _reciprocal(rows[at][at])
        rows[at] = [_product(factor, value) for value in rows[at]]
        for line in range(size):
            factor = rows[line][at]
            if line != at and factor:
                own = zip(rows[line], rows[at], strict=True)
                rows[line] = [value ^ _product(factor, pivot) for value, pivot in own]
    return [row[size:] for row in rows]


@lru_cache(maxsize=1)
def _logarithms() -> tuple[list[int], list[int]]:
    """Powers of 2 in the field, twice over, and their logarithms."""
    powers, logarithms = [0] * 510, [0] * 256
    value = 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logarithms[value] = exponent
        value <<= 1
        if value > 255:  # noqa: PLR2004 - the largest element
            value ^= _POLYNOMIAL
    return powers, logarithms


def _product(a: int, b: int) -> int:
    powers, logarithms = _logarithms()
    return powers[logarithms[a] + logarithms[b]] if a and b else 0


def _reciprocal(a: int) -> int:
    powers, logarithms = _logarithms()
    return powers[255 - logarithms[a]]


@lru_cache(maxsize=256)
def _times(factor: int) -> bytes:
    """For ``bytes.translate``: each byte multiplied."""
    return bytes(_product(factor, value) for value in range(256))
