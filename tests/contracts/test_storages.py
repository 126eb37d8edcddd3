"""Every storage, and the wrappers of tests, against the storage contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import RefusedError, TargetBusyError
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import PendingFile, partial_path
from imprint.testing.faults import CountingStorage, FaultyStorage, RecordingStorage
from imprint.testing.storage_suite import StorageContract

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Storage


class TestMemory(StorageContract):
    def make(self, tmp_path: Path) -> Storage:
        del tmp_path
        return MemoryStorage()


class TestFile(StorageContract):
    def make(self, tmp_path: Path) -> Storage:
        path = tmp_path / "file"
        path.touch()
        return FileStorage.open(path, writable=True)

    def visible(self, tmp_path: Path) -> bytes | None:
        return (tmp_path / "file").read_bytes()


class TestPendingFile(StorageContract):
    def make(self, tmp_path: Path) -> Storage:
        return PendingFile.create(tmp_path / "file", may_replace=False)

    def visible(self, tmp_path: Path) -> bytes | None:
        path = tmp_path / "file"
        return path.read_bytes() if path.exists() else None

    def test_nothing_shows_before_commit(self, tmp_path: Path) -> None:
        """Fails if a file that is half written has its name already."""
        storage = PendingFile.create(tmp_path / "file", may_replace=False)
        storage.write(memoryview(b"half"), 0)
        storage.flush()
        assert self.visible(tmp_path) is None
        storage.abort()

    def test_abort_leaves_nothing(self, tmp_path: Path) -> None:
        """Fails if a temporary file stays behind."""
        storage = PendingFile.create(tmp_path / "file", may_replace=False)
        storage.write(memoryview(b"half"), 0)
        storage.abort()
        assert list(tmp_path.iterdir()) == []

    def test_the_old_content_stays_until_commit(self, tmp_path: Path) -> None:
        """Fails if replacing a file harms it before the new one is whole."""
        path = tmp_path / "file"
        path.write_bytes(b"old")
        with pytest.raises(RefusedError):
            PendingFile.create(path, may_replace=False)
        storage = PendingFile.create(path, may_replace=True)
        storage.write(memoryview(b"new!"), 0)
        assert path.read_bytes() == b"old"
        storage.commit()
        assert path.read_bytes() == b"new!"
        assert not partial_path(path).exists()

    def test_two_cannot_write_one_file(self, tmp_path: Path) -> None:
        """Fails if two processes would mix their bytes."""
        storage = PendingFile.create(tmp_path / "file", may_replace=False)
        with pytest.raises(TargetBusyError):
            PendingFile.create(tmp_path / "file", may_replace=False)
        storage.abort()


class TestRecording(StorageContract):
    def make(self, tmp_path: Path) -> Storage:
        del tmp_path
        return RecordingStorage()


class TestFaulty(StorageContract):
    def make(self, tmp_path: Path) -> Storage:
        del tmp_path
        return FaultyStorage()


class TestCounting(StorageContract):
    def make(self, tmp_path: Path) -> Storage:
        del tmp_path
        return CountingStorage()
