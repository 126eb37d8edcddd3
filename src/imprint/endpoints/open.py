"""Opening disks by their address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imprint import formats
from imprint.core.errors import RefusedError, UnsupportedFeatureError, UsageError
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.core.formats import Gapped, SnapshotKeeping
from imprint.core.image import Image
from imprint.core.system import is_file, is_folder
from imprint.endpoints.gate import FolderGate
from imprint.endpoints.location import Location, Where, parse
from imprint.endpoints.packaged import image_format, inside_package, is_package
from imprint.filters.inside import Inside
from imprint.filters.used import UsedOnly
from imprint.filters.window import Window
from imprint.storage.file import FileStorage

_BUNDLE_FILES = ("DiskDescriptor.xml", "file_000.aff")
"""What stands for a folder that is an image: Parallels' bundles, and AFD."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Passphrase, Source, Storage
    from imprint.core.formats import Format, SizePolicy
    from imprint.core.image import WritableImage
    from imprint.endpoints.used import Policy
    from imprint.objects.contract import ObjectStore


@dataclass(frozen=True)
class Access:
    """How sources may be opened.

    Attributes:
        format: of the source; ``None``: found by content. That of a package goes for the file,
            and the disks in it are found by content.
        allowed: folders where parents may live, besides the image's own.
        passphrase: asks for secrets.
        new_passphrase: asks for that of an image that is made; ``None``: as for others.
        key_file: that unlocks a repository, instead of a passphrase.
        open_place: opens the places of repositories; ``None``: with neither credentials nor cache.
        pins: folder that keeps which repositories were encrypted when they were opened last;
            ``None``: nothing does.
        snapshot: name or id of an internal snapshot to read instead of the disk as it is.
        size_policy: which size of an image counts, if its format says it twice; ``None``: the
            format decides. Holds for the parents too.
        used: read only what file systems use, and what may be left out; ``None``: all of it.
        lenient: open the image even if its parent cannot be, for looking at it.
        incomplete: open the image even if files of it are missing: what was in them is bad.
        partial: open a partition although its disk ends before it: what is lacking is bad.
        replay_journal: see file systems with what their journals have, as their mount would.
        on_event: told what is noteworthy.
        cancel: stops what takes long already at opening: a pipe has to be read to its end.
    """

    format: str | None = None
    allowed: tuple[Path, ...] = ()
    passphrase: Passphrase | None = None
    new_passphrase: Passphrase | None = None
    key_file: Path | None = None
    open_place: Callable[[str], ObjectStore] | None = None
    pins: Path | None = None
    snapshot: str | None = None
    size_policy: SizePolicy | None = None
    used: Policy | None = None
    lenient: bool = False
    incomplete: bool = False
    partial: bool = False
    replay_journal: bool = False
    on_event: OnEvent = ignore
    cancel: CancelToken | None = None

    def gate(self) -> FolderGate:
        """A new gate, for one chain."""
        return FolderGate(
            allowed=self.allowed,
            passphrase=self.passphrase,
            on_event=self.on_event,
            lenient=self.lenient,
            size_policy=self.size_policy,
        )

    @property
    def image_format(self) -> str | None:
        """Of the image, which may be in a package; ``None``: found by content.

        Raises:
            UnsupportedFeatureError: if it is in none that can be read.
        """
        return image_format(self.format)

    def driver(self, name: str) -> Format:
        """The format of that name, as these images shall be read."""
        return formats.get_for(name, self.size_policy)

    def tell(self, image: Image) -> None:
        """Say what makes an image not quite what it is taken for; who looks at it sees it."""
        if not self.lenient and self.size_policy is None:
            for warning in image.info().warnings:
                self.on_event(Finding(Severity.WARNING, image.name, warning))


def open_storage(location: Location, cancel: CancelToken | None = None) -> Storage:
    """Where the bytes of a source are, opened for reading only.

    Raises:
        ReadError: if it cannot be opened.
        NetworkError: if a server does not answer, or not as needed.
    """
    if location.where is Where.DEVICE:
        from imprint.storage.device import DeviceStorage  # not needed for files

        return DeviceStorage.open(location.path)
    if location.where is Where.HTTP:
        from imprint.storage.http import HttpStorage  # http.client costs 20 ms

        return HttpStorage.open(location.base)
    if location.where is Where.NBD:
        from imprint.storage.nbd import NbdStorage  # not needed for files

        return NbdStorage.open(location.base)
    if location.where is Where.STREAM:
        from imprint.storage.stream import open_input  # not needed for files

        return open_input(cancel=cancel)
    if location.where is Where.INSIDE:
        raise UsageError("expected an image, found a path inside of one", name=location.text)
    if location.where is Where.REPOSITORY:
        raise UnsupportedFeatureError(
            "expected an image file, found a disk in a repository",
            name=location.text,
            advice="imprint convert makes an image of it",
        )
    path = location.path
    if is_folder(path):
        path = next((path / name for name in _BUNDLE_FILES if is_file(path / name)), path)
    return FileStorage.open(path)


def open_image(address: str, access: Access | None = None) -> Image:
    """Open a whole image for reading; it owns its files and has to be closed.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    access = access or Access()
    location = parse(address)
    if location.partition is not None or location.inner:
        raise UsageError("expected a whole image, found a part of it", name=address)
    return _open_image(location, access)


def open_whole(address: str, access: Access | None = None) -> Image:
    """Open a whole image, or a disk in a repository, which looks like one; it has to be closed.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    access = access or Access()
    location = parse(address)
    if location.where is not Where.REPOSITORY or location.is_part:
        return open_image(address, access)
    from imprint.endpoints.repository import open_as_image  # most are in none

    return open_as_image(location, access)


