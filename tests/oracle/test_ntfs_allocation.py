"""Maps of NTFS against The Sleuth Kit and ntfs-3g, and what is left when the rest is garbage."""

from __future__ import annotations

import lzma
import re
import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.runs import Runs
from imprint.core.units import GIB, KIB, MIB
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.ntfs import FILE_SYSTEM
from imprint.filesystems.ntfs.files import Files
from imprint.filesystems.ntfs.geometry import read_geometry
from imprint.filesystems.ntfs.layout import DATA
from imprint.storage.file import FileStorage
from imprint.testing.ntfs_volume import (
    age,
    crowd,
    free_of_ntfsinfo,
    make,
    ntfs_mounted,
    used_of_blkls,
)
from imprint.testing.oracles import qemu_img, run
from imprint.testing.volumes import allocation_of, spoil_unused, tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("mkfs.ntfs", "ntfsinfo", "ntfsresize", "blkls")

TSK_CLUSTER_MAX: Final = 64 * KIB
"""The Sleuth Kit misreads larger ones."""


def reached(path: Path) -> Runs:
    with closing(FileStorage.open(path)) as storage:
        return Runs.of(FILE_SYSTEM.reached(storage))


def same_as_told(path: Path, *, doubts: tuple[str, ...] = ()) -> Runs:
    """Compare with The Sleuth Kit cluster by cluster, and with the count of ntfs-3g."""
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == doubts
    clusters, free = free_of_ntfsinfo(path)
    end, size = clusters * found.unit, path.stat().st_size
    # What is behind the last whole cluster, the copy of the boot sector too, is in no bitmap.
    behind = Runs.of([(end, size - end)])
    assert (found.used - behind).total == (clusters - free) * found.unit
    if found.unit <= TSK_CLUSTER_MAX:
        assert found.used == used_of_blkls(path, found.unit) | behind
    assert reached(path) == found.used - behind
    return found.used


@pytest.mark.root
@pytest.mark.oracle("ntfs-3g", "ntfsfix")
@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("", 64 * MIB),
        ("-c 512", 64 * MIB + 7 * 512),
        ("-c 2048", 64 * MIB - 512),
        ("-c 65536", 64 * MIB),
        ("-c 2097152", 512 * MIB),
        ("-s 4096", 64 * MIB),
        ("-s 1024 -c 8192", 64 * MIB),
    ],
)
def test_nothing_is_missing_of_a_volume_that_was_used(
    tmp_path: Path, options: str, size: int
) -> None:
    """Fails if a cluster that is in use is left out, or a free one kept."""
    path = make(tmp_path / "volume", *options.split(), size=size)
    same_as_told(path)
    with ntfs_mounted(path) as folder:
        age(folder)
        before = tree(folder)

    used = same_as_told(path)

    assert spoil_unused(path, used) > 30 * MIB
    run("ntfsresize", "-i", "-f", path)
    run("ntfsfix", "-n", path)
    with ntfs_mounted(path, "ro") as folder:
        assert tree(folder) == before


@pytest.mark.root
@pytest.mark.oracle("ntfs-3g")
def test_an_mft_and_a_file_in_many_pieces_are_found(tmp_path: Path) -> None:
    """Fails if parts that only further records name are not read."""
    path = make(tmp_path / "volume", "-c", "512", "-z", "1", size=7 * MIB)
    with ntfs_mounted(path) as folder:
        crowd(folder)
        before = tree(folder)
        pieces = folder / "pieces"
        number, content = pieces.stat().st_ino, pieces.read_bytes()
    told = run("ntfsinfo", "-f", "-m", path).stdout
    attached = re.search(r"Number of Attached Extent Inodes: (\d+)", told)
    assert attached is not None
    assert int(attached[1]) > 0
    told = run("ntfsinfo", "-f", "-i", str(number), path).stdout
    assert re.search(r"attribute \$ATTRIBUTE_LIST .*\n\s*Resident:\s*No", told)
    assert len(set(re.findall(r"attribute \$DATA .* from mft record (\d+)", told))) > 1
    with closing(FileStorage.open(path)) as storage:
        reader = VolumeReader(storage)
        files = Files(reader, read_geometry(reader))
        value = files.value(number, DATA)
        assert value is not None
        assert value.read(reader, files.geometry, 0, value.size) == content
    spoil_unused(path, same_as_told(path))
    with ntfs_mounted(path, "ro") as folder:
        assert tree(folder) == before


@pytest.mark.root
@pytest.mark.oracle("ntfs-3g")
def test_a_volume_that_was_resized_is_read_as_well(tmp_path: Path) -> None:
    """Fails if a bitmap that was moved is misread; what is behind a volume's end is kept."""
    path = make(tmp_path / "volume")
    with ntfs_mounted(path) as folder:
        age(folder)
    doubts = ("the volume is marked as dirty",)  # ntfsresize wants Windows to check it
    run("ntfsresize", "-f", "-s", str(40 * MIB), path, stdin=b"y\n")
    used = same_as_told(path, doubts=doubts)
    assert used.covers(40 * MIB, 24 * MIB)
    run("ntfsfix", "-d", path)
    with path.open("r+b") as file:
        file.truncate(200 * MIB)
    run("ntfsresize", "-f", path, stdin=b"y\n")
    assert not same_as_told(path, doubts=doubts).covers(41 * MIB, 20 * MIB)


