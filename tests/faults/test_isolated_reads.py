"""A library in a process of its own, over a volume that fails in the middle of a question."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError, ImagingError, NetworkError, ReadError
from imprint.core.extent import Extent, Kind
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path
from imprint.storage.file import FileStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.filesystems.tree import FileTree

pytest.importorskip("pytsk3")

MIB = 1 << 20


class Failing(FileStorage):
    """Bytes that cannot be read whenever a test says so, and by nobody else."""

    failure: BaseException | None = None

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, Kind.ENCODED, self, offset)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        if self.failure is not None:
            raise self.failure
        super().readinto(buffer, offset)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Folders whose blocks are far from each other."""
    top = tmp_path / "tree"
    for number in range(40):
        (top / f"folder {number}").mkdir(parents=True)
        (top / f"folder {number}" / "file").write_bytes(os.urandom(200_000))
    path = tmp_path / "volume"
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-d", top, path, "64M"], check=True, capture_output=True
    )
    return path


@pytest.mark.oracle("mkfs.ext4")
@pytest.mark.parametrize("kind", [CorruptImageError, NetworkError])
def test_what_cannot_be_read_is_noted_and_the_rest_is_told(
    kind: type[ImagingError], image: Path
) -> None:
    """Fails if a damaged cluster of an image, or a lost server, is taken for another answer."""
    with closing(Failing.open(image)) as volume, closing(tree("ext4", volume)) as files:
        folder = find_path(files, "/folder 39")
        volume.failure = kind("is damaged there")
        assert list(files.children(folder)) == []
        assert "is damaged there" in files.notes[-1]
        volume.failure = None
        assert [entry.path for entry in files.children(find_path(files, "/folder 38"))] == [
            "/folder 38/file"
        ]


@pytest.mark.oracle("mkfs.ext4")
def test_a_question_that_is_broken_off_is_the_last_one(image: Path) -> None:
    """Fails if the library gets the next question as the bytes that it waits for."""
    with closing(Failing.open(image)) as volume, closing(tree("ext4", volume)) as files:
        folder = find_path(files, "/folder 39")
        volume.failure = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            list(files.children(folder))
        volume.failure = None
        told = len(files.notes)
        assert list(files.children(folder)) == []
        assert "was not answered to the end" in files.notes[told]


class Counting(FileStorage):
    """A file that is read by its process itself, or else counted."""

    count = 0

    def readinto(self, buffer: memoryview, offset: int) -> None:
        self.count += 1
        super().readinto(buffer, offset)


@pytest.mark.oracle("mkfs.ext4")
def test_the_process_reads_a_file_by_itself_as_far_as_it_goes(image: Path) -> None:
    """Fails if each block is asked for, or what is lost meanwhile is zeros, or nothing at all."""
    with closing(Counting.open(image)) as volume, closing(tree("ext4", volume)) as files:
        root = find_path(files, "/")
        told = [entry.path for entry in files.children(root)]
        assert "/folder 7" in told
        folder = find_path(files, "/folder 39")
        told_by_us = volume.count
        assert [entry.name for entry in files.children(folder)] == ["file"]
        assert volume.count == told_by_us
        os.truncate(image, MIB)
        found = [name for number in range(39) for name in _names(files, f"/folder {number}")]
        assert len(found) < 39
        assert files.notes
        assert volume.count > told_by_us


def _names(files: FileTree, path: str) -> list[str]:
    try:
        return [entry.name for entry in files.children(find_path(files, path))]
    except ReadError:
        return []
