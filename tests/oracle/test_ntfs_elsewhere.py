"""Files of NTFS of which the content is not where it seems to be."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import UnsupportedFeatureError
from imprint.testing import ntfs_volume
from imprint.testing.file_trees import opened
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("pytsk3")

# Source: Microsoft "[MS-FSCC]: File System Control Codes", 2.1.2.1, Reparse Tags.
WOF, DEDUPLICATED, CLOUD = 0x80000017, 0x80000013, 0x9000601A


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_what_windows_keeps_elsewhere_is_not_zeros(tmp_path: Path) -> None:
    """Fails if a file that Windows has compressed, or moved away, reads as zeros, or a whole one is
    refused."""
    path = ntfs_volume.make(tmp_path / "volume")
    with ntfs_volume.ntfs_mounted(path) as folder:
        for name, tag in (("system.dll", WOF), ("shared", DEDUPLICATED), ("remote", CLOUD)):
            with (folder / name).open("wb") as file:
                file.truncate(100_000)
            point = struct.pack("<IHH", tag, 16, 0) + bytes(16)
            os.setxattr(folder / name, "system.ntfs_reparse_data", point)
        (folder / "local").write_bytes(b"L" * 10_000)
        point = struct.pack("<IHH", CLOUD, 16, 0) + bytes(16)
        os.setxattr(folder / "local", "system.ntfs_reparse_data", point)
        with (folder / "hole").open("wb") as file:
            file.truncate(100_000)
    with opened(path) as files:
        entries = {entry.name: entry for entry in files.children(files.root())}
        for name, why in (("system.dll", "WOF"), ("shared", "deduplicated"), ("remote", "cloud")):
            assert entries[name].size == 100_000
            with pytest.raises(UnsupportedFeatureError, match=why):
                files.content(entries[name])
        for name, size in (("local", 10_000), ("hole", 100_000)):
            assert files.content(entries[name]).size == size


@pytest.mark.oracle("mkfs.ntfs")
def test_clusters_that_are_too_large_are_said_to_be(tmp_path: Path) -> None:
    """Fails if a sound volume is called damaged."""
    path = tmp_path / "volume"
    path.touch()
    os.truncate(path, 1 << 30)
    run("mkfs.ntfs", "-F", "-q", "-c", str(2 << 20), path)
    with pytest.raises(UnsupportedFeatureError, match="clusters of 2097152 bytes"), opened(path):
        pass
