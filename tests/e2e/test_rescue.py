"""Maps of partial copies, as the program's users see them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

MAP = """\
# Mapfile. Created by GNU ddrescue version 1.27
# current_pos  current_status  current_pass
0x00100000     ?               1
#      pos        size  status
0x00000000  0x00100000  +
0x00100000  0x00000200  -
0x00100200  0x002FFE00  +
0x00400000  0x00400000  ?
"""
EXPECTED = [(0x100000, 0x200, "bad"), (0x400000, 0x400000, "hole")]


@pytest.fixture
def disk_map(tmp_path: Path) -> Path:
    """The map of a copy of 8 MiB."""
    path = tmp_path / "disk.map"
    path.write_text(MAP)
    return path


def _lacking(program: Program, *words: str) -> list[tuple[int, int, str]]:
    lines = [json.loads(line) for line in program.ok("map", *words, "--json").text.splitlines()]
    found = [(line["offset"], line["length"], line["kind"]) for line in lines]
    return [line for line in found if line in EXPECTED or line[2] == "bad"]


def test_a_map_is_shown_alone_and_over_its_copy(
    program: Program, disk: Path, disk_map: Path
) -> None:
    """Fails if what a rescue lacks cannot be looked at."""
    assert _lacking(program, disk_map.name) == EXPECTED
    # The copy has a hole there itself, of which the second one becomes a part.
    assert _lacking(program, disk.name, "--map", disk_map.name) == EXPECTED[:1]
    picture = program.ok("map", disk_map.name, "--picture").text
    assert "unreadable 512 bytes" in picture
    program.ok("map", disk_map.name, "--svg", "disk.svg")
    assert "unreadable" in (disk.parent / "disk.svg").read_text()


def test_a_partial_copy_becomes_an_image_that_knows_what_it_lacks(
    program: Program, disk: Path, disk_map: Path
) -> None:
    """Fails if unread areas pass for zeros when the format changes."""
    done = program("convert", disk.name, "disk.E01", "--map", disk_map.name)
    assert done.exit_code == 6
    lines = [json.loads(line) for line in program.ok("map", "disk.E01", "--json").text.splitlines()]
    bad = [(line["offset"], line["length"]) for line in lines if line["kind"] == "bad"]
    assert bad[0] == (0x100000, 0x200)


def test_what_is_no_map_is_refused(program: Program, disk: Path, disk_map: Path) -> None:
    """Fails if a wrong file makes good areas bad."""
    del disk, disk_map
    program.refuses(3, "map", "disk.raw", "--map", "disk.raw")
    program.refuses(3, "convert", "disk.raw", "new.raw", "--map", "absent.map")
    program.refuses(2, "capture", "disk.raw", "new.raw", "--merge", "no-map")
    program.refuses(2, "capture", "disk.raw", "new.raw", "--fill", "")
    program.refuses(2, "capture", "disk.raw", "new.raw", "--fill", "0xBAD")
    program.refuses(2, "capture", "disk.raw", "-", "--retries", "1")
