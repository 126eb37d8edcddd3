"""What is known of a medium: what the kernel and udev say of the drive behind a block device.

Nothing is sent to the drive, and its node is not opened. ``None`` always means that it cannot be
told, never that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from imprint.storage.device_facts import System

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imprint.storage.device_facts import Partition

UNKNOWN: Final = "unknown"

# What a folder in the path of a device in /sys is called that stands for the way to the drive.
_TRANSPORTS: Final = (
    ("usb", "usb"),
    ("nvme", "nvme"),
    ("ata", "ata"),
    ("mmc", "mmc"),
    ("virtio", "virtio"),
    ("session", "iscsi"),
    ("rport-", "fc"),
    ("end_device-", "sas"),
    ("virtual", "virtual"),
    ("host", "scsi"),
)


@dataclass(frozen=True)
class Bridge:
    """The electronics between USB and the drive: they may hide or change what the drive says.

    Attributes:
        vendor_id: four hexadecimal digits.
        product_id: likewise.
        vendor: by name.
        product: by name.
        serial: of the bridge, which need not be the drive's.
        revision: of its firmware.
        driver: ``uas`` or ``usb-storage``.
    """

    vendor_id: str
    product_id: str | None = None
    vendor: str | None = None
    product: str | None = None
    serial: str | None = None
    revision: str | None = None
    driver: str | None = None


@dataclass(frozen=True)
class Medium:
    """Facts about a block device; ``None``: cannot be told.

    Attributes:
        path: as it was given.
        kernel_name: ``sdb``, ``nvme0n1p2`` …
        size: in bytes, as the kernel addresses it.
        model: of the drive, with its vendor.
        serial: of the drive.
        firmware: its revision.
        wwn: World Wide Name, EUI-64 or NGUID.
        logical_sector: in bytes.
        physical_sector: in bytes.
        is_rotational: whether it has to seek.
        is_removable: whether the medium can be taken out of the drive.
        is_read_only: whether the kernel refuses writes.
        transport: the way to the drive: ``usb``, ``ata``, ``nvme`` …
        bridge: between USB and the drive.
        can_discard: whether ranges can be given up by TRIM or UNMAP.
        discard_granularity: in bytes.
        partitions: as the kernel knows them.
        used_by: who uses it or a part of it, one phrase each.
    """

    path: str
    kernel_name: str
    size: int
    model: str | None = None
    serial: str | None = None
    firmware: str | None = None
    wwn: str | None = None
    logical_sector: int | None = None
    physical_sector: int | None = None
    is_rotational: bool | None = None
    is_removable: bool | None = None
    is_read_only: bool | None = None
    transport: str | None = None
    bridge: Bridge | None = None
    can_discard: bool | None = None
    discard_granularity: int | None = None
    partitions: tuple[Partition, ...] = ()
    used_by: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """All facts, with ``unknown`` for what cannot be told."""
        return {
            "path": self.path,
            "kernel_name": self.kernel_name,
            "size": self.size,
            **{
                name: _said(getattr(self, name))
                for name in (
                    *("model", "serial", "firmware", "wwn", "logical_sector", "physical_sector"),
                    *("is_rotational", "is_removable", "is_read_only", "transport", "can_discard"),
                    "discard_granularity",
                )
            },
            "usb_bridge": self._bridge(),
            "partitions": [
                {
                    "path": part.path,
                    "number": part.number,
                    "start": part.start,
                    "size": part.size,
                    "mounts": list(part.mounts),
                }
                for part in self.partitions
            ],
            "used_by": list(self.used_by),
        }

    def _bridge(self) -> object:
        if self.bridge is not None:
            return {name: _said(value) for name, value in vars(self.bridge).items()}
        # Another known way to the drive leaves no place for one.
        return "none" if self.transport not in (None, "usb", "scsi", "virtual") else UNKNOWN


def describe_medium(path: Path, *, root: Path = Path("/"), system: System | None = None) -> Medium:
    """All that can be told of the device behind ``path``.

    Args:
        path: of the device's node, or a link to it.
        root: where ``sys`` and ``run`` are.
        system: the kernel's account of its devices.

    Raises:
        ReadError: if there is no block device, or the kernel does not know it.
    """
    system = System(root) if system is None else system
    facts = system.describe(path)
    node = system.node(path)
    disk = node.parent if (node / "partition").exists() else node
    udev = _udev(root, _text(disk / "dev"))
    queue = disk / "queue"
    granularity = _number(queue / "discard_granularity")
    most = _number(queue / "discard_max_bytes")
    transport = _transport(disk)
    return Medium(
        path=str(path),
        kernel_name=facts.kernel_name,
        size=facts.size,
        model=facts.model or _model(udev),
        serial=facts.serial or udev.get("ID_SERIAL_SHORT"),
        firmware=_first(disk, "device/rev", "device/firmware_rev", "device/fwrev")
        or udev.get("ID_REVISION"),
        wwn=_first(disk, "wwid", "device/wwid") or udev.get("ID_WWN"),
        logical_sector=_number(queue / "logical_block_size"),
        physical_sector=_number(queue / "physical_block_size"),
        is_rotational=_switch(queue / "rotational"),
        is_removable=_switch(disk / "removable"),
        is_read_only=_switch(node / "ro"),
        transport=transport,
        bridge=_bridge(disk) if transport == "usb" else None,
        can_discard=None if most is None else most > 0,
        discard_granularity=granularity,
        partitions=facts.partitions,
        used_by=facts.used_by,
    )


def _said(value: object) -> object:
    return UNKNOWN if value is None else value


def _transport(disk: Path) -> str | None:
    """What the device's place among all devices says of the way to it."""
    names = disk.parts
    for prefix, transport in _TRANSPORTS:
        for name in names:
            rest = name.removeprefix(prefix)
            if rest != name and (not rest or rest[0].isdigit() or prefix.endswith("-")):
                return transport
    return None


def _bridge(disk: Path) -> Bridge | None:
    driver = None
    for folder in disk.parents:
        if driver is None and (folder / "bInterfaceNumber").exists():
            link = folder / "driver"
            driver = link.resolve().name if link.exists() else None
        vendor = _text(folder / "idVendor")
        if vendor is not None:
            return Bridge(
                vendor_id=vendor,
                product_id=_text(folder / "idProduct"),
                vendor=_text(folder / "manufacturer"),
                product=_text(folder / "product"),
                serial=_text(folder / "serial"),
                revision=_text(folder / "bcdDevice"),
                driver=driver,
            )
    return None


def _udev(root: Path, number: str | None) -> dict[str, str]:
    """What udev noted of a device; it may not run, or not have noted it."""
    if number is None:
        return {}
    text = _text(root / "run" / "udev" / "data" / f"b{number}") or ""
    return dict(_properties(text))


def _properties(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, mark, value = line.removeprefix("E:").partition("=")
        if line.startswith("E:") and mark and value:
            yield name, value


def _model(udev: Mapping[str, str]) -> str | None:
    model = udev.get("ID_MODEL")
    return None if model is None else model.replace("_", " ").strip()


def _first(disk: Path, *names: str) -> str | None:
    return next((text for name in names if (text := _text(disk / name))), None)


def _text(file: Path) -> str | None:
    """What a file says; ``None`` if it is absent or empty."""
    try:
        text = file.read_bytes().decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return None
    return text or None


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text is not None and text.isdecimal() else None


def _switch(file: Path) -> bool | None:
    number = _number(file)
    return None if number is None else number != 0
