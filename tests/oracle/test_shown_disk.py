"""What a mount shows of a disk that is written: what is looked at anew, and what is kept."""

from __future__ import annotations

import gc
import weakref
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import ImagingError
from imprint.core.events import Finding
from imprint.endpoints.browsing import Browser
from imprint.endpoints.cow import MEMORY, open_overlay
from imprint.endpoints.open import open_source
from imprint.endpoints.shown_disk import REPLACED_MAX, ShownDisk
from imprint.exports.fuse.facts import Showing
from imprint.exports.fuse.trees import Item, ShownTree
from imprint.exports.fuse.view import View
from imprint.filters.shared import SharedDisk
from imprint.storage.memory import MemoryStorage
from imprint.testing.oracles import run
from imprint.testing.small_hfs import small_hfs
from imprint.testing.volumes import make_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.core.events import Event

MIB: Final = 1 << 20
LINUX: Final = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"

pytestmark = pytest.mark.oracle("mkfs.ext4", "mkfs.vfat", "sfdisk")


class Failing(SharedDisk):
    """A disk that cannot be read as long as it is told so."""

    fails = False

    def readinto(self, buffer: memoryview, offset: int) -> None:
        if self.fails:
            raise RuntimeError("a defect")
        super().readinto(buffer, offset)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Failing]:
    """A disk with ext4 and FAT, 16 MiB each from 1 MiB on, under an overlay in memory."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "file").write_text("content")
    volumes = [tmp_path / "first", tmp_path / "second"]
    for volume in volumes:
        with volume.open("wb") as file:
            file.truncate(16 * MIB)
    run("mkfs.ext4", "-q", "-d", files, volumes[0])
    run("mkfs.vfat", volumes[1])
    path = tmp_path / "disk.raw"
    make_disk(path, [(LINUX, volume) for volume in volumes], size=40 * MIB)
    with closing(Failing(open_overlay(open_source(str(path)), str(path), MEMORY))) as disk:
        yield disk


def shown_of(disk: SharedDisk) -> ShownDisk:
    def refuse(name: str) -> bytes:
        raise AssertionError(name)

    events: list[Event] = []
    shown = ShownDisk(Browser(disk, refuse), Showing(), events.append)
    assert not events
    return shown


def trees(shown: ShownDisk) -> list[ShownTree]:
    return [thing for thing in shown().values() if isinstance(thing, ShownTree)]


def test_only_what_was_written_is_opened_anew(disk: Failing) -> None:
    """Fails if a write to one partition closes the folders of another one."""
    shown = shown_of(disk)
    things = shown()
    assert sorted(things) == ["disk.raw", "p1", "p1.raw", "p2", "p2.raw"]
    assert shown() is things
    before = trees(shown)
    disk.write(memoryview(b"x"), 33 * MIB + 5)  # behind both
    assert shown() is not things
    assert trees(shown) == before
    disk.write(memoryview(b"x"), 17 * MIB - 1)  # the end of the first
    first, second = trees(shown)
    assert first is not before[0]
    assert second is before[1]
    disk.zero(17 * MIB - 1, 2)
    after = trees(shown)
    assert after[0] is not first
    assert after[1] is not second
    assert [tree.number for tree in after] == [1, 2]


def test_what_is_shown_after_a_failure_is_true(disk: Failing) -> None:
    """Fails if a failure while looking again leaves what was shown before for ever."""
    shown = shown_of(disk)
    disk.zero(MIB, MIB)
    disk.fails = True
    with pytest.raises(RuntimeError):
        shown()
    disk.fails = False
    assert sorted(shown()) == ["disk.raw", "p1.raw", "p2", "p2.raw"]


def test_trees_go_with_their_last_file(disk: Failing) -> None:
    """Fails if trees that nobody needs are kept, or one goes whose file is open."""
    shown = shown_of(disk)
    view = View(shown, owner=(0, 0), time_ns=0, notes={})
    held: list[Item] = []
    gc.disable()  # what lives in circles is not found
    try:
        for number in range(3 * REPLACED_MAX):
            disk.write(memoryview(b"%d" % number), 17 * MIB - 9)
            found = view.find("/p1/file")
            assert isinstance(found, Item)
            held.append(found)
        assert len({id(item.tree) for item in held}) <= REPLACED_MAX + 1
        for item in held:
            with closing(item.tree.content(item.entry)) as content:
                data = bytearray(content.size)
                content.readinto(memoryview(data), 0)
                assert data == b"content"
        alive = {weakref.ref(item.tree) for item in held}
        del item, found
        held.clear()
        disk.write(memoryview(b"!"), 17 * MIB - 9)
        view.find("/p1/file")
        assert not [tree for tree in alive if tree() is not None]
    finally:
        gc.enable()


def test_what_cannot_be_opened_any_more_is_an_error_there(disk: Failing) -> None:
    """Fails if garbage in one volume is more than an error in its folder, or lasts."""
    view = View(shown_of(disk), owner=(0, 0), time_ns=0, notes={})
    kept = bytearray(8 * MIB)
    disk.readinto(memoryview(kept), MIB)
    garbage = bytes(range(1, 256)) * 32000
    disk.write(memoryview(garbage)[: 7 * MIB], MIB + 4096)
    with pytest.raises((ImagingError, OSError)):
        view.find("/p1/file")
    assert [name for name, _ in view.entries("/p2")] == []
    disk.write(memoryview(kept), MIB)
    assert "file" in [name for name, _ in view.entries("/p1")]


def test_what_a_file_system_says_when_it_is_opened_is_told_once() -> None:
    """Fails if nobody hears that what is shown may be behind the times."""
    volume = bytearray(small_hfs())
    volume[1024 + 10 : 1024 + 12] = bytes(2)  # drAtrb of the master block: not unmounted
    events: list[Event] = []
    shown = ShownDisk(Browser(MemoryStorage(volume), lambda _: b""), Showing(), events.append)
    files = shown()["files"]
    assert isinstance(files, ShownTree)
    before = len(events)
    for _ in range(2):
        files.top()
    told = [event for event in events[before:] if isinstance(event, Finding)]
    assert ["not unmounted" in event.what for event in told] == [True]
