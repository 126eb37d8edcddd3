"""Files in FAT images changed by imprint: judged by fsck.fat and mtools."""

from __future__ import annotations

import random
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError, RefusedError, TargetError, TargetTooSmallError
from imprint.filesystems.fat.editor import FatEditor
from imprint.filesystems.fat.making import FLOPPIES, make, shape_of
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
NOON_S = 1_767_268_800  # 2026-01-01 12:00 UTC
SIZES = [(160 * KIB, 12), (1440 * KIB, 12), (20 * MIB, 16), (40 * MIB, 32)]

pytestmark = pytest.mark.oracle("fsck.fat", "mcopy", "mdir")


def empty(size: int, bits: int | None = None) -> MemoryStorage:
    """A new file system."""
    volume = MemoryStorage(bytes(size))
    make(volume, shape_of(size, bits), label="TEST", serial=0x1234ABCD, hidden=0, seconds=NOON_S)
    return volume


def checked(path: Path) -> str:
    """What the checker says of a file system that it has nothing to say against."""
    run = subprocess.run(["fsck.fat", "-n", "-v", path], capture_output=True, text=True, check=True)
    return run.stdout


def content_of(image: Path, name: str) -> bytes | None:
    """Of a file, as mtools read it; ``None``: there is none."""
    command = ["mcopy", "-n", "-i", str(image), f"::{name}", "-"]
    run = subprocess.run(command, check=False, capture_output=True)
    return run.stdout if run.returncode == 0 else None


