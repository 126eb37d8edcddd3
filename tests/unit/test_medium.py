"""What is told of a medium, from ``/sys`` trees as kernels show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ReadError
from imprint.storage.device_facts import System
from imprint.storage.medium import Bridge, Medium, describe_medium

if TYPE_CHECKING:
    from pathlib import Path

SATA = "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0"
STICK = "pci0000:00/0000:00:14.0/usb2/2-3"
USB = f"{STICK}/2-3:1.0/host6/target6:0:0/6:0:0:0"
NVME = "pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0"


def _device(root: Path, folder: str, name: str, facts: dict[str, str]) -> Path:
    node = root / "sys/devices" / folder / "block" / name
    node.mkdir(parents=True)
    given = {"dev": "8:0", "size": "2048", "ro": "0", "queue/logical_block_size": "512", **facts}
    for file, text in given.items():
        path = node / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    link = root / "sys/dev/block/8:0"
    link.parent.mkdir(parents=True)
    link.symlink_to(node)
    return node


def _medium(root: Path) -> Medium:
    path = root / "dev-node"
    system = System(root, number_of={str(path): "8:0"}.get)
    return describe_medium(path, root=root, system=system)


def test_an_ata_disk_is_described(tmp_path: Path) -> None:
    """Fails if the log of a disk does not say which disk it was."""
    facts = {
        "device/vendor": "ATA     ",
        "device/model": "ST1000DM003-1CH1",
        "device/rev": "CC47",
        "device/wwid": "naa.5000c5007a3b1c2d",
        "queue/physical_block_size": "4096",
        "queue/rotational": "1",
        "queue/discard_max_bytes": "0",
        "queue/discard_granularity": "0",
        "removable": "0",
        "ro": "1",
    }
    _device(tmp_path, SATA, "sda", facts)
    medium = _medium(tmp_path)
    assert medium.size == 2048 * 512
    assert medium.model == "ATA ST1000DM003-1CH1"
    assert medium.firmware == "CC47"
    assert medium.wwn == "naa.5000c5007a3b1c2d"
    assert (medium.logical_sector, medium.physical_sector) == (512, 4096)
    assert medium.transport == "ata"
    assert medium.is_rotational is True
    assert medium.is_read_only is True
    assert medium.is_removable is False
    assert medium.can_discard is False
    assert medium.to_json()["usb_bridge"] == "none"


def test_a_usb_bridge_is_named(tmp_path: Path) -> None:
    """Fails if nobody can see later that a bridge stood between."""
    _device(tmp_path, USB, "sdb", {"device/model": "Ext HDD"})
    stick = tmp_path / "sys/devices" / STICK
    for name, text in {
        "idVendor": "152d",
        "idProduct": "0578",
        "manufacturer": "JMicron",
        "product": "JMS578",
        "serial": "0123456789ABCDEF",
        "bcdDevice": "0204",
    }.items():
        (stick / name).write_text(f"{text}\n")
    interface = stick / "2-3:1.0"
    (interface / "bInterfaceNumber").write_text("00\n")
    (tmp_path / "sys/bus/usb/drivers/uas").mkdir(parents=True)
    (interface / "driver").symlink_to(tmp_path / "sys/bus/usb/drivers/uas")
    medium = _medium(tmp_path)
    assert medium.transport == "usb"
    assert medium.bridge == Bridge(
        "152d", "0578", "JMicron", "JMS578", "0123456789ABCDEF", "0204", "uas"
    )


def test_what_cannot_be_told_is_unknown(tmp_path: Path) -> None:
    """Fails if what nobody knows is written down as "none" or "no"."""
    _device(tmp_path, "platform/odd", "sdc", {})
    facts = _medium(tmp_path).to_json()
    for name in (
        *("model", "serial", "firmware", "wwn", "physical_sector", "is_rotational"),
        *("is_removable", "transport", "can_discard", "discard_granularity", "usb_bridge"),
    ):
        assert facts[name] == "unknown", name


def test_udev_knows_what_the_kernel_does_not_say(tmp_path: Path) -> None:
    """Fails if what udev has noted is not used."""
    _device(tmp_path, SATA, "sda", {})
    database = tmp_path / "run/udev/data/b8:0"
    database.parent.mkdir(parents=True)
    database.write_text(
        "S:disk/by-id/ata-x\nE:ID_MODEL=WDC_WD10EZEX\nE:ID_SERIAL_SHORT=WD-1\n"
        "E:ID_REVISION=01.01A01\nE:ID_WWN=0x50014ee2b0a5d3f1\nE:ID_EMPTY=\n"
    )
    medium = _medium(tmp_path)
    assert medium.model == "WDC WD10EZEX"
    assert medium.serial == "WD-1"
    assert medium.firmware == "01.01A01"
    assert medium.wwn == "0x50014ee2b0a5d3f1"


def test_an_nvme_drive_is_described(tmp_path: Path) -> None:
    """Fails if the files of NVMe, which have other names, are not found."""
    facts = {
        "device/model": "Samsung SSD 970 EVO 500GB",
        "device/serial": "S466NX0K",
        "device/firmware_rev": "1B2QEXE7",
        "wwid": "eui.0025385881b01234",
        "queue/discard_max_bytes": "2199023255040",
    }
    _device(tmp_path, NVME, "nvme0n1", facts)
    medium = _medium(tmp_path)
    assert medium.transport == "nvme"
    assert medium.serial == "S466NX0K"
    assert medium.firmware == "1B2QEXE7"
    assert medium.wwn == "eui.0025385881b01234"
    assert medium.can_discard is True


def test_a_file_is_no_medium(tmp_path: Path) -> None:
    """Fails if facts are made up for what is no device."""
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ReadError):
        describe_medium(path)
