"""Declared structures: what is declared is what is packed, at its place."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.layout import Structure, raw, sint, uint


class Little(Structure, size=32, endian="<"):
    """Fields out of order, with gaps."""

    tail: bytes = raw(3, at=29, doc="the end")
    word: int = uint(4, at=8, doc="a word")
    byte: int = uint(1, at=1, doc="a byte", default=7)
    long: int = sint(8, at=16, doc="signed")


class Big(Structure, size=10, endian=">"):
    half: int = uint(2, at=0, doc="two bytes")
    long: int = uint(8, at=2, doc="eight bytes")


def test_fields_stand_where_they_are_declared() -> None:
    """Fails if order of declaration, a gap or the byte order gets in the way."""
    packed = Little(tail=b"abc", word=0x11223344, byte=5, long=-2).pack()
    expected = bytearray(32)
    expected[1] = 5
    expected[8:12] = struct.pack("<I", 0x11223344)
    expected[16:24] = struct.pack("<q", -2)
    expected[29:] = b"abc"
    assert packed == expected
    assert Big(half=0x0102, long=3).pack() == b"\1\2\0\0\0\0\0\0\0\3"


@given(st.binary(min_size=10, max_size=20))
def test_unpacking_undoes_packing(data: bytes) -> None:
    """Fails if a bit is lost; what lies behind the structure is not looked at."""
    record = Big.unpack(data)
    assert record.pack() == data[:10]
    assert Big.unpack(record.pack()) == record


def test_a_field_that_is_not_given_has_its_default() -> None:
    """Fails if a default is ignored, or is not zero where none is declared."""
    record = Little(tail=b"", word=0, long=0)
    assert record.byte == 7
    assert record.pack()[29:] == bytes(3)


def test_a_record_does_not_change() -> None:
    """Fails if a header can be altered under the hands of somebody who checked it."""
    record = Big(half=1, long=2)
    with pytest.raises(AttributeError):
        record.half = 3
    changed = record.replace(half=3)
    assert (changed.half, changed.long, record.half) == (3, 2, 1)
    assert record != changed
    assert hash(record) == hash(Big(half=1, long=2))
    assert "half=1" in repr(record)


def test_an_unknown_field_is_a_mistake() -> None:
    """Fails if a misspelt field is taken and forgotten."""
    values: dict[str, Any] = {"halb": 1}
    with pytest.raises(TypeError, match="halb"):
        Big(half=1, long=2, **values)


def test_too_few_bytes_are_a_truncated_image() -> None:
    """Fails if a short read becomes a struct.error."""
    with pytest.raises(TruncatedImageError, match="Big: expected 10 bytes, found 9") as caught:
        Big.unpack(bytes(9), where="disk.img")
    assert caught.value.name == "disk.img"


def test_an_overlap_fails_when_the_class_is_made() -> None:
    """Fails if a wrong offset is only noticed by wrong data."""
    with pytest.raises(TypeError, match="second overlaps"):

        class Overlapping(Structure, size=8, endian="<"):
            first: int = uint(4, at=0, doc="four bytes")
            second: int = uint(4, at=3, doc="begins in them")


def test_a_structure_in_the_other_byte_order_has_the_same_fields() -> None:
    """Fails if a structure that machines write in either order has to be declared twice."""

    class Swapped(Big, size=12, endian="<"):
        more: int = uint(2, at=10, doc="behind the fields of the base")

    assert Big.SIZE == 10
    assert list(Big.FIELDS) == ["half", "long"]
    data = struct.pack("<HQH", 0x0102, 0x0304, 5)
    record = Swapped.unpack(data)
    assert (record.half, record.long, record.more) == (0x0102, 0x0304, 5)
    assert record.pack() == data
    assert Big.unpack(struct.pack(">HQ", 0x0102, 0x0304)).half == 0x0102


def test_a_field_behind_the_end_fails_when_the_class_is_made() -> None:
    """Fails if a structure claims to be shorter than its fields."""
    with pytest.raises(TypeError, match="longer than its 6 bytes"):

        class TooShort(Structure, size=6, endian="<"):
            only: int = uint(4, at=4, doc="ends at 8")


def test_a_wrong_field_is_named_with_its_place() -> None:
    """Fails if a message does not lead to the byte: 0x400 + 8 = 0x408."""
    record = Little(tail=b"", word=9, long=0)
    record.require("word", True, "nothing", where="disk.img")
    with pytest.raises(CorruptImageError) as caught:
        record.require("word", False, "a power of two", where="disk.img", at=0x400)
    expected = "disk.img: Little.word at 0x408: expected a power of two, found 0x9"
    assert str(caught.value) == expected
    assert caught.value.offset == 0x408
    with pytest.raises(UnsupportedFeatureError):
        record.require("word", False, "1", where="x", error=UnsupportedFeatureError)
