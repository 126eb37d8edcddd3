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


# What a process was before it became another program counts in its resource usage, so the
# program itself has to say what it needed.
PROGRAM = """
import sys
from pathlib import Path
from imprint.cli.main import main
code = main(sys.argv[1:])
sys.stdout.flush()
status = Path("/proc/self/status").read_text()
print(next(line for line in status.splitlines() if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


def _imprint(*arguments: str | Path) -> str:
    """Run a verb; fails if it needs more memory than any disk may cost."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    peak_kib = int(done.stderr.splitlines()[-1].split()[1])
    assert peak_kib * 1024 < MEMORY_MAX
    return done.stdout


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
