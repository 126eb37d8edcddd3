"""SquashFS: a volume made by hand, compressed in every way; bombs and other hostile bytes."""

from __future__ import annotations

import importlib
import struct
import zlib

import pytest

from imprint.codecs import lzo
from imprint.core.errors import CorruptImageError, ImagingError
from imprint.core.extent import Kind
from imprint.core.units import KIB, MIB
from imprint.filesystems.squashfs.compressors import unpacker
from imprint.filesystems.squashfs.layout import Superblock
from imprint.filesystems.squashfs.tree import SquashfsTree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.format_faults import bounded_memory
from imprint.testing.small_squashfs import (
    ATTRIBUTES,
    BLOCK,
    CONTENT,
    NAMES,
    PACKERS,
    small_squashfs,
)

each_compressor = pytest.mark.parametrize("compressor", [1, 2, 4, 5, 6])


def opened(content: bytes) -> SquashfsTree:
    return SquashfsTree(MemoryStorage(content, name="volume"))


@each_compressor
@pytest.mark.parametrize("is_plain", [False, True])
def test_what_was_put_there_is_told(compressor: int, is_plain: bool) -> None:
    """Fails if a block of any kind is read as another, or a loop is entered."""
    files = opened(small_squashfs(compressor, is_plain=is_plain))
    found = {entry.path: entry for entry in walk(files)}
    assert sorted(found) == sorted(["/", *(f"/{name}" for name in NAMES), "/folder/again"])
    assert found["/file"].owner == 70_000
    assert found["/link"].target == "folder"
    content = files.content(found["/file"])
    for start, end in ((0, content.size), (1, 5000), (BLOCK - 1, 2 * BLOCK + 1), (12_290, 12_300)):
        buffer = bytearray(end - start)
        content.readinto(memoryview(buffer), start)
        assert bytes(buffer) == CONTENT[start:end]
    kinds = [extent.kind for extent in content.extents(0, content.size)]
    assert kinds == [Kind.ENCODED, Kind.DATA, Kind.HOLE, Kind.ENCODED]
    attributes = {path: files.attributes(entry) for path, entry in found.items()}
    assert attributes.pop("/file") == ATTRIBUTES
    assert not any(attributes.values())
    assert ["in itself" in note for note in files.notes] == [True]


@each_compressor
def test_a_block_that_holds_more_than_a_block_is_an_error(compressor: int) -> None:
    """Fails if a small image can ask for any amount of memory."""
    unpack = unpacker(compressor, "volume")
    bomb = PACKERS[compressor](bytes(64 * MIB))
    with bounded_memory(24 * MIB), pytest.raises(CorruptImageError):
        unpack(bomb, BLOCK)
    sound = PACKERS[compressor](bytes(BLOCK))
    assert unpack(sound, BLOCK) == bytes(BLOCK)
    assert unpack(sound, MIB) == bytes(BLOCK)
    for damaged, limit in ((sound, BLOCK - 1), (sound[:-1], BLOCK), (b"", BLOCK)):
        with pytest.raises(CorruptImageError):
            unpack(damaged, limit)


def test_lzo_that_holds_too_much_is_not_unpacked() -> None:
    """Fails if the library, which has no bound, is asked to unpack a bomb; others are unpacked."""
    pytest.importorskip("lzallright")
    compressor = importlib.import_module("lzallright").LZOCompressor()
    bomb = compressor.compress(bytes(200 * MIB))
    with bounded_memory(16 * MIB), pytest.raises(CorruptImageError, match="found more"):
        lzo.decompress(bomb, MIB)
    # Sound ones that look as if they held too much: UTF-16 that hardly repeats.
    noise = zlib.compress(bytes(range(256)) * 4000, 0)[:600_000]
    wide = b"".join(struct.pack("<H", (byte * 7 + at) % 251) for at, byte in enumerate(noise[::2]))
    for content in (bytes(MIB), wide, b"", b"abc", noise + bytes(100_000)):
        packed = compressor.compress(content)
        assert lzo.decompress(packed, MIB) == content
    with pytest.raises(CorruptImageError, match="found more"):
        lzo.decompress(compressor.compress(bytes(5000)), 4096)