def test_a_large_volume_is_as_others_say(tmp_path: Path) -> None:
    """Fails if a bitmap of more than one piece is misread: 300 GiB have 9.4 MiB of it."""
    path = make(tmp_path / "volume", size=300 * GIB)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    clusters, free = free_of_ntfsinfo(path)
    assert found.doubts == ()
    assert found.used.total == 300 * GIB - free * found.unit
    assert reached(path) - found.used == Runs.of([])
    assert clusters == (300 * GIB - 512) // found.unit


def test_the_copy_of_the_boot_sector_is_kept(tmp_path: Path) -> None:
    """Fails if it is lost: it is in no cluster, and repairs need it."""
    path = make(tmp_path / "volume", "-c", "512", size=8 * MIB)
    data = path.read_bytes()
    assert data[-512:] == data[:512]
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.notes == ()
    assert found.used.covers(8 * MIB - 512, 512)
    assert found.used.covers(0, 8 * KIB)
    path.write_bytes(data[:-512] + bytes(512))
    assert len(allocation_of(path, FILE_SYSTEM.allocation).notes) == 1


@pytest.mark.root
@pytest.mark.oracle("ntfs-3g", "partclone.ntfs")
def test_no_more_is_kept_than_partclone_keeps(tmp_path: Path) -> None:
    """Fails if images get larger than those of the tool that everybody uses."""
    path = make(tmp_path / "volume")
    with ntfs_mounted(path) as folder:
        age(folder)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    image = tmp_path / "image"
    told = run("partclone.ntfs", "-c", "-N", "-s", path, "-o", image, "-L", tmp_path / "log")
    blocks = re.search(r"Space in use:.*= (\d+) Blocks", told.stdout + told.stderr)
    assert blocks is not None
    # They leave out what is behind the last cluster.
    tail = path.stat().st_size - free_of_ntfsinfo(path)[0] * found.unit
    assert found.used.total <= int(blocks[1]) * found.unit + tail


@pytest.mark.parametrize(
    "name",
    [
        "formats/log2timeline+dfvfs/test_data/windows_volume.qcow2",
        "forensics/util-linux+util-linux/tests/ts/blkid/images-fs/ntfs.img.xz",
    ],
)
def test_volumes_of_windows_are_as_the_sleuth_kit_says(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    """Fails if what Windows writes is doubted or misread, and not only what ntfs-3g does."""
    path = tmp_path / "volume"
    if name.endswith(".xz"):
        path.write_bytes(lzma.decompress((corpus / name).read_bytes()))
    else:
        qemu_img("convert", "-O", "raw", corpus / name, path)
    same_as_told(path)


@pytest.mark.oracle("qemu-img", "tsk_recover")
def test_what_shadow_copies_need_is_kept(corpus: Path, tmp_path: Path) -> None:
    """Fails if clusters are left out that were free when shadow copies were made, and no others.

    libvshadow reads the newest shadow copy from what was kept, byte by byte as before.
    """
    vshadow = pytest.importorskip("pyvshadow")
    whole, kept = tmp_path / "whole", tmp_path / "kept"
    image = corpus / "formats/log2timeline+dfvfs/history/vsstest.qcow2"
    qemu_img("convert", "-O", "raw", image, whole)
    found = allocation_of(whole, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert len(found.notes) == 1
    theirs = used_of_blkls(whole, found.unit)
    assert theirs - found.used == Runs.of([])
    assert 0 < (found.used - theirs).total < MIB
    qemu_img("convert", "-O", "raw", whole, kept)
    spoil_unused(kept, found.used)

    volumes = [vshadow.volume(), vshadow.volume()]
    for volume, path in zip(volumes, (whole, kept), strict=True):
        volume.open(str(path))
    assert volumes[0].number_of_stores == 2
    stores = [volume.get_store(1) for volume in volumes]
    for _ in range(0, GIB, MIB):
        assert stores[0].read(MIB) == stores[1].read(MIB)

    # Of the older one, it reads what was free as if it were there: so compare its files.
    trees = []
    for volume in volumes:
        store, files = volume.get_store(0), tmp_path / "files"
        with (tmp_path / "store").open("wb") as file:
            for offset in range(0, GIB, MIB):
                data = store.read(MIB)
                if any(data[::512]):
                    file.seek(offset)
                    file.write(data)
            file.truncate(GIB)
        run("tsk_recover", "-a", "-f", "ntfs", tmp_path / "store", files)
        trees.append(tree(files))
        shutil.rmtree(files)
    assert len(trees[0]) > 5
    assert trees[0] == trees[1]
