"""Names in FAT, short and long: Microsoft's own examples, and what cannot be a name."""

from __future__ import annotations

import pytest

from imprint.core.errors import UsageError
from imprint.filesystems.fat.names import (
    check_name,
    checksum,
    long_entries,
    long_part,
    long_text,
    short_name,
    short_text,
)


@pytest.mark.parametrize(
    ("name", "short", "is_exact"),
    [
        ("FOO.BAR", b"FOO     BAR", True),
        ("FOO", b"FOO        ", True),
        ("PRETTYBG.BIG", b"PRETTYBGBIG", True),
        ("foo.bar", b"FOO     BAR", False),
        ("The quick brown.fox", b"THEQUI~1FOX", False),
        ("a+b[c].txt", b"A_B_C_~1TXT", False),
        (".profile", b"PROFIL~1   ", False),
        ("backups.tar.gz", b"BACKUP~1GZ ", False),
        ("Ü.TXT", b"\x9a       TXT", True),
        ("日本.txt", b"__~1    TXT", False),
        ("TEXT.html", b"TEXT~1  HTM", False),
    ],
)
def test_short_names_are_those_that_dos_would_show(
    name: str, short: bytes, *, is_exact: bool
) -> None:
    """Source: "FAT: General Overview of On-Disk Format" 1.03, FAT Directory Structure."""
    assert short_name(name, set()) == (short, is_exact)


def test_short_names_of_one_folder_differ() -> None:
    """Fails if two files get the same name, of which DOS finds the first only."""
    taken: set[bytes] = set()
    for number in range(120):
        found, _ = short_name(f"a long name {number}.text", taken)
        assert found not in taken
        assert found[8:] == b"TEX"
        taken.add(found)
    assert short_name("foo.bar", {b"FOO     BAR"}) == (b"FOO~1   BAR", False)


@pytest.mark.parametrize(
    "name", ["x" * 13, "x" * 14, "The quick brown.fox", "n" * 255, "日本語 🙂"]
)
def test_long_names_come_back(name: str) -> None:
    """Fails if a piece is in the wrong place, or of the wrong length."""
    short, _ = short_name(name, set())
    entries = long_entries(name, short)
    assert len(entries) == -(-len(name.encode("utf-16-le")) // 26)
    assert entries[0][0] & 0x40
    assert [entry[0] & 0x3F for entry in entries] == list(range(len(entries), 0, -1))
    assert {(len(entry), entry[11], entry[13]) for entry in entries} == {
        (32, 0x0F, checksum(short))
    }
    assert long_text([long_part(entry) for entry in entries[::-1]]) == name


def test_windows_keeps_the_case_of_short_names_in_two_bits() -> None:
    """Fails if names that Windows NT has written are all capitals."""
    assert short_text(b"README  TXT\x20\x18") == "readme.txt"
    assert short_text(b"README  TXT\x20\x08") == "readme.TXT"
    assert short_text(b"\x05BC        \x20\x00") == "\u03c3BC"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a:b", "a\nb", "a.", "a ", "x" * 256, "a?"]
)
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    """Fails if a file is made that no system can open."""
    with pytest.raises(UsageError):
        check_name(name)
