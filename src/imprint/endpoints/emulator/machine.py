"""Which machine a disk was made for, and how QEMU is told to be it.

Source: QEMU documentation, Invocation, and ``docs/bootindex.txt``; UEFI specification 2.10, 13.3
(EFI system partition); El Torito Bootable CD-ROM Format Specification 1.0, section 2.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError, UnsupportedFeatureError
from imprint.core.units import KIB, MIB
from imprint.filesystems.fat.making import FLOPPIES, SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Source
    from imprint.endpoints.survey import Survey

EXPORT: Final = "disk"
"""What the disk is called on its socket."""

ACCELERATED: Final = ("-accel", "kvm", "-cpu", "host")
"""The machine is run by the kernel, on the processor that there is."""

_EMULATED: Final = ("-accel", "tcg", "-cpu", "max")
_BOOT_CODE_BYTES: Final = 440
_EFI_TYPES: Final = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef")
_OPTICAL: Final = ("iso9660", "udf")
_OPTICAL_SECTOR: Final = 2048
_BEHIND_DISC_MAX: Final = 64 * MIB  # an EFI system partition, padding, the end of a GPT
_BOOT_RECORD: Final = 17
_EL_TORITO: Final = b"\0CD001\1EL TORITO SPECIFICATION"
_EFI_PLATFORM: Final = 0xEF
_OTHER_FLOPPIES: Final = frozenset({1680 * KIB, 1722 * KIB})

# Where distributions keep the firmware: code, and the variables that it begins with.
_UEFI: Final = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"),
)


class Medium(enum.Enum):
    """What kind of drive holds the disk."""

    DISK = "disk"
    OPTICAL = "optical"
    FLOPPY = "floppy"


class Firmware(enum.Enum):
    """What starts the machine."""

    BIOS = "bios"
    UEFI = "uefi"


class Bus(enum.Enum):
    """What a hard disk is connected by."""

    IDE = "ide"
    SATA = "sata"
    VIRTIO = "virtio"
    USB = "usb"
    NVME = "nvme"


class Display(enum.Enum):
    """How the machine is seen."""

    WINDOW = "window"
    SERIAL = "serial"
    NONE = "none"


@dataclass(frozen=True)
class Wish:
    """What the user wants of the machine.

    Attributes:
        medium: ``None``: as the disk looks.
        firmware: the same.
        bus: of a hard disk.
        memory: in bytes.
        cpus: how many.
        display: how it is seen.
        network: whether it reaches the network of this host, behind an address of its own.
        extra: further words for QEMU.
    """

    medium: Medium | None = None
    firmware: Firmware | None = None
    bus: Bus = Bus.SATA
    memory: int = 2048 * MIB
    cpus: int = 2
    display: Display = Display.WINDOW
    network: bool = False
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """A machine that fits a disk.

    Attributes:
        medium: what kind of drive holds the disk.
        firmware: what starts it.
        sector: of the drive, in bytes.
    """

    medium: Medium
    firmware: Firmware
    sector: int


def machine_for(source: Source, survey: Survey, wish: Wish) -> Machine:
    """What a disk needs, as far as the user has not said it.

    Raises:
        ReadError: if the disk cannot be read.
    """
    medium = wish.medium or _medium(source, survey)
    firmware = wish.firmware or _firmware(source, survey, medium)
    sector = survey.table.sector_size if survey.table else source.traits.logical_sector
    return Machine(medium, firmware, sector)


def _medium(source: Source, survey: Survey) -> Medium:
    if source.size in FLOPPIES or source.size in _OTHER_FLOPPIES:
        return Medium.FLOPPY
    whole = survey.filesystem
    if whole is None or whole.kind not in _OPTICAL:
        return Medium.DISK
    # What has a table too is a disc made for sticks as well, or such a stick.
    is_disc = survey.table is None or source.size - (whole.size or 0) <= _BEHIND_DISC_MAX
    return Medium.OPTICAL if is_disc else Medium.DISK


def _firmware(source: Source, survey: Survey, medium: Medium) -> Firmware:
    """UEFI where there is something for it, and nothing for a BIOS."""
    if medium is Medium.OPTICAL:
        return Firmware.UEFI if _starts_efi_only(source) else Firmware.BIOS
    if survey.table is None:
        return Firmware.BIOS
    codes = {item.code.lower() for item in survey.table.partitions}
    has_efi = any(code in codes for code in _EFI_TYPES)
    code = _read(source, 0, _BOOT_CODE_BYTES)
    return Firmware.UEFI if has_efi and not any(code) else Firmware.BIOS


def _starts_efi_only(source: Source) -> bool:
    """Whether the first entry of a disc's boot catalogue is not for a BIOS."""
    record = _read(source, _BOOT_RECORD * _OPTICAL_SECTOR, _OPTICAL_SECTOR)
    if not record.startswith(_EL_TORITO):
        return False
    at = int.from_bytes(record[71:75], "little") * _OPTICAL_SECTOR
    catalogue = _read(source, at, 64)
    return len(catalogue) > 1 and catalogue[0] == 1 and catalogue[1] == _EFI_PLATFORM


