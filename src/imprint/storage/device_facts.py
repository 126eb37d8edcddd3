"""What the kernel says about block devices: what they are, and who uses them.

Read from ``/sys`` and ``/proc`` alone, so no device is opened for it. Devices are found by
their number and not by the name of their node, which may be a link or anything else.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The unit of ``size`` and ``start`` in /sys, whatever the sectors of the device are.
_SYSFS_UNIT: Final = 512
# Holders stacked upon holders (crypt on LVM on RAID …): real ones have below 6.
_DEPTH_MAX: Final = 16
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Partition:
    """A partition as the kernel knows it.

    Attributes:
        path: of its device node.
        number: in the partition table.
        start: on the disk, in bytes.
        size: in bytes.
        mounts: where it is mounted.
    """

    path: str
    number: int
    start: int
    size: int
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceInfo:
    """Facts about a block device.

    Attributes:
        path: as it was given.
        kernel_name: ``sdb``, ``nvme0n1p2`` …
        size: in bytes.
        model: of the drive, with its vendor, or ``None``.
        serial: of the drive, or ``None``.
        logical_sector: in bytes.
        physical_sector: in bytes.
        is_read_only: whether the kernel refuses writes.
        is_rotational: whether it has to seek.
        partitions: of a disk, in the table's order.
        used_by: who uses it or a part of it, one phrase each; empty: nobody that shows.
    """

    path: str
    kernel_name: str
    size: int
    model: str | None
    serial: str | None
    logical_sector: int
    physical_sector: int
    is_read_only: bool
    is_rotational: bool
    partitions: tuple[Partition, ...] = ()
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mount:
    """A line of ``/proc/self/mountinfo``.

    Attributes:
        number: of the device, ``MAJOR:MINOR``; not a real one for Btrfs and the like.
        point: where it is mounted.
        source: what was mounted: a path for file systems on devices.
        type: of the file system.
    """

    number: str
    point: str
    source: str
    type: str


def device_number(path: str) -> str | None:
    """``MAJOR:MINOR`` of a block device's node; ``None`` if it is anything else."""
    if not path.startswith("/"):  # the source of a mount may be a word like "tmpfs"
        return None
    try:
        facts = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None
    if not stat.S_ISBLK(facts.st_mode):
        return None
    return f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}"


