"""An OVA as it is read: a tar archive of an OVF descriptor and the images that it names.

Source: DMTF DSP0243, Open Virtualization Format 1.1, sections 5 (packages), 7 (references) and
9.1 (disks).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from imprint.codecs import tar
from imprint.core.errors import (
    CorruptImageError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.limits import DISK_SIZE_MAX
from imprint.filters.slice import SliceStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.codecs.tar import Member
    from imprint.core.contracts import Storage

TEXT_BYTES_MAX: Final = 1 << 20
"""Of a descriptor or a manifest."""

_DISKS_MAX: Final = 256
"""What four controllers hold is below: each is opened, and a file can be named many times."""

_NUMBER: Final = re.compile(r"\d{1,20}")
_UNITS: Final = re.compile(r"byte(?: *\* *2 *\^ *(\d{1,2}))?")


@dataclass(frozen=True)
class File:
    """A file that the descriptor refers to.

    Attributes:
        id: by which disks name it.
        href: its name.
        size: in bytes, where the descriptor says it.
        is_whole: whether it is neither compressed nor cut into pieces.
    """

    id: str
    href: str
    size: int | None
    is_whole: bool


@dataclass(frozen=True)
class PackagedDisk:
    """A disk of the descriptor that has a file.

    Attributes:
        number: counted from 1 in the descriptor's order.
        member: its image in the archive.
        capacity: of the disk in bytes, as the descriptor says, where it does.
    """

    number: int
    member: Member
    capacity: int | None


@dataclass(frozen=True)
class Package:
    """What is in an OVA.

    Attributes:
        members: all files, in the archive's order.
        descriptor: the one that says what the others are.
        manifest: the one with their hashes, if there is one.
        files: what the descriptor refers to.
        disks: in the descriptor's order.
    """

    members: tuple[Member, ...]
    descriptor: Member
    manifest: Member | None
    files: tuple[File, ...]
    disks: tuple[PackagedDisk, ...]


def open_disk(storage: Storage, number: int) -> Storage:
    """The image of disk ``number``, counted from 1 in the descriptor's order; owns ``storage``.

    Raises:
        CorruptImageError: if the package contradicts itself.
        UnsupportedFeatureError: if the disk is compressed, or cut into pieces.
        UsageError: if it has no such disk.
    """
    disks = read(storage).disks
    if not 1 <= number <= len(disks):
        raise UsageError(
            f"has no disk {number}: it has {len(disks)}",
            name=storage.name,
            advice="imprint info FILE.ova#d1 shows the first one",
        )
    return slice_of(storage, disks[number - 1])


def slice_of(storage: Storage, disk: PackagedDisk) -> Storage:
    """The image of a disk; owns ``storage``."""
    member = disk.member
    return SliceStorage(storage, member.offset, member.size, name=f"{storage.name}#d{disk.number}")


def read(storage: Storage) -> Package:
    """Read the archive's headers and the descriptor.

    Raises:
        CorruptImageError: if the package contradicts itself.
        UnsupportedFeatureError: if a disk is compressed, or cut into pieces.
    """
    members = tuple(tar.members(storage))
    descriptor = _first(members, ".ovf")
    if descriptor is None:
        raise CorruptImageError("expected a descriptor, found none", name=storage.name)
    text = read_text(storage, descriptor)
    try:
        root = ET.fromstring(text)  # noqa: S314 - expat bounds what entities make
    except (ET.ParseError, ValueError, LookupError) as error:
        raise CorruptImageError(f"{descriptor.name}: {error}", name=storage.name) from error
    files = tuple(_files(root))
    disks = tuple(_disks(root, files, members, descriptor.name, storage.name))
    return Package(members, descriptor, _first(members, ".mf"), files, disks)


def read_text(storage: Storage, member: Member) -> bytes:
    """The content of a descriptor or a manifest.

    Raises:
        CorruptImageError: if it is too long to be one.
    """
    if member.size > TEXT_BYTES_MAX:
        raise CorruptImageError(
            f"{member.name}: expected at most {TEXT_BYTES_MAX} bytes, found {member.size}",
            name=storage.name,
        )
    text = bytearray(member.size)
    storage.readinto(memoryview(text), member.offset)
    return bytes(text)


def _first(members: tuple[Member, ...], suffix: str) -> Member | None:
    return next((one for one in members if one.name.lower().endswith(suffix)), None)


def _files(root: ET.Element) -> Iterator[File]:
    for file in _all(root, "File"):
        size = _attribute(file, "size") or ""
        packing = _attribute(file, "compression") or ""
        yield File(
            _attribute(file, "id") or "",
            _attribute(file, "href") or "",
            int(size) if _NUMBER.fullmatch(size) else None,
            packing in ("", "identity") and not _attribute(file, "chunkSize"),
        )


def _disks(
    root: ET.Element,
    files: tuple[File, ...],
    members: tuple[Member, ...],
    descriptor: str,
    name: str,
) -> Iterator[PackagedDisk]:
    by_id = {file.id: file for file in files}
    by_name = {member.name: member for member in members}
    number = 0
    for disk in _all(root, "Disk"):
        reference = _attribute(disk, "fileRef")
        if reference is None:
            continue  # an empty disk, which is made when the package is deployed
        number += 1
        if number > _DISKS_MAX:
            raise CorruptImageError(f"{descriptor}: expected at most {_DISKS_MAX} disks", name=name)
        file = by_id.get(reference)
        if file is not None and not file.is_whole:
            raise UnsupportedFeatureError(
                f"{file.href}: expected it whole and not compressed", name=name
            )
        if file is None or file.href not in by_name:
            raise CorruptImageError(
                f"{descriptor}: expected the file of disk {reference!r} in the package", name=name
            )
        yield PackagedDisk(number, by_name[file.href], _capacity(disk))


def _capacity(disk: ET.Element) -> int | None:
    """In bytes; ``None`` if it is missing, or a property that is chosen when it is deployed."""
    count = _attribute(disk, "capacity") or ""
    units = _UNITS.fullmatch(_attribute(disk, "capacityAllocationUnits") or "byte")
    if units is None or not _NUMBER.fullmatch(count):
        return None
    capacity = int(count) << int(units.group(1) or 0)
    return capacity if capacity <= DISK_SIZE_MAX else None


def _all(root: ET.Element, name: str) -> Iterator[ET.Element]:
    """All elements of that name, in whichever version's namespace."""
    return (one for one in root.iter() if one.tag.rpartition("}")[2] == name)


def _attribute(element: ET.Element, name: str) -> str | None:
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return None
