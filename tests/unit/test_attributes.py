"""Extended attributes: whatever a file system says, a bounded number of them, and notes."""

from __future__ import annotations

import contextlib
import itertools
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import CorruptImageError, ImagingError
from imprint.filesystems.attributes import indexed, list_in_words, list_of_xfs
from imprint.filesystems.f2fs import layout as f2fs
from imprint.filesystems.f2fs.attributes import attributes as attributes_of_f2fs
from imprint.filesystems.tree import ATTRIBUTES_BYTES_MAX, VALUE_BYTES_MAX, collected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.tree import Attribute

MIB = 1 << 20


def _bad() -> bytes:
    raise CorruptImageError("is elsewhere")


def test_what_is_told_of_a_file_ends() -> None:
    """Fails if a small image can ask for any amount of memory or time."""
    notes: list[str] = []
    endless: Iterator[Attribute] = ((f"user.{number}", bytes(MIB)) for number in itertools.count())
    assert len(collected(endless, "/file", notes)) == ATTRIBUTES_BYTES_MAX // MIB - 1
    assert ["at most" in note for note in notes] == [True]
    empty: Iterator[Attribute] = (("user.same", b"") for _ in itertools.count())
    assert collected(empty, "/file", notes) == {"user.same": b""}
    bad: Iterator[Attribute] = ((f"user.{number}", _bad) for number in itertools.count())
    assert collected(bad, "/file", notes) == {}
    assert len(notes) < 100
    assert VALUE_BYTES_MAX < ATTRIBUTES_BYTES_MAX


def test_one_that_cannot_be_read_hides_no_other() -> None:
    """Fails if one is lost since another is damaged, or has a name that nobody can ask for."""
    notes: list[str] = []
    found: list[Attribute] = [
        ("user.first", b"1"),
        ("user.bad", _bad),
        ("user.", b"2"),
        ("", b"3"),
        ("user.with \0", b"4"),
        (f"user.{'x' * 251}", b"5"),
        (f"user.{'x' * 250}", b"6"),
        ("user.lazy", lambda: b"7"),
        ("user.first", b"another one of its name"),
    ]
    told = collected(iter(found), "/a\udcff", notes)
    assert list(told.values()) == [b"1", b"6", b"7"]
    assert len(notes) == 5
    assert notes[0] == "/a\\xff: attribute user.bad: is elsewhere"


def test_lists_are_told_in_the_words_of_getfacl() -> None:
    """Fails if an entry of an access control list is given to another one."""
    rows = [(1, 7, -1), (2, 4, 1000), (4, 5, -1), (8, 6, 70_000), (16, 1, -1), (32, 0, -1)]
    told = struct.pack("<I", 2)
    short, xfs = struct.pack("<I", 1), struct.pack(">I", len(rows))
    for tag, permissions, who in rows:
        told += struct.pack("<HHI", tag, permissions, who & 0xFFFFFFFF)
        short += struct.pack("<HH", tag, permissions)
        short += struct.pack("<I", who) if who >= 0 else b""
        xfs += struct.pack(">IIHxx", tag, max(who, 0), permissions)
    words = "user::rwx,user:1000:r--,group::r-x,group:70000:rw-,mask::--x,other::---"
    assert list_in_words(told) == words
    assert list_of_xfs(xfs) == told
    stored = indexed(2, b"", short)
    assert stored is not None
    assert collected([stored], "/", []) == {"system.posix_acl_access": told}
    for damaged in (told[:-1], b"", told[4:], b"\1" + told[1:]):
        assert list_in_words(damaged) is None
    for damaged in (b"", xfs[:-1], xfs + b"x", xfs[:4] + b"\xff" + xfs[5:]):
        with pytest.raises(CorruptImageError):
            list_of_xfs(damaged)


@given(st.binary(max_size=200))
def test_any_bytes_are_attributes_or_an_error(data: bytes) -> None:
    """Fails if bytes of an image raise what no caller expects."""
    notes: list[str] = []
    found = attributes_of_f2fs(f2fs.ATTRIBUTES_MARK + bytes(20) + data)
    assert sum(map(len, collected(found, "/", notes).values())) <= 3 * len(data)
    stored = indexed(3, b"", data)
    assert stored is not None
    assert collected([stored], "/", notes) or notes
    for read in (list_of_xfs, list_in_words):
        with contextlib.suppress(ImagingError):
            read(data)
