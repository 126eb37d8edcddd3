"""Internal snapshots: qemu-img agrees with what ours hold, and the power may fail at any time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import UsageError
from imprint.core.image import Image
from imprint.formats.qcow2 import header, snapshot_table, snapshots
from imprint.formats.qcow2.check import check
from imprint.formats.qcow2.layer import Qcow2Layer
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing import oracles
from imprint.testing.faults import RecordingStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("qemu-img")

SIZE = 16 << 20
OPTIONS: list[dict[str, object]] = [
    {},
    {"cluster_size": 4096},
    {"extended_l2": "on"},
    {"compat": "0.10"},
    {"refcount_bits": 8, "cluster_size": 16384},
]


def _edit(path: Path) -> Qcow2Layer:
    return Qcow2Layer.open(FileStorage.open(path, writable=True), DictOpener(), writable=True)


def _do(path: Path, what: str, key: str) -> None:
    layer = _edit(path)
    try:
        getattr(snapshots, what)(layer, key)
    finally:
        layer.close()


def _snapshot_content(path: Path, name: str, folder: Path) -> bytes:
    raw = folder / "snapshot.raw"
    oracles.qemu_img("convert", "-q", "-f", "qcow2", "-l", name, "-O", "raw", path, raw)
    return raw.read_bytes()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_a_history_of_snapshots_reads_as_it_was_written(
    tmp_path: Path, options: dict[str, object], seed: int
) -> None:
    """Fails if a snapshot changes when the disk does, or deleting one harms another."""
    noise = random.Random(seed)
    path = tmp_path / "disk.qcow2"
    oracles.create(path, SIZE, "qcow2", options=options)
    kept: dict[str, bytes] = {}
    for step in range(12):
        start = noise.randrange(SIZE >> 10)
        length = min(noise.randrange(1, 900), (SIZE >> 10) - start)
        verb = noise.choice(["write", "write", "write -z"])
        pattern = "" if verb.endswith("z") else f"-P {step + 1} "
        oracles.qemu_io(path, "qcow2", f"{verb} {pattern}{start}k {length}k")
        action = noise.choice(["create", "create", "apply", "delete"])
        if action == "create":
            kept[f"s{step}"] = oracles.content(path, "qcow2")
            _do(path, "create", f"s{step}")
        elif kept:
            name = noise.choice(sorted(kept))
            _do(path, action, name)
            if action == "delete":
                del kept[name]
            else:
                assert oracles.content(path, "qcow2") == kept[name]
        oracles.check(path, "qcow2")
    for name, content in kept.items():
        assert _snapshot_content(path, name, tmp_path) == content
        storage = FileStorage.open(path)
        found, _ = snapshot_table.read(header.read(storage), storage)
        view = snapshots.find(found, name, "").view(header.read(storage))
        with Image(Qcow2Layer.open(storage, DictOpener(), view=view), name="x") as image:
            assert image.read_at(0, image.size) == content


def test_a_snapshot_that_qemu_took_can_be_applied_and_deleted(tmp_path: Path) -> None:
    """Fails if we depend on something that only our own snapshots have."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, SIZE, "qcow2")
    oracles.qemu_io(path, "qcow2", "write -P 1 0 3M", "write -c -P 5 8M 128k")
    oracles.qemu_img("snapshot", "-c", "first", path)
    oracles.qemu_io(path, "qcow2", "write -P 2 1M 4M", "write -P 6 8M 64k")
    _do(path, "apply", "1")
    oracles.qemu_io(path, "qcow2", "read -P 1 0 3M", "read -P 0 3M 2M", "read -P 5 8M 128k")
    _do(path, "delete", "first")
    oracles.check(path, "qcow2")
    oracles.qemu_io(path, "qcow2", "read -P 1 0 3M", "read -P 5 8M 128k")


def test_a_snapshot_of_a_smaller_disk_brings_its_size_back(tmp_path: Path) -> None:
    """Fails if the size of the disk does not belong to the snapshot."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, SIZE, "qcow2")
    oracles.qemu_io(path, "qcow2", "write -P 1 0 1M")
    _do(path, "create", "small")
    oracles.qemu_img("resize", "-f", "qcow2", path, str(2 << 30))
    _do(path, "apply", "small")
    assert oracles.info(path)["virtual-size"] == SIZE
    oracles.check(path, "qcow2")


def test_names_are_looked_up_and_refused(tmp_path: Path) -> None:
    """Fails if a wrong name is taken for another snapshot, or a name is given twice."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, SIZE, "qcow2")
    _do(path, "create", "one")
    with pytest.raises(UsageError, match="has no snapshot 'two'; it has: 'one'"):
        _do(path, "apply", "two")
    with pytest.raises(UsageError, match="already"):
        _do(path, "create", "one")
    oracles.check(path, "qcow2")


@pytest.mark.parametrize("what", ["create", "apply", "delete"])
@pytest.mark.parametrize("compat", ["1.1", "0.10"])
def test_the_power_may_fail_at_any_write(tmp_path: Path, what: str, compat: str) -> None:
    """Fails if a crash loses the disk, or leaves something between the old state and the new."""
    path = tmp_path / "disk.qcow2"
    options: dict[str, object] = {"cluster_size": 4096, "compat": compat}
    oracles.create(path, 1 << 20, "qcow2", options=options)
    oracles.qemu_io(path, "qcow2", "write -P 1 0 200k", "write -c -P 5 512k 4k")
    _do(path, "create", "old")
    oracles.qemu_io(path, "qcow2", "write -P 2 100k 200k")
    now = oracles.content(path, "qcow2")
    then = _snapshot_content(path, "old", tmp_path)

    recording = RecordingStorage(path.read_bytes())
    layer = Qcow2Layer.open(recording, DictOpener(), writable=True)
    getattr(snapshots, what)(layer, "new" if what == "create" else "old")
    allowed = {now, then} if what == "apply" else {now}

    for _, state in recording.crashes(random.Random(5), variants=1):
        seen = Image(Qcow2Layer.open(state, DictOpener()), name="after").read_at(0, len(now))
        assert seen in allowed
        repaired = MemoryStorage(bytes(state.content))
        assert all(finding.repaired for finding in check(repaired, repair=True))
        assert list(check(repaired, repair=False)) == []
        names = [entry.name for entry in snapshot_table.read(header.read(repaired), repaired)[0]]
        before = [b"old"]
        after = {"create": [b"old", b"new"], "apply": [b"old"], "delete": []}[what]
        assert names in (before, after)
