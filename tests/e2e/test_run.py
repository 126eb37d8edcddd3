"""Disks started in QEMU: they boot, and are not changed."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import UnsupportedFeatureError
from imprint.endpoints.emulator.machine import firmware_files
from imprint.testing.boot_sector import SAID, SECTOR, boot_sector

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program, Result

KIB, MIB = 1 << 10, 1 << 20

pytestmark = pytest.mark.oracle("qemu-system-x86_64", "qemu-img")


@pytest.fixture
def disk(program: Program) -> Path:
    """A raw disk that can be started."""
    path = program.folder / "disk.raw"
    path.write_bytes(boot_sector() + bytes(8 * MIB - SECTOR))
    return path


def started(program: Program, *arguments: str | Path) -> Result:
    """Run it; its serial line has to say that it was started."""
    result = program.ok("run", *arguments, "--serial", "--memory", "256M")
    assert SAID in result.out
    return result


def test_a_disk_is_started_and_stays_as_it_is(program: Program, disk: Path) -> None:
    """Fails if starting a disk changes it, or its changes are not kept where they should be."""
    before = disk.read_bytes()
    started(program, "disk.raw")
    assert disk.read_bytes() == before
    started(program, "disk.raw", "--snapshot-to", "changes.qcow2")
    assert disk.read_bytes() == before
    changes = program.folder / "changes.qcow2"
    subprocess.run(["qemu-img", "check", "-q", changes], check=True)
    merged = program.folder / "merged.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", changes, merged], check=True)
    after = merged.read_bytes()
    assert after[SECTOR:][:16] == before[:16]
    assert after[2 * SECTOR :] == before[2 * SECTOR :]
    # The same again goes on where it was.
    started(program, "disk.raw", "--snapshot-to", "changes.qcow2")
    program.refuses(5, "run", merged, "--serial", "--snapshot-to", "changes.qcow2")


@pytest.mark.parametrize("bus", ["ide", "virtio", "usb", "nvme"])
def test_a_disk_is_started_on_any_bus(program: Program, disk: Path, bus: str) -> None:
    """Fails if QEMU does not take what it is told."""
    del disk
    started(program, "disk.raw", "--bus", bus)


def test_images_that_qemu_does_not_know_are_started(program: Program, disk: Path) -> None:
    """Fails if evidence has to be converted to see it run."""
    program.ok("capture", disk, "disk.E01", "--hash", "md5")
    program.ok("repo", "init", "r")
    program.ok("capture", disk, "repo:r::disk")
    started(program, "disk.E01")
    started(program, "repo:r::disk", "--snapshot-to", "changes.qcow2")
    program.ok("verify", "disk.E01")


@pytest.mark.oracle("genisoimage")
def test_floppies_and_discs_are_told_from_hard_disks(program: Program) -> None:
    """Fails if a disc is connected as a hard disk, which does not start then."""
    floppy = program.folder / "floppy.img"
    floppy.write_bytes(boot_sector() + bytes(1440 * KIB - SECTOR))
    started(program, "floppy.img")
    assert floppy.read_bytes()[SECTOR:] == bytes(1440 * KIB - SECTOR)
    folder = program.folder / "files"
    folder.mkdir()
    (folder / "boot.bin").write_bytes(boot_sector().ljust(2048, b"\0"))
    words = ["-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4"]
    disc = program.folder / "disc.iso"
    subprocess.run(["genisoimage", "-quiet", "-o", disc, *words, folder], check=True)
    started(program, "disc.iso")
    found = program.ok("run", "disc.iso", "--dry-run", "--json").json
    assert (found["medium"], found["firmware"]) == ("optical", "bios")
    program.refuses(5, "run", "disc.iso", "--snapshot-to", "changes.qcow2")


@pytest.mark.oracle("genisoimage", "sfdisk")
def test_a_disc_made_for_sticks_as_well_is_a_disc(program: Program) -> None:
    """Fails if an installer with a partition table is a hard disk, or a stick with it a disc."""
    folder = program.folder / "files"
    folder.mkdir()
    (folder / "boot.bin").write_bytes(boot_sector().ljust(2048, b"\0"))
    disc = program.folder / "hybrid.iso"
    words = ["-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4", "-pad"]
    subprocess.run(["genisoimage", "-quiet", "-o", disc, *words, folder], check=True)
    table = "label: dos\nstart=64, size=128, type=17, bootable\n"
    subprocess.run(["sfdisk", "-q", disc], input=table, text=True, check=True)
    assert program.ok("info", "hybrid.iso", "--json").json["table"] == "mbr"
    started(program, "hybrid.iso")
    assert program.ok("run", "hybrid.iso", "--dry-run", "--json").json["medium"] == "optical"
    with disc.open("r+b") as stick:
        stick.truncate(256 * MIB)
    assert program.ok("run", "hybrid.iso", "--dry-run", "--json").json["medium"] == "disk"


@pytest.mark.oracle("sfdisk")
def test_uefi_is_started_where_there_is_something_for_it(program: Program) -> None:
    """Fails if a disk of a current machine meets a BIOS."""
    try:
        firmware_files()
    except UnsupportedFeatureError:
        pytest.skip("no UEFI firmware is installed")
    disk = program.folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(40 * MIB)
    table = "label: gpt\nstart=2048, size=65536, type=U\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, text=True, check=True)
    script = program.folder / "startup.nsh"
    script.write_bytes(b"@echo -off\r\necho started by the shell\r\nreset -s\r\n")
    program.ok("mkfs", "disk.raw#p1")
    program.ok("put", script, "disk.raw#p1:/")
    result = program.ok("run", "disk.raw", "--serial", "--json", "--memory", "256M")
    assert result.json["firmware"] == "uefi"
    assert "started by the shell" in result.err


def test_what_is_wrong_is_one_line(program: Program, disk: Path) -> None:
    """Fails if QEMU's own words are lost, or a machine that hangs cannot be ended."""
    del disk
    assert (
        "has failed" in program.refuses(5, "run", "disk.raw", "--headless", "--qemu=-nonsense")[0]
    )
    program.refuses(3, "run", "missing.raw")
    assert "expected 1M" in program.refuses(2, "run", "disk.raw", "--memory", "1000")[0]
    assert "expected words" in program.refuses(2, "run", "disk.raw", "--qemu='-S")[0]
    process = program.start("run", "disk.raw", "--headless", "--qemu=-S")
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=3)
    process.send_signal(2)
    process.communicate(timeout=30)
    assert process.returncode == 130
