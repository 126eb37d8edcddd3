"""Which files are hit by bad sectors: as the file system's own tool says where they lie."""

from __future__ import annotations

import json
import random
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint.testing.bad_medium import bad_map
from imprint.testing.program import Program

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SIZE = 16 * MIB


@pytest.mark.oracle("mkfs.ext4", "debugfs")
def test_the_files_on_bad_sectors_are_found(tmp_path: Path) -> None:
    """Fails if a user is told of the wrong file, or of none."""
    pytest.importorskip("pytsk3")
    folder = tmp_path / "tree"
    (folder / "letters").mkdir(parents=True)
    noise = random.Random(2)
    for index in range(6):
        (folder / "letters" / f"{index}.txt").write_bytes(noise.randbytes(40_000))
    image = tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(
        ["mkfs.ext4", "-q", "-b", "4096", "-d", folder, image], check=True, capture_output=True
    )
    said = subprocess.run(
        ["debugfs", "-R", "blocks /letters/3.txt", image],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    inode = subprocess.run(
        ["debugfs", "-R", "stat /letters/3.txt", image], check=True, capture_output=True, text=True
    ).stdout
    number = re.search(r"Inode: (\d+)", inode)
    assert number is not None
    block = int(said.split()[2])
    map_path = tmp_path / "disk.map"
    map_path.write_text(bad_map(SIZE, [(block * 4096 + 512, 1024)]))
    program = Program(tmp_path)
    lines = program.ok("map", "disk.raw", "--map", "disk.map", "--files", "--json").text
    found = [json.loads(line) for line in lines.splitlines()]
    (letter,) = [hit for hit in found if hit["part"] == "file"]
    assert letter["ranges"] == [{"offset": block * 4096 + 512, "length": 1024}]
    assert letter["path"] == "/letters/3.txt"
    assert letter["inode"] == int(number[1])
