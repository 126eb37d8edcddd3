"""Disks in an OVA: a tar archive of an OVF descriptor and the images that it names.

Source: DMTF DSP0243, Open Virtualization Format 1.1, sections 5 (packages) and 7 (references).
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from imprint.core.errors import (
    CorruptImageError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.filters.slice import SliceStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage

_MEMBERS_MAX: Final = 4096
"""Real packages have below 20; an archive of a million empty files should not be walked."""

_DESCRIPTOR_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file in the archive: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def open_disk(storage: Storage, number: int) -> Storage:
    """The image of disk ``number``, counted from 1 in the descriptor's order; owns ``storage``.

    Raises:
        CorruptImageError: if the package contradicts itself.
        UnsupportedFeatureError: if the disk is compressed, or cut into pieces.
        UsageError: if it has no such disk.
    """
    disks = list_disks(storage)
    if not 1 <= number <= len(disks):
        raise UsageError(
            f"has no disk {number}: it has {len(disks)}",
            name=storage.name,
            advice="imprint info FILE.ova#d1 shows the first one",
        )
    found = disks[number - 1]
    return SliceStorage(storage, found.offset, found.size, name=f"{storage.name}#d{number}")


def list_disks(storage: Storage) -> list[Member]:
    """The images of a package, in the order of its descriptor.

    Raises:
        CorruptImageError: if the package contradicts itself.
        UnsupportedFeatureError: if a disk is compressed, or cut into pieces.
    """
    members = {member.name: member for member in _members(storage)}
    descriptor = next((one for one in members.values() if one.name.lower().endswith(".ovf")), None)
    if descriptor is None or descriptor.size > _DESCRIPTOR_BYTES_MAX:
        raise CorruptImageError(
            f"expected a descriptor of at most {_DESCRIPTOR_BYTES_MAX} bytes", name=storage.name
        )
    text = bytearray(descriptor.size)
    storage.readinto(memoryview(text), descriptor.offset)
    try:
        root = ET.fromstring(bytes(text))  # noqa: S314 - expat bounds what entities make
    except ET.ParseError as error:
        raise CorruptImageError(f"{descriptor.name}: {error}", name=storage.name) from error
    files = {_attribute(file, "id"): file for file in _all(root, "File")}
    disks = []
    for disk in _all(root, "Disk"):
        reference = _attribute(disk, "fileRef")
        if reference is None:
            continue  # an empty disk, which is made when the package is deployed
        file = files.get(reference)
        name = None if file is None else _attribute(file, "href")
        if file is None or name is None or name not in members:
            raise CorruptImageError(
                f"{descriptor.name}: expected the file of disk {reference!r} in the package",
                name=storage.name,
            )
        if _attribute(file, "compression") or _attribute(file, "chunkSize"):
            raise UnsupportedFeatureError(
                f"{name}: expected it whole and not compressed", name=storage.name
            )
        disks.append(members[name])
    return disks


def _members(storage: Storage) -> Iterator[Member]:
    try:
        with tarfile.open(fileobj=io.BufferedReader(_File(storage)), mode="r:") as archive:
            for count, info in enumerate(archive):
                if count >= _MEMBERS_MAX:
                    raise CorruptImageError(
                        f"expected at most {_MEMBERS_MAX} files", name=storage.name
                    )
                if info.isreg() and info.sparse is None:
                    yield Member(info.name, info.offset_data, info.size)
    except tarfile.TarError as error:
        raise CorruptImageError(f"expected a tar archive: {error}", name=storage.name) from error


def _all(root: ET.Element, name: str) -> Iterator[ET.Element]:
    """All elements of that name, in whichever version's namespace."""
    return (one for one in root.iter() if one.tag.rpartition("}")[2] == name)


def _attribute(element: ET.Element, name: str) -> str | None:
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return None


class _File(io.RawIOBase):
    """A storage as the kind of file that the standard library reads archives from."""

    def __init__(self, storage: Storage) -> None:
        super().__init__()
        self._storage = storage
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go somewhere, also behind the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._storage.size}
        self._position = max(0, start[whence] + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # any buffer
        """As much as there is."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._storage.size - self._position))
        self._storage.readinto(view[:count], self._position)
        self._position += count
        return count
