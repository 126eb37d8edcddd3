"""A file of NTFS with two contents of the same name, as far as the library can tell."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.filesystems.sleuthkit import SleuthKit
from imprint.storage.file import FileStorage
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("pytsk3")

FIRST = b"resident twin"
SECOND = b"ANOTHER BEING"


@pytest.mark.oracle("mkfs.ntfs", "ntfscp")
def test_a_stream_that_hides_its_name_is_not_taken_for_the_file(tmp_path: Path) -> None:
    """Fails if the file has the stream's bytes, or nothing is said of that."""
    image = tmp_path / "ntfs.raw"
    with image.open("wb") as file:
        os.truncate(file.fileno(), 4 << 20)
    run("mkfs.ntfs", "-q", "-F", "-s", "512", image)
    for name, content in (("first", FIRST), ("second", SECOND)):
        (tmp_path / name).write_bytes(content)
    run("ntfscp", "-f", "-q", image, tmp_path / "first", "file")
    run("ntfscp", "-f", "-q", "-N", "qzqz", image, tmp_path / "second", "file")
    data = image.read_bytes()
    hidden = "qzqz".encode("utf-16-le")
    assert data.count(hidden) == 1
    image.write_bytes(data.replace(hidden, b"\0\0" + hidden[2:]))

    with closing(FileStorage.open(image)) as volume, closing(SleuthKit(volume, "ntfs")) as files:
        files.hold_contents()
        told = {entry.path: entry.held for entry in files.children(files.root())}
        assert told["/file"] == FIRST
        assert [note for note in files.notes if "/file: another content" in note]
