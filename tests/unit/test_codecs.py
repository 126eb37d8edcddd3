"""Deflate and Zstandard: what zlib makes of ours, what ours makes of zlib's, and no more."""

from __future__ import annotations

import random
import zlib

import pytest

from imprint.codecs import deflate, zstd
from imprint.core.errors import CorruptImageError

SIZE = 64 << 10


def far_repeats(distance: int) -> bytes:
    """Random bytes that come again at exactly that distance: every match wants to reach it."""
    block = random.Random(distance).randbytes(distance)
    return (block * (SIZE // distance + 1))[:SIZE]


def inflate_with_window(data: bytes, window_bits: int) -> bytes:
    """Inflate in steps of 64 bytes, so that zlib has nothing but its window to look back at."""
    decoder = zlib.decompressobj(-window_bits)
    parts = [decoder.decompress(data, 64)]
    while not decoder.eof:
        parts.append(decoder.decompress(decoder.unconsumed_tail, 64))
    return b"".join(parts)


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("window_bits", [12, 15])
def test_no_match_reaches_further_back_than_the_window(level: int, window_bits: int) -> None:
    """Fails if a reader with the promised window would find a distance too far back."""
    window = 1 << window_bits
    for distance in (window - 300, window - 1, window, window + 1, window + 258, 2 * window, 32000):
        data = far_repeats(distance)
        packed = deflate.compress(data, level=level, window_bits=window_bits)
        assert inflate_with_window(packed, window_bits) == data


def test_the_check_of_the_window_can_fail() -> None:
    """Fails if the test above would pass whatever the window was."""
    packed = deflate.compress(far_repeats(8000), level=9, window_bits=15)
    with pytest.raises(zlib.error, match="too far back"):
        inflate_with_window(packed, 12)


@pytest.mark.parametrize("data", [b"", b"x", bytes(SIZE), far_repeats(30_000), b"ab" * 100_000])
def test_streams_of_zlib_are_inflated(data: bytes) -> None:
    """Fails if a stream of another maker is refused, or trailing bytes disturb it."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = encoder.compress(data) + encoder.flush()
    assert deflate.decompress(packed + b"\xee" * 600, len(data)) == data
    assert deflate.decompress(memoryview(packed), len(data)) == data


@pytest.mark.parametrize("level", [1, 3, 19])
def test_frames_come_back(level: int) -> None:
    """Fails if a level is not understood, or trailing bytes disturb a frame."""
    data = far_repeats(5000)
    packed = zstd.compress(memoryview(data), level=level)
    assert zstd.decompress(packed + b"\xee" * 600, len(data)) == data


def test_no_more_is_made_than_is_asked_for() -> None:
    """Fails if a small stream can fill the memory: 1 GiB of zeros are 1 MB of deflate."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(64)) + bomb.flush()
    assert deflate.decompress(packed, 4096) == bytes(4096)
    assert zstd.decompress(zstd.compress(bytes(64 << 20)), 4096) == bytes(4096)


@pytest.mark.parametrize("sizes", [(SIZE,), (1, SIZE - 1), (0, 4096, 0, 40_000, SIZE - 44_096)])
def test_a_frame_is_decoded_piece_by_piece(sizes: tuple[int, ...]) -> None:
    """Fails if going on with a frame leaves out bytes, or gives some twice."""
    data = far_repeats(5000)
    decoder = zstd.Decoder(memoryview(zstd.compress(data) + b"behind"))
    assert b"".join(map(decoder.read, sizes)) == data
    with pytest.raises(CorruptImageError, match=f"of {SIZE + 1} bytes, found {SIZE}"):
        decoder.read(1)


@pytest.mark.parametrize("first", [0, 1, 17, 1000])
def test_a_frame_may_come_in_two_parts(first: int) -> None:
    """Fails if the second part is asked for too early, twice, or is put in the wrong place."""
    data = far_repeats(5000)
    packed = zstd.compress(data)
    asked: list[int] = []

    def more() -> bytes:
        asked.append(1)
        return packed[first:] + b"behind"

    decoder = zstd.Decoder(packed[:first], more)
    assert not asked
    sizes = (1, 40_000, SIZE - 40_001)
    assert b"".join(map(decoder.read, sizes)) == data
    assert asked == [1]
    decoder = zstd.Decoder(packed, more)
    assert decoder.read(SIZE) == data
    assert asked == [1]
    with pytest.raises(CorruptImageError):
        zstd.Decoder(packed[:first], lambda: b"").read(SIZE)


@pytest.mark.parametrize("level", [1, zstd.LEVEL_DEFAULT, 4])
@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 1 << 20])
def test_large_units_are_frames_as_others(level: int, size: int) -> None:
    """Fails if parameters of large units do not fit small ones, or other levels."""
    data = (far_repeats(5000) * (size // SIZE + 1))[:size]
    packed = zstd.compress_large(memoryview(data), level=level)
    assert zstd.decompress(packed, size) == data


@pytest.mark.parametrize("codec", [deflate, zstd])
def test_damage_is_an_error(codec: object) -> None:
    """Fails if a short, cut or broken stream gives bytes, or an error of the library."""
    module = deflate if codec is deflate else zstd
    packed = module.compress(b"imprint " * 1000)
    for broken in (packed[: len(packed) // 2], b"\xff" * 100, b"", packed[1:]):
        with pytest.raises(CorruptImageError):
            module.decompress(broken, 8000)
    with pytest.raises(CorruptImageError, match="of 8001 bytes"):
        module.decompress(packed, 8001)


def test_a_frame_that_wants_a_huge_window_is_refused() -> None:
    """Fails if 20 bytes of a frame header make the decoder allocate 2 GiB."""
    # Magic, descriptor without a size, window descriptor 0xb0: 2^(10 + 22) bytes.
    frame = bytes.fromhex("28b52ffd00b0010000")
    with pytest.raises(CorruptImageError):
        zstd.decompress(frame, 4096)
