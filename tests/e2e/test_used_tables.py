"""Only what file systems use, on disks with labels of BSD and Sun and maps of Apple; pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import pytest

from imprint.testing.oracles import run
from imprint.testing.volumes import GARBAGE, cut_out

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

MIB: Final = 1 << 20
EXT_SIZE: Final = 24 * MIB
SIZE: Final = 64 * MIB

# How the disk gets its table, and where in MiB the partition is that holds the file system.
NESTED: Final = "nested BSD"
TABLES: Final = {
    "apm": ("mklabel mac mkpart data hfs+ 8MiB 32MiB", 8),
    "bsd": ("mklabel bsd mkpart ext2 8MiB 32MiB", 8),
    "sun": ("mklabel sun mkpart ext2 0 24MiB", 0),
    NESTED: ("", 8),
}

pytestmark = pytest.mark.oracle(
    "parted", "fdisk", "sfdisk", "partx", "mkfs.ext4", "e2fsck", "debugfs"
)


def make_disk(folder: Path, kind: str) -> Path:
    """A disk full of garbage, with an ext4 that has one file, and then a table."""
    disk, volume, files = folder / "disk.raw", folder / "volume", folder / "files"
    files.mkdir()
    (files / "kept").write_bytes(bytes(range(256)) * 8000)
    volume.write_bytes(GARBAGE * (EXT_SIZE // MIB))
    run("mkfs.ext4", "-q", "-E", "nodiscard", "-d", files, volume)
    command, start = TABLES[kind]
    disk.write_bytes(GARBAGE * (SIZE // MIB))
    with disk.open("r+b") as file:
        file.write(bytes(2 * MIB))
    if command:
        run("parted", "-s", disk, *command.split())
    else:
        run("sfdisk", "-q", disk, stdin=b"label: dos\nstart=2048,size=126976,type=a5\n")
        made = f"b\ny\nn\na\n{start * 2048}\n+{EXT_SIZE // 512 - 1}\nt\na\n7\nw\n"
        run("fdisk", disk, stdin=made.encode(), accept=(0, 1))
    with disk.open("r+b") as file:  # but for the boot block, where a label may be
        file.seek(start * MIB + 1024)
        file.write(volume.read_bytes()[1024:])
    return disk


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_what_a_file_system_in_any_table_does_not_use_is_left_out_and_nothing_else(
    program: Program, kind: str
) -> None:
    """Fails if the free room of a BSD partition is copied, or a label in a slice is lost."""
    disk = make_disk(program.folder, kind)
    # parted leaves the checksum of BSD labels wrong: such a table is not relied upon unasked.
    used = "--used=force" if kind == "bsd" else "--used"
    unused = [
        run_
        for run_ in program.ok("map", "disk.raw", used, "--json").json_lines
        if run_["kind"] == "unused"
    ]
    start = TABLES[kind][1] * MIB
    assert sum(run_["length"] for run_ in unused) > EXT_SIZE // 3
    assert all(start <= run_["offset"] for run_ in unused)
    assert all(run_["offset"] + run_["length"] <= start + EXT_SIZE for run_ in unused)

    program.ok("convert", "disk.raw", "copy.raw", used)

    copy, volume = program.folder / "copy.raw", program.folder / "copy.ext"
    fields = ("partx", "--pairs", "--output", "NR,START,SECTORS,TYPE")
    assert run(*fields, copy).stdout == run(*fields, disk).stdout
    cut_out(copy, start, volume, size=EXT_SIZE)
    run("e2fsck", "-fn", volume)
    kept = run("debugfs", "-R", "stat kept", volume).stdout
    assert "Size: 2048000" in kept
    before, after = disk.read_bytes(), copy.read_bytes()
    assert before[:start] == after[:start]
    assert before[start + EXT_SIZE :] == after[start + EXT_SIZE :]


def test_a_label_with_a_wrong_checksum_is_not_relied_upon(program: Program) -> None:
    """Fails if a table that may be wrong decides what is thrown away."""
    make_disk(program.folder, "bsd")
    runs = program.ok("map", "disk.raw", "--used", "--json").json_lines
    assert "unused" not in {item["kind"] for item in runs}


def test_map_draws_the_disk_into_a_file_that_is_never_replaced_unasked(program: Program) -> None:
    """Fails if the picture is not there, or takes the place of a disk or of another picture."""
    make_disk(program.folder, "apm")
    picture = program.folder / "disk.svg"

    done = program.ok("map", "disk.raw", "--used", "--svg", "disk.svg")

    assert done.text == ""
    root = ET.fromstring(picture.read_text(encoding="utf-8"))
    shown = " ".join(item.text or "" for item in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "disk.raw: 64 MiB, apm table" in shown
    assert "ext4" in shown
    assert "unused" in shown
    picture.write_text("<svg/>", encoding="utf-8")
    program.refuses(5, "map", "disk.raw", "--svg", "disk.svg")
    assert picture.read_text(encoding="utf-8") == "<svg/>"
    program.ok("map", "disk.raw", "--svg", "disk.svg", "--force")
    assert len(picture.read_text(encoding="utf-8")) > 1000
    before = (program.folder / "disk.raw").read_bytes()
    program.refuses(5, "map", "disk.raw", "--svg", "disk.raw", "--force")
    assert (program.folder / "disk.raw").read_bytes() == before
    assert not list(program.folder.glob("*.partial"))
    listed = program.ok("map", "disk.raw", "--svg", "again.svg", "--json").json_lines
    assert sum(item["length"] for item in listed) == SIZE


def test_info_names_the_gaps_and_map_draws_what_is_unused(program: Program) -> None:
    """Fails if room between partitions, or in them, cannot be seen."""
    make_disk(program.folder, NESTED)
    found = program.ok("info", "disk.raw", "--json").json
    assert [part["index"] for part in found["partitions"]] == [1, 5]
    assert found["gaps"] == [
        {"start": 0, "length": 8 * MIB},
        {"start": 32 * MIB, "length": 32 * MIB},
    ]
    assert found["partitions"][1]["filesystem"] == "ext4"
    people = program.ok("info", "disk.raw").text
    assert "partition table: mbr, sectors of 512 bytes" in people
    assert people.count("  gap") == 2
    assert found["partitions"][1]["filesystem_uuid"] in people
    drawn = program.ok("map", "disk.raw", "--used", "--picture").text
    assert "/ unused" in drawn
    assert "unused 1" in drawn
