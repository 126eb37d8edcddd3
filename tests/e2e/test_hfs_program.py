"""Disks of old Macs, as those who keep them use the program."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from imprint.core.units import KIB
from imprint.testing.small_hfs import CONTENT, FINDER, NAMES, RESOURCE, small_hfs, small_mfs

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk with an Apple partition map, of which the second partition is HFS."""
    volume = small_hfs()
    whole = bytearray(8 * KIB) + volume
    struct.pack_into(">HHI", whole, 0, 0x4552, 512, len(whole) // 512)
    parts = ((b"Apple_partition_map", 1, 15), (b"Apple_HFS", 16, len(volume) // 512))
    for number, (kind, start, count) in enumerate(parts, 1):
        struct.pack_into(
            ">HHIII32s32s", whole, 512 * number, 0x504D, 0, 2, start, count, b"Part", kind
        )
    path = tmp_path / "mac.img"
    path.write_bytes(whole)
    return path


def test_files_of_an_old_mac_are_listed_read_and_extracted(program: Program, disk: Path) -> None:
    """Fails if a verb does not know the file system, or loses a resource fork."""
    found = program.ok("info", "--json", disk).json
    assert [item["filesystem"] for item in found["partitions"]][1:] == ["hfs"]
    lines = program.ok("ls", "-R", "--json", f"{disk}#p2:/").json_lines
    assert {line["path"] for line in lines} == {f"/{name}" for name in NAMES}
    assert program.ok("cat", f"{disk}#p2:/file").out == CONTENT
    assert program.ok("cat", f"{disk}#p2:/file", "--stream", "rsrc").out == RESOURCE
    facts = program.ok("stat", "--json", f"{disk}#p2:/file").json
    assert facts["streams"] == [{"name": "rsrc", "size": len(RESOURCE)}]
    (attribute,) = facts["xattrs"]
    assert attribute["name"] == "user.com.apple.FinderInfo"
    assert bytes.fromhex(attribute["value"]).startswith(FINDER)
    assert facts["extents"][0]["offset"] == (4 + 20) * 512
    program.ok("cp", "-r", "--streams", "files", f"{disk}#p2:/", "out")
    assert (program.folder / "out" / "file").read_bytes() == CONTENT
    assert (program.folder / "out" / "file:rsrc").read_bytes() == RESOURCE
    assert (program.folder / "out" / "folder" / "in a: folder").read_bytes() == b""
    slack = program.ok("cat", "--slack", f"{disk}#p2:/file").out
    assert slack[:12] == bytes(12)


def test_only_what_is_used_is_copied_and_proven(program: Program, disk: Path) -> None:
    """Fails if the map of such a volume leaves out what a file needs; 24 blocks are free."""
    spoilt = bytearray(disk.read_bytes())
    free = 8 * KIB + (4 + 40) * 512
    spoilt[free : free + 24 * 512] = b"old" * 4096
    disk.write_bytes(spoilt)
    program.ok("convert", disk, "copy.raw", "--used", "--prove")
    copy = (program.folder / "copy.raw").read_bytes()
    assert copy[:free] == spoilt[:free]
    assert copy[free : free + 24 * 512] == bytes(24 * 512)
    assert copy[free + 24 * 512 :] == spoilt[free + 24 * 512 :]


def test_a_broken_volume_and_a_wrong_path_have_exit_codes(program: Program, disk: Path) -> None:
    """Fails if what cannot be read is a crash, or an empty folder."""
    program.refuses(3, "cat", f"{disk}#p2:/none")
    program.refuses(3, "cat", f"{disk}#p2:/file", "--stream", "none")
    whole = bytearray(disk.read_bytes())
    catalog = 8 * KIB + (4 + 4) * 512
    whole[catalog : catalog + 512] = bytes(512)
    disk.write_bytes(whole)
    assert "catalog" in program.refuses(3, "ls", f"{disk}#p2:/")[0]


def test_a_floppy_of_the_first_macs_is_listed(program: Program) -> None:
    """Fails if MFS is not recognised, or its files are not told."""
    path = program.folder / "floppy.img"
    path.write_bytes(small_mfs())
    assert program.ok("info", "--json", path).json["filesystem"] == "mfs"
    lines = program.ok("ls", "--json", f"{path}:/").json_lines
    assert {line["path"] for line in lines} == {"/file", "/empty:\\x2f", "/\\x2e\\x2e"}
    program.ok("cp", "-r", f"{path}:/", "out")
    assert len(list((program.folder / "out").iterdir())) == 3


def test_every_verb_tells_of_a_volume_that_was_not_unmounted(
    program: Program, tmp_path: Path
) -> None:
    """Fails if a report or a copy looks whole where the listing says that it may not be."""
    volume = bytearray(small_hfs())
    struct.pack_into(">H", volume, 1024 + 10, 0)  # drAtrb of the master block
    (tmp_path / "dirty").write_bytes(volume)
    calls = (
        ("ls", "dirty:/"),
        ("report", "dirty", "-o", "-"),
        ("report", "dirty", "-o", "out.xml"),
        ("cp", "-r", "dirty:/", "out", "--progress", "none"),
        ("cp", "-r", "dirty:/", "again"),
        ("stat", "dirty:/file"),
        ("cat", "dirty:/file"),
    )
    for call in calls:
        result = program.ok(*call)
        assert result.err.count("not unmounted") == 1, call
    assert (tmp_path / "out.xml").read_text().count("not unmounted") == 1
    both = program.ok("cp", "dirty:/file", "dirty:/empty", "both")
    assert both.err.count("not unmounted") == 1
