"""What is made of ``/sys`` and ``/proc``: trees as kernels show them, built by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from imprint.core.errors import ReadError
from imprint.storage.device_facts import System, device_number

# Four fields that do not matter, as in proc(5), before and after those that do.
MOUNT = "36 35 {number} / {point} rw,relatime shared:1 - {kind} {source} rw"

NUMBERS = {
    "/dev/sda": "8:0",
    "/dev/sdb": "8:16",
    "/dev/disk/by-id/usb-Stick": "8:16",
    "/dev/sdb1": "8:17",
    "/dev/sdb2": "8:18",
}


class FakeKernel:
    """A folder with the files that :class:`System` looks at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts: list[str] = []
        (root / "proc" / "self").mkdir(parents=True)
        (root / "sys" / "dev" / "block").mkdir(parents=True)
        (root / "sys" / "block").mkdir()
        self.disk("sda", "8:0")
        self.disk("sdb", "8:16")
        self.partition("sdb", "sdb1", "8:17", 1, start=2048, size=4096)
        self.partition("sdb", "sdb2", "8:18", 2, start=8192, size=100)

    def system(self) -> System:
        (self.root / "proc/self/mountinfo").write_text("\n".join([*self.mounts, ""]))
        return System(self.root, number_of=NUMBERS.get)

    def mount(self, number: str, point: str, source: str = "/dev/x", kind: str = "ext4") -> None:
        self.mounts.append(MOUNT.format(number=number, point=point, source=source, kind=kind))

    def disk(self, name: str, number: str, folder: str = "pci0/usb1/1-2/host0") -> Path:
        return self._node(self.root / "sys/devices" / folder / "block" / name, number)

    def partition(
        self, disk: str, name: str, number: str, index: int, *, start: int, size: int
    ) -> None:
        parent = (self.root / "sys/block" / disk).resolve()
        node = self._node(parent / name, number, size=size)
        (node / "partition").write_text(f"{index}\n")
        (node / "start").write_text(f"{start}\n")

    def hold(self, name: str, holder: Path) -> None:
        link = self._find(name) / "holders" / holder.name
        link.symlink_to(holder)

    def write(self, name: str, file: str, content: bytes) -> None:
        path = self._find(name) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def _find(self, name: str) -> Path:
        return next((self.root / "sys/devices").rglob(name))

    def _node(self, node: Path, number: str, *, size: int = 1 << 20) -> Path:
        (node / "holders").mkdir(parents=True)
        (node / "dev").write_text(f"{number}\n")
        (node / "size").write_text(f"{size}\n")
        (node / "ro").write_text("0\n")
        (self.root / "sys/dev/block" / number).symlink_to(node)
        if node.parent.name == "block":
            (self.root / "sys/block" / node.name).symlink_to(node)
        return node


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path)


def test_a_free_device_has_no_users(kernel: FakeKernel) -> None:
    """Fails if mounts of other devices are counted."""
    kernel.mount("8:0", "/")
    kernel.mount("0:25", "/dev/shm", source="tmpfs", kind="tmpfs")
    assert kernel.system().used_by(Path("/dev/sdb")) == ()


def test_a_mounted_partition_makes_the_disk_busy(kernel: FakeKernel) -> None:
    """Fails if only the device's own number is compared; the space is escaped by the kernel."""
    kernel.mount("8:18", "/media/my\\040stick")
    assert kernel.system().used_by(Path("/dev/sdb")) == ("sdb2 is mounted at /media/my stick",)
    assert kernel.system().used_by(Path("/dev/sdb1")) == ()


def test_a_mounted_disk_makes_its_partitions_busy(kernel: FakeKernel) -> None:
    """Fails if a partition could be overwritten under a file system on the whole disk."""
    kernel.mount("8:16", "/mnt")
    assert kernel.system().used_by(Path("/dev/sdb1")) == ("sdb is mounted at /mnt",)


def test_a_name_that_is_a_link_is_looked_through(kernel: FakeKernel) -> None:
    """Fails if devices are told apart by the names of their nodes."""
    kernel.mount("8:17", "/mnt")
    stick = Path("/dev/disk/by-id/usb-Stick")
    assert kernel.system().used_by(stick) == ("sdb1 is mounted at /mnt",)
    assert kernel.system().node(stick).name == "sdb"


def test_holders_are_named_with_what_uses_them(kernel: FakeKernel) -> None:
    """Fails if LVM on LUKS on a partition does not show as the reason."""
    crypt = kernel.disk("dm-0", "253:0", "virtual")
    (crypt / "dm").mkdir()
    (crypt / "dm/name").write_text("luks-1234\n")
    volume = kernel.disk("dm-1", "253:1", "virtual")
    (volume / "dm").mkdir()
    (volume / "dm/name").write_text("vg-root\n")
    kernel.hold("sdb1", crypt)
    kernel.hold("dm-0", volume)
    kernel.mount("253:1", "/")
    assert kernel.system().used_by(Path("/dev/sdb")) == (
        "sdb1 is held by dm-0 (luks-1234), which is held by dm-1 (vg-root), which is mounted at /",
    )


def test_a_loop_of_holders_ends(kernel: FakeKernel) -> None:
    """Fails if odd contents of /sys would recurse without end."""
    raid = kernel.disk("md0", "9:0", "virtual")
    kernel.hold("sdb1", raid)
    kernel.hold("md0", raid)
    assert kernel.system().used_by(Path("/dev/sdb"))[0].startswith("sdb1 is held by md0")