def test_what_looks_like_a_bomb_is_measured_right() -> None:
    """Fails if the lengths of literals, matches and ends are followed in another way than LZO's."""
    pytest.importorskip("lzallright")
    compressor = importlib.import_module("lzallright").LZOCompressor()
    for seed in range(6):
        words = [
            bytes([(seed * 31 + at) % 256]) * (at * at % 97) + b"\0" * (at % 700)
            for at in range(400)
        ]
        content = b"".join(words)
        packed = compressor.compress(content)
        lzo._measure(packed, len(content))
        with pytest.raises(CorruptImageError):
            lzo._measure(packed, len(content) - 1)


def test_a_file_that_says_to_be_endless_is_an_error_in_no_time() -> None:
    """Fails if sizes are believed; byte 24 of an extended file's inode is its size."""
    whole = bytearray(small_squashfs(is_plain=True))
    at = Superblock.unpack(whole).inode_table + 2
    start = whole.index(struct.pack("<H", 9) + struct.pack("<H", 0o750), at)
    for size in (1 << 63, (1 << 64) - 1, 1 << 40, 1 << 36):
        struct.pack_into("<Q", whole, start + 24, size)
        files = opened(bytes(whole))
        with bounded_memory(300 * MIB):
            entry = next(item for item in files.children(files.root()) if item.name == "file")
            assert entry.size == size
            with pytest.raises(ImagingError):
                files.content(entry)


def test_metadata_that_leads_nowhere_is_a_note() -> None:
    """Fails if a folder that says to be 4 GiB long is read without end."""
    whole = bytearray(small_squashfs(is_plain=True))
    at = Superblock.unpack(whole).inode_table + 2
    start = whole.index(struct.pack("<HH", 8, 0o750), at)
    struct.pack_into("<I", whole, start + 20, 0xFFFFFFFF)
    files = opened(bytes(whole))
    list(files.children(find_path(files, "folder")))
    assert len(files.notes) == 1


@pytest.mark.parametrize(
    ("part", "other", "told", "why"),
    [
        (b"\0" * 8 + b"\2\0", b"\0" * 8 + b"\xff\xff", 2, "/file: "),
        (b"\0" * 8 + b"\2\0", b"\xff" + b"\0" * 7 + b"\2\0", 0, "/file: its extended attributes"),
        (b"one\x0a\0\0\0", b"one\xff\xff\xff\xff", 0, "expected at most 1048576 bytes"),
        (b"far\x08\0\0\0\x07", b"far\x08\0\0\0\x09", 1, "attribute security.far"),
        (b"far\x08\0\0\0\x07", b"far\x07\0\0\0\x07", 1, "/file: "),
    ],
    ids=["count", "place", "length", "far", "far place"],
)
def test_attributes_that_make_no_sense_are_a_note(
    part: bytes, other: bytes, told: int, why: str
) -> None:
    """Fails if their counts and lengths are believed, or one that is bad hides those before it."""
    whole = small_squashfs(is_plain=True)
    assert whole.count(part) == 1
    files = opened(whole.replace(part, other))
    found = files.attributes(find_path(files, "file"))
    assert len(found) == told
    assert files.notes
    assert all(why in note for note in files.notes)


def test_a_block_size_beyond_the_format_is_refused() -> None:
    """Fails if blocks above 1 MiB are taken."""
    whole = bytearray(small_squashfs())
    struct.pack_into("<I", whole, 12, 2 * MIB)
    struct.pack_into("<H", whole, 22, 21)
    with pytest.raises(CorruptImageError, match="4 KiB to 1 MiB"):
        opened(bytes(whole))
    assert BLOCK == 4 * KIB
