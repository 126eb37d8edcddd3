"""gzip streams of pieces: the standard library reads them as one."""

from __future__ import annotations

import gzip as standard
import random

import pytest

from imprint.codecs import gzip


@pytest.mark.parametrize("level", range(10))
def test_pieces_are_one_stream(level: int) -> None:
    """Fails if a piece needs another one, or the checksum of all is wrong."""
    noise = random.Random(level)
    parts = [b"", noise.randbytes(70_000), bytes(100_000), b"abc" * 5000, b"x"]
    joined = gzip.Joined()
    stream = gzip.HEADER + b"".join(joined.add(gzip.pack(part, level)) for part in parts)
    assert standard.decompress(stream + joined.end()) == b"".join(parts)


def test_a_piece_can_be_there_many_times() -> None:
    """Fails if holes, which are one piece over and over, spoil the checksum."""
    joined = gzip.Joined()
    piece = gzip.pack(bytes(1 << 20), 9)
    stream = gzip.HEADER + joined.add(piece, 20) + joined.add(gzip.pack(b"end", 2)) + joined.end()
    assert standard.decompress(stream) == bytes(20 << 20) + b"end"
    assert len(stream) < 40_000
