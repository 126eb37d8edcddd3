"""The codec ``flac``: a hunk as if it were stereo sound of 16 bits.

A letter says in which byte order the samples are, ``L`` or ``B``; FLAC frames follow, without
a stream header. chdman tries this codec on everything, so that hard disks have such hunks too.

Source: RFC 9639 (frames and subframes); MAME ``src/lib/util/chdcodec.cpp`` (the letter).
"""

from __future__ import annotations

import sys
from array import array
from typing import Final

from imprint.core.errors import CorruptImageError
from imprint.formats.chd.huffman import BitReader

_SYNC: Final = 0x3FFE
_SAMPLE_BITS: Final = 16
_CHANNELS: Final = 2
_LEFT_SIDE, _RIGHT_SIDE, _MID_SIDE = 8, 9, 10
_SAMPLES_BYTE, _SAMPLES_WORD = 6, 7
_CONSTANT, _VERBATIM, _FIXED, _LPC = 0, 1, 8, 32
_FIXED_ORDER_MAX: Final = 4
_WINDOW: Final = 48
_FIXED_COEFFICIENTS: Final = ((), (1,), (2, -1), (3, -3, 1), (4, -6, 4, -1))


def decompress(data: bytes, size: int) -> bytes:
    """A hunk of ``size`` bytes.

    Raises:
        CorruptImageError: if it is damaged, or another length.
    """
    if data[:1] not in (b"L", b"B") or size % 4:
        raise CorruptImageError(f"expected L or B before FLAC frames, found {data[:1]!r}")
    bits = BitReader(data[1:])
    left: list[int] = []
    right: list[int] = []
    wanted = size // 4
    while len(left) < wanted:
        first, second = _frame(bits)
        left += first
        right += second
    if len(left) != wanted:
        raise CorruptImageError(f"expected {wanted} FLAC samples, found {len(left)}")
    samples = array("h", bytes(size))
    try:
        samples[0::2], samples[1::2] = array("h", left), array("h", right)
    except OverflowError as failure:
        raise CorruptImageError("expected FLAC samples of 16 bits, found larger ones") from failure
    if (data[:1] == b"L") != (sys.byteorder == "little"):
        samples.byteswap()
    return samples.tobytes()


