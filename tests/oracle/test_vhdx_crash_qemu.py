"""The power fails while a VHDX is changed: qemu-img reads the same old or new disk as we do.

Every point of each recording is cut, with whatever part of the un-flushed writes has arrived.
Each state is judged twice: as it is, where ``qemu-img check -r all`` replays the log, and
after we have replayed it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.events import Severity
from imprint.core.extent import Kind
from imprint.core.formats import Checkable, CreateSpec
from imprint.core.image import WritableImage
from imprint.storage.memory import MemoryStorage
from imprint.testing import oracles
from imprint.testing.faults import RecordingStorage, is_unseen
from imprint.testing.format_faults import History
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Work = Callable[[WritableImage, History], None]

pytestmark = pytest.mark.oracle("qemu-img")

MIB: Final = 1 << 20
VHDX = formats.get("vhdx")
OPENER = DictOpener()
SIZE: Final = 4 * MIB + 512


def rewrite(image: WritableImage, history: History) -> None:
    """Blocks that are there; one of them goes, and comes again."""
    history.change(image, MIB + 100, 70_000, 0xA1)
    history.flush(image)
    history.change(image, 2 * MIB, MIB, 0)
    history.change(image, MIB + 4096, 512, 0xA2)
    history.flush(image)
    history.change(image, 2 * MIB + 5000, 600, 0xA3)
    history.flush(image)


def allocate(image: WritableImage, history: History) -> None:
    """New blocks, a flush apart; the last one is written in part."""
    history.change(image, 5, 70_000, 0xB1)
    history.flush(image)
    history.change(image, 3 * MIB + 9, MIB, 0xB2)
    history.flush(image)


def resize(image: WritableImage, history: History) -> None:
    """Larger, then smaller, inside a block; with something at each new end."""
    for size in (6 * MIB + 1024, 2 * MIB + 512 * 3):
        history.resize(size)
        image.resize(size)
        history.flushed()
        history.change(image, size - 900, 900, 0xC1)
        history.flush(image)


def commit_into(image: WritableImage, history: History) -> None:
    """What ``imprint commit`` does: all that an overlay has itself, written or zeroed here."""
    storage = MemoryStorage(name="top.vhdx")
    spec = CreateSpec(image.size, OPENER, {}, Reference("disk.vhdx"), image)
    overlay = VHDX.create(storage, spec)
    assert isinstance(overlay, WritableImage)
    overlay.write(memoryview(b"\xd1" * MIB), 0)
    overlay.zero(MIB, MIB)
    overlay.write(memoryview(b"\xd2" * MIB), 3 * MIB)
    overlay.flush()
    for extent in list(overlay.own_extents(0, overlay.size)):
        if extent.kind is not Kind.HOLE:
            byte = overlay.read_at(extent.offset, 1)[0]
            history.change(image, extent.offset, extent.length, byte)
    history.flush(image)


@pytest.mark.parametrize(
    "work", [rewrite, allocate, resize, commit_into], ids=lambda work: work.__name__
)
def test_every_cut_is_old_or_new_for_us_and_for_qemu(tmp_path: Path, work: Work) -> None:
    """Fails if our log, cut at any moment, is replayed otherwise by QEMU than by us."""
    assert isinstance(VHDX, Checkable)
    content = MemoryStorage()
    made = VHDX.create(content, CreateSpec(SIZE, OPENER))
    made.write(memoryview(b"\x01" * (2 * MIB)), MIB)
    made.commit()
    storage = RecordingStorage(bytes(content.content))
    history = History(storage, oracles.paint(SIZE, [(MIB, 2 * MIB, 1)]))
    work(VHDX.edit(storage, OPENER), history)
    path, raw = tmp_path / "cut.vhdx", tmp_path / "cut.raw"
    seen, dirty = set[bytes](), 0
    for count, survived in storage.crashes(random.Random(5), variants=1):
        with VHDX.open(survived, OPENER) as opened:
            disk = opened.read_at(0, opened.size)
            has_log = bool(opened.info().notes)
        history.check(count, disk)
        if not is_unseen(survived, seen):
            continue
        dirty += has_log
        raw.write_bytes(disk)
        path.write_bytes(survived.content)
        oracles.qemu_img("check", "-q", "-r", "all", "-f", "vhdx", path)
        assert_is(path, raw)
        found = list(VHDX.check(survived, OPENER, repair=True))
        assert [each for each in found if each.severity is Severity.ERROR] == []
        if any(each.repaired for each in found):
            path.write_bytes(survived.content)
            assert_is(path, raw)
    assert dirty > 1  # some of them had a log


def assert_is(path: Path, raw: Path) -> None:
    """qemu-img reads the bytes of ``raw`` from the image, and as many."""
    assert oracles.info(path, "vhdx")["virtual-size"] == raw.stat().st_size
    assert oracles.is_equal(path, raw, first_format="vhdx", second_format="raw")
