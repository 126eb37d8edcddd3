"""Making the overlay that takes what is written, on a disk that fails."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import TargetError
from imprint.endpoints.cow import open_overlay
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path


def test_an_overlay_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a part of a file, and a descriptor, are left behind where the medium fails."""

    def fail(fd: int) -> None:
        del fd
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk = MemoryStorage(bytes(1 << 20), name="disk")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(TargetError):
            open_overlay(disk, "disk.raw", str(tmp_path / "changes.qcow2"))
    assert list(tmp_path.iterdir()) == []
