"""Times of names of NTFS, which programs that set times leave alone, against ``fls``."""

from __future__ import annotations

import csv
import os
import re
from typing import TYPE_CHECKING

import pytest

from imprint.testing import ntfs_volume
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

pytest.importorskip("pytsk3")

NAMES = " ($FILE_NAME)"
NAME = "0 \N{MUSICAL SYMBOL G CLEF}"
OLD = 978_307_200
"""2001-01-01 in UTC."""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Files in folders, with names of all lengths, whose own times were set back."""
    path = ntfs_volume.make(tmp_path / "volume")
    with ntfs_volume.ntfs_mounted(path) as folder:
        (folder / "folder" / "below").mkdir(parents=True)
        for place in (folder, folder / "folder", folder / "folder" / "below"):
            for number in range(5):
                name = place / f"{number}{'n' * number * 40} \N{MUSICAL SYMBOL G CLEF}"
                name.write_bytes(b"x" * number)
                os.utime(name, (OLD, OLD))
        return path


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g", "fls")
def test_a_timeline_has_the_times_of_names_that_fls_tells(program: Program, volume: Path) -> None:
    """Fails if a line for a name is missing, or says what is said of the file."""
    program.ok("report", volume, "--timeline", "out.body")
    ours = (program.folder / "out.body").read_text().splitlines()
    theirs = run("fls", "-r", "-u", "-m", "/", volume).stdout.splitlines()
    expected = [re.sub(r"\|(\d+)-48-\d+\|", r"|\1|", line) for line in theirs if NAMES in line]
    found = [line for line in ours if NAMES in line]
    assert sorted(found) == sorted(expected)
    assert len(found) > 20
    assert not any(str(OLD) in line for line in found)
    program.ok("report", volume, "--timeline", "out.csv")
    with (program.folder / "out.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].endswith(NAMES)]
    assert {row["path"] for row in rows} == {line.split("|")[1] for line in found}


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g", "istat")
def test_stat_shows_the_times_of_a_name(program: Program, volume: Path) -> None:
    """Fails if times that were set are all that is shown."""
    shown = program.ok("stat", f"{volume}:/folder/{NAME}", "--json").json
    assert shown["mtime"] == "2001-01-01T00:00:00.000000000Z"
    told = run("istat", "-z", "UTC", volume, str(shown["inode"])).stdout
    part = told[told.index("$FILE_NAME Attribute Values") :]
    for key, label in (
        ("mtime", "File Modified"),
        ("atime", "Accessed"),
        ("ctime", "MFT Modified"),
        ("crtime", "Created"),
    ):
        found = re.search(rf"{label}:\s*(\S+) (\S+) ", part)
        assert found is not None
        assert shown["name_times"][key].startswith(f"{found[1]}T{found[2]}")
    assert "name modified" in program.ok("stat", f"{volume}:/folder/{NAME}").text


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_each_of_two_names_has_times_of_its_own(program: Program, volume: Path) -> None:
    """Fails if a name is told with another one's: a new one begins with the times of its file."""
    with ntfs_volume.ntfs_mounted(volume) as folder:
        os.link(folder / "folder" / NAME, folder / "another name")
    new = program.ok("stat", f"{volume}:/another name", "--json").json
    old = program.ok("stat", f"{volume}:/folder/{NAME}", "--json").json
    assert new["inode"] == old["inode"]
    assert new["name_times"]["mtime"] == new["mtime"] == "2001-01-01T00:00:00.000000000Z"
    assert old["name_times"]["mtime"] > "2020"
