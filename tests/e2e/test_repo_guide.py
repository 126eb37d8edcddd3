"""The commands of the guide to repositories do what it says, as they stand there."""

from __future__ import annotations

import os
import random
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from imprint.testing.program import Program

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "repository.md"
MIB = 1 << 20


@pytest.mark.oracle("sfdisk", "mke2fs")
def test_every_command_of_the_guide_works(program: Program) -> None:
    """Fails if what the guide tells to type is refused, or does not bring the disk back."""
    folder = program.folder
    disk = folder / "disk.raw"
    content = random.Random(1).randbytes(MIB)
    (folder / "files").mkdir()
    (folder / "files" / "noise").write_bytes(content)
    with disk.open("wb") as file:
        file.truncate(8 * MIB)
    oracles.run("sfdisk", "--quiet", disk, stdin=b"label: gpt\nstart=2048, size=10240\n")
    offset = f"offset={MIB}"
    oracles.run("mke2fs", "-q", "-t", "ext4", "-d", folder / "files", "-E", offset, disk, "5M")
    (folder / "pass").write_text("correct horse\n")
    (folder / "host.key").write_bytes(os.urandom(32))
    (folder / "sdc").write_bytes(random.Random(2).randbytes(8 * MIB))
    lines = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [line.partition("   #")[0] for block in lines for line in block.splitlines()]
    assert len(commands) > 20
    for command in commands:
        # Folders and files stand for places and devices; force, since they are there.
        here = command.replace("/dev/sdb", "disk.raw").replace("/dev/sdc", "sdc --force")
        words = shlex.split(here.replace("/srv/", "").replace("/mnt/", ""))
        assert words[0] == "imprint"
        program.ok(*words[1:])
    back = (folder / "sdc").read_bytes()
    assert content in back
    assert back[:MIB] == disk.read_bytes()[:MIB]
