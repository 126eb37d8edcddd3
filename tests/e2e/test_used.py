"""Only what file systems use: capture, convert, hash, map, measure, sparsify."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Final

import pytest

from imprint.testing.oracles import run
from imprint.testing.volumes import (
    GARBAGE,
    cut_out,
    fill,
    make_disk,
    mounted,
    tree,
)

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

MIB: Final = 1 << 20
EXT_SIZE: Final = 96 * MIB
SWAP_SIZE: Final = 16 * MIB
UNKNOWN_SIZE: Final = 8 * MIB
SIZE: Final = 128 * MIB

pytestmark = [
    pytest.mark.root,
    pytest.mark.oracle("mkfs.ext4", "mkswap", "sfdisk", "e2fsck", "losetup"),
]


class Machine:
    """A disk with an ext4, a swap area and something unknown; free blocks hold garbage."""

    def __init__(self, folder: Path) -> None:
        ext, swap, unknown = (folder / name for name in ("ext", "swap", "unknown"))
        ext.write_bytes(GARBAGE * (EXT_SIZE // MIB))
        run("mkfs.ext4", "-q", "-E", "nodiscard", ext)
        with mounted(ext) as place:
            fill(place)
            self.files: Final = tree(place)
        swap.write_bytes(GARBAGE * (SWAP_SIZE // MIB))
        run("mkswap", swap)
        unknown.write_bytes(GARBAGE * (UNKNOWN_SIZE // MIB))
        self.path: Final = folder / "machine.raw"
        volumes = [("L", ext), ("S", swap), ("L", unknown)]
        self.starts: Final = make_disk(self.path, volumes, size=SIZE)
        with self.path.open("r+b") as file:  # boot code, and a gap where something was hidden
            file.write(b"boot code")
            file.seek(64 * 1024)
            file.write(b"hidden before the first partition")
        for name in (ext, swap, unknown):
            name.unlink()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def restored(program: Program, image: Path) -> Path:
    """Put an image back on a disk that is full of garbage."""
    target = image.with_suffix(".back")
    target.write_bytes(GARBAGE * (SIZE // MIB))
    done = program("restore", image, target, "--force")
    assert done.exit_code == 0, done.err
    return target


def holds_all(machine: Machine, disk: Path) -> None:
    """The file system is sound, and everything else is there byte by byte."""
    volume = disk.with_suffix(".ext")
    cut_out(disk, machine.starts[0], volume, size=EXT_SIZE)
    run("e2fsck", "-fn", volume)
    with mounted(volume, "ro") as place:
        assert tree(place) == machine.files
    whole, found = machine.path.read_bytes(), disk.read_bytes()
    ext_end = machine.starts[0] + EXT_SIZE
    assert found[: machine.starts[0]] == whole[: machine.starts[0]]
    assert found[ext_end:][:4096] == whole[ext_end:][:4096]  # the header of the swap area
    assert found[machine.starts[2] :] == whole[machine.starts[2] :]


def test_a_captured_disk_lacks_nothing_but_what_is_free(
    machine: Machine, program: Program, tmp_path: Path
) -> None:
    """Fails if a block in use is left out, or if free blocks are stored."""
    image = tmp_path / "disk.qcow2"
    dry = program.ok("capture", machine.path, image, "--used", "--dry-run", "--json").json
    done = program("capture", machine.path, image, "--used", "--json", "--prove", "--verify")
    assert done.exit_code == 0, done.err
    result = done.json
    assert result["proved"] is True
    assert result["left_out"] == dry["left_out"] > 64 * MIB
    assert dry["data"] + dry["left_out"] <= SIZE
    assert result["bytes_read"] <= SIZE - result["left_out"]
    assert image.stat().st_size < SIZE - result["left_out"] + 2 * MIB
    disk = restored(program, image)
    holds_all(machine, disk)
    swap = slice(machine.starts[1], machine.starts[2])
    assert disk.read_bytes()[swap] == machine.path.read_bytes()[swap]


def test_swap_is_dropped_only_when_asked_and_keeps_its_header(
    machine: Machine, program: Program, tmp_path: Path
) -> None:
    """Fails if --drop-swap drops the label and UUID, or nothing."""
    image = tmp_path / "disk.qcow2"
    done = program("convert", machine.path, image, "--used", "--drop-swap", "--json")
    assert done.exit_code == 0, done.err
    disk = restored(program, image)
    holds_all(machine, disk)
    start = machine.starts[1]
    swap = disk.read_bytes()[start : start + SWAP_SIZE]
    assert not any(swap[4096:])
    assert any(swap[:4096])


def test_map_hash_and_measure_agree_about_what_is_used(
    machine: Machine, program: Program, tmp_path: Path
) -> None:
    """Fails if one of them counts other bytes than the others."""
    lines = program("map", machine.path, "--used", "--json").json_lines
    unused = [(item["offset"], item["length"]) for item in lines if item["kind"] == "unused"]
    assert sum(item["length"] for item in lines) == SIZE
    content = bytearray(machine.path.read_bytes())
    for offset, length in unused:
        content[offset : offset + length] = bytes(length)
    expected = hashlib.sha256(content).hexdigest()
    assert program("hash", machine.path, "--used", "--json").json["hashes"]["sha256"] == expected
    stored = program("measure", machine.path, "--used", "-O", "raw", "--json").json["required"]
    assert stored <= SIZE - sum(length for _, length in unused)
    picture = tmp_path / "used.raw"
    assert program("convert", machine.path, picture, "--used").exit_code == 0
    assert hashlib.sha256(picture.read_bytes()).hexdigest() == expected


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize("format_name", ["raw", "qcow2", "vdi", "vhdx"])
def test_an_image_gives_back_in_place_what_it_does_not_need(
    machine: Machine, program: Program, tmp_path: Path, format_name: str
) -> None:
    """Fails if sparsify takes a block in use, or gives nothing back."""
    image = tmp_path / f"disk.{format_name}"
    assert program("convert", machine.path, image).exit_code == 0
    before = image.stat().st_blocks
    dry = program("sparsify", image, "-f", format_name, "--dry-run", "--json").json
    assert image.stat().st_blocks == before
    done = program("sparsify", image, "-f", format_name, "--json")
    assert done.exit_code == 0, done.err
    assert done.json["freed"] == dry["freed"] > 48 * MIB
    assert done.json["stored_size"] < done.json["stored_before"]
    holds_all(machine, restored(program, image))
    if format_name == "qcow2":
        run("qemu-img", "check", image)


def test_a_copy_is_made_where_the_image_shall_stay(
    machine: Machine, program: Program, tmp_path: Path
) -> None:
    """Fails if ``sparsify IMAGE TARGET`` changes the image, or copies what is free."""
    image = tmp_path / "disk.raw"
    shutil.copy(machine.path, image)
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    target = tmp_path / "small.qcow2"
    done = program("sparsify", image, target, "--json")
    assert done.exit_code == 0, done.err
    assert done.json["left_out"] > 64 * MIB
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before
    holds_all(machine, restored(program, target))


def test_a_damaged_file_system_is_copied_whole_unless_forced(
    machine: Machine, program: Program, tmp_path: Path
) -> None:
    """Fails if a group's bitmap that does not match its checksum is relied upon."""
    disk = tmp_path / "disk.raw"
    shutil.copy(machine.path, disk)
    with disk.open("r+b") as file:  # the free-block count in the superblock
        file.seek(machine.starts[0] + 1024 + 12)
        file.write(b"\x01\x02\x03\x04")
    done = program("capture", disk, tmp_path / "whole.qcow2", "--used", "--json")
    assert done.exit_code == 0
    assert done.json["left_out"] == 0
    assert "the whole ext4 volume is copied" in done.err


