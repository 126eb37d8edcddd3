"""Huge disks, of which nearly nothing is written: time and memory do not depend on their size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
TIB = 1 << 40
MEMORY_MAX = 300 * MIB


def _imprint(*arguments: str | Path) -> str:
    """Run a verb; fails if it needs more memory than any disk may cost."""
    words = [sys.executable, "-m", "imprint", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        output = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert usage.ru_maxrss * 1024 < MEMORY_MAX
    return output


@pytest.mark.oracle("qemu-img", "qemu-io")
@pytest.mark.parametrize("options", ["compression=none", "compression=zstd"])
def test_a_disk_of_64_tib_is_mapped_and_converted(tmp_path: Path, options: str) -> None:
    """Fails if a hole is walked through, or a table is made for what is not there."""
    source, target = tmp_path / "huge.qcow2", tmp_path / "copy.qcow2"
    oracles.create(source, 64 * TIB, "qcow2")
    oracles.qemu_io(source, "qcow2", "write -P 6 1T 3M", f"write -P 5 {63 * TIB} 1M")

    lines = [json.loads(line) for line in _imprint("map", "--json", source).splitlines()]
    assert [(line["offset"], line["length"]) for line in lines if line["kind"] == "data"] == [
        (TIB, 3 * MIB),
        (63 * TIB, MIB),
    ]
    _imprint("convert", source, target, "-o", options)
    oracles.check(target, "qcow2")
    oracles.qemu_io(
        target, "qcow2", "read -P 6 1T 3M", f"read -P 5 {63 * TIB} 1M", "read -P 0 2T 1M"
    )
    assert json.loads(_imprint("compare", "--json", source, target))["equal"] is True


@pytest.mark.oracle("qemu-img", "qemu-io")
def test_a_large_sparse_file_becomes_an_image_and_comes_back(tmp_path: Path) -> None:
    """Fails if a file's holes are read."""
    source, image, back = tmp_path / "disk.raw", tmp_path / "disk.vdi", tmp_path / "back.raw"
    with source.open("wb") as file:
        file.truncate(4 * TIB)
        file.seek(3 * TIB)
        file.write(b"\x07" * MIB)
    _imprint("convert", source, image)
    _imprint("convert", image, back)
    assert oracles.is_equal(source, back, first_format="raw", second_format="raw")
    assert back.stat().st_blocks * 512 <= 2 * MIB
