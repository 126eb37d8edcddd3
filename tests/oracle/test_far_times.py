"""Times before 1970 and behind 2037, and with a zone, which The Sleuth Kit takes for others."""

from __future__ import annotations

import os
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.filesystems.sleuthkit import SleuthKit
from imprint.filesystems.walking import find_path, walk
from imprint.storage.file import FileStorage
from imprint.testing import ntfs_volume
from imprint.testing.oracles import run
from imprint.testing.volumes import attached, mounted

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root
pytest.importorskip("pytsk3")

NS = 1_000_000_000
SECONDS = (-2_147_483_648, -1_500_000_000, -1, 1, 946_684_800, 2_147_483_647, 2_147_483_648)
FAR = (4_102_444_800, 7_258_118_400, 15_032_385_535)
"""The years 2050, 2200 and 2446: the last is the last second that ext4 has."""


def touch(folder: Path) -> None:
    """Files of many times, each named by its own."""
    for seconds in (*SECONDS, *FAR):
        (folder / str(seconds)).touch()
        os.utime(folder / str(seconds), ns=(seconds * NS, seconds * NS))


@pytest.mark.oracle("mke2fs")
@pytest.mark.parametrize("options", [("-I", "256"), ("-I", "128")])
def test_times_of_ext4_are_those_of_the_kernel(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fails if a file of 1960 is told to be one of 2096, or the other way round."""
    path = tmp_path / "volume"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    run("mke2fs", "-q", "-t", "ext4", *options, path)
    with mounted(path) as folder:
        touch(folder)
    with mounted(path, "ro") as folder:  # what was too far is another time now
        expected = {item.name: item.stat().st_mtime_ns for item in folder.iterdir()}
    with closing(FileStorage.open(path)) as volume, closing(SleuthKit(volume, "ext4")) as files:
        found = {entry.name: entry.times.modified for entry in walk(files) if entry.name}
        assert found == expected


@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_times_of_ntfs_are_those_that_were_set(tmp_path: Path) -> None:
    """Fails if a file seems to have no time; or is not found by a name in other letters."""
    path = ntfs_volume.make(tmp_path / "volume")
    with ntfs_volume.ntfs_mounted(path) as folder:
        touch(folder)
        (folder / "Größe").touch()
    with closing(FileStorage.open(path)) as volume, closing(SleuthKit(volume, "ntfs")) as files:
        for seconds in (*SECONDS, *FAR):
            assert find_path(files, f"/{seconds}").times.modified == seconds * NS
        assert find_path(files, "/gRÖßE").name == "Größe"


@pytest.mark.oracle("mkfs.exfat", "mount.exfat-fuse")
def test_times_of_exfat_are_in_the_zone_that_they_name(tmp_path: Path) -> None:
    """Fails if a time of a camera in Nepal, or in America, is taken for one of Greenwich."""
    path, point = tmp_path / "volume", tmp_path / "mounted"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    run("mkfs.exfat", path)
    point.mkdir()
    with attached(path) as device:
        run("mount.exfat-fuse", device, point)
        try:
            (point / "f").touch()
        finally:
            run("umount", point)
    raw = bytearray(path.read_bytes())
    at = next(
        place  # of the entry of a file, followed by that of its stream, and by its name
        for place in range(0, len(raw), 32)
        if raw[place] == 0x85 and raw[place + 32] == 0xC0 and raw[place + 66] == ord("f")
    )
    # 2045-06-07 08:09:10, and 50 hundredths more where these are kept. East 5:45; west 8:00; none.
    stamp = (2045 - 1980) << 25 | 6 << 21 | 7 << 16 | 8 << 11 | 9 << 5 | 5
    struct.pack_into("<III", raw, at + 8, stamp, stamp, stamp)
    raw[at + 20 : at + 25] = bytes((50, 50, 0x80 | 23, 0x80 | (-32 & 0x7F), 0))
    path.write_bytes(raw)
    local = 2_380_435_750 * NS  # date -u -d '2045-06-07 08:09:10' +%s
    with closing(FileStorage.open(path)) as volume, closing(SleuthKit(volume, "exfat")) as files:
        times = find_path(files, "/f").times
    assert times.created == local + NS // 2 - (5 * 60 + 45) * 60 * NS
    assert times.modified == local + NS // 2 + 8 * 3600 * NS
    assert times.accessed == local