@pytest.mark.parametrize("size", [*FLOPPIES, 3 * MIB, 33 * MIB, 600 * MIB])
def test_new_file_systems_are_sound(size: int, tmp_path: Path) -> None:
    """Fails if a drive, a system or the checker would not take it."""
    image = tmp_path / "disk.img"
    image.write_bytes(empty(size).content)
    report = checked(image)
    listing = subprocess.run(
        ["mdir", "-i", image, "::"], capture_output=True, text=True, check=True
    ).stdout
    assert "Volume in drive : is TEST" in listing
    assert "1234-ABCD" in listing
    if size in FLOPPIES:
        reference = tmp_path / "reference.img"
        drive = {160: "-t40 -h1 -s8", 180: "-t40 -h1 -s9", 320: "-t40 -h2 -s8"}
        drive |= {360: "-t40 -h2 -s9", 720: "-t80 -h2 -s9", 1200: "-t80 -h2 -s15"}
        drive |= {1440: "-t80 -h2 -s18", 2880: "-t80 -h2 -s36"}
        words = drive[size // KIB].split()
        subprocess.run(["mformat", "-C", "-i", reference, *words, "::"], check=True)
        # Sizes, FATs, root, media byte, tracks and heads are those that mtools give the drive.
        assert image.read_bytes()[11:28] == reference.read_bytes()[11:28]
    assert "bytes per cluster" in report


@pytest.mark.parametrize(("size", "bits"), SIZES)
def test_files_that_are_put_are_those_that_others_read(
    size: int, bits: int, tmp_path: Path
) -> None:
    """Fails if content, names, folders or free space are wrong."""
    volume, image = empty(size, bits), tmp_path / "disk.img"
    chance = random.Random(bits)
    editor = FatEditor(volume)
    free = editor.free_bytes
    editor.mkdir("/a folder", NOON_S)
    files = {
        f"/a folder/a name that is long {number}.bin": chance.randbytes(
            chance.choice([0, 1, 511, 512, 513, 3000])
        )
        for number in range(40)
    }
    files["/PLAIN.TXT"] = b"plain"
    files["/Ünïcode 日本.txt"] = b"unicode"
    for path, content in files.items():
        editor.put(path, MemoryStorage(content), NOON_S, may_replace=False)
    files["/PLAIN.TXT"] = chance.randbytes(5000)
    editor.put("/plain.txt", MemoryStorage(files["/PLAIN.TXT"]), NOON_S, may_replace=True)
    removed = [path for path in files if path.endswith("7.bin")]
    for path in removed:
        editor.remove(path)
        del files[path]
    editor.close()
    image.write_bytes(volume.content)
    checked(image)
    for path, content in files.items():
        assert content_of(image, path) == content
    for path in removed:
        assert content_of(image, path) is None

    editor = FatEditor(volume)
    editor.remove("/a folder", with_content=True)
    editor.remove("/PLAIN.TXT")
    editor.remove("/Ünïcode 日本.txt")
    editor.close()
    image.write_bytes(volume.content)
    assert FatEditor(volume).free_bytes == free
    checked(image)


class _Dying(MemoryStorage):
    """Keeps what it was after each write."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.states: list[bytes] = []

    def write(self, data: memoryview, offset: int) -> None:
        super().write(data, offset)
        self.states.append(bytes(self.content))


def _put(editor: FatEditor) -> None:
    editor.put("/a longer name.txt", MemoryStorage(b"n" * 1500), NOON_S, may_replace=False)


def _replace(editor: FatEditor) -> None:
    editor.put("/OLD.TXT", MemoryStorage(b"n" * 1500), NOON_S, may_replace=True)


def _remove(editor: FatEditor) -> None:
    editor.remove("/OLD.TXT")


@pytest.mark.parametrize(("size", "bits"), [(160 * KIB, 12), (20 * MIB, 16)])
@pytest.mark.parametrize(
    "change",
    [
        (_put, "a longer name.txt", None, b"n" * 1500),
        (_replace, "OLD.TXT", b"o" * 2000, b"n" * 1500),
        (_remove, "OLD.TXT", b"o" * 2000, None),
    ],
)
def test_killed_after_any_write_it_is_the_old_state_or_the_new_one(
    size: int,
    bits: int,
    change: tuple[Callable[[FatEditor], None], str, bytes | None, bytes | None],
    tmp_path: Path,
) -> None:
    """Fails if a file can be half of one, or share clusters with another."""
    do, name, before, after = change
    volume = empty(size, bits)
    editor = FatEditor(volume)
    editor.put("/OLD.TXT", MemoryStorage(b"o" * 2000), NOON_S, may_replace=False)
    editor.put("/OTHER.TXT", MemoryStorage(b"x" * 3000), NOON_S, may_replace=False)
    editor.close()
    dying = _Dying(bytes(volume.content))
    editor = FatEditor(dying)
    do(editor)
    editor.close()
    image = tmp_path / "disk.img"
    found = []
    for state in dying.states:
        image.write_bytes(state)
        found.append(content_of(image, name))
        assert found[-1] in (before, after)
        assert content_of(image, "OTHER.TXT") == b"x" * 3000
        repaired = tmp_path / "repaired.img"
        shutil.copy(image, repaired)
        subprocess.run(["fsck.fat", "-a", repaired], check=False, capture_output=True)
        checked(repaired)
        assert content_of(repaired, name) in (before, after)
        assert content_of(repaired, "OTHER.TXT") == b"x" * 3000
    assert found[-1] == after
    assert sorted(found, key=lambda content: content == after) == found
    image.write_bytes(dying.states[-1])
    checked(image)


class _Full(MemoryStorage):
    """Fails at a write."""

    left = 0

    def write(self, data: memoryview, offset: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise TargetError("no space left on device", name="full")
        super().write(data, offset)


@pytest.mark.parametrize("fails_at", range(1, 12))
def test_what_fails_leaves_a_sound_file_system(fails_at: int, tmp_path: Path) -> None:
    """Fails if an error in the midst of it costs a file, or is not told."""
    image = tmp_path / "disk.img"
    volume = _Full(empty(20 * MIB, 16).content)
    editor = FatEditor(volume)
    volume.left = fails_at
    try:
        _put(editor)
        editor.close()
        failed = False
    except TargetError:
        failed = True
    editor.close()
    assert failed == (volume.left <= 0)
    image.write_bytes(volume.content)
    subprocess.run(["fsck.fat", "-a", image], check=False, capture_output=True)
    checked(image)
    assert content_of(image, "a longer name.txt") in (
        (None, b"n" * 1500) if failed else (b"n" * 1500,)
    )


def test_what_there_is_no_room_for_is_refused_before_anything_changes() -> None:
    """Fails if a full floppy loses what is on it."""
    volume = empty(160 * KIB)
    editor = FatEditor(volume)
    with pytest.raises(TargetTooSmallError, match="has room for"):
        editor.put("/BIG", MemoryStorage(bytes(161 * KIB)), NOON_S, may_replace=False)
    for number in range(63):
        editor.put(f"/F{number}", MemoryStorage(b"1"), NOON_S, may_replace=False)
    free = editor.free_bytes
    with pytest.raises(TargetTooSmallError, match="folder has no room"):
        editor.put("/ONE", MemoryStorage(b"1"), NOON_S, may_replace=False)
    assert editor.free_bytes == free - 512
    editor.close()
    assert FatEditor(volume).free_bytes == free
    with pytest.raises(RefusedError, match="exists already"):
        editor.put("/F1", MemoryStorage(b"1"), NOON_S, may_replace=False)


def test_a_file_system_whose_tables_differ_is_not_changed() -> None:
    """Fails if damage is made worse: nobody knows which copy is right."""
    volume = empty(160 * KIB)
    volume.content[512 + 9] ^= 0xFF
    with pytest.raises(CorruptImageError, match="differ"):
        FatEditor(volume)
