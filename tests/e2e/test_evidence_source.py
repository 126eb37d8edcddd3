"""Sources that must not be writable, and what the examiner says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.testing import oracles
from imprint.testing.volumes import attached

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program


@pytest.mark.root
def test_ao_24_a_device_that_can_be_written_is_refused(program: Program, tmp_path: Path) -> None:
    """Fails if evidence is imaged without the write block that was asked for."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    with attached(tmp_path / "disk") as loop:
        oracles.run("blockdev", "--setrw", loop)
        said = program.refuses(5, "capture", loop, "out.raw", "--require-read-only")
        assert "blockdev --setro" in said[1]
        assert not (tmp_path / "out.raw").exists()
        oracles.run("blockdev", "--setro", loop)
        try:
            program.ok("capture", loop, "out.raw", "--require-read-only")
        finally:
            oracles.run("blockdev", "--setrw", loop)  # the kernel keeps it for the next user
    assert (tmp_path / "out.raw").read_bytes() == bytes(1 << 20)
    assert (tmp_path / "out.raw.log.txt").exists()


def test_ao_24_a_file_that_can_be_written_is_refused(program: Program, disk: Path) -> None:
    """Fails if write bits of the source do not count, or nothing does that is no file."""
    program.refuses(5, "capture", disk.name, "out.raw", "--require-read-only")
    program.refuses(3, "capture", "absent.raw", "out.raw", "--require-read-only")
    program.refuses(2, "capture", "-", "out.raw", "--require-read-only")
    disk.chmod(0o444)
    program.ok("capture", disk.name, "out.raw", "--require-read-only")


def test_case_fields_reach_every_format_that_keeps_them(program: Program, disk: Path) -> None:
    """Fails if what the examiner types is not in the image."""
    words = ["--case-number", "N7", "--evidence-number", "E8", "--description", "D9"]
    for name in ("disk.E01", "disk.aff4"):
        program.ok("capture", disk.name, name, *words)
        said = program.ok("info", name).text
        for value in ("N7", "E8", "D9"):
            assert value in said, name
    program.refuses(2, "capture", disk.name, "x.E01", *words, "-o", "case_number=other")
    program.refuses(2, "capture", disk.name, "x.E01", "--notes", "")
