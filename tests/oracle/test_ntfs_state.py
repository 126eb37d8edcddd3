"""NTFS volumes that were left in the middle of something, or have shadow copies."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.testing.ntfs_volume import (
    RESTART_PAGE,
    SMALL_BYTES,
    Editor,
    make,
    map_of,
    ntfs_mounted,
    reached_in,
    restart_page,
    small_volume,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("mkfs.ntfs")

DATA, BITMAP, BAD_CLUSTERS, LOG, VOLUME = 0x80, 6, 8, 2, 3


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """2047 clusters of 4 KiB."""
    return small_volume(tmp_path_factory.mktemp("ntfs") / "volume")


@pytest.fixture
def editor(sound: bytes) -> Editor:
    return Editor(sound)


def test_one_that_mkfs_made_is_not_doubted(sound: bytes) -> None:
    """Fails if the tests below would pass whatever they change."""
    found = map_of(sound)
    assert found.doubts == ()
    assert found.notes == ()
    assert reached_in(sound) - found.used == Runs.of([])


@pytest.mark.parametrize(
    ("flag", "word"),
    [
        (0x0001, "dirty"),
        (0x0002, "log"),
        (0x0004, "upgraded"),
        (0x0008, "NT 4"),
        (0x0010, "journal"),
        (0x0020, "identifiers"),
        (0x4000, "chkdsk"),
        (0x8000, "chkdsk"),
    ],
)
def test_a_volume_that_says_it_is_not_clean_is_doubted(
    editor: Editor, flag: int, word: str
) -> None:
    """Fails if a bitmap is relied upon that Windows would check or change first."""
    place = editor.value_at(VOLUME, 0x70) + 10
    editor.put(place, struct.pack("<H", flag))
    editor.copy_to_mirror(VOLUME)
    found = map_of(editor.content)
    assert len(found.doubts) == 1
    assert word in found.doubts[0]


def test_a_version_that_is_not_known_is_refused(editor: Editor) -> None:
    """Fails if structures are read that may mean something else."""
    editor.put(editor.value_at(VOLUME, 0x70) + 8, b"\x04\x00")
    editor.copy_to_mirror(VOLUME)
    with pytest.raises(UnsupportedFeatureError):
        map_of(editor.content)


CLEAN: Final = restart_page(lsn=5, flags=2, version=(1, 1))
CLOSED: Final = restart_page(lsn=5, client=0xFFFF, version=(1, 1))
OPEN: Final = restart_page(lsn=7, version=(1, 1))
OLD_OPEN: Final = restart_page(lsn=3, version=(1, 1))
FAST: Final = restart_page(lsn=9, flags=2, version=(2, 0))
CHECKED: Final = restart_page(lsn=9, version=(1, 1)).replace(b"RSTR", b"CHKD")
TORN: Final = OPEN[:-2] + b"\0\0"
EMPTY: Final = b"\xff" * RESTART_PAGE


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        (EMPTY, EMPTY, None),
        (CLEAN, CLEAN, None),
        (CLOSED, CLOSED, None),
        (CLEAN, OLD_OPEN, None),
        (OLD_OPEN, CLEAN, None),
        (CHECKED, CHECKED, None),
        (TORN, CLEAN, None),
        (OPEN, OPEN, "not unmounted"),
        (CLEAN, OPEN, "not unmounted"),
        (OPEN, TORN, "not unmounted"),
        (FAST, CLEAN, "version 2.0"),
        (TORN, TORN, "cannot be read"),
        (bytes(RESTART_PAGE), bytes(RESTART_PAGE), "cannot be read"),
    ],
)
def test_a_log_that_has_to_be_replayed_is_noticed(
    editor: Editor, first: bytes, second: bytes, word: str | None
) -> None:
    """Fails if a volume that Windows has in use, or was cut off from, passes for clean."""
    place = editor.cluster_of(LOG)
    editor.put(place, first + second)
    doubts = map_of(editor.content).doubts
    assert len(doubts) == (0 if word is None else 1)
    assert word is None or word in doubts[0]


@pytest.mark.root
@pytest.mark.oracle("ntfs-3g")
@pytest.mark.parametrize(
    ("mark", "is_doubted"),
    [(b"hibr", True), (b"HIBR", True), (b"WAKE", True), (b"RSTR", True), (bytes(4), False)],
)
@pytest.mark.parametrize("name", ["hiberfil.sys", "HiberFil.Sys"])
def test_windows_that_is_hibernated_is_noticed(
    tmp_path: Path, mark: bytes, is_doubted: bool, name: str
) -> None:
    """Fails if the file is not found in a folder of many, or what it says is not believed."""
    path = make(tmp_path / "volume", size=SMALL_BYTES)
    with ntfs_mounted(path) as folder:
        for number in range(300):
            (folder / f"a name of some length {number}").touch()
            (folder / f"zzz ä {number}").touch()
        (folder / name).write_bytes(mark + bytes(70 * KIB))
    assert len(map_of(path.read_bytes()).doubts) == is_doubted


@pytest.mark.root
@pytest.mark.oracle("ntfs-3g")
def test_a_copy_of_a_volume_in_use_has_a_doubt_or_all_that_it_reaches(tmp_path: Path) -> None:
    """Fails if a copy that was made while ntfs-3g had it mounted loses what its MFT names."""
    path, copy = make(tmp_path / "volume", size=16 * MIB), b""
    with ntfs_mounted(path) as folder:
        for number in range(200):
            (folder / f"file{number}").write_bytes(bytes([number]) * 9000)
            if number % 40 == 39:
                copy = path.read_bytes()
                found = map_of(copy)
                assert found.doubts or reached_in(copy) - found.used == Runs.of([])


def mark_bad(editor: Editor, cluster: int, *, is_in_bitmap: bool) -> None:
    """Let the list of bad clusters, which is a hole as large as the volume, have one."""
    at = editor.record_at(BAD_CLUSTERS)
    position = editor.attribute_at(BAD_CLUSTERS, DATA, index=1)
    (count,) = struct.unpack_from("<Q", editor.content, at + position + 24)
    runs = struct.pack("<BH", 2, cluster) + struct.pack("<BBH", 0x21, 1, cluster)
    runs += struct.pack("<BH", 2, count + 1 - cluster - 1) + bytes(1)
    (runs_at,) = struct.unpack_from("<H", editor.content, at + position + 32)
    length = (runs_at + len(runs) + 7) // 8 * 8
    editor.put(at + position + 4, struct.pack("<I", length))
    editor.put(at + position + runs_at, runs)
    editor.put(at + position + length, b"\xff\xff\xff\xff" + bytes(4))
    editor.put(at + 24, struct.pack("<I", position + length + 8))
    if is_in_bitmap:
        place = editor.cluster_of(BITMAP) + cluster // 8
        editor.content[place] |= 1 << cluster % 8


@pytest.mark.parametrize("is_in_bitmap", [True, False])
def test_bad_clusters_are_kept(editor: Editor, is_in_bitmap: bool) -> None:
    """Fails if they are given to files after a restore, or a contradiction is not noticed."""
    mark_bad(editor, 600, is_in_bitmap=is_in_bitmap)
    found = map_of(editor.content)
    assert found.used.covers(600 * editor.unit, editor.unit)
    assert not found.used.covers(601 * editor.unit, editor.unit)
    assert bool(found.doubts) != is_in_bitmap
    assert found.notes == ("1 clusters are marked as bad",)
    assert reached_in(editor.content) - found.used == Runs.of([])


def test_a_bitmap_that_has_the_volumes_own_files_as_free_is_doubted(editor: Editor) -> None:
    """Fails if a bitmap of zeros passes for an empty volume; and what it misses is kept."""
    before = map_of(editor.content).used
    editor.put(editor.cluster_of(BITMAP), bytes(200))
    found = map_of(editor.content)
    assert found.doubts
    assert before - found.used == Runs.of([])


def test_bits_behind_the_last_cluster_are_looked_at(editor: Editor) -> None:
    """Fails if a bitmap is relied upon that is not one of this volume: here 2047 bits count."""
    place = editor.cluster_of(BITMAP) + 2047 // 8
    editor.content[place] &= 0x7F
    assert len(map_of(editor.content).doubts) == 1


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("at", [0x12, 0x50])
def test_a_record_that_differs_from_its_copy_is_doubted(
    editor: Editor, number: int, at: int
) -> None:
    """Fails if one of the two is believed, whichever it is."""
    editor.content[editor.record_at(number, is_copy=True) + at] ^= 1
    assert len(map_of(editor.content).doubts) == 1


def test_clusters_that_only_records_name_are_reached(editor: Editor) -> None:
    """Fails if what is reached is taken from the bitmap: there would be no proof."""
    before = reached_in(editor.content)
    editor.put(editor.cluster_of(BITMAP), bytes(256))
    assert reached_in(editor.content) == before


SHADOW_MARK: Final = bytes.fromhex("6b870838 76c1484e b7ae0404 6e6cc752")


def catalog(*, kind: int = 2, is_placed: bool = True, bitmap: int = 0x10_0000) -> bytes:
    """A block of the catalog of shadow copies, with one of them."""
    head = SHADOW_MARK + struct.pack("<IIQQQ", 1, kind, 0, 0x20_0000, 0)
    copy = struct.pack("<QQ16s", 2, SMALL_BYTES, b"x" * 16)
    place = struct.pack("<QQ16sQQQQQQ", 3, 0, b"x" * 16, 0, 0, bitmap, 0, 0, 0)
    entries = copy.ljust(128, b"\0") + (place if is_placed else b"").ljust(128, b"\0")
    return (head.ljust(128, b"\0") + entries).ljust(16 * KIB, b"\0")


def shadow_bitmap(bits: bytes, *, following: int = 0) -> bytes:
    """The bitmap of a shadow copy; what is set was free."""
    head = SHADOW_MARK + struct.pack("<IIQQQ", 1, 6, 0, 0x10_0000, following)
    return (head.ljust(128, b"\0") + bits).ljust(16 * KIB, b"\xff")


def with_shadows(editor: Editor, block: bytes, bits: bytes) -> bytes:
    head = SHADOW_MARK + struct.pack("<IIQQQQ", 1, 1, 0x1E00, 0x1E00, 0, 0x20_0000)
    editor.put(0x1E00, head)
    editor.put(0x20_0000, block)
    editor.put(0x10_0000, bits)
    return bytes(editor.content)


def test_blocks_that_a_shadow_copy_has_not_as_free_are_kept(editor: Editor) -> None:
    """Fails if the bitmap of a shadow copy is read the wrong way round, or from elsewhere."""
    before = map_of(editor.content).used
    bits = bytearray(b"\xff" * 100)
    bits[12] = 0xEF  # block 100 was in use
    content = with_shadows(editor, catalog(), shadow_bitmap(bytes(bits)))
    found = map_of(content)
    assert found.doubts == ()
    assert found.used - before == Runs.of([(100 * 16 * KIB, 16 * KIB)])


WRONG_SHADOWS: Final = {
    "not a catalog": (catalog(kind=3), shadow_bitmap(b"")),
    "no place": (catalog(is_placed=False), shadow_bitmap(b"")),
    "bitmap outside": (catalog(bitmap=1 << 60), shadow_bitmap(b"")),
    "no bitmap": (catalog(), bytes(16 * KIB)),
    "elsewhere": (catalog(), shadow_bitmap(b"")),
    "a loop": (catalog(), shadow_bitmap(b"", following=0x10_0000)),
}


@pytest.mark.parametrize("name", WRONG_SHADOWS)
def test_shadow_copies_that_cannot_be_read_are_doubted(editor: Editor, name: str) -> None:
    """Fails if they are ignored, or followed for ever."""
    content = bytearray(with_shadows(editor, *WRONG_SHADOWS[name]))
    if name == "elsewhere":
        content[0x1E00 + 80] = 1
    found = map_of(content)
    assert len(found.doubts) == 1
    assert "shadow" in found.doubts[0]
