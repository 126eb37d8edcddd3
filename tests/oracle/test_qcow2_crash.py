"""The power fails while a QCOW2 image is changed: what is left is sound for qemu, old or new."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from imprint.core.formats import CreateSpec, parse_options
from imprint.formats.qcow2 import FORMAT
from imprint.testing import oracles
from imprint.testing.faults import RecordingStorage, is_unseen
from imprint.testing.format_faults import History
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.image import WritableImage

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

KIB = 1 << 10
DISK = 600 * KIB

SHAPES: list[dict[str, object]] = [
    {"cluster_size": 512, "refcount_bits": 64},
    {"cluster_size": 4096, "refcount_bits": 4},
    {"cluster_size": 1024, "compat": "0.10"},
    {"cluster_size": 16384, "extended_l2": "on"},
]
"""Small clusters: then tables are shared, copied, grown and moved within a few writes."""


def change(image: WritableImage, history: History) -> None:
    """Overwrite, allocate, copy shared clusters, zero and reuse, with flushes in between."""
    randomness = random.Random(7)
    size = len(history.disk)
    for _ in range(4):
        for _ in range(3):
            offset = randomness.randrange(size - 1)
            length = min(randomness.randint(1, 90 * KIB), size - offset)
            byte = randomness.choice((0, 1, 2, 3))
            history.change(image, offset, length, byte)
        history.flush(image)


def assert_no_errors(path: Path) -> None:
    """Leaks are allowed after a crash; anything else is not."""
    words = ("check", "--output=json", "-f", "qcow2", path)
    report = json.loads(oracles.qemu_img(*words, accept=(0, 2, 3)).stdout)
    assert report.get("corruptions", 0) == 0
    assert report.get("check-errors", 0) == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_crash_while_editing_leaves_no_errors(tmp_path: Path, shape: dict[str, object]) -> None:
    """Fails if a table is written before what it points to, or a cluster is free and in use."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, DISK, "qcow2", options=shape)
    oracles.qemu_io(path, "qcow2", "write -P 9 0 300k", "write -z 100k 50k")
    oracles.qemu_img("snapshot", "-c", "shared", path)
    oracles.qemu_io(path, "qcow2", "write -P 8 250k 100k")
    storage = RecordingStorage(path.read_bytes())
    history = History(storage, oracles.content(path, "qcow2"))
    change(FORMAT.edit(storage, DictOpener()), history)
    seen: set[bytes] = set()
    for count, survived in storage.crashes(random.Random(5), variants=1):
        with FORMAT.open(survived, DictOpener()) as reopened:
            disk = reopened.read_at(0, DISK)
        history.check(count, disk)
        if is_unseen(survived, seen):
            path.write_bytes(survived.content)
            assert_no_errors(path)


@pytest.mark.parametrize("after", [9000 * KIB, 40 * KIB])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_crash_while_resizing_leaves_one_of_the_two_sizes(
    tmp_path: Path, shape: dict[str, object], after: int
) -> None:
    """Fails if the L1 table or the size change at different moments, or bytes are lost."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, DISK, "qcow2", options=shape)
    oracles.qemu_io(path, "qcow2", f"write -P 9 0 {DISK}")
    storage = RecordingStorage(path.read_bytes())
    with FORMAT.edit(storage, DictOpener()) as image:
        image.resize(after)
    for count, survived in storage.crashes(random.Random(6), variants=1):
        path.write_bytes(survived.content)
        assert_no_errors(path)
        with FORMAT.open(survived, DictOpener()) as reopened:
            assert reopened.size in (DISK, after)
            inside = min(DISK, after)
            assert reopened.read_at(0, inside) == b"\x09" * inside
            if count == len(storage.operations):
                assert reopened.size == after


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_a_crash_after_a_checkpoint_keeps_what_was_written(
    tmp_path: Path, compression: str
) -> None:
    """Fails if a new image is not sound as soon as a checkpoint says so."""
    path = tmp_path / "disk.qcow2"
    options = {"compression": compression, "cluster_size": "4096", "refcount_bits": "8"}
    storage = RecordingStorage()
    values = parse_options("qcow2", FORMAT.options, options)
    target: Any = FORMAT.create(storage, CreateSpec(DISK, DictOpener(), values))
    content = (b"imprint " * 80 * KIB)[:DISK]
    step, kept = 64 * KIB, {}
    for start in range(0, DISK, step):
        piece = content[start : start + step]
        target.write(memoryview(piece), start)
        target.checkpoint()
        kept[len(storage.operations)] = start + len(piece)
    first = min(kept)
    crashes = [crash for crash in storage.crashes(random.Random(8)) if crash[0] >= first]
    for count, survived in random.Random(9).sample(crashes, min(40, len(crashes))):
        path.write_bytes(survived.content)
        assert_no_errors(path)
        length = max(end for at, end in kept.items() if at <= count)
        with FORMAT.open(survived, DictOpener()) as reopened:
            assert reopened.read_at(0, length) == content[:length]
