"""A medium is imaged as it is, whatever is on it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program


@pytest.mark.root
@pytest.mark.oracle("losetup", "qemu-img")
def test_what_is_written_on_a_disk_does_not_decide_how_it_is_captured(
    program: Program, tmp_path: Path
) -> None:
    """Fails if the owner of a disk can have something else imaged than the disk."""
    inner = tmp_path / "inner.qcow2"
    oracles.create(inner, 64 << 20, "qcow2")
    with inner.open("r+b") as file:
        file.truncate(1 << 20)
    found = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", inner],
        check=True,
        capture_output=True,
        text=True,
    )
    device = found.stdout.strip()
    try:
        result = json.loads(program.ok("capture", device, "image.raw", "--json").out)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert result["size"] == 1 << 20
    assert (tmp_path / "image.raw").read_bytes() == inner.read_bytes()
