"""Bits and Huffman codes as CHD has them: in its map, and in hunks of the codec ``huff``.

Codes are canonical, the longest first. Source: MAME ``src/lib/util/huffman.cpp``.
"""

from __future__ import annotations

import struct
from itertools import chain, repeat
from typing import Final

from imprint.core.errors import CorruptImageError

_REPEAT: Final = 1
_SMALL_CODES: Final = 24
_SMALL_BITS_MAX: Final = 6
BYTE_CODES: Final = 256
BYTE_BITS_MAX: Final = 16


class BitReader:
    """Reads numbers from bytes, the highest bit first. Behind the end there are zeros.

    Attributes:
        position: of the next bit.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data + bytes(8)
        self._end = 8 * len(data)
        self.position = 0

    def read(self, count: int) -> int:
        """The next ``count`` bits, at most 56, as a number."""
        start, used = divmod(self.position, 8)
        self.position += count
        window = int.from_bytes(self._data[start : start + 8], "big")
        return window >> (64 - used - count) & (1 << count) - 1

    def need(self, count: int) -> None:
        """Raise unless there are ``count`` more bits.

        Raises:
            CorruptImageError: in that case.
        """
        if self.position + count > self._end:
            raise CorruptImageError(f"expected {count} more bits, found the end")

    def check(self) -> None:
        """Raise if more was read than there is.

        Raises:
            CorruptImageError: in that case.
        """
        if self.position > self._end:
            raise CorruptImageError(f"expected more than {self._end // 8} bytes of Huffman codes")


class HuffmanTree:
    """Decodes symbols by a table of all values that ``bits_max`` bits can have.

    Attributes:
        table: symbol and length of the code that such a value begins with; length 0: none.
    """

    def __init__(self, lengths: list[int], bits_max: int) -> None:
        """``lengths`` has the bits of each symbol's code, 0 for one that has none.

        Raises:
            CorruptImageError: if there are no such codes.
        """
        counts = [0] * (bits_max + 1)
        for length in lengths:
            if length > bits_max:
                raise CorruptImageError(f"expected codes of {bits_max} bits, found {length}")
            counts[length] += 1
        starts = [0] * (bits_max + 1)
        start = 0
        for length in range(bits_max, 0, -1):
            following, odd = divmod(start + counts[length], 2)
            if odd and length != 1:
                raise CorruptImageError("expected a Huffman tree, found codes that form none")
            starts[length], start = start, following
        self._bits_max = bits_max
        table = [(0, 0)] * (1 << bits_max)
        for symbol, length in enumerate(lengths):
            if length:
                shift = bits_max - length
                first = starts[length] << shift
                starts[length] += 1
                if first + (1 << shift) > len(table):
                    raise CorruptImageError("expected a Huffman tree, found too many codes")
                table[first : first + (1 << shift)] = [(symbol, length)] * (1 << shift)
        self.table = table

    def decode(self, bits: BitReader) -> int:
        """The next symbol.

        Raises:
            CorruptImageError: if the bits are no symbol's code.
        """
        before = bits.position
        symbol, length = self.table[bits.read(self._bits_max)]
        if length == 0:
            raise CorruptImageError("expected a Huffman code, found none that is known")
        bits.position = before + length
        return symbol


def read_tree_rle(bits: BitReader, code_count: int, bits_max: int) -> HuffmanTree:
    """A tree whose lengths are stored plainly, repetitions by a count.

    Raises:
        CorruptImageError: if it is none.
    """
    width = 5 if bits_max >= 16 else 4 if bits_max >= 8 else 3
    lengths: list[int] = []
    while len(lengths) < code_count:
        length = bits.read(width)
        count = 1
        if length == _REPEAT:
            length = bits.read(width)
            if length != _REPEAT:
                count = bits.read(width) + 3
        lengths += [length] * count
    if len(lengths) > code_count:
        raise CorruptImageError(f"expected {code_count} Huffman codes, found {len(lengths)}")
    bits.check()
    return HuffmanTree(lengths, bits_max)


def read_tree_huffman(bits: BitReader) -> HuffmanTree:
    """A tree for bytes, whose lengths are stored by another tree.

    Raises:
        CorruptImageError: if it is none.
    """
    small = [0] * _SMALL_CODES
    small[0] = bits.read(3)
    start = bits.read(3) + 1
    for index in range(start, _SMALL_CODES):
        length = bits.read(3)
        if length == 7:  # all others have no code
            break
        small[index] = length
    tree = HuffmanTree(small, _SMALL_BITS_MAX)
    count_bits = (BYTE_CODES - 9).bit_length()
    lengths: list[int] = []
    last = 0
    while len(lengths) < BYTE_CODES:
        value = tree.decode(bits)
        if value:
            last = value - 1
            lengths.append(last)
        else:
            count = bits.read(3) + 2
            if count == 9:
                count += bits.read(count_bits)
            lengths += [last] * count
        bits.check()
    return HuffmanTree(lengths[:BYTE_CODES], BYTE_BITS_MAX)


def decompress(data: bytes, size: int) -> bytes:
    """``size`` bytes, each a code of a tree that comes first.

    Raises:
        CorruptImageError: if there are fewer, or no tree.
    """
    bits = BitReader(data)
    tree = read_tree_huffman(bits)
    bits.check()
    # One symbol at a time, with as little Python as possible for each: 0.2 µs.
    start, used = divmod(bits.position, 8)
    rest = data[start:]
    words = struct.unpack(f">{len(rest) // 4 + 1}I", rest.ljust(len(rest) // 4 * 4 + 4, b"\0"))
    following = chain(words, repeat(0)).__next__
    table, found = tree.table, bytearray(size)
    held, window = 32 - used, following()
    taken = used
    for index in range(size):
        if held < BYTE_BITS_MAX:
            window = (window & (1 << held) - 1) << 32 | following()
            held += 32
        found[index], length = table[window >> (held - BYTE_BITS_MAX) & 0xFFFF]
        if not length:
            raise CorruptImageError("expected a Huffman code, found none that is known")
        held -= length
        taken += length
    if taken > 8 * len(rest):
        raise CorruptImageError(f"expected Huffman codes of {size} bytes, found fewer")
    return bytes(found)
