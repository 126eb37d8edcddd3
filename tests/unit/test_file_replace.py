"""Exchanging a file's content as a whole, and names that a killed program has left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from imprint.core.contracts import Replaceable
from imprint.core.errors import TargetBusyError, TargetError
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile, discard

if TYPE_CHECKING:
    from pathlib import Path


def test_content_is_exchanged_and_the_storage_goes_on_with_it(tmp_path: Path) -> None:
    """Fails if later writes go to the file that has lost its name, or another may write it."""
    path, link = tmp_path / "disk", tmp_path / "link"
    path.write_bytes(b"old" * 1000)
    path.chmod(0o640)
    link.symlink_to("disk")
    storage = FileStorage.open(link, writable=True)
    assert isinstance(storage, Replaceable)
    before = path.stat().st_ino
    storage.replace(memoryview(b"new"))
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != before
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert storage.size == 3
    storage.write(memoryview(b"er"), 3)
    assert path.read_bytes() == b"newer"
    with pytest.raises(TargetBusyError):
        FileStorage.open(path, writable=True)
    storage.close()
    FileStorage.open(path, writable=True).close()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["disk", "link"]


def test_a_finished_file_is_not_emptied_by_its_temporary_name(tmp_path: Path) -> None:
    """Fails if a program killed between its file's two names costs the next one the file."""
    path = tmp_path / "disk"
    path.write_bytes(b"precious")
    os.link(path, tmp_path / "disk.partial")
    storage = PendingFile.create(path, may_replace=True)
    storage.write(memoryview(b"half"), 0)
    assert path.read_bytes() == b"precious"
    storage.abort()
    assert path.read_bytes() == b"precious"
    assert [item.name for item in tmp_path.iterdir()] == ["disk"]


def test_what_cannot_be_removed_is_told_in_our_words(tmp_path: Path) -> None:
    """Fails if the system's refusal ends the program as a defect of ours."""
    discard(tmp_path / "never was")
    (tmp_path / "disk").mkdir()
    with pytest.raises(TargetError, match="cannot be removed"):
        discard(tmp_path / "disk")
