"""NTFS whose structures are wrong: an error for each, never anything else, nor a map."""

from __future__ import annotations

import contextlib
import random
import struct
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError, FormatError
from imprint.core.runs import Runs
from imprint.filesystems.ntfs import FILE_SYSTEM
from imprint.storage.memory import MemoryStorage
from imprint.testing.ntfs_volume import RECORD, Editor, map_of, small_volume

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.oracle("mkfs.ntfs")

DATA, BITMAP, LOG, VOLUME = 0x80, 6, 2, 3


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return small_volume(tmp_path_factory.mktemp("ntfs") / "volume")


@pytest.fixture
def editor(sound: bytes) -> Editor:
    return Editor(sound)


def record(number: int, at: int, data: bytes) -> Callable[[Editor], None]:
    """Change some bytes of a record, away from where it is protected."""

    def change(editor: Editor) -> None:
        editor.put(editor.record_at(number) + at, data)
        if number < 4:
            editor.copy_to_mirror(number)

    return change


def attribute(number: int, kind: int, at: int, data: bytes) -> Callable[[Editor], None]:
    """Change some bytes of an attribute."""

    def change(editor: Editor) -> None:
        record(number, editor.attribute_at(number, kind) + at, data)(editor)

    return change


def boot(at: int, data: bytes) -> Callable[[Editor], None]:
    """Change some bytes of the boot sector."""
    return lambda editor: editor.put(at, data)


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


WRONG: Final = {
    "not NTFS": boot(3, b"NTFX"),
    "sector size": boot(11, u16(513)),
    "sectors of a cluster": boot(13, b"\x03"),
    "no sectors of a cluster": boot(13, b"\x00"),
    "many sectors of a cluster": boot(13, b"\x90"),
    "volume too large": boot(40, u64(1 << 40)),
    "volume far too large": boot(40, u64((1 << 64) - 1)),
    "no volume": boot(40, u64(0)),
    "MFT outside": boot(48, u64(1 << 60)),
    "MFT elsewhere": boot(48, u64(1000)),
    "mirror outside": boot(56, u64(1 << 60)),
    "record size": boot(64, b"\x03"),
    "huge records": boot(64, b"\x80"),
    "tiny records": boot(64, b"\xff"),
    "MFT mark": record(0, 0, b"BAAD"),
    "MFT not in use": record(0, 22, b"\0"),
    "record torn": record(BITMAP, 510, b"\x77\x77"),
    "update sequence outside": record(BITMAP, 4, u16(1020)),
    "update sequence short": record(BITMAP, 6, u16(2)),
    "attributes outside": record(BITMAP, 20, u16(2000)),
    "attributes in the head": record(BITMAP, 20, u16(8)),
    "no end of attributes": lambda editor: editor.put(
        editor.record_at(BITMAP) + 24, u16(editor.end_of(BITMAP))
    ),
    "record too full": record(BITMAP, 24, u16(RECORD + 8)),
    "attribute too long": attribute(BITMAP, DATA, 4, u16(5000)),
    "attribute too short": attribute(BITMAP, DATA, 4, u16(8)),
    "no length of attribute": attribute(BITMAP, DATA, 4, u16(0)),
    "no bitmap": attribute(BITMAP, DATA, 0, b"\xf0"),
    "another value": attribute(BITMAP, DATA, 8, b"\0"),
    "runs outside of the attribute": attribute(BITMAP, DATA, 32, u16(4000)),
    "runs in the head": attribute(BITMAP, DATA, 32, u16(16)),
    "bitmap begins later": attribute(BITMAP, DATA, 16, u64(1)),
    "bitmap has more clusters": attribute(BITMAP, DATA, 24, u64(70)),
    "bitmap too short": attribute(BITMAP, DATA, 48, u64(10)),
    "bitmap never written": attribute(BITMAP, DATA, 56, u64(10)),
    "run without length": attribute(BITMAP, DATA, 64, b"\x20"),
    "run too wide": attribute(BITMAP, DATA, 64, b"\x99"),
    "run of nothing": attribute(BITMAP, DATA, 65, b"\x00"),
    "run outside": attribute(BITMAP, DATA, 64, b"\x31\x01\xff\xff\x7f\x00"),
    "run before the volume": attribute(BITMAP, DATA, 64, b"\x11\x01\xf0\x00"),
    "bitmap is a hole": attribute(BITMAP, DATA, 64, b"\x01\x01\x00"),
    "root is no folder": attribute(5, 0x90, 0, b"\x91"),
    "no log": attribute(LOG, DATA, 0, b"\xf0"),
    "no state": attribute(VOLUME, 0x70, 0, b"\x71"),
    "state too short": attribute(VOLUME, 0x70, 16, b"\x04"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_contradicts_itself_is_refused(editor: Editor, name: str) -> None:
    """Fails if a map is made of it, or anything else is raised."""
    WRONG[name](editor)
    with pytest.raises(CorruptImageError):
        map_of(editor.content)


def test_a_volume_that_is_cut_off_is_refused(sound: bytes) -> None:
    """Fails if what is missing is not noticed; without the last sector only, it is whole."""
    assert map_of(sound[:-512]).notes
    with pytest.raises(CorruptImageError, match="missing"):
        map_of(sound[:-1024])


def test_random_damage_gives_a_map_or_one_error(sound: bytes) -> None:
    """Fails if hostile structures raise anything else, or lead outside of the volume."""
    dice = random.Random(1)
    base = Editor(sound)
    places = [base.record_at(number) for number in range(12)] + [0, base.cluster_of(5, 0xA0)]
    for _ in range(600):
        editor = Editor(sound)
        for _ in range(dice.choice((1, 2, 8))):
            place = dice.choice(places)
            at = place + dice.choice(
                (dice.randrange(100), dice.randrange(400), dice.randrange(1024))
            )
            editor.content[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            if place and place < places[-1] and dice.random() < 0.5:
                with contextlib.suppress(AssertionError, IndexError):
                    editor.protect(place, RECORD)
        volume = MemoryStorage(bytes(editor.content))
        with contextlib.suppress(FormatError):
            assert FILE_SYSTEM.allocation(volume).used.end <= volume.size
        with contextlib.suppress(FormatError):
            assert Runs.of(FILE_SYSTEM.reached(volume)).end <= volume.size
