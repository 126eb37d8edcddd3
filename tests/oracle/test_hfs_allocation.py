"""Classic HFS: maps of volumes that hfsutils made, and the proof that nothing is missing."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.units import KIB, MIB
from imprint.filesystems.hfs import FILE_SYSTEM
from imprint.storage.file import FileStorage
from imprint.testing.hfs_volume import below, hfs_mounted, in_pieces, some_files
from imprint.testing.volumes import allocation_of, spoil_unused

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("hformat", "hcopy")


def test_what_the_map_leaves_out_is_nothing_that_hfsutils_reads(tmp_path: Path) -> None:
    """Fails if a block is taken for free that is not."""
    path = tmp_path / "volume"
    with hfs_mounted(path, tmp_path, size=1 * MIB) as tools:
        in_pieces(tools, 300, 3000)
    with hfs_mounted(path, tmp_path) as tools:
        before = {raw: tools.read(raw) for raw, _, is_folder in below(tools) if not is_folder}
        told = tools.call("hvol")
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    free = path.stat().st_size - found.used.total
    assert b"Volume has %d bytes free" % free in told
    assert spoil_unused(path, found.used) == free
    with closing(FileStorage.open(path)) as volume:
        assert all(found.used.covers(*run_) for run_ in FILE_SYSTEM.reached(volume))
    with hfs_mounted(path, tmp_path) as tools:
        assert {raw: tools.read(raw) for raw in before} == before


@pytest.mark.parametrize("size", [800 * KIB, 1440 * KIB, 40 * MIB, 700 * MIB])
def test_blocks_of_all_sizes_are_counted(tmp_path: Path, size: int) -> None:
    """Fails if the arithmetic of blocks holds for those of 512 bytes only."""
    path = tmp_path / "volume"
    with hfs_mounted(path, tmp_path, size=size) as tools:
        tools.add(b":", some_files(20, seed=size, most=20_000))
    with hfs_mounted(path, tmp_path) as tools:
        told = tools.call("hvol")
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert found.unit == -(-size // (65_535 * 512)) * 512
    assert b"Volume has %d bytes free" % (size - found.used.total) in told
