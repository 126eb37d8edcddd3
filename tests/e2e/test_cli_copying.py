"""capture, restore and convert: what they write, say and refuse."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from imprint.testing import oracles
from imprint.testing.program import checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.testing.program import Program

MIB = 1 << 20
SIZE = 8 * MIB


@pytest.mark.parametrize(
    ("target", "option", "count"),
    [
        ("out.vmdk", "subformat=twoGbMaxExtentSparse", 2),
        ("out.vmdk", "subformat=monolithicFlat", 2),
        ("out.qcow2", "data_file=out.data", 2),
    ],
)
def test_what_is_stored_is_counted_in_all_files_of_an_image(
    program: Program, disk: Path, target: str, option: str, count: int
) -> None:
    """Fails if only the file is counted that the user has named: the data is in another one."""
    for _ in range(1 if "data_file" in option else 2):  # then in the place of the first
        found = program.ok("convert", disk.name, target, "-o", option, "--force", "--json").json
        files = list(program.folder.glob("out*"))
        assert len(files) == count
        assert found["bytes_stored"] == sum(file.stat().st_blocks * 512 for file in files)
        assert 3 * 70_000 <= found["bytes_stored"] < SIZE


def test_a_source_is_neither_replaced_nor_removed_as_a_file_of_the_old_image(
    program: Program, disk: Path
) -> None:
    """Fails if the data file of an image is lost when that image is made anew from it."""
    program.ok("convert", disk.name, "x.vmdk", "-o", "subformat=monolithicFlat")
    flat = program.folder / "x-flat.vmdk"
    inode = flat.stat().st_ino
    program.ok("convert", flat.name, "x.vmdk", "-f", "raw", "--force")
    assert flat.stat().st_ino == inode
    assert flat.read_bytes() == disk.read_bytes()
    (program.folder / "x.vmdk").unlink()
    again = ("convert", flat.name, "x.vmdk", "-f", "raw", "-o", "subformat=monolithicFlat")
    assert "is the source" in program.refuses(5, *again, "--force")[0]
    assert flat.stat().st_ino == inode
    assert sorted(program.folder.glob("x*")) == [flat]


@pytest.mark.oracle("qemu-img")
def test_capture_says_all_that_scripts_count_on(
    program: Program, disk: Path, documented: Callable[[str, dict[str, Any]], None]
) -> None:
    """Fails if a fixed key is missing, a hash is wrong or the image is not the disk."""
    result = program.ok("capture", "disk.raw", "out.qcow2", "--hash", "md5,sha1,sha256", "--json")

    found = result.json
    documented("capture", found)
    assert found["size"] == SIZE
    assert 3 * 70_000 <= found["bytes_read"] < SIZE
    assert 3 * 70_000 <= found["bytes_stored"] < SIZE
    assert found["bad"] == []
    assert found["duration_s"] >= 0
    content = disk.read_bytes()
    assert found["hashes"] == {
        name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha1", "sha256")
    }
    image = program.folder / "out.qcow2"
    assert oracles.is_equal(disk, image, first_format="raw", second_format="qcow2")


def test_capture_hashes_with_sha256_and_blake3_by_default(program: Program, disk: Path) -> None:
    """Fails if the contract's default changes."""
    found = program.ok("capture", disk.name, "out.vdi", "--json").json
    assert set(found["hashes"]) == {"sha256", "blake3"}


def test_capture_takes_no_hashes_if_none_is_said(program: Program, disk: Path) -> None:
    """Fails if hashes cannot be done without, or nothing is compared and called the same."""
    found = program.ok("capture", disk.name, "out.raw", "--hash", "none", "--json").json
    assert found["hashes"] == {}
    assert (program.folder / "out.raw").read_bytes() == disk.read_bytes()
    program.refuses(2, "capture", disk.name, "2.raw", "--hash", "none", "--verify")
    program.refuses(2, "capture", disk.name, "2.raw", "--hash", "none,md5")
    program.refuses(2, "hash", disk.name, "--hash", "none")
    assert not (program.folder / "2.raw").exists()


def test_capture_reads_its_target_back(program: Program, disk: Path) -> None:
    """Fails if --verify does not look, or cannot."""
    found = program.ok("capture", disk.name, "out.qcow2", "--verify", "--json").json
    assert found["verified"] is True
    people = program.ok("capture", "disk.raw", "out2.qcow2", "--verify")
    assert "the target holds the same" in people.text
    program.refuses(2, "capture", "disk.raw", "-", "--verify")


