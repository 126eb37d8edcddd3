"""Arithmetic on arrays of refcounts of 1 to 64 bits.

Below 8 bits several share a byte of the array, the first in its least significant bits.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imprint.formats.qcow2.tables import Width


def width_of(bits: int) -> Width:
    """The type code of an array that holds refcounts of ``bits`` bits."""
    if bits == 16:
        return "H"
    if bits == 32:
        return "I"
    return "Q" if bits == 64 else "B"


def get(block: array.array[int], index: int, bits: int) -> int:
    """Refcount number ``index``."""
    if bits >= 8:
        return block[index]
    per_byte = 8 // bits
    shift = index % per_byte * bits
    return block[index // per_byte] >> shift & ((1 << bits) - 1)


def add(block: array.array[int], index: int, count: int, delta: int, bits: int) -> None:
    """Change ``count`` refcounts from ``index`` on by ``delta``.

    Raises:
        OverflowError: if one of them would leave its range; those before it are changed.
    """
    if bits >= 8 and delta in (1, -1) and count > 1:
        # Nearly always all are 0 and become 1, or the reverse: done without a loop.
        old, new = (0, 1) if delta == 1 else (1, 0)
        code = block.typecode
        if block[index : index + count] == _filled(code, old, count):
            block[index : index + count] = _filled(code, new, count)
            return
    maximum = (1 << bits) - 1
    for position in range(index, index + count):
        value = get(block, position, bits) + delta
        if not 0 <= value <= maximum:
            raise OverflowError(position - index)
        _set(block, position, value, bits)


def is_unused(block: array.array[int], index: int, count: int, bits: int) -> bool:
    """Whether ``count`` refcounts from ``index`` on are 0; may say no where it costs more."""
    return bits >= 8 and block[index : index + count] == _filled(block.typecode, 0, count)


def pack(values: array.array[int], bits: int) -> array.array[int] | None:
    """Refcounts as a block has them; ``None`` if one of them does not fit."""
    code = width_of(bits)
    if bits >= 8:
        try:
            return array.array(code, values)
        except OverflowError:
            return None
    per_byte = 8 // bits
    packed = bytearray(len(values) // per_byte)
    for lane in range(per_byte):
        part = values[lane::per_byte]
        if max(part, default=0) >> bits:
            return None
        for at, value in enumerate(part):
            packed[at] |= value << lane * bits
    return array.array(code, bytes(packed))


def used(block: array.array[int], bits: int) -> int:
    """The number of refcounts up to the last one that is not 0."""
    data = block.tobytes()
    length = len(data.rstrip(b"\0"))
    count = -(-length // block.itemsize) * (1 if bits >= 8 else 8 // bits)
    while count and get(block, count - 1, bits) == 0:
        count -= 1
    return count


def _set(block: array.array[int], index: int, value: int, bits: int) -> None:
    if bits >= 8:
        block[index] = value
        return
    per_byte = 8 // bits
    shift = index % per_byte * bits
    mask = ((1 << bits) - 1) << shift
    block[index // per_byte] = block[index // per_byte] & ~mask | value << shift


def _filled(code: str, value: int, count: int) -> array.array[int]:
    return array.array(code, [value]) * count
