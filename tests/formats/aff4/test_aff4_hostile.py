"""Containers that mean harm: bombs, loops, and sizes that nobody has."""

from __future__ import annotations

import hashlib
import struct
import zipfile
from io import BytesIO

import pytest

from imprint import formats
from imprint.core.errors import CorruptImageError, FormatError, UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.core.formats import Checkable
from imprint.formats.aff4 import turtle
from imprint.formats.aff4.archive import Archive
from imprint.formats.aff4.maps import ENTRY, MapStream, Symbol, symbol_named
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

HEAD = "@prefix aff4: <http://aff4.org/Schema#> .\n"
ZERO = Symbol(Kind.ZERO, b"\0")


def volume(description: str, **members: bytes) -> bytes:
    """An archive with a description; ``__`` in a name stands for a slash."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("container.description", "aff4://v", zipfile.ZIP_STORED)
        archive.writestr("information.turtle", HEAD + description)
        for name, data in members.items():
            archive.writestr("aff4%3A%2F%2F" + name.replace("__", "/"), data)
    return content.getvalue()


def opened(content: bytes) -> object:
    return formats.get("aff4").open(MemoryStorage(content, name="x.aff4"), DictOpener())


def test_maps_in_a_loop_are_refused() -> None:
    """Fails if opening never ends."""
    entry = ENTRY.pack(0, 512, 0, 0)
    said = (
        "<aff4://i> a aff4:DiskImage ; aff4:dataStream <aff4://a> ; aff4:size 512 ."
        "<aff4://a> a aff4:Map ; aff4:size 512 . <aff4://b> a aff4:Map ; aff4:size 512 ."
    )
    members = {"a__map": entry, "a__idx": b"aff4://b\n", "b__map": entry, "b__idx": b"aff4://a\n"}
    with pytest.raises(CorruptImageError, match="loop"):
        opened(volume(said, **members))


def test_a_bomb_is_refused_before_it_bursts() -> None:
    """Fails if a member is unpacked whose size nobody would write."""
    bomb = bytes(64 << 20)
    said = (
        "<aff4://i> a aff4:DiskImage ; aff4:dataStream <aff4://a> ; aff4:size 512 ."
        "<aff4://a> a aff4:Map ; aff4:size 512 ."
    )
    with pytest.raises(UnsupportedFeatureError):
        opened(volume(said, a__map=bomb, a__idx=b"http://aff4.org/Schema#Zero\n"))
    with pytest.raises(UnsupportedFeatureError):
        opened(volume("#" + " " * (8 << 20)))


@pytest.mark.parametrize(
    "said",
    [
        "aff4:size -1 ; aff4:chunkSize 512",
        'aff4:size "99999999999999999999999"',
        'aff4:size "12" ; aff4:chunkSize "0"',
        'aff4:size "512" ; aff4:chunkSize "4294967296"',
        'aff4:size "512" ; aff4:chunksInSegment "99999999"',
        'aff4:size "512" ; aff4:compressionMethod <http://example.org/other>',
    ],
)
def test_absurd_sizes_are_refused(said: str) -> None:
    """Fails if a size is taken as it stands."""
    text = f"<aff4://i> a aff4:DiskImage ; aff4:dataStream <aff4://s> . <aff4://s> {said} ."
    with pytest.raises(FormatError):
        opened(volume(text, s__00000000=b"x" * 512))


def test_a_member_that_comes_twice_is_refused() -> None:
    """Fails if an archive can show two disks to two readers."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("information.turtle", HEAD)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("information.turtle", HEAD)
    with pytest.raises(CorruptImageError, match="once"):
        Archive(MemoryStorage(content.getvalue()))


@pytest.mark.parametrize("cut", [1, 22, 60, 200])
def test_a_truncated_archive_is_an_error(cut: int) -> None:
    """Fails if an archive without its end is read in part."""
    content = volume("<aff4://i> a aff4:DiskImage .")
    with pytest.raises(FormatError):
        opened(content[:-cut])


def test_overlapping_entries_are_refused() -> None:
    """Fails if a place on the disk could be read from two places."""
    points = ENTRY.pack(0, 1024, 0, 0) + ENTRY.pack(512, 512, 0, 0)
    with pytest.raises(CorruptImageError, match="overlap"):
        MapStream("m", 1024, points, [ZERO], ZERO, where="x")
    with pytest.raises(CorruptImageError, match="targets"):
        MapStream("m", 1024, ENTRY.pack(0, 1, 0, 7), [ZERO], ZERO, where="x")


def test_gaps_and_disorder_in_a_map_are_understood() -> None:
    """Fails if a discontiguous map, or one that was not sorted, is read at the wrong place."""
    one, two = Symbol(Kind.ENCODED, b"1"), Symbol(Kind.ENCODED, b"2")
    points = ENTRY.pack(4096, 512, 9, 1) + ENTRY.pack(512, 512, 7, 0)
    found = MapStream("m", 8192, points, [one, two], ZERO, where="x")
    seen = []
    position = 0
    while position < found.size:
        piece = found.piece(position)
        assert piece.start == position
        seen.append((piece.start, piece.end, piece.leaf))
        position = piece.end
    assert seen == [
        (0, 512, ZERO),
        (512, 1024, one),
        (1024, 4096, ZERO),
        (4096, 4608, two),
        (4608, 8192, ZERO),
    ]


