"""Names of files of images, made safe for folders."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.endpoints.extracted_names import (
    BYTES_MAX,
    DELETED,
    MARK,
    TEMPORARY,
    marked,
    original,
    safe,
)

_NAMES = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("README.TXT", "README.TXT"),
        ("Grüße 你好", "Grüße 你好"),
        ("100%", "100%"),
        ("50% off", "50% off"),
        ("..", "%2E."),
        (".", "%2E"),
        ("a/b", "a%2Fb"),
        ("a\0b\n\x1b[31m", "a%00b%0A%1B[31m"),
        ("exe.\u202egnp", "exe.%E2%80%AEgnp"),
        ("%41", "%2541"),
        (TEMPORARY, "%2Eimprint.partial"),
        (".Imprint.PARTIAL", "%2EImprint.PARTIAL"),
        ("\udcff", "\udcff"),
    ],
)
def test_only_what_is_unsafe_is_escaped(name: str, expected: str) -> None:
    """Fails if a name is changed for nothing, or steers a terminal or a path."""
    assert safe(name) == expected


@given(_NAMES)
def test_every_name_becomes_one_that_is_safe_and_can_be_told_back(name: str) -> None:
    """Fails if a name leaves its folder, cannot be made, or is lost."""
    found = safe(name)
    raw = os.fsencode(found)
    assert found not in ("", ".", "..", TEMPORARY)
    assert not {0, ord("/"), 0x0A, 0x1B} & set(raw)
    assert len(raw) <= BYTES_MAX
    assert MARK not in found or len(os.fsencode(name)) * 3 > BYTES_MAX
    if MARK not in found:
        assert os.fsencode(original(found)) == name.encode("utf-8", "surrogatepass") or (
            original(found) == name
        )


@given(_NAMES, _NAMES)
def test_two_names_do_not_become_one(one: str, other: str) -> None:
    """Fails if a file would hide another one."""
    if os.fsencode(safe(one)) == os.fsencode(safe(other)):
        assert _bytes(one) == _bytes(other)


@pytest.mark.parametrize("name", ["é" * 200, "\udcff" * 300, "a" * 256, "\x01" * 200])
def test_long_names_are_cut_off_within_the_limit(name: str) -> None:
    """Fails if a long name cannot be made, or two of them become one."""
    found = safe(name)
    assert len(os.fsencode(found)) <= BYTES_MAX
    assert safe(name + "x") != found
    assert len(os.fsencode(marked(found, "2"))) <= BYTES_MAX


def test_names_of_our_own_are_no_names_of_an_image() -> None:
    """Fails if a file of an image can pose as the folder of deleted files."""
    assert safe(DELETED) != DELETED


def _bytes(name: str) -> bytes:
    """Lone surrogates of bytes are these bytes; others have no bytes and stand for themselves."""
    return b"".join(
        os.fsencode(char)
        if 0xDC80 <= ord(char) <= 0xDCFF
        else char.encode("utf-8", "surrogatepass")
        for char in name
    )