def test_a_disk_that_ends_inside_of_a_partition_is_copied_whole(
    machine: Machine, program: Program, tmp_path: Path
) -> None:
    """Fails if a truncated image is cut further, or nobody is told why it is copied whole."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(machine.path.read_bytes()[: machine.starts[1] + SWAP_SIZE // 2])
    copy = tmp_path / "copy.raw"
    done = program("convert", disk, copy, "--used", "--json")
    assert done.json["left_out"] == 0
    assert f"found {machine.starts[2]}" in done.err  # the end of partition 2
    assert copy.read_bytes() == disk.read_bytes()


def test_a_file_that_is_mounted_is_copied_whole_and_not_sparsified(
    program: Program, tmp_path: Path
) -> None:
    """Fails if the file system changes between its map and its data, or loses what it writes."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(GARBAGE * 64)
    run("mkfs.ext4", "-q", "-E", "nodiscard", disk)
    with mounted(disk):
        done = program("convert", disk, tmp_path / "copy.qcow2", "--used", "--json")
        assert done.json["left_out"] == 0
        assert "may change while it is read" in done.err
        refused = program("sparsify", disk, "-f", "raw", "--used=force")
    assert refused.exit_code == 5
    assert "is mounted at" in refused.err
    assert program("sparsify", disk, "-f", "raw", "--json").json["freed"] > 32 * MIB


@pytest.mark.parametrize("arguments", [("--drop-swap",), ("--prove",)])
def test_options_that_need_used_say_so(
    machine: Machine, program: Program, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Fails if an option without effect is taken silently."""
    done = program("capture", machine.path, tmp_path / "x.qcow2", *arguments)
    assert done.exit_code == 2
    assert "--used" in done.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--used", "-o", "compression=zstd"), 2 * MIB),
        (("--used", "-o", "compression=zstd", "-o", "cluster_size=64K"), 65536),
        (("--used", "-o", "compression=none"), 65536),
        (("--used",), 65536),
        (("-o", "compression=zstd"), 65536),
    ],
)
@pytest.mark.oracle("qemu-img", "mkfs.ext4")
def test_archives_have_large_clusters(
    program: Program, tmp_path: Path, options: tuple[str, ...], expected: int
) -> None:
    """Fails if an archive takes up more than a stream, or a machine's disk has slow clusters."""
    disk, image = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    with disk.open("wb") as file:
        file.truncate(16 * MIB)
    run("mkfs.ext4", "-q", disk)
    done = program("capture", disk, image, *options)
    assert done.exit_code == 0, done.err
    found = json.loads(run("qemu-img", "info", "--output=json", image).stdout)
    assert found["cluster-size"] == expected
