"""All that can be said of an image without reading its data: what ``info`` shows."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imprint.core.errors import ImagingError, PassphraseError
from imprint.core.image import Image
from imprint.endpoints.gate import Unavailable
from imprint.endpoints.inside import InnerVolume, inner_volumes, open_volume
from imprint.endpoints.location import FORMAT, Where, parse
from imprint.endpoints.open import Access, open_image, open_package, open_with_storage
from imprint.endpoints.survey import Survey, describe, open_partition

if TYPE_CHECKING:
    import os

    from imprint.core.contracts import Source
    from imprint.core.info import ImageInfo
    from imprint.endpoints.appliance.package import PackagedDisk
    from imprint.endpoints.location import Location
    from imprint.repository.snapshots import Snapshot


@dataclass(frozen=True)
class Member:
    """One image of a chain.

    Attributes:
        name: its path; if it cannot be opened, as its child names it.
        format: its name, or ``None`` if it cannot be opened.
        size: of its disk, in bytes, or ``None``.
        problem: why it cannot be opened.
    """

    name: str
    format: str | None = None
    size: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class DiskFacts:
    """One image of a package.

    Attributes:
        number: by which an address names it, from 1.
        name: of its file in the package.
        stored_size: of that file, in bytes.
        format: its name, or ``None`` if it cannot be opened.
        size: of its disk, in bytes, or ``None``.
        problem: why it cannot be opened.
    """

    number: int
    name: str
    stored_size: int
    format: str | None = None
    size: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Description:
    """An image, its parents, and what is on its disk.

    Attributes:
        info: of the image.
        size: of the disk, or of the partition that the address names, in bytes.
        survey: what is on the disk; ``None`` if it needs a passphrase that is not there.
        volumes: in containers on the disk: logical volumes, arrays, encrypted ones.
        file_size: how long the image's files are together, in bytes.
        stored_size: what they take up, in bytes; a sparse file takes up less than it is long. Of
            a snapshot, what it has added to its repository.
        chain: the image, its parent, and so on.
        disks: all those of the package, if the address is one: the image is the first of them.
        snapshot: of which the disk is, if it is in a repository.
    """

    info: ImageInfo
    size: int
    survey: Survey | None
    volumes: tuple[InnerVolume, ...]
    file_size: int
    stored_size: int
    chain: tuple[Member, ...]
    disks: tuple[DiskFacts, ...] = ()
    snapshot: Snapshot | None = None

    @property
    def problem(self) -> str | None:
        """Why the chain is not whole, if it is not."""
        return self.chain[-1].problem


def describe_image(address: str, access: Access) -> Description:
    """Describe an image, even if its parent is missing or must not be opened.

    Raises:
        ImagingError: if the image itself cannot be opened.
    """
    location = parse(address)
    if location.where is Where.REPOSITORY:
        return _describe_snapshot(location, access)
    whole = replace(location, partition=None, inner=())
    image, storage = open_with_storage(whole, replace(access, lenient=True))
    with closing(image):
        info = image.info()
        others = [facts for name in info.files if (facts := _facts_of(name)) is not None]
        return Description(
            info,
            *_content(image, location, access),
            file_size=storage.size + sum(facts.st_size for facts in others),
            stored_size=storage.stored_size + sum(facts.st_blocks * 512 for facts in others),
            chain=chain_of(image),
            disks=disks_of(address, access),
        )


def _facts_of(name: str) -> os.stat_result | None:
    """What the system knows of another file of the image; ``None``: it is nowhere here."""
    try:
        return Path(name).stat()
    except (OSError, ValueError):
        return None


def _describe_snapshot(location: Location, access: Access) -> Description:
    """Of a disk in a repository, which was not put together by anybody and has no file."""
    from imprint.endpoints.repository import image_info, open_selected  # most are in none

    repository, snapshot = open_selected(location, access)
    with repository.source(snapshot, on_close=repository.close) as disk:
        stored = snapshot.manifest.stored
        return Description(
            image_info(repository, snapshot),
            *_content(disk, location, access),
            file_size=stored,
            stored_size=stored,
            chain=(Member(disk.name, FORMAT, disk.size),),
            snapshot=snapshot,
        )


def _content(
    disk: Source, location: Location, access: Access
) -> tuple[int, Survey | None, tuple[InnerVolume, ...]]:
    """Size of what an address means on a disk, what is on it, and the volumes in containers."""
    size = disk.size
    survey: Survey | None = None
    volumes: list[InnerVolume] = []
    try:
        if location.partition is not None:
            disk = open_partition(disk, location.partition, may_be_cut=True)
            size = disk.size
        if location.inner:
            secret = access.gate().passphrase
            disk = open_volume(disk, location.inner, secret, may_be_cut=True)
            size = disk.size
        survey = describe(disk)
        volumes, findings = inner_volumes(disk, survey)
        survey = replace(survey, findings=(*survey.findings, *findings))
    except PassphraseError:
        if location.inner:
            raise
        # else that it is encrypted is said already
    return size, survey, tuple(volumes)


def disks_of(address: str, access: Access) -> tuple[DiskFacts, ...]:
    """The images of a package; none for an address of something else.

    Raises:
        ImagingError: if it is a package that is not sound.
    """
    storage = open_package(address, access)
    if storage is None:
        return ()
    from imprint.endpoints.appliance import package  # only for packages

    with closing(storage):
        disks = package.read(storage).disks
    return tuple(_disk_facts(address, disk, access) for disk in disks)


def _disk_facts(address: str, disk: PackagedDisk, access: Access) -> DiskFacts:
    facts = DiskFacts(disk.number, disk.member.name, disk.member.size)
    try:
        with closing(open_image(f"{address}#d{disk.number}", access)) as image:
            return replace(facts, format=image.info().format, size=image.size)
    except ImagingError as error:
        return replace(facts, problem=str(error.args[0]))


def chain_of(image: Image) -> tuple[Member, ...]:
    """The image, its parent, and so on, as far as they can be opened."""
    members: list[Member] = []
    current: Source | None = image
    while current is not None:
        if isinstance(current, Image):
            members.append(Member(current.name, current.info().format, current.size))
            current = current.parent
            continue
        problem = str(current.error) if isinstance(current, Unavailable) else None
        members.append(Member(current.name, problem=problem))
        break
    return tuple(members)