def test_a_map_of_a_map_is_followed() -> None:
    """Fails if offsets of nested maps are not added up; the numbers are worked out by hand."""
    one = Symbol(Kind.ENCODED, b"1")
    inner = MapStream("i", 4096, ENTRY.pack(1000, 100, 50, 0), [one], ZERO, where="x")
    outer = MapStream("o", 500, ENTRY.pack(10, 400, 900, 0), [inner], ZERO, where="x")
    assert outer.piece(0)[:2] == (0, 10)
    assert outer.piece(60)[:3] == (10, 110, ZERO)
    assert outer.piece(110) == (110, 210, one, 50)
    assert outer.piece(150) == (110, 210, one, 50)
    assert outer.piece(209).end == 210
    assert outer.piece(210)[:3] == (210, 410, ZERO)


def test_symbolic_streams_have_their_bytes() -> None:
    """Fails if the text of a stream does not begin again at each MiB, as the standard says."""
    assert symbol_named("http://aff4.org/Schema#Zero") == ZERO
    assert symbol_named("http://aff4.org/Schema#SymbolicStreamFF") == Symbol(Kind.ENCODED, b"\xff")
    assert symbol_named("http://afflib.org/2012/SymbolicStream#61") == Symbol(Kind.ENCODED, b"a")
    assert symbol_named("aff4://c215ba20-5648-4209-a793-1f918c723610") is None
    unknown = symbol_named("http://aff4.org/Schema#UnknownData")
    assert unknown is not None
    buffer = memoryview(bytearray(20))
    unknown.fill(buffer, (1 << 20) - 6)
    expected = (b"UNKNOWN" * 149797)[: 1 << 20][-6:] + b"UNKNOWNUNKNOWN"
    assert bytes(buffer) == expected


def test_turtle_is_understood() -> None:
    """Fails if one of the ways to write a statement is not known."""
    text = """
    @prefix : <aff4://v> . PREFIX x: <http://x/y#>
    @base <http://base/> .
    : a x:One, x:Two ; x:size "12"^^x:Long ; x:snake_case 'it''s' .  # a comment
    """.replace("'it''s'", '"""it\'s "so"\nhere"""')
    text += '<rel> x:of [ x:inner true ; ] , ( 1 2.5 ), "\\u0041\\n"@en-GB ; .\n_:b x:p x:q.'
    graph = turtle.parse(text.encode(), where="x")
    assert graph.kinds("aff4://v") == {"one", "two"}
    assert graph.terms("aff4://v", "size") == [("12", "long")]
    assert graph.values("aff4://v", "snakecase") == ['it\'s "so"\nhere']
    assert graph.values("http://base/rel", "of")[2] == "A\n"
    assert graph.values("_:b", "p") == ["http://x/y#q"]


@pytest.mark.parametrize(
    "text",
    [
        "<a> <b>",
        "<a> <b> <c>",
        "<a> x:b <c> .",
        '<a> <b> "open .',
        "[[[[[[",
        "@prefix",
        "<a> <b> \x01 .",
        "<a> " + "[ <b> " * 100,
        ". . .",
    ],
)
def test_broken_turtle_is_one_error(text: str) -> None:
    """Fails if the parser ends in another exception, or takes garbage for statements."""
    with pytest.raises(FormatError):
        turtle.parse(text.encode(), where="x")


def test_too_many_statements_are_refused() -> None:
    """Fails if a small file can fill the memory."""
    text = "<a> <b> " + "1," * (turtle.TRIPLES_MAX + 1) + "1 ."
    with pytest.raises(UnsupportedFeatureError):
        turtle.parse(text.encode(), where="x")


def test_an_end_record_may_lie_in_a_comment() -> None:
    """Fails if the marks of an end inside the comment are taken for the end."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a", b"1")
        archive.comment = b"x" + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 1) + b"yz"
    assert Archive(MemoryStorage(content.getvalue())).names == ["a"]


@pytest.mark.parametrize("is_right", [True, False])
def test_a_hash_of_the_disk_counts_the_text_of_what_was_not_read(is_right: bool) -> None:
    """Fails if the check hashes zeros there: section 4.4 of the standard says what counts."""
    disk = b"\xff" * 512 + (b"UNREADABLEDATA" * 200)[512:1536] + bytes(512)
    digest = hashlib.sha1(disk if is_right else b"", usedforsecurity=False).hexdigest()
    said = (
        "<aff4://i> a aff4:DiskImage ; aff4:dataStream <aff4://m> ;"
        f' aff4:hash "{digest}"^^aff4:SHA1 .'
        "<aff4://m> a aff4:Map ; aff4:size 2048 ."
    )
    schema = "http://aff4.org/Schema#"
    content = volume(
        said,
        m__map=ENTRY.pack(0, 512, 0, 0) + ENTRY.pack(512, 1024, 512, 1),
        m__idx=f"{schema}SymbolicStreamFF\n{schema}UnreadableData\n".encode(),
    )
    format_ = formats.get("aff4")
    assert isinstance(format_, Checkable)
    storage = MemoryStorage(content, name="x.aff4")
    found = [finding.where for finding in format_.check(storage, DictOpener(), repair=False)]
    assert found == ([] if is_right else ["disk"])
    with format_.open(storage, DictOpener()) as image:
        assert image.read_at(0, 2048) == b"\xff" * 512 + bytes(1536)
        assert "sha1" not in image.info().hashes