def _frame(bits: BitReader) -> tuple[list[int], list[int]]:
    """Both channels of the next frame."""
    if bits.read(14) != _SYNC:
        raise CorruptImageError("expected a FLAC frame, found none")
    bits.read(2)  # reserved, and whether blocks have different lengths
    count_code, rate_code, assignment = bits.read(4), bits.read(4), bits.read(4)
    bits.read(4)  # the samples' bits, always 16, and one reserved
    first = bits.read(8)  # the frame's number, as UTF-8 would have it
    while first & 0x40 and first & 0x80:
        bits.read(8)
        first = first << 1 & 0xFF
    count = _block_size(bits, count_code)
    if rate_code >= 12:  # the rate follows; nobody listens
        bits.read(8 if rate_code == 12 else 16)
    bits.read(8)  # the header's CRC; the hunk has one of its own
    if assignment not in (1, _LEFT_SIDE, _RIGHT_SIDE, _MID_SIDE):
        raise CorruptImageError(f"expected stereo FLAC, found the channels {assignment}")
    first_channel = _subframe(bits, count, _SAMPLE_BITS + (assignment == _RIGHT_SIDE))
    is_side = assignment in (_LEFT_SIDE, _MID_SIDE)
    second_channel = _subframe(bits, count, _SAMPLE_BITS + is_side)
    bits.position = -(-bits.position // 8) * 8 + 16  # the frame's CRC
    bits.check()
    pairs = zip(first_channel, second_channel, strict=True)
    if assignment == _LEFT_SIDE:
        return first_channel, [left - side for left, side in pairs]
    if assignment == _RIGHT_SIDE:
        return [side + right for side, right in pairs], second_channel
    if assignment == _MID_SIDE:
        both = [(2 * mid | side & 1, side) for mid, side in pairs]
        return [mid + side >> 1 for mid, side in both], [mid - side >> 1 for mid, side in both]
    return first_channel, second_channel


def _block_size(bits: BitReader, code: int) -> int:
    """Samples of each channel."""
    if code == 0:
        raise CorruptImageError("expected the length of a FLAC block, found none")
    if code == _SAMPLES_BYTE:
        return bits.read(8) + 1
    if code == _SAMPLES_WORD:
        return bits.read(16) + 1
    if code == 1:
        return 192
    return 144 << code if code < _SAMPLES_BYTE else 1 << code


def _subframe(bits: BitReader, count: int, width: int) -> list[int]:
    """One channel."""
    if bits.read(1):
        raise CorruptImageError("expected a FLAC subframe, found none")
    kind, wasted = bits.read(6), 0
    if bits.read(1):
        wasted = _unary(bits) + 1
        width -= wasted
    if width < 1:
        raise CorruptImageError("expected FLAC samples with bits, found none")
    if kind == _CONSTANT:
        samples = [_signed(bits, width)] * count
    elif kind == _VERBATIM:
        bits.need(count * width)
        samples = [_signed(bits, width) for _ in range(count)]
    elif _FIXED <= kind <= _FIXED + _FIXED_ORDER_MAX:
        samples = _warm_up(bits, kind - _FIXED, count, width)
        _predict(
            samples, _residual(bits, count, len(samples)), _FIXED_COEFFICIENTS[kind - _FIXED], 0
        )
    elif kind >= _LPC:
        samples = _warm_up(bits, kind - _LPC + 1, count, width)
        precision, shift = bits.read(4) + 1, _signed(bits, 5)
        coefficients = tuple(_signed(bits, precision) for _ in samples)
        if shift < 0:
            raise CorruptImageError(f"expected a FLAC shift of at least 0, found {shift}")
        _predict(samples, _residual(bits, count, len(samples)), coefficients, shift)
    else:
        raise CorruptImageError(f"expected a kind of FLAC subframe, found {kind}")
    return [sample << wasted for sample in samples] if wasted else samples


def _warm_up(bits: BitReader, order: int, count: int, width: int) -> list[int]:
    if order > count:
        raise CorruptImageError(f"expected at least {order} FLAC samples, found {count}")
    return [_signed(bits, width) for _ in range(order)]


def _predict(
    samples: list[int], residual: list[int], coefficients: tuple[int, ...], shift: int
) -> None:
    """Append a sample for each residual: what those before it foretell, and the difference."""
    order = len(coefficients)
    limit = 1 << 32  # what is damaged grows without bound
    for difference in residual:
        # The newest sample belongs to the first coefficient.
        window = samples[: -order - 1 : -1] if order else ()
        foretold = sum(map(int.__mul__, coefficients, window)) >> shift
        sample = foretold + difference
        if not -limit < sample < limit:
            raise CorruptImageError("expected FLAC samples of 16 bits, found larger ones")
        samples.append(sample)


def _residual(bits: BitReader, count: int, order: int) -> list[int]:
    """Rice codes in partitions, each with its own parameter."""
    method = bits.read(2)
    if method > 1:
        raise CorruptImageError(f"expected Rice codes in FLAC, found the method {method}")
    width = 4 + method
    partition_order = bits.read(4)
    length = count >> partition_order
    if length << partition_order != count or length < order:
        raise CorruptImageError("expected FLAC partitions of one length, found others")
    found: list[int] = []
    for partition in range(1 << partition_order):
        items = length - (0 if partition else order)
        parameter = bits.read(width)
        if parameter == (1 << width) - 1:  # not coded
            raw_width = bits.read(5)
            bits.need(items * raw_width)
            found += [_signed(bits, raw_width) for _ in range(items)]
            continue
        bits.need(items * (parameter + 1))
        for _ in range(items):
            value = _unary(bits) << parameter
            if parameter:
                value |= bits.read(parameter)
            found.append(value >> 1 ^ -(value & 1))
    return found


def _unary(bits: BitReader) -> int:
    """How many zeros come before the next one."""
    zeros = 0
    while True:
        window = bits.read(_WINDOW)
        if window:
            ahead = window.bit_length()
            bits.position -= ahead - 1
            return zeros + _WINDOW - ahead
        zeros += _WINDOW
        bits.check()


def _signed(bits: BitReader, width: int) -> int:
    """A number of ``width`` bits in two's complement."""
    if width == 0:
        return 0
    value = bits.read(width)
    return value - (1 << width) if value >> (width - 1) else value