def test_capture_takes_a_pipe(program: Program, disk: Path) -> None:
    """Fails if standard input cannot be imaged."""
    content = disk.read_bytes()
    found = program.ok("capture", "-", "out.raw", "--json", stdin=content).json
    assert found["hashes"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert (program.folder / "out.raw").read_bytes() == content


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize("target", ["out.qcow2", "out.vdi", "out.raw"])
def test_convert_chooses_the_format_by_suffix(
    program: Program,
    disk: Path,
    target: str,
    documented: Callable[[str, dict[str, Any]], None],
) -> None:
    """Fails if the format is another one, or the content."""
    found = program.ok("convert", "disk.raw", target, "--json").json
    documented("convert", found)
    name = target.partition(".")[2]
    assert found["format"] == name
    assert found["bytes_read"] < SIZE
    assert found["bytes_stored"] < SIZE
    path = program.folder / target
    assert oracles.is_equal(disk, path, first_format="raw", second_format=name)
    program.ok("compare", "disk.raw", target)


@pytest.mark.oracle("qemu-img")
def test_convert_passes_options_on(program: Program, disk: Path) -> None:
    """Fails if -o or -O is ignored."""
    program.ok("convert", disk.name, "out", "-O", "qcow2", "-o", "cluster_size=128K")
    facts = oracles.info(program.folder / "out")
    assert facts["format"] == "qcow2"
    assert facts["cluster-size"] == 128 * 1024
    messages = program.refuses(2, "convert", "disk.raw", "x.qcow2", "-o", "cluster_sise=128K")
    assert "cluster_sise" in messages[0]
    program.refuses(2, "convert", "disk.raw", "x.qcow2", "-o", "cluster_size")
    program.refuses(2, "convert", "disk.raw", "x.qcow2", "-O", "no-such-format")


def test_convert_writes_a_disk_to_a_pipe_and_its_result_beside(
    program: Program, disk: Path
) -> None:
    """Fails if text gets between the bytes of the disk."""
    result = program.ok("convert", "disk.raw", "-", "--json", "--progress", "none")
    assert result.out == disk.read_bytes()
    assert json.loads(result.err)["format"] == "raw"


@pytest.mark.oracle("qemu-img")
def test_convert_streams_a_qcow2(program: Program, disk: Path) -> None:
    """Fails if what comes out of the pipe is no image."""
    image = program.folder / "streamed.qcow2"
    image.write_bytes(program.ok("convert", "disk.raw", "-", "-O", "qcow2").out)
    assert oracles.is_equal(disk, image, first_format="raw", second_format="qcow2")


def test_a_format_that_cannot_be_streamed_is_refused(program: Program, disk: Path) -> None:
    """Fails if a broken stream is written instead."""
    program.refuses(4, "convert", disk.name, "-", "-O", "vdi")


def test_dry_run_touches_nothing(program: Program, disk: Path) -> None:
    """Fails if --dry-run makes a file, or hides what would go wrong."""
    found = program.ok("convert", disk.name, "out.qcow2", "--dry-run", "--json").json
    assert found["dry_run"] is True
    assert found["size"] == SIZE
    assert 3 * 70_000 <= found["data"] < SIZE
    assert sorted(path.name for path in program.folder.iterdir()) == ["disk.raw"]
    program.ok("convert", "disk.raw", "out.qcow2")
    program.refuses(5, "convert", "disk.raw", "out.qcow2", "--dry-run")


def test_an_existing_file_is_replaced_only_by_force(program: Program, disk: Path) -> None:
    """Fails if a file is lost without --force."""
    target = program.folder / "out.raw"
    target.write_bytes(b"precious")
    for verb in ("convert", "capture", "restore"):
        messages = program.refuses(5, verb, "disk.raw", "out.raw")
        assert "--force" in messages[1]
        assert target.read_bytes() == b"precious"
    program.ok("convert", "disk.raw", "out.raw", "--force")
    assert target.read_bytes() == disk.read_bytes()


def test_an_existing_map_file_is_not_replaced_either(program: Program, disk: Path) -> None:
    """Fails if that is noticed only when the capture is over."""
    (program.folder / "out.raw.map").write_text("of another disk")
    program.refuses(5, "capture", disk.name, "out.raw")
    assert not (program.folder / "out.raw").exists()
    program.ok("convert", disk.name, "out.raw")


def test_the_target_is_never_what_is_read(program: Program, disk: Path) -> None:
    """Fails if --force lets a disk be overwritten by its own copy, or an overlay's parent."""
    program.ok("convert", disk.name, "base.qcow2")
    program.ok("create", "overlay.qcow2", "--parent", "base.qcow2")
    (program.folder / "link.raw").symlink_to("disk.raw")
    for verb in ("convert", "capture", "restore"):
        program.refuses(5, verb, "disk.raw", "disk.raw", "--force")
        program.refuses(5, verb, "disk.raw", "link.raw", "--force")
        program.refuses(5, verb, "overlay.qcow2", "base.qcow2", "--force")
        program.refuses(5, verb, "overlay.qcow2", "overlay.qcow2", "--force")
    program.refuses(5, "restore", "overlay.qcow2", "base.qcow2", "--force", "--delta")


def test_restore_puts_a_disk_back(
    program: Program, disk: Path, documented: Callable[[str, dict[str, Any]], None]
) -> None:
    """Fails if what comes back is not what was captured, or is counted wrongly."""
    program.ok("capture", "disk.raw", "image.qcow2", "-o", "compression=zlib")
    found = program.ok("restore", "image.qcow2", "back", "--json").json
    documented("restore", found)
    assert (program.folder / "back").read_bytes() == disk.read_bytes()
    assert found["format"] == "raw"
    assert found["bytes_written"] + found["bytes_skipped"] == SIZE
    assert 3 * 70_000 <= found["bytes_written"] < SIZE


def test_restore_delta_writes_only_what_differs(program: Program, disk: Path) -> None:
    """Fails if --delta writes more than the blocks that were changed, or less."""
    program.ok("capture", "disk.raw", "image.qcow2")
    back = program.folder / "back.raw"
    back.write_bytes(disk.read_bytes())
    with back.open("r+b") as file:
        for at in (10, 5 * MIB):  # in data, and in a hole
            file.seek(at)
            file.write(b"changed")

    program.refuses(5, "restore", "image.qcow2", "back.raw", "--delta")
    found = program.ok("restore", "image.qcow2", "back.raw", "--delta", "--force", "--json").json

    assert found["bytes_written"] == 2 * 4096
    assert found["bytes_skipped"] == SIZE - 2 * 4096
    assert back.read_bytes() == disk.read_bytes()
    again = program.ok("restore", "image.qcow2", "back.raw", "--delta", "--force", "--json").json
    assert again["bytes_written"] == 0


@pytest.mark.parametrize("size", [0, 3 * MIB + 512, 9 * MIB])
def test_restore_delta_gives_a_file_the_disks_size(program: Program, disk: Path, size: int) -> None:
    """Fails if a file keeps its old end."""
    program.ok("capture", "disk.raw", "image.qcow2")
    back = program.folder / "back.raw"
    back.write_bytes(b"\xee" * size)
    program.ok("restore", "image.qcow2", "back.raw", "--delta", "--force")
    assert back.read_bytes() == disk.read_bytes()


@pytest.mark.oracle("qemu-img")
def test_restore_delta_into_another_image(program: Program, disk: Path) -> None:
    """Fails if --delta works for raw files only."""
    program.ok("capture", "disk.raw", "image.vdi")
    target = program.folder / "target.qcow2"
    oracles.create(target, SIZE, "qcow2")
    oracles.qemu_io(target, "qcow2", "write -P 9 1M 2M", "write -P 9 7M 512K")
    found = program.ok("restore", "image.vdi", "target.qcow2", "--delta", "--force", "--json").json
    assert 0 < found["bytes_written"] < 5 * MIB
    oracles.check(target, "qcow2")
    assert oracles.is_equal(disk, target, first_format="raw", second_format="qcow2")


def test_a_passphrase_comes_from_a_file_or_the_environment(program: Program, disk: Path) -> None:
    """Fails if a secret is asked where nobody is, is not found, or a wrong one reads anything."""
    (program.folder / "secret").write_bytes(b"open sesame\n")
    options = ("-o", "encrypt.format=luks", "-o", "encrypt.iter-time=10")
    program.refuses(3, "convert", disk.name, "x.qcow2", *options, "--progress", "none")
    program.ok("convert", disk.name, "x.qcow2", *options, "--passphrase-file", "secret")
    assert program.ok("info", "x.qcow2", "--json").json["encryption"] == "luks"
    data = [
        item for item in program.ok("map", "x.qcow2", "--json").json_lines if "encrypted" in item
    ]
    assert data

    plain = ("compare", disk.name, "x.qcow2", "--progress", "none")
    program.ok(*plain, "--passphrase-file", "secret")
    right = program(*plain, environment={"IMPRINT_PASSPHRASE": "open sesame"})
    assert right.exit_code == 0
    wrong = program(*plain, environment={"IMPRINT_PASSPHRASE": "open barley"})
    assert wrong.exit_code == 3
    assert "passphrase" in wrong.messages[0]
    messages = program.refuses(3, *plain)
    assert "--passphrase-file" in messages[1]
    program.refuses(3, *plain, "--passphrase-file", "missing")


@pytest.mark.root
def test_a_device_is_written_by_force_only(program: Program, disk: Path) -> None:
    """Fails if a device is overwritten unasked, or its content is not the disk's."""
    backing = program.folder / "device"
    backing.write_bytes(b"\x55" * (SIZE + MIB))
    program.ok("convert", "disk.raw", "image.qcow2")
    loop = oracles.run("losetup", "-f", "--show", backing).stdout.strip()
    try:
        messages = program.refuses(5, "restore", "image.qcow2", loop)
        assert loop in messages[0]
        assert backing.read_bytes() == b"\x55" * (SIZE + MIB)
        program.refuses(5, "capture", loop, loop, "--force")
        found = program.ok("restore", "image.qcow2", loop, "--force", "--delta", "--json").json
        assert found["bytes_written"] + found["bytes_skipped"] == SIZE
        again = program.ok("restore", "image.qcow2", loop, "--force", "--delta", "--json").json
        assert again["bytes_written"] == 0
        found = program.ok("capture", loop, "again.qcow2", "--verify", "--json").json
        assert found["size"] == SIZE + MIB
    finally:
        oracles.run("losetup", "-d", loop)
    assert backing.read_bytes()[:SIZE] == disk.read_bytes()


@pytest.mark.root
def test_a_device_is_written_when_its_name_was_typed_back(program: Program, disk: Path) -> None:
    """Fails if yes is enough, or the right name is not, or Ctrl-C at the question is not heard."""
    backing = program.folder / "device"
    backing.write_bytes(bytes(SIZE))
    loop = oracles.run("losetup", "-f", "--show", backing).stdout.strip()
    try:
        for answer, expected in ((b"yes\n", 5), (b"\n", 5), (f"{Path(loop).name}\n".encode(), 0)):
            keyboard, terminal = os.openpty()
            try:
                with program.start("restore", disk.name, loop, stdin=terminal) as process:
                    os.write(keyboard, answer)
                    out, err = process.communicate(timeout=30)
            finally:
                os.close(keyboard)
                os.close(terminal)
            result = checked(process.returncode, out, err)
            assert result.exit_code == expected, result.err
            assert "This erases" in result.err
            assert loop in result.err
    finally:
        oracles.run("losetup", "-d", loop)
    assert backing.read_bytes() == disk.read_bytes()


@pytest.mark.root
def test_unreadable_areas_are_listed_and_end_with_6(program: Program) -> None:
    """Fails if a failing disk cannot be imaged, or its bad areas are not told."""
    backing = program.folder / "failing"
    content = b"\x77" * SIZE
    backing.write_bytes(content)
    loop = oracles.run("losetup", "-f", "--show", backing).stdout.strip()
    try:
        with backing.open("r+b") as file:
            file.truncate(5 * MIB)  # what is behind it now fails to read
        result = program("capture", loop, "out.raw", "--json")
        verified = program("verify", loop, "--json")
        program.refuses(3, "hash", loop, "--progress", "none")
    finally:
        oracles.run("losetup", "-d", loop)

    assert result.exit_code == 6
    assert result.json["bad"] == [{"offset": 5 * MIB, "length": 3 * MIB}]
    expected = content[: 5 * MIB] + bytes(3 * MIB)
    assert (program.folder / "out.raw").read_bytes() == expected
    assert result.json["hashes"]["sha256"] == hashlib.sha256(expected).hexdigest()
    assert "0x00500000  0x00300000  -" in (program.folder / "out.raw.map").read_text()
    assert verified.exit_code == 1
    assert verified.json["ok"] is False
    assert verified.json["damage"][0]["offset"] == 5 * MIB
