"""Where the files of a disk begin and end, against where their content is found on it."""

from __future__ import annotations

import random
from bisect import bisect_left
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.units import KIB, MIB
from imprint.endpoints import layout
from imprint.endpoints.layout import disk_cuts
from imprint.storage.file import FileStorage
from imprint.testing.containers import linear, lvm_member, lvm_text, lvm_volume
from imprint.testing.oracles import run
from imprint.testing.volumes import make_disk

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.repository.cutting import Cuts

SIZES: Final = (700, 4096, 9000, 70_000, 3 * MIB + 5000)
EXTENT: Final = 64 * KIB
EXTENTS: Final = 300
UUIDS: Final = ("a" * 32, "b" * 32)


def make_files(folder: Path) -> list[bytes]:
    folder.mkdir()
    dice = random.Random(4)
    found = [dice.randbytes(dice.choice(SIZES)) for _ in range(24)]
    for number, content in enumerate(found):
        (folder / f"file{number}").write_bytes(content)
    return found


def make_ext(path: Path, folder: Path, *, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", folder, path)
    return path


def all_of(path: Path) -> Cuts:
    with closing(FileStorage.open(path)) as disk:
        found = disk_cuts(disk)
    borders = found.borders.tolist()
    assert borders == sorted(set(borders))
    assert borders[-1] <= path.stat().st_size
    return found


def cuts_of(path: Path) -> list[int]:
    return all_of(path).borders.tolist()


def count_cut(disk: bytes, cuts: list[int], files: list[bytes], unit: int) -> int:
    """How many files begin at a cut, of those that are in one piece all of which end at one."""
    count = 0
    for content in files:
        at = disk.find(content[:512])
        assert at >= 0
        index = bisect_left(cuts, at)
        if cuts[index] == at:
            count += 1
            if disk[at : at + len(content)] == content:
                assert cuts[index + 1] == at + len(content) + -len(content) % unit
    return count


@pytest.mark.oracle("mke2fs", "mkfs.fat", "mcopy", "sfdisk")
def test_a_disk_is_cut_at_its_partitions_and_at_all_its_files(tmp_path: Path) -> None:
    """Fails if a border is missed, or if one is told from the volume's beginning."""
    files = make_files(tmp_path / "files")
    ext = make_ext(tmp_path / "ext", tmp_path / "files", size=40 * MIB)
    fat = tmp_path / "fat"
    with fat.open("wb") as file:
        file.truncate(36 * MIB)
    run("mkfs.fat", "-F", "16", "-s", "2", fat)
    other = tmp_path / "other"
    other.write_bytes(bytes([7]) * MIB)
    copies = [content[::-1] for content in files]
    for number, content in enumerate(copies):
        (tmp_path / "copy").write_bytes(content)
        run("mcopy", "-i", fat, tmp_path / "copy", f"::file{number}")
    path = tmp_path / "disk"
    starts = make_disk(path, [("U", fat), ("L", ext), ("L", other)], size=80 * MIB)
    found, disk = all_of(path), path.read_bytes()
    cuts = found.borders.tolist()
    assert {*starts, starts[1] + 40 * MIB, starts[2] + MIB} <= set(cuts)
    assert count_cut(disk, cuts, files, 1024) == len(files)
    assert count_cut(disk, cuts, copies, 1024) == len(files)
    assert found.unknown.covers(starts[2], MIB)
    assert found.unknown.covers(starts[1] - 4 * MIB, 4 * MIB)  # free, at the end of the first
    for content in (*files, *copies):
        assert not found.unknown.clip(disk.find(content[:512]), disk.find(content[:512]) + 1)


@pytest.mark.oracle("mke2fs", "sfdisk")
def test_files_of_a_logical_volume_are_cut_where_its_pieces_are(tmp_path: Path) -> None:
    """Fails if borders are not moved with the pieces of the volume that they are in."""
    files = make_files(tmp_path / "files")
    places = ((1, 20, 150), (0, 100, 150), (1, 200, 90), (0, 3, 90))
    segments = [linear(count, f"pv{pv}", first) for pv, first, count in places]
    text = lvm_text(lvm_volume("root", *segments), uuids=UUIDS, extents=EXTENTS)
    volume = make_ext(tmp_path / "volume", tmp_path / "files", size=480 * EXTENT)
    content = volume.read_bytes()
    members = [lvm_member(uuid, text, 20 * MIB) for uuid in UUIDS]
    at = 0
    for pv, first, count in places:
        place = (1 + first) * EXTENT
        members[pv][place : place + count * EXTENT] = content[at : at + count * EXTENT]
        at += count * EXTENT
    paths = [tmp_path / "pv0", tmp_path / "pv1"]
    for path, member in zip(paths, members, strict=True):
        path.write_bytes(member)
    disk = tmp_path / "disk"
    starts = make_disk(disk, [("L", path) for path in paths], size=48 * MIB)
    cuts = cuts_of(disk)
    assert {starts[pv] + (1 + first) * EXTENT for pv, first, _ in places} <= set(cuts)
    assert count_cut(disk.read_bytes(), cuts, files, 1024) == len(files)


@pytest.mark.oracle("mke2fs")
def test_a_volume_that_makes_no_sense_or_has_too_many_files_is_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if an error of a file system gets out, or if half of its files are told."""
    make_files(tmp_path / "files")
    path = make_ext(tmp_path / "volume", tmp_path / "files", size=40 * MIB)
    assert len(cuts_of(path)) > 24
    with monkeypatch.context() as context:
        context.setattr(layout, "MARKS_MAX", 20)
        assert cuts_of(path) == [0, 40 * MIB]
    with path.open("r+b") as file:
        file.seek(1024 + 0x20)
        file.write(bytes(8))  # no blocks in a group
    assert cuts_of(path) == [0, 40 * MIB]
