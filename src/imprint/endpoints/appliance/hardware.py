"""The OVF descriptor of a new appliance: its disks, and the machine that they belong to.

The elements of an item stand in alphabetical order, as the schema has them: VMware refuses
others. The disk controllers and adapters bear the names that VMware and VirtualBox both know.

Source: DMTF DSP0243, Open Virtualization Format 1.1, and its schema DSP8023; CIM 2.22,
*CIM_ResourceAllocationSettingData* and *CIM_OperatingSystem* (``OSType``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

from imprint.core.errors import UsageError
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from imprint.core.formats import OptionValue

DISK_FORMAT: Final = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"

_CIM: Final = "http://schemas.dmtf.org/wbem/wscim/1"
_NAMESPACES: Final = (
    ("xmlns", "http://schemas.dmtf.org/ovf/envelope/1"),
    ("xmlns:cim", f"{_CIM}/common"),
    ("xmlns:ovf", "http://schemas.dmtf.org/ovf/envelope/1"),
    ("xmlns:rasd", f"{_CIM}/cim-schema/2/CIM_ResourceAllocationSettingData"),
    ("xmlns:vmw", "http://www.vmware.com/schema/ovf"),
    ("xmlns:vssd", f"{_CIM}/cim-schema/2/CIM_VirtualSystemSettingData"),
    ("xmlns:xsi", "http://www.w3.org/2001/XMLSchema-instance"),
)

_NUMBER_WIDTH: Final = 20
"""Digits of the largest size: a descriptor has one length, whatever its disks turn out to take."""

_CPUS_MAX: Final = 1024
_HWVERSIONS: Final = range(4, 100)
_NOT_XML: Final = re.compile("[^\t -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class _Bus:
    """A kind of disk controller.

    Attributes:
        title: for people.
        type: of the resource, in CIM.
        subtype: that VMware and VirtualBox know it by.
        slots: addresses of disks on one controller.
        controllers: how many there may be.
    """

    title: str
    type: int
    subtype: str
    slots: tuple[int, ...]
    controllers: int = 1


_SCSI: Final = (*range(7), *range(8, 16))  # 7 is the controller itself
_BUSES: Final = {
    "lsilogic": _Bus("SCSI controller", 6, "lsilogic", _SCSI, 4),
    "lsilogicsas": _Bus("SCSI controller", 6, "lsilogicsas", _SCSI, 4),
    "buslogic": _Bus("SCSI controller", 6, "buslogic", _SCSI, 4),
    "pvscsi": _Bus("SCSI controller", 6, "VirtualSCSI", _SCSI, 4),
    "sata": _Bus("SATA controller", 20, "vmware.sata.ahci", tuple(range(30)), 4),
    "ide": _Bus("IDE controller", 5, "PIIX4", (0, 1), 2),
}

_NICS: Final = {"e1000": "E1000", "vmxnet3": "VmxNet3"}

# The number in CIM, and what VMware calls it. CIM 2.22 is older than Windows 10: other.
_SYSTEMS: Final = {
    "other": (1, "otherGuest"),
    "other64": (102, "otherGuest64"),
    "linux": (36, "otherLinuxGuest"),
    "linux64": (101, "otherLinux64Guest"),
    "centos64": (107, "centos64Guest"),
    "debian64": (96, "debian5_64Guest"),
    "rhel64": (80, "rhel6_64Guest"),
    "ubuntu64": (94, "ubuntu64Guest"),
    "freebsd64": (78, "freebsd64Guest"),
    "windows7_64": (105, "windows7_64Guest"),
    "windows2008r2": (103, "windows7Server64Guest"),
    "windows10_64": (1, "windows9_64Guest"),
}


@dataclass(frozen=True)
class Machine:
    """What the disks are attached to.

    Attributes:
        name: for people; anything that XML can hold.
        cpus: how many.
        memory_mib: of memory.
        hwversion: of VMware's virtual hardware.
        os: one of the choices of the option.
        controller: likewise.
        is_efi: whether it starts by EFI and not by a BIOS.
        nic: ``none``, or one of the choices of the option.
        network: that the adapter is connected to.
    """

    name: str
    cpus: int
    memory_mib: int
    hwversion: int
    os: str
    controller: str
    is_efi: bool
    nic: str
    network: str


@dataclass(frozen=True)
class DiskFile:
    """A disk's file, as the descriptor tells of it. All in bytes.

    Attributes:
        name: of the file.
        size: of the file.
        capacity: of the disk.
        populated: of the disk, that hold data.
    """

    name: str
    size: int
    capacity: int
    populated: int


def machine(options: Mapping[str, OptionValue], name: str, disks: int) -> Machine:
    """The machine that the options describe.

    Raises:
        UsageError: if they make no sense, or there are more disks than places for them.
    """
    controller, is_efi = str(options["controller"]), options["firmware"] == "efi"
    least, why = 4, ""
    if is_efi:
        least, why = 8, " with firmware=efi"
    if controller == "sata":
        least, why = 10, " with controller=sata"
    hwversion = int(options.get("hwversion", max(7, least)))
    if hwversion not in _HWVERSIONS or hwversion < least:
        raise UsageError(f"option hwversion: expected {least} to 99{why}, found {hwversion}")
    cpus, memory = int(options["cpus"]), int(options["memory"])
    if not 1 <= cpus <= _CPUS_MAX:
        raise UsageError(f"option cpus: expected 1 to {_CPUS_MAX}, found {cpus}")
    if memory < MIB or memory % MIB:
        raise UsageError(f"option memory: expected whole MiB, such as 2G, found {memory} bytes")
    bus = _BUSES[controller]
    places = len(bus.slots) * bus.controllers
    if disks > places:
        raise UsageError(f"controller={controller} has {places} places for disks, not {disks}")
    network = str(options["network"])
    for option, text in (("name", name), ("network", network)):
        if not text.strip() or _NOT_XML.search(text):
            raise UsageError(f"option {option}: expected text that XML can hold, found {text!r}")
    return Machine(
        name=name,
        cpus=cpus,
        memory_mib=memory // MIB,
        hwversion=hwversion,
        os=str(options["os"]),
        controller=controller,
        is_efi=is_efi,
        nic=str(options["nic"]),
        network=network,
    )


def describe(what: Machine, disks: Sequence[DiskFile]) -> bytes:
    """The descriptor: as long as it would be with the largest sizes, filled up by spaces."""
    text = "\n".join(_envelope(what, disks)).encode()
    numbers = sum(len(str(disk.size)) + len(str(disk.populated)) for disk in disks)
    return text + b"\n" + b" " * (2 * _NUMBER_WIDTH * len(disks) - numbers) + b"\n"


def _envelope(what: Machine, disks: Sequence[DiskFile]) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f"<Envelope {_attributes(_NAMESPACES)}>"
    yield "  <References>"
    for number, disk in enumerate(disks, 1):
        name = quoteattr(disk.name)
        yield f'    <File ovf:href={name} ovf:id="file{number}" ovf:size="{disk.size}"/>'
    yield "  </References>"
    yield "  <DiskSection>"
    yield "    <Info>Virtual disks</Info>"
    for number, disk in enumerate(disks, 1):
        yield (
            f'    <Disk ovf:capacity="{disk.capacity}" ovf:capacityAllocationUnits="byte"'
            f' ovf:diskId="vmdisk{number}" ovf:fileRef="file{number}"'
            f' ovf:format="{DISK_FORMAT}" ovf:populatedSize="{disk.populated}"/>'
        )
    yield "  </DiskSection>"
    yield "  <NetworkSection>"
    yield "    <Info>Logical networks</Info>"
    if what.nic != "none":
        yield f"    <Network ovf:name={quoteattr(what.network)}>"
        yield f"      <Description>{escape(what.network)}</Description>"
        yield "    </Network>"
    yield "  </NetworkSection>"
    yield f"  <VirtualSystem ovf:id={quoteattr(what.name)}>"
    yield "    <Info>A virtual machine</Info>"
    yield f"    <Name>{escape(what.name)}</Name>"
    number, vmware = _SYSTEMS[what.os]
    yield f'    <OperatingSystemSection ovf:id="{number}" vmw:osType="{vmware}">'
    yield "      <Info>The guest operating system</Info>"
    yield "    </OperatingSystemSection>"
    yield "    <VirtualHardwareSection>"
    yield "      <Info>Virtual hardware</Info>"
    yield from _block("System", _system(what))
    for item in _items(what, len(disks)):
        yield from _block("Item", item)
    if what.is_efi:
        yield '      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>'
    yield "    </VirtualHardwareSection>"
    yield "  </VirtualSystem>"
    yield "</Envelope>"


def _system(what: Machine) -> dict[str, str | int]:
    return {
        "vssd:ElementName": "Virtual Hardware Family",
        "vssd:InstanceID": 0,
        "vssd:VirtualSystemIdentifier": what.name,
        "vssd:VirtualSystemType": f"vmx-{what.hwversion:02}",
    }


def _items(what: Machine, disks: int) -> Iterator[dict[str, str | int]]:
    """Processors, memory, controllers, disks, adapter; numbered from 1."""
    yield {
        "AllocationUnits": "hertz * 10^6",
        "Description": "Number of virtual CPUs",
        "ElementName": f"{what.cpus} virtual CPU(s)",
        "InstanceID": 1,
        "ResourceType": 3,
        "VirtualQuantity": what.cpus,
    }
    yield {
        "AllocationUnits": "byte * 2^20",
        "Description": "Memory size",
        "ElementName": f"{what.memory_mib} MB of memory",
        "InstanceID": 2,
        "ResourceType": 4,
        "VirtualQuantity": what.memory_mib,
    }
    bus = _BUSES[what.controller]
    controllers = -(-disks // len(bus.slots))
    for number in range(controllers):
        yield {
            "Address": number,
            "Description": bus.title,
            "ElementName": f"{bus.title} {number}",
            "InstanceID": 3 + number,
            "ResourceSubType": bus.subtype,
            "ResourceType": bus.type,
        }
    for index in range(disks):
        controller, place = divmod(index, len(bus.slots))
        yield {
            "AddressOnParent": bus.slots[place],
            "ElementName": f"Hard disk {index + 1}",
            "HostResource": f"ovf:/disk/vmdisk{index + 1}",
            "InstanceID": 3 + controllers + index,
            "Parent": 3 + controller,
            "ResourceType": 17,
        }
    if what.nic != "none":
        yield {
            "AddressOnParent": 7,
            "AutomaticAllocation": "true",
            "Connection": what.network,
            "Description": f"{_NICS[what.nic]} ethernet adapter",
            "ElementName": "Network adapter 1",
            "InstanceID": 3 + controllers + disks,
            "ResourceSubType": _NICS[what.nic],
            "ResourceType": 10,
        }


def _block(name: str, fields: Mapping[str, str | int]) -> Iterator[str]:
    yield f"      <{name}>"
    for key, value in fields.items():
        tag = key if ":" in key else f"rasd:{key}"
        yield f"        <{tag}>{escape(str(value))}</{tag}>"
    yield f"      </{name}>"


def _attributes(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n    ".join(f"{name}={quoteattr(value)}" for name, value in pairs)