class System:
    """The kernel's account of its devices.

    Args:
        root: where ``sys`` and ``proc`` are.
        number_of: the ``MAJOR:MINOR`` of the block device that a path leads to, or ``None``.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        number_of: Callable[[str], str | None] = device_number,
    ) -> None:
        self._root = root
        self._sys = root / "sys"
        self._number_of = number_of

    def describe(self, path: Path) -> DeviceInfo:
        """All facts about the device behind ``path``.

        Raises:
            ReadError: if there is no block device, or the kernel does not tell.
        """
        node = self.node(path)
        disk = _disk_of(node)
        queue = disk / "queue"
        logical = _number(queue / "logical_block_size", _SYSFS_UNIT)
        mounts = self.mounts()
        return DeviceInfo(
            path=str(path),
            kernel_name=node.name,
            size=_number(node / "size") * _SYSFS_UNIT,
            model=_model(disk),
            serial=_serial(disk),
            logical_sector=logical,
            physical_sector=_number(queue / "physical_block_size", logical),
            is_read_only=_number(node / "ro") != 0,
            is_rotational=_number(queue / "rotational") != 0,
            partitions=tuple(
                Partition(
                    path="/dev/" + part.name.replace("!", "/"),  # as /sys writes it
                    number=_number(part / "partition"),
                    start=_number(part / "start") * _SYSFS_UNIT,
                    size=_number(part / "size") * _SYSFS_UNIT,
                    mounts=tuple(self._mount_points(part, mounts)),
                )
                for part in _partitions(node)
            ),
            used_by=self._used_by(node, mounts),
        )

    def used_by(self, path: Path) -> tuple[str, ...]:
        """Who uses the device, a partition of it, or the disk that it is a partition of.

        Raises:
            ReadError: as for :meth:`describe`.
        """
        return self._used_by(self.node(path), self.mounts())

    def file_used_by(self, path: Path) -> tuple[str, ...]:
        """Who uses a file as a disk: loop devices over it that are mounted, or in use otherwise."""
        wanted = str(path.resolve())
        mounts = self.mounts()
        return tuple(
            use
            for loop in _listing(self._sys / "block")
            if _text(loop / "loop" / "backing_file") == wanted
            for use in self._used_by(loop.resolve(), mounts)
        )

    def overlap(self, one: Path, other: Path) -> bool:
        """Whether writing one device changes the other: the same, or a disk and its partition.

        Raises:
            ReadError: as for :meth:`describe`.
        """
        first, second = self.node(one), self.node(other)
        return first == second or first == _disk_of(second) or second == _disk_of(first)

    def mounts(self) -> list[Mount]:
        """All that is mounted, as this process sees it, in the order of mounting."""
        mounts = []
        for line in _lines(self._root / "proc" / "self" / "mountinfo"):
            before, _, after = line.partition(" - ")
            fields, rest = before.split(" "), after.split(" ")
            if len(fields) > 4 and len(rest) > 1:  # noqa: PLR2004 — as proc(5) counts them
                point, source = _unescape(fields[4]), _unescape(rest[1])
                mounts.append(Mount(fields[2], point, source, rest[0]))
        return mounts

    def node(self, path: Path) -> Path:
        """The device's directory in ``/sys``.

        Raises:
            ReadError: as for :meth:`describe`.
        """
        number = self._number_of(str(path.absolute()))
        if number is None:
            raise ReadError("expected a block device", name=str(path))
        link = self._sys / "dev" / "block" / number
        if not link.exists():
            raise ReadError(f"/sys knows no device {number}", name=str(path))
        return link.resolve()

    def _used_by(self, node: Path, mounts: list[Mount]) -> tuple[str, ...]:
        nodes = [node, *_partitions(node)]
        if _disk_of(node) != node:
            nodes.append(_disk_of(node))
        return tuple(f"{each.name} is {use}" for each in nodes for use in self._uses(each, mounts))

    def _uses(self, node: Path, mounts: list[Mount], depth: int = 0) -> Iterator[str]:
        """In what ways one device is in use, itself only."""
        points = list(self._mount_points(node, mounts))
        for point in points:
            yield f"mounted at {point}"
        if not points and any((self._sys / "fs/btrfs").glob(f"*/devices/{node.name}")):
            yield "a part of a mounted Btrfs"
        for swap in self._swaps():
            if self._number_of(swap) == _text(node / "dev"):
                yield "used as swap"
        for holder, how in self._holders(node):
            above = self._uses(holder, mounts, depth + 1) if depth < _DEPTH_MAX else iter(())
            yield ", ".join((how, *(f"which is {use}" for use in above)))

    def _holders(self, node: Path) -> Iterator[tuple[Path, str]]:
        """Devices that are made of this one, and how to say that."""
        for link in _listing(node / "holders"):
            holder = link.resolve()
            label = _text(holder / "dm" / "name")
            yield holder, f"held by {holder.name}" + (f" ({label})" if label else "")
        number = _text(node / "dev")
        for loop in _listing(self._sys / "block"):
            backing = _text(loop / "loop" / "backing_file")
            if backing and self._number_of(backing) == number:
                yield loop.resolve(), f"held by {loop.name} (a loop device)"

    def _mount_points(self, node: Path, mounts: list[Mount]) -> Iterator[str]:
        number = _text(node / "dev")
        for mount in mounts:
            # Btrfs invents a number for each mount: there the source tells.
            if mount.number == number or (
                mount.number.startswith("0:") and self._number_of(mount.source) == number
            ):
                yield mount.point

    def _swaps(self) -> list[str]:
        lines = _lines(self._root / "proc" / "swaps")
        return [_unescape(line.split()[0]) for line in lines[1:] if line.strip()]


def _disk_of(node: Path) -> Path:
    return node.parent if (node / "partition").exists() else node


def _partitions(node: Path) -> list[Path]:
    found = [child for child in _listing(node) if (child / "partition").exists()]
    return sorted(found, key=lambda part: _number(part / "partition"))


def _model(disk: Path) -> str | None:
    parts = (_text(disk / "device" / "vendor"), _text(disk / "device" / "model"))
    # Virtual disks have a number of their bus there.
    return " ".join(part for part in parts if part and not part.startswith("0x")) or None


def _serial(disk: Path) -> str | None:
    for name in ("device/serial", "serial"):  # NVMe and MMC; virtio
        text = _text(disk / name)
        if text:
            return text
    try:
        page = (disk / "device" / "vpd_pg80").read_bytes()  # SCSI and ATA: SPC-4, 7.8.18
    except OSError:
        page = b""
    text = page[4:].decode("ascii", "replace").strip("\0 ")
    if text:
        return text
    for folder in disk.parents:
        if (folder / "idVendor").exists():  # a USB device: the stick's own number
            return _text(folder / "serial") or None
    return None


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def _lines(file: Path) -> list[str]:
    return _text(file).split("\n")


def _number(file: Path, default: int = 0) -> int:
    text = _text(file)
    return int(text) if text.isdecimal() else default


def _unescape(text: str) -> str:
    """Undo how the kernel writes spaces in the tables of ``/proc``."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)