def open_source(address: str, access: Access | None = None) -> Source:
    """Open a disk, or a partition of it, for reading; it has to be closed.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    access = access or Access()
    location = parse(address)
    return open_part(_open_disk(location, access), location, access)


def open_part(source: Source, location: Location, access: Access) -> Source:
    """What an address means of its disk: a partition, what is used of it; it owns the disk.

    Raises:
        ImagingError: of the kind that says what is wrong; the disk is closed then.
    """
    may_be_cut = access.incomplete or access.partial
    try:
        if location.partition is not None:
            from imprint.endpoints.survey import open_partition  # most name no partition

            source = open_partition(source, location.partition, may_be_cut=may_be_cut)
        if location.inner:
            from imprint.endpoints.inside import open_volume  # most name no volume

            secret = access.gate().passphrase
            source = open_volume(source, location.inner, secret, may_be_cut=may_be_cut)
        if access.used is not None:
            from imprint.endpoints.used import used_only  # only where it is asked for

            source = used_only(source, location, access, access.used)
    except BaseException:
        source.close()
        raise
    return source


def files_of(source: Source) -> Iterator[str]:
    """Names of all files that a disk is read from: those of its image, and of its parents."""
    current: Source | None = source
    while current is not None:
        if isinstance(current, Window | UsedOnly | Inside):
            current = current.source
            continue
        yield current.name
        if not isinstance(current, Image):
            return
        yield from current.info().files
        current = current.parent


def open_editable(address: str, access: Access | None = None) -> WritableImage:
    """Open an image for writing in place.

    Raises:
        RefusedError: if it was only guessed to be raw: a disk's content must not decide
            that its image is overwritten as something else.
        UnsupportedFeatureError: if the format can only be read.
    """
    access = access or Access()
    name, storage = open_editable_storage(address, access)
    try:
        image = access.driver(name).edit(storage, access.gate())
    except BaseException:
        storage.close()
        raise
    access.tell(image)
    return image


def open_editable_storage(address: str, access: Access) -> tuple[str, Storage]:
    """The format and the writable storage of an image that shall be changed in place.

    Raises:
        RefusedError: as for :func:`open_editable`.
    """
    location = parse(address)
    if location.where is not Where.FILE or location.is_part:
        raise UsageError("only image files can be changed in place", name=address)
    storage = FileStorage.open(location.path, writable=True)
    try:
        said = access.image_format
        name = said or formats.detect(storage)
        if name == "raw" and said is None:
            raise RefusedError(
                "is of no known format, and is not changed on the guess that it is raw",
                name=address,
                advice="-f raw says that it is",
            )
        format_ = formats.get(name)
        if not format_.support.edit:
            raise UnsupportedFeatureError(f"{name} images cannot be changed", name=address)
    except BaseException:
        storage.close()
        raise
    return formats.get(name).name, storage


def detect_format(address: str, access: Access) -> tuple[Format, Storage]:
    """The format of a source and its storage, opened for reading.

    Raises:
        ReadError: if it cannot be opened.
        FormatError: if more than one format claims it.
    """
    storage = open_inside(parse(address), access)
    try:
        return access.driver(access.image_format or formats.detect(storage)), storage
    except BaseException:
        storage.close()
        raise


def open_with_storage(location: Location, access: Access) -> tuple[Image, Storage]:
    """A whole image, and the storage that it owns.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    storage = open_inside(location, access)
    return open_stored(storage, access, name=location.base), storage


def open_stored(storage: Storage, access: Access, *, name: str) -> Image:
    """The image that a storage is, which it owns; closed with it, also if it is none.

    Args:
        storage: all of its file.
        access: how it may be opened.
        name: what errors call it.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    try:
        format_ = access.driver(access.image_format or formats.detect(storage))
        if access.snapshot is None:
            if access.incomplete and isinstance(format_, Gapped):
                image = format_.open_incomplete(storage, access.gate())
            else:
                image = format_.open(storage, access.gate())
            access.tell(image)
            return image
        if not isinstance(format_, SnapshotKeeping):
            raise UnsupportedFeatureError(
                f"{format_.name} images have no internal snapshots", name=name
            )
        return format_.open_snapshot(storage, access.gate(), access.snapshot)
    except BaseException:
        storage.close()
        raise


def open_package(address: str, access: Access) -> Storage | None:
    """The package at an address that names no disk of it; ``None`` if there is another thing.

    Raises:
        ReadError: if it cannot be opened.
    """
    location = parse(address)
    is_remote = location.where is Where.HTTP and location.base.lower().endswith(".ova")
    if location.is_part or not (location.where is Where.FILE or is_remote):
        return None
    storage = open_storage(location, access.cancel)
    try:
        if is_package(storage, access.format):
            return storage
    except BaseException:
        storage.close()
        raise
    storage.close()
    return None


def open_inside(location: Location, access: Access | None = None) -> Storage:
    """The file of an image, also where it is in a package, or in the file system of a disk.

    Raises:
        ImagingError: of the kind that says what is wrong with that disk.
        ReadError: if it cannot be opened.
        FormatError: if the package is not sound.
        UsageError: if there is no such disk in it.
    """
    access = access or Access()
    if location.inside is not None:
        from imprint.endpoints.browsing import open_content  # most are files by themselves

        return open_content(location, access)
    storage = open_storage(location, access.cancel)
    try:
        return inside_package(storage, location.disk, format_name=access.format, name=location.text)
    except BaseException:
        storage.close()
        raise


def _open_disk(location: Location, access: Access) -> Source:
    """The whole disk that an address means, without its fragment."""
    if location.where is Where.REPOSITORY:
        from imprint.endpoints.repository import open_snapshot  # most are in none

        return open_snapshot(location, access)
    return _open_image(location, access)


def _open_image(location: Location, access: Access) -> Image:
    return open_with_storage(location, access)[0]
