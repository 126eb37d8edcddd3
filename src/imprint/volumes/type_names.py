"""Names of partition types, for people.

Source: UEFI Specification 2.10, table 5.7; the Discoverable Partitions Specification; Andries
Brouwer's list of MBR partition types; Inside Macintosh; ``sys/disklabel.h`` of the BSDs;
``sys/vtoc.h`` of illumos. Names follow what ``fdisk`` and ``gdisk`` users know.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

UNKNOWN: Final = "unknown"

_MBR: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x00: "Empty",
        0x01: "FAT12",
        0x04: "FAT16 (below 32 MiB)",
        0x05: "Extended",
        0x06: "FAT16",
        0x07: "NTFS, exFAT or HPFS",
        0x0B: "FAT32",
        0x0C: "FAT32 (LBA)",
        0x0E: "FAT16 (LBA)",
        0x0F: "Extended (LBA)",
        0x11: "Hidden FAT12",
        0x12: "Vendor diagnostics",
        0x14: "Hidden FAT16 (below 32 MiB)",
        0x16: "Hidden FAT16",
        0x17: "Hidden NTFS, exFAT or HPFS",
        0x1B: "Hidden FAT32",
        0x1C: "Hidden FAT32 (LBA)",
        0x1E: "Hidden FAT16 (LBA)",
        0x27: "Windows recovery environment",
        0x39: "Plan 9",
        0x41: "PowerPC PReP boot",
        0x42: "Windows dynamic disk",
        0x63: "GNU Hurd",
        0x64: "NetWare 286",
        0x65: "NetWare 386",
        0x80: "Minix (old)",
        0x81: "Minix",
        0x82: "Linux swap",
        0x83: "Linux filesystem",
        0x84: "Hibernation (Intel)",
        0x85: "Linux extended",
        0x86: "NTFS volume set (FAT16)",
        0x87: "NTFS volume set",
        0x88: "Linux plaintext",
        0x8E: "Linux LVM",
        0xA0: "Hibernation (laptop)",
        0xA5: "FreeBSD",
        0xA6: "OpenBSD",
        0xA8: "Apple UFS",
        0xA9: "NetBSD",
        0xAB: "Apple boot",
        0xAF: "Apple HFS or HFS+",
        0xBE: "Solaris boot",
        0xBF: "Solaris",
        0xDA: "Data without a file system",
        0xDE: "Dell utility",
        0xEB: "BeOS BFS",
        0xEE: "GPT protective",
        0xEF: "EFI System",
        0xFB: "VMware VMFS",
        0xFC: "VMware core dump",
        0xFD: "Linux RAID",
    }
)

_GPT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI System",
        "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
        "024dee41-33e7-11d3-9d69-0008c781f39f": "MBR partition scheme",
        "e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
        "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3": "Microsoft LDM metadata",
        "af9b60a0-1431-4f62-bc68-3311714a69ad": "Microsoft LDM data",
        "de94bba4-06d1-4d40-a16a-bfd50179d6ac": "Windows recovery environment",
        "e75caf8f-f680-4cee-afa3-b001e56efc2d": "Microsoft Storage Spaces",
        "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux filesystem",
        "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
        "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
        "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
        "ca7d7ccb-63ed-4c53-861c-1742536059cc": "Linux LUKS",
        "8da63339-0007-60c0-c436-083ac8230908": "Linux reserved",
        "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux extended boot",
        "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "Linux home",
        "3b8f8425-20e0-4f3b-907f-1a25a76f98e8": "Linux server data",
        "4d21b016-b534-45c2-a9fb-5c16e091fd2d": "Linux variable data",
        "7ec6f557-3bc5-4aca-b293-16ef5df639d1": "Linux temporary data",
        "44479540-f297-41b2-9af7-d131d5f0458a": "Linux root (x86)",
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)",
        "69dad710-2ce4-4e3c-b16c-21a1d49abed3": "Linux root (ARM)",
        "b921b045-1df0-41c3-af44-4c6f280d3fae": "Linux root (ARM-64)",
        "72ec70a6-cf74-40e6-bd49-4bda08e8f224": "Linux root (RISC-V-64)",
        "8484680c-9521-48c6-9c11-b0720656f69e": "Linux /usr (x86-64)",
        "b0e01050-ee5f-4390-949a-9101b17104e9": "Linux /usr (ARM-64)",
        "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PowerPC PReP boot",
        "48465300-0000-11aa-aa11-00306543ecac": "Apple HFS or HFS+",
        "7c3457ef-0000-11aa-aa11-00306543ecac": "Apple APFS",
        "55465300-0000-11aa-aa11-00306543ecac": "Apple UFS",
        "52414944-0000-11aa-aa11-00306543ecac": "Apple RAID",
        "426f6f74-0000-11aa-aa11-00306543ecac": "Apple boot",
        "4c616265-6c00-11aa-aa11-00306543ecac": "Apple label",
        "53746f72-6167-11aa-aa11-00306543ecac": "Apple Core Storage",
        "6a898cc3-1dd2-11b2-99a6-080020736631": "Solaris /usr or ZFS",
        "6a82cb45-1dd2-11b2-99a6-080020736631": "Solaris boot",
        "6a85cf4d-1dd2-11b2-99a6-080020736631": "Solaris root",
        "83bd6b9d-7f41-11dc-be0b-001560b84f0f": "FreeBSD boot",
        "516e7cb4-6ecf-11d6-8ff8-00022d09712b": "FreeBSD data",
        "516e7cb5-6ecf-11d6-8ff8-00022d09712b": "FreeBSD swap",
        "516e7cb6-6ecf-11d6-8ff8-00022d09712b": "FreeBSD UFS",
        "516e7cba-6ecf-11d6-8ff8-00022d09712b": "FreeBSD ZFS",
        "824cc7a0-36a8-11e3-890a-952519ad3f61": "OpenBSD data",
        "49f48d5a-b10e-11dc-b99b-0019d1879648": "NetBSD FFS",
        "fe3a2a5d-4f32-41a7-b725-accc3285a309": "ChromeOS kernel",
        "3cb8e202-3b7e-47dd-8a3c-7ff2a13cfcec": "ChromeOS root",
        "2e0a753d-9e48-43b0-8337-b15192cb1b5e": "ChromeOS reserved",
        "aa31e02a-400f-11db-9590-000c2911d1b8": "VMware VMFS",
        "9d275380-40ad-11db-bf97-000c2911d1b8": "VMware core dump",
        "9198effc-31c0-11db-8f78-000c2911d1b8": "VMware reserved",
    }
)


_APM: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Apple_partition_map": "Apple partition map",
        "Apple_Free": "Apple free",
        "Apple_Void": "Apple free",
        "Apple_Extra": "Apple free",
        "Apple_HFS": "Apple HFS or HFS+",
        "Apple_HFSX": "Apple HFSX",
        "Apple_MFS": "Apple MFS",
        "Apple_UFS": "Apple UFS",
        "Apple_APFS": "Apple APFS",
        "Apple_PRODOS": "Apple ProDOS",
        "Apple_Boot": "Apple boot",
        "Apple_Bootstrap": "Apple bootstrap (New World)",
        "Apple_Driver": "Apple driver",
        "Apple_Driver43": "Apple driver",
        "Apple_Driver43_CD": "Apple driver",
        "Apple_Driver_ATA": "Apple driver",
        "Apple_Driver_ATAPI": "Apple driver",
        "Apple_Driver_IOKit": "Apple driver",
        "Apple_Driver_OpenFirmware": "Apple driver",
        "Apple_FWDriver": "Apple driver",
        "Apple_Patches": "Apple patches",
        "Apple_RAID": "Apple RAID",
        "Apple_Scratch": "Apple scratch",
        "Apple_UNIX_SVR2": "Unix (A/UX, Linux)",
    }
)

_BSD: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "Unused",
        1: "BSD swap",
        2: "Unix version 6",
        3: "Unix version 7",
        4: "System V",
        5: "4.1BSD",
        6: "Unix version 8",
        7: "BSD FFS",
        8: "FAT",
        9: "BSD LFS",
        10: "Unknown to BSD",
        11: "HPFS",
        12: "ISO 9660",
        13: "Boot",
        14: "FreeBSD Vinum",
        15: "BSD RAID",
        17: "ext2",
        18: "NTFS",
        19: "RAIDframe",
        20: "BSD ccd",
        27: "FreeBSD ZFS",
    }
)

_SUN: Final[Mapping[int, str]] = MappingProxyType(
    {
        0x00: "Unassigned",
        0x01: "Solaris boot",
        0x02: "Solaris root",
        0x03: "Solaris swap",
        0x04: "Solaris /usr",
        0x05: "Whole disk",
        0x06: "Solaris stand",
        0x07: "Solaris /var",
        0x08: "Solaris /home",
        0x09: "Solaris alternate sectors",
        0x0A: "Solaris cache",
        0x0B: "Solaris reserved",
        0x82: "Linux swap",
        0x83: "Linux filesystem",
        0x8E: "Linux LVM",
        0xFD: "Linux RAID",
    }
)


def mbr_type_name(code: int) -> str:
    """Of a type byte."""
    return _MBR.get(code, UNKNOWN)


def gpt_type_name(code: str) -> str:
    """Of a type GUID in lower case."""
    return _GPT.get(code, UNKNOWN)


def apm_type_name(code: str) -> str:
    """Of a type as it stands in the map."""
    return _APM.get(code, UNKNOWN)


def bsd_type_name(code: int) -> str:
    """Of a file system type in a BSD label."""
    return _BSD.get(code, UNKNOWN)


def sun_type_name(code: int) -> str:
    """Of a tag in the VTOC of a Sun label."""
    return _SUN.get(code, UNKNOWN)
