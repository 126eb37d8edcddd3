"""Compressed QCOW2 clusters against qemu-img, and persistent bitmaps of its making."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from imprint.core.formats import CreateSpec, parse_options
from imprint.formats.qcow2 import FORMAT
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing import oracles
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

KIB = 1 << 10
MIB = 1 << 20


def far_repeats(size: int) -> bytes:
    """Blocks that repeat at every distance from 3 to 64 KiB: bait for a large window."""
    randomness = random.Random(2)
    parts, length = [], 0
    while length < size:
        block = randomness.randbytes(randomness.randint(3 * KIB, 33 * KIB))
        parts.append(block + block)
        length += 2 * len(block)
    return b"".join(parts)[:size]


def make(size: int, **options: str) -> tuple[MemoryStorage, Any]:
    """A new image in memory, and the ``CompressedTarget`` that writes it."""
    values = parse_options("qcow2", FORMAT.options, options)
    storage = MemoryStorage()
    return storage, FORMAT.create(storage, CreateSpec(size, DictOpener(), values))


@pytest.mark.parametrize("cluster_size", [512, 4096, 65536, 2 * MIB])
@pytest.mark.parametrize(
    ("compression", "level"), [("zlib", level) for level in (0, 1, 2, 3, 4, 9)] + [("zstd", 9)]
)
def test_qemu_inflates_what_every_level_makes(
    tmp_path: Path, compression: str, level: int, cluster_size: int
) -> None:
    """Fails if a match reaches back further than qemu's inflater can see."""
    path, disk = tmp_path / "disk.qcow2", far_repeats(5 * MIB)
    options = {"compression": compression, "level": str(level), "cluster_size": str(cluster_size)}
    storage, target = make(len(disk), **options)
    target.write(memoryview(disk), 0)
    target.commit()
    path.write_bytes(storage.content)
    oracles.check(path, "qcow2")
    assert oracles.content(path, "qcow2") == disk


@pytest.mark.parametrize("refcount_bits", [1, 2, 4, 8])
def test_a_cluster_takes_no_more_streams_than_it_can_count(
    tmp_path: Path, refcount_bits: int
) -> None:
    """Fails if a refcount overflows: hundreds of tiny streams would fit into one cluster."""
    path, disk = tmp_path / "disk.qcow2", b"ab" * (20 * MIB)
    storage, target = make(len(disk), compression="zlib", refcount_bits=str(refcount_bits))
    target.write(memoryview(disk), 0)
    target.commit()
    path.write_bytes(storage.content)
    oracles.check(path, "qcow2")
    assert oracles.content(path, "qcow2") == disk


def test_threads_that_encode_make_the_same_image(tmp_path: Path) -> None:
    """Fails if encoding shares state, or units are stored in another order than they came."""
    path = tmp_path / "disk.qcow2"
    randomness = random.Random(3)
    text = b"".join(b"%d bottles\n" % number for number in range(200_000))
    disk = text[: 2 * MIB] + randomness.randbytes(MIB) + bytes(2 * MIB) + text[: MIB + 512]
    storage, target = make(len(disk), compression="zstd")
    starts = range(0, len(disk), MIB)
    view = memoryview(disk)
    with ThreadPoolExecutor(4) as pool:
        encoded = pool.map(lambda start: target.encode(view[start : start + MIB], start), starts)
        for start, units in zip(starts, encoded, strict=True):
            target.write_encoded(units, start)
    target.commit()
    path.write_bytes(storage.content)
    oracles.check(path, "qcow2")
    assert oracles.content(path, "qcow2") == disk
    assert path.stat().st_size < 2 * MIB  # text shrinks, random bytes do not, zeros take nothing
    kinds = {run.storage_offset is None for run in oracles.image_map(path, "qcow2") if run.is_data}
    assert kinds == {True, False}