def _read(source: Source, offset: int, length: int) -> bytes:
    """Of the disk; nothing where it has ended, or cannot be read."""
    buffer = bytearray(max(0, min(length, source.size - offset)))
    try:
        source.readinto(memoryview(buffer), offset)
    except ReadError:
        return b""
    return bytes(buffer)


def firmware_files() -> tuple[Path, Path]:
    """The code of a UEFI firmware, and the variables that it begins with.

    Raises:
        UnsupportedFeatureError: if none is installed.
    """
    for code, variables in _UEFI:
        if Path(code).exists() and Path(variables).exists():
            return Path(code), Path(variables)
    raise UnsupportedFeatureError(
        "expected a UEFI firmware for QEMU, found none",
        advice="Debian's package ovmf has one; --firmware bios starts a BIOS",
    )


def command(
    program: str,
    machine: Machine,
    wish: Wish,
    *,
    socket: Path,
    uefi: tuple[Path, Path] | None,
    accelerated: bool,
) -> list[str]:
    """The words that start the machine.

    Args:
        program: QEMU.
        machine: what the disk needs.
        wish: what the user wants.
        socket: where the disk is served.
        uefi: code of the firmware, and a file for its variables; ``None``: it is a BIOS.
        accelerated: whether the kernel can run it on the processor itself.
    """
    kind = "pc" if machine.firmware is Firmware.BIOS else "q35"
    words = [program, "-nodefaults", "-name", "imprint", "-machine", kind]
    words += ACCELERATED if accelerated else _EMULATED
    words += ["-m", str(wish.memory // MIB), "-smp", str(wish.cpus)]
    if uefi is not None:
        code, variables = uefi
        words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_quoted(code)}"]
        words += ["-drive", f"if=pflash,unit=1,format=raw,file={_quoted(variables)}"]
    is_read_only = "on" if machine.medium is Medium.OPTICAL else "off"
    words += [
        "-blockdev",
        ",".join(
            [
                "driver=raw",
                "node-name=disk",
                f"read-only={is_read_only}",
                "discard=unmap",
                "file.driver=nbd",
                "file.server.type=unix",
                f"file.server.path={_quoted(socket)}",
                f"file.export={EXPORT}",
                "file.discard=unmap",
            ]
        ),
    ]
    words += list(_drive(machine, wish, kind))
    words += ["-nic", "user,model=e1000"] if wish.network else ["-nic", "none"]
    words += list(_display(wish.display))
    return [*words, *wish.extra]


def _drive(machine: Machine, wish: Wish, kind: str) -> Iterator[str]:
    """The drive, and what it is connected to."""
    if machine.medium is Medium.FLOPPY:
        if kind != "pc":  # which has a controller for them
            yield from ("-device", "isa-fdc")
        yield from ("-device", "floppy,drive=disk", "-boot", "order=a")
        return
    if machine.medium is Medium.OPTICAL:
        yield from ("-device", "ide-cd,drive=disk,bus=ide.0,bootindex=0")
        return
    sectors = f"logical_block_size={machine.sector},physical_block_size={machine.sector}"
    place = f"drive=disk,bootindex=0,{sectors}"
    bus = wish.bus
    if machine.sector != SECTOR and bus in (Bus.IDE, Bus.SATA):
        bus = Bus.NVME  # QEMU's ATA disks have sectors of 512 bytes only
    if bus is Bus.IDE or (bus is Bus.SATA and kind != "pc"):  # whose own controller is of that kind
        yield from ("-device", f"ide-hd,bus=ide.0,{place}")
    elif bus is Bus.SATA:
        yield from ("-device", "ahci,id=ahci", "-device", f"ide-hd,bus=ahci.0,{place}")
    elif bus is Bus.USB:
        yield from ("-device", "qemu-xhci", "-device", f"usb-storage,{place}")
    elif bus is Bus.NVME:
        yield from ("-device", f"nvme,serial=imprint,{place}")
    else:
        yield from ("-device", f"virtio-blk-pci,{place}")


def _display(display: Display) -> Sequence[str]:
    if display is Display.WINDOW:
        return ("-vga", "std", "-usb", "-device", "usb-tablet")
    serial = ("-chardev", "stdio,id=terminal,mux=on,signal=off", "-serial", "chardev:terminal")
    monitor = ("-mon", "chardev=terminal,mode=readline")
    if display is Display.SERIAL:
        return ("-display", "none", "-vga", "std", *serial, *monitor)
    return ("-display", "none", "-vga", "std")


def _quoted(path: Path) -> str:
    """In an option, a comma ends a value unless there are two."""
    return str(path).replace(",", ",,")