def test_swap_and_loop_devices_count(kernel: FakeKernel) -> None:
    """Fails if users that claim nothing exclusively are overlooked."""
    (kernel.root / "proc/swaps").write_text(
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/dev/sdb2                               partition\t16380\t\t0\t\t-2\n"
        "/swapfile                               file\t\t16380\t\t0\t\t-3\n"
    )
    loop = kernel.disk("loop3", "7:3", "virtual")
    (loop / "loop").mkdir()
    (loop / "loop/backing_file").write_text("/dev/sdb1\n")
    assert kernel.system().used_by(Path("/dev/sdb")) == (
        "sdb1 is held by loop3 (a loop device)",
        "sdb2 is used as swap",
    )


def test_btrfs_on_several_devices_is_found(kernel: FakeKernel) -> None:
    """Fails if a device is missed since the mount has an invented number and names another."""
    kernel.mount("0:43", "/data", source="/dev/sdb1", kind="btrfs")
    folder = kernel.root / "sys/fs/btrfs/0b7a-uuid/devices"
    folder.mkdir(parents=True)
    (folder / "sdb1").touch()
    (folder / "sdb2").touch()
    assert kernel.system().used_by(Path("/dev/sdb")) == (
        "sdb1 is mounted at /data",
        "sdb2 is a part of a mounted Btrfs",
    )


def test_a_device_is_described(kernel: FakeKernel) -> None:
    """Fails if a fact is taken from the wrong file, or in the wrong unit."""
    kernel.write("sdb", "device/vendor", b"ACME    \n")
    kernel.write("sdb", "device/model", b"Fast Disk 9000  \n")
    kernel.write("sdb", "device/vpd_pg80", b"\x00\x80\x00\x08  SN4711")
    kernel.write("sdb", "queue/logical_block_size", b"4096\n")
    kernel.write("sdb", "queue/physical_block_size", b"8192\n")
    kernel.write("sdb", "queue/rotational", b"1\n")
    kernel.write("sdb", "ro", b"1\n")
    kernel.mount("8:17", "/mnt")
    info = kernel.system().describe(Path("/dev/sdb"))
    assert (info.path, info.kernel_name, info.size) == ("/dev/sdb", "sdb", 512 << 20)
    assert (info.model, info.serial) == ("ACME Fast Disk 9000", "SN4711")
    assert (info.logical_sector, info.physical_sector) == (4096, 8192)
    assert (info.is_read_only, info.is_rotational) == (True, True)
    assert [(part.path, part.number, part.start, part.size) for part in info.partitions] == [
        ("/dev/sdb1", 1, 2048 * 512, 4096 * 512),
        ("/dev/sdb2", 2, 8192 * 512, 100 * 512),
    ]
    assert info.partitions[0].mounts == ("/mnt",)
    assert info.used_by == ("sdb1 is mounted at /mnt",)


def test_the_serial_number_of_a_stick_is_that_of_its_usb_device(kernel: FakeKernel) -> None:
    """Fails if sticks, which answer no SCSI inquiry for it, have none."""
    stick = kernel.root / "sys/devices/pci0/usb1/1-2"
    (stick / "idVendor").write_text("0781\n")
    (stick / "serial").write_text("4C530001\n")
    assert kernel.system().describe(Path("/dev/sdb2")).serial == "4C530001"


def test_a_bare_device_has_few_facts(kernel: FakeKernel) -> None:
    """Fails if a missing file is an error: virtual disks have next to none."""
    info = kernel.system().describe(Path("/dev/sdb2"))
    assert (info.model, info.serial, info.partitions) == (None, None, ())
    assert (info.logical_sector, info.physical_sector) == (512, 512)
    assert info.size == 100 * 512


def test_broken_tables_are_read_as_far_as_they_go(kernel: FakeKernel) -> None:
    """Fails if a short line stops the search."""
    kernel.mounts += ["", "36 35", "36 35 8:17 / /mnt - "]
    kernel.mount("8:17", "/mnt")
    (kernel.root / "proc/swaps").write_text("Filename\n\n")
    assert kernel.system().used_by(Path("/dev/sdb1")) == ("sdb1 is mounted at /mnt",)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/dev/sdb", "/dev/sdb", True),
        ("/dev/sdb", "/dev/disk/by-id/usb-Stick", True),
        ("/dev/sdb", "/dev/sdb2", True),
        ("/dev/sdb2", "/dev/sdb", True),
        ("/dev/sdb1", "/dev/sdb2", False),
        ("/dev/sda", "/dev/sdb", False),
    ],
)
def test_a_disk_overlaps_with_its_partitions(
    kernel: FakeKernel, one: str, other: str, expected: bool
) -> None:
    """Fails if a partition could be copied onto the disk that it is on."""
    assert kernel.system().overlap(Path(one), Path(other)) is expected


def test_what_is_no_block_device_is_refused(tmp_path: Path) -> None:
    """Fails if the error does not name it."""
    with pytest.raises(ReadError, match="expected a block device") as caught:
        System().describe(tmp_path)
    assert caught.value.name == str(tmp_path)
    assert device_number("tmpfs") is None
    assert device_number("/dev/null") is None
    assert device_number("/dev/\0") is None
