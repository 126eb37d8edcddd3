"""check and repair of QCOW2: what qemu-img finds we find, and what we repair it finds sound."""

from __future__ import annotations

import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint.core.events import Severity
from imprint.formats.qcow2 import header
from imprint.formats.qcow2.check import check
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing import oracles
from imprint.testing.faults import RecordingStorage

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.events import Finding

pytestmark = pytest.mark.oracle("qemu-img")

OPTIONS: list[dict[str, object]] = [
    {},
    {"cluster_size": 512},
    {"cluster_size": 4096, "refcount_bits": 1},
    {"refcount_bits": 2},
    {"refcount_bits": 64, "cluster_size": 2 << 20},
    {"extended_l2": "on"},
    {"compat": "0.10"},
    {"compression_type": "zstd", "refcount_bits": 32},
]


def _image(path: Path, options: dict[str, object]) -> Path:
    """An image with plain, compressed, zero and (but for 1-bit refcounts) shared clusters."""
    oracles.create(path, 24 << 20, "qcow2", options=options)
    oracles.qemu_io(
        path,
        "qcow2",
        "write -P 1 0 1M",
        "write -P 3 8M 70k",
        "write -z 3M 64k",
        *(["write -c -P 9 12M 2M"] if options.get("cluster_size") != 512 else []),
    )
    if options.get("refcount_bits") not in (1, 2):
        oracles.qemu_img("snapshot", "-c", "first", path)
        oracles.qemu_io(path, "qcow2", "write -P 7 512k 1M")
    return path


def _check(path: Path, *, repair: bool = False) -> list[Finding]:
    storage = FileStorage.open(path, writable=repair)
    try:
        return list(check(storage, repair=repair))
    finally:
        storage.close()


def _qemu_report(path: Path) -> tuple[int, int]:
    """Leaks and corruptions that qemu-img counts."""
    import json

    result = oracles.qemu_img("check", "--output=json", "-f", "qcow2", path, accept=(0, 2, 3))
    report = json.loads(result.stdout)
    return report.get("leaks", 0), report.get("corruptions", 0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_qemu_made_is_clean(tmp_path: Path, options: dict[str, object]) -> None:
    """Fails if a reference is not counted, or counted twice: sound images would look damaged."""
    path = _image(tmp_path / "disk.qcow2", options)
    if options.get("compat") != "0.10":
        oracles.qemu_img("bitmap", "--add", path, "changes")
        oracles.qemu_io(path, "qcow2", "write -P 5 4M 1M")
    assert _check(path) == []


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_wrong_refcounts_are_found_and_repaired(
    tmp_path: Path, options: dict[str, object], seed: int
) -> None:
    """Fails if we call sound what qemu-img calls damaged, or our repair leaves or does damage."""
    path = _image(tmp_path / "disk.qcow2", options)
    before = oracles.content(path, "qcow2")
    _damage_refcounts(path, random.Random(seed))
    leaks, corruptions = _qemu_report(path)

    found = _check(path)

    assert any(finding.severity is Severity.ERROR for finding in found) == (corruptions > 0)
    assert any("leaked" in finding.what for finding in found) == (leaks > 0)
    repaired = _check(path, repair=True)
    assert all(finding.repaired for finding in repaired)
    assert _check(path) == []
    assert _qemu_report(path) == (0, 0)
    assert oracles.content(path, "qcow2") == before


def _damage_refcounts(path: Path, noise: random.Random) -> None:
    storage = FileStorage.open(path)
    area = header.read(storage)
    storage.close()
    with path.open("r+b") as file:
        file.seek(area.header.refcount_table_offset)
        block = int.from_bytes(file.read(8), "big")
        width = max(1, area.refcount_bits // 8)
        used = min(path.stat().st_size // area.cluster_size, area.cluster_size // width)
        for _ in range(3):
            file.seek(block + noise.randrange(used // (8 // min(8, area.refcount_bits))) * width)
            file.write(noise.choice([0, 1, 1]).to_bytes(width, "big"))


@pytest.mark.parametrize("snapshot", [False, True])
def test_wrong_copied_flags_are_found_and_repaired(tmp_path: Path, *, snapshot: bool) -> None:
    """Fails if a shared cluster could be overwritten in place after a repair."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, 8 << 20, "qcow2")
    oracles.qemu_io(path, "qcow2", "write -P 1 0 1M")
    if snapshot:
        oracles.qemu_img("snapshot", "-c", "s", path)
    storage = FileStorage.open(path)
    l1 = header.read(storage).header.l1_table_offset
    storage.close()
    with path.open("r+b") as file:
        file.seek(l1)
        entry = int.from_bytes(file.read(8), "big")
        for place in (l1, (entry & 0x00FFFFFFFFFFFE00) + 24):
            file.seek(place)
            value = int.from_bytes(file.read(8), "big") ^ (1 << 63)
            file.seek(place)
            file.write(value.to_bytes(8, "big"))

    assert len(_check(path)) == 2
    assert all(finding.repaired for finding in _check(path, repair=True))
    assert _check(path) == []
    assert _qemu_report(path) == (0, 0)


def test_an_image_whose_writer_was_killed_is_repaired(tmp_path: Path) -> None:
    """Fails if an image with lazy refcounts cannot be brought back after a crash."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, 64 << 20, "qcow2", options={"lazy_refcounts": "on"})
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 40M", "-c", "flush", "-c", "abort", path],
        check=False,
        capture_output=True,
    )
    assert any("not closed properly" in finding.what for finding in _check(path))
    assert all(finding.repaired for finding in _check(path, repair=True))
    assert _check(path) == []
    assert _qemu_report(path) == (0, 0)
    assert "dirty" not in str(oracles.info(path).get("format-specific", {}).get("dirty-flag"))
    oracles.qemu_io(path, "qcow2", "read -P 1 0 40M")


@pytest.mark.parametrize("kind", ["rebuild", "leaks"])
def test_the_power_may_fail_at_any_write_of_a_repair(tmp_path: Path, kind: str) -> None:
    """Fails if a repair that is cut short leaves the image worse than it was."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, 4 << 20, "qcow2", options={"cluster_size": 4096})
    oracles.qemu_io(path, "qcow2", "write -P 1 0 300k", "write -c -P 2 1M 128k")
    before = oracles.content(path, "qcow2")
    storage = FileStorage.open(path)
    area = header.read(storage)
    storage.close()
    with path.open("r+b") as file:
        file.seek(area.header.refcount_table_offset)
        block = int.from_bytes(file.read(8), "big")
        file.seek(block + 20)
        file.write(bytes(20) if kind == "rebuild" else b"\0\3" * 4)
    recording = RecordingStorage(path.read_bytes())
    list(check(recording, repair=True))

    noise = random.Random(1)
    states = list(recording.crashes(noise, variants=1))
    assert len(states) > 2
    for _, state in states:
        after = tmp_path / "after.qcow2"
        after.write_bytes(state.content)
        assert oracles.content(after, "qcow2") == before
        assert all(finding.repaired for finding in check(MemoryStorage(state.content), repair=True))


def test_references_out_of_the_file_are_found_and_not_repaired(tmp_path: Path) -> None:
    """Fails if a truncated image passes, or a repair frees what it cannot see."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, 8 << 20, "qcow2")
    oracles.qemu_io(path, "qcow2", "write -P 1 0 2M")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - (1 << 20))
    assert any(finding.severity is Severity.ERROR for finding in _check(path))
    size = path.stat().st_size
    content = path.read_bytes()
    found = _check(path, repair=True)
    assert any("not done" in finding.what for finding in found)
    assert path.stat().st_size == size
    assert path.read_bytes() == content
