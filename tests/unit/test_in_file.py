"""Where bytes of a volume lie in a file as they are: the same bytes, or none."""

from __future__ import annotations

import os
import random
from contextlib import closing
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from imprint.core.extent import Extent, Kind
from imprint.core.units import GIB, KIB, MIB
from imprint.endpoints.open import Access, open_source
from imprint.filesystems.in_file import in_file, unpacked
from imprint.filesystems.isolated_messages import ALIVE, HEAD
from imprint.filesystems.isolated_worker import Kept, Pipe
from imprint.filters.shared import SharedDisk
from imprint.filters.window import Window
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.core.contracts import Source

SIZE = 8 * MIB


@pytest.fixture
def raw(tmp_path: Path) -> tuple[Path, bytes]:
    """A file with holes of 64 KiB, and what it holds."""
    dice = random.Random(3)
    path = tmp_path / "disk.raw"
    content = bytearray(SIZE)
    with path.open("wb") as file:
        for start in range(0, SIZE, 64 * KIB):
            if dice.random() < 0.6:
                word = dice.randbytes(dice.choice((16, 64 * KIB)))  # to be compressed, or not
                content[start : start + 64 * KIB] = word * (64 * KIB // len(word))
                os.pwrite(file.fileno(), content[start : start + 64 * KIB], start)
        os.truncate(file.fileno(), SIZE)
    return path, bytes(content)


def compare(volume: Source, content: bytes) -> int:
    """Read everywhere; how much of it was there, in bytes."""
    found = in_file(volume)
    if found is None:
        return 0
    found = unpacked(found.packed())
    dice = random.Random(4)
    there = 0
    for start in range(0, len(content) - 4 * KIB, 4 * KIB):
        length = dice.randrange(1, 8 * KIB)
        told = found.read(start, length)
        assert told in (None, content[start : start + length])
        there += found.read(start, 4 * KIB) is not None and 4 * KIB
    assert found.read(len(content) - 1, 2) is None
    return there


def test_what_is_told_of_a_file_is_what_it_holds(raw: tuple[Path, bytes]) -> None:
    """Fails if a place is wrong by a byte, or data has to be asked for."""
    path, content = raw
    data = sum(any(content[at : at + 64 * KIB]) for at in range(0, SIZE, 64 * KIB)) * 64 * KIB
    with closing(FileStorage.open(path)) as storage:
        assert compare(storage, content) >= data - 4 * KIB
        part = Window(storage, 3 * MIB + 512, 2 * MIB)
        assert compare(part, content[3 * MIB + 512 : 5 * MIB + 512]) > 0


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize("options", [[], ["-c"], ["-o", "cluster_size=4K"]])
def test_what_is_told_of_an_image_is_what_its_guest_sees(
    raw: tuple[Path, bytes], options: list[str]
) -> None:
    """Fails if a compressed cluster, or one of another file, is taken for plain bytes."""
    path, content = raw
    base, image = path.with_name("base.qcow2"), path.with_name("top.qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, path, base)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, image)
    run("qemu-io", "-c", "write -P 7 1M 300k", image)
    changed = content[:MIB] + bytes([7]) * (300 * KIB) + content[MIB + 300 * KIB :]
    for place, expected in ((base, content), (image, changed)):
        with closing(open_source(str(place), Access())) as source:
            there = compare(source, expected)
            assert there > 0


def test_nothing_is_told_of_what_is_empty(tmp_path: Path) -> None:
    """Fails if there is a descriptor, and nothing to be read by it."""
    path = tmp_path / "empty"
    path.touch()
    with closing(FileStorage.open(path)) as storage:
        assert in_file(storage) is None


def test_nothing_is_told_of_what_may_be_written(raw: tuple[Path, bytes]) -> None:
    """Fails if a cluster that moved since, or was given to others, is read where it lay."""
    path, _ = raw
    with closing(SharedDisk(FileStorage.open(path, writable=True))) as disk:
        assert in_file(disk) is None


class Far(MemoryStorage):
    """A large disk that is somewhere else; its map is read a part at a time."""

    told = 0

    @property
    def size(self) -> int:
        return 64 * GIB

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for start in range(offset, offset + length, GIB):
            self.told += 1
            yield Extent(start, min(GIB, offset + length - start), Kind.ENCODED, self, 0)


def test_the_map_of_what_is_somewhere_else_is_not_looked_through() -> None:
    """Fails if all tables of a large image are got over a network, for nothing."""
    far = Far(b"")
    assert in_file(far) is None
    assert 0 < far.told < 4


class Fine(FileStorage):
    """A file whose map has as many parts as there are sectors."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        for start in range(offset, offset + length, 512):
            yield Extent(start, 512, Kind.DATA, self, start)


def test_neighbours_in_the_file_are_one_run(raw: tuple[Path, bytes]) -> None:
    """Fails if a read across a border, as between two tables of an image, has to be asked for."""
    path, content = raw
    with closing(Fine.open(path)) as storage:
        found = in_file(storage)
        assert found is not None
        assert found.runs == [(0, SIZE, 0)]
        assert found.read(100, 3 * MIB) == content[100 : 100 + 3 * MIB]


def test_a_process_that_reads_by_itself_says_that_it_is_alive(raw: tuple[Path, bytes]) -> None:
    """Fails if long reads, as of the tables of a large disk, are taken for an endless loop.

    Or if it says so of what it reads over and over, which may be such a loop.
    """
    path, _ = raw
    sink = BytesIO()
    pipe = Pipe(BytesIO(), sink)
    with closing(Fine.open(path)) as storage:
        pipe.there = in_file(storage)
        kept = Kept(pipe, SIZE)
        assert kept.read(0, 512)
        assert sink.getvalue() == HEAD.pack(ALIVE, 0)
        pipe.alive_at = 0
        assert kept.read(512, 512)
        assert len(sink.getvalue()) == HEAD.size
        assert kept.read(MIB, 512)
        assert kept.read(2 * MIB, 512)  # not often
        assert sink.getvalue() == 2 * HEAD.pack(ALIVE, 0)