def test_writing_over_a_compressed_cluster_gives_it_back(tmp_path: Path) -> None:
    """Fails if a cluster that several streams share is freed too early, or leaks."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, 4 * MIB, "qcow2", options={"cluster_size": 4096})
    oracles.qemu_io(path, "qcow2", *(f"write -c -P {n} {n * 4096} 4096" for n in range(1, 100)))
    disk = bytearray(oracles.content(path, "qcow2"))
    with FORMAT.edit(FileStorage.open(path, writable=True), DictOpener()) as image:
        for start, length, byte in ((5000, 3000, 200), (80 * 4096, 9000, 201), (50_000, 9, 202)):
            image.write(memoryview(bytes([byte]) * length), start)
            disk[start : start + length] = bytes([byte]) * length
            image.flush()
    oracles.check(path, "qcow2")
    assert oracles.content(path, "qcow2") == disk


def test_a_cluster_that_was_freed_takes_no_more_streams(tmp_path: Path) -> None:
    """Fails if streams go on into a cluster that a checkpoint has given to somebody else."""
    path, size = tmp_path / "disk.qcow2", 4 * MIB
    storage, target = make(size, compression="zlib", cluster_size="4096")
    plain = random.Random(4).randbytes(4096)
    target.write(memoryview(b"a" * 4096), 0)
    target.zero(0, 4096)
    target.checkpoint()
    target.write(memoryview(plain), 8192)
    target.write(memoryview(b"b" * 4096), 0)
    target.commit()
    path.write_bytes(storage.content)
    oracles.check(path, "qcow2")
    disk = b"b" * 4096 + bytes(4096) + plain
    assert oracles.content(path, "qcow2") == disk.ljust(size, b"\0")


def bitmaps_of(path: Path) -> dict[str, list[str]]:
    found = oracles.info(path)["format-specific"]["data"]["bitmaps"]
    return {bitmap["name"]: bitmap["flags"] for bitmap in found}


def test_an_edit_marks_the_bitmaps_that_miss_it_and_keeps_the_others(tmp_path: Path) -> None:
    """Fails if an incremental backup would silently leave out what imprint wrote."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, 8 * MIB, "qcow2")
    oracles.qemu_img("bitmap", "--add", path, "tracking")
    oracles.qemu_img("bitmap", "--add", "--disable", "-g", "4096", path, "frozen")
    with FORMAT.edit(FileStorage.open(path, writable=True), DictOpener()) as image:
        listed = {bitmap.name: bitmap for bitmap in image.info().bitmaps}
        assert listed["tracking"].flags == ("auto",)
        assert (listed["frozen"].granularity, listed["frozen"].flags) == (4096, ())
        image.flush()
    assert bitmaps_of(path) == {"tracking": ["auto"], "frozen": []}  # nothing written yet
    with FORMAT.edit(FileStorage.open(path, writable=True), DictOpener()) as image:
        image.write(memoryview(b"x"), 5 * MIB)
        image.flush()
    assert bitmaps_of(path) == {"tracking": ["in-use", "auto"], "frozen": []}
    oracles.check(path, "qcow2")


def test_a_resize_marks_all_bitmaps(tmp_path: Path) -> None:
    """Fails if a bitmap whose length no longer fits the disk is called consistent."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, 8 * MIB, "qcow2")
    oracles.qemu_img("bitmap", "--add", "--disable", path, "frozen")
    with FORMAT.edit(FileStorage.open(path, writable=True), DictOpener()) as image:
        image.resize(9 * MIB)
    assert bitmaps_of(path) == {"frozen": ["in-use"]}
    oracles.check(path, "qcow2")


def test_snapshots_are_listed_as_qemu_lists_them(tmp_path: Path) -> None:
    """Fails if an entry of the snapshot table is misread."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, 8 * MIB, "qcow2")
    for name in ("first", "second with spaces", "drïtter"):
        oracles.qemu_img("snapshot", "-c", name, path)
        oracles.qemu_img("resize", path, "+1M")
    with FORMAT.open(FileStorage.open(path), DictOpener()) as image:
        ours = [(item.id, item.name, item.vm_state_size) for item in image.info().snapshots]
        times = [int(item.time_s) for item in image.info().snapshots]
        assert [item.size for item in image.info().snapshots] == [8 * MIB, 9 * MIB, 10 * MIB]
    theirs = oracles.info(path)["snapshots"]
    assert ours == [(item["id"], item["name"], item["vm-state-size"]) for item in theirs]
    assert times == [item["date-sec"] for item in theirs]
