"""Repositories by their address: opening and making them, and opening a disk that is in one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.errors import PassphraseError, RefusedError, RepositoryError, UsageError
from imprint.core.events import Finding, OnEvent, Severity
from imprint.core.extent import Extent, Kind
from imprint.core.image import Image
from imprint.core.info import ImageInfo
from imprint.core.system import is_file
from imprint.endpoints.location import FORMAT
from imprint.endpoints.pins import Pin
from imprint.objects.contract import MissingObjectError
from imprint.repository.envelope import What, unwrap
from imprint.repository.format import NAME as FORMAT_OBJECT
from imprint.repository.key_files import read_secret_file
from imprint.repository.key_objects import Origin
from imprint.repository.repository import SIGNATURES, OnDamaged, Repository
from imprint.repository.signing import Verdict, verify

if TYPE_CHECKING:
    from collections.abc import Collection

    from imprint.core.contracts import Passphrase
    from imprint.endpoints.location import Location
    from imprint.endpoints.open import Access
    from imprint.objects.contract import ObjectStore
    from imprint.repository.signing import TrustedKey
    from imprint.repository.snapshots import Snapshot
    from imprint.repository.source import SnapshotSource

_ALLOWED: Final = frozenset({".partial", "keys", "lost+found"})
"""In a folder that shall become a repository: what an attempt that was killed may have left."""


def open_store(place: str, access: Access) -> ObjectStore:
    """The place of a repository.

    Raises:
        UsageError: if it is none that can be opened.
        UnsupportedFeatureError: if what opens it is not installed.
    """
    if is_file(Path(place)):
        from imprint.endpoints.bundles import open_bundle  # most are folders

        return open_bundle(Path(place))
    if access.open_place is not None:
        return access.open_place(place)
    from imprint.endpoints.places import open_place  # most give their own

    return open_place(place, environment={})


def open_repository(place: str, access: Access) -> Repository:
    """Open the repository in a place; it has to be closed.

    Raises:
        RepositoryError: if there is none, or a damaged one, or one that was encrypted before.
        PassphraseError: if it is encrypted, and the secret is missing or wrong; if it is not,
            and there is a key file.
    """
    store = open_store(place, access)
    try:
        repository = Repository.open(store, secret_of(access))
        if access.key_file is not None and not repository.protection.is_encrypted:
            # Somebody may have put another one in its place, to be told what was secret.
            raise PassphraseError("is not encrypted: expected a key to open it", name=store.name)
        if access.pins is not None:
            pin = Pin(access.pins, place)
            pin.check(repository.format.id, is_encrypted=repository.protection.is_encrypted)
    except BaseException:
        store.close()
        raise
    return repository


def make_repository(
    place: str, access: Access, *, is_encrypted: bool, level: int, parity: int
) -> Repository:
    """Make an empty repository; it has to be closed.

    Raises:
        RefusedError: if there is one already, or something else.
        PassphraseError: if it shall be encrypted, and there is no secret.
    """
    _check_empty(Path(place))
    store = open_store(place, access)
    try:
        secret = secret_of(access)(store.name) if is_encrypted else None
        origin = Origin.PASSPHRASE if access.key_file is None else Origin.FILE
        made = Repository.create(store, secret=secret, origin=origin, level=level, parity=parity)
        if access.pins is not None:
            pin = Pin(access.pins, place)
            pin.remove()  # of one that was here before
            pin.check(made.format.id, is_encrypted=is_encrypted)
    except BaseException:
        store.close()
        raise
    return made


def _check_empty(folder: Path) -> None:
    """Refuse a folder that is used for something else already."""
    if is_file(folder):
        raise RefusedError("is a file", name=str(folder))
    present: set[str] = set()
    with contextlib.suppress(OSError):  # which the store says better
        present.update(item.name for item in folder.iterdir())
    if present - _ALLOWED:
        what = "holds a repository already" if FORMAT_OBJECT in present else "is not empty"
        raise RefusedError(what, name=str(folder))


def secret_of(access: Access) -> Passphrase:
    """What asks for the secret of a repository: a key file is one, and nobody is asked."""
    path = access.key_file
    if path is None:
        return access.gate().passphrase

    def read(name: str) -> bytes:
        del name
        return read_secret_file(path)

    return read


def image_info(repository: Repository, snapshot: Snapshot) -> ImageInfo:
    """What is known of a disk in a repository, in the words for images."""
    manifest, encryption = snapshot.manifest, repository.format.encryption
    return ImageInfo(
        FORMAT,
        manifest.size,
        parent=manifest.parent,
        parent_format=None if manifest.parent is None else FORMAT,
        encryption=None if encryption is None else encryption.cipher,
        hashes={**manifest.hashes, "merkle": manifest.root},
        notes=manifest.notes,
    )


def signatures(
    repository: Repository, snapshot: Snapshot, trusted: Collection[TrustedKey]
) -> Verdict:
    """Who has signed a snapshot.

    Raises:
        RepositoryError: if its signature is damaged.
    """
    where = SIGNATURES + snapshot.name
    try:
        data = repository.store.get(where)
    except MissingObjectError:
        return Verdict()
    content = unwrap(data, What.SIGNATURE, repository.protection, name=where)
    return verify(content, bytes.fromhex(snapshot.name), trusted)


def open_snapshot(location: Location, access: Access) -> SnapshotSource:
    """The disk that an address means; closing it closes the repository.

    Raises:
        ImagingError: as :func:`open_selected`.
    """
    repository, snapshot = open_selected(location, access)
    return repository.source(snapshot, on_close=repository.close)


class _Nothing:
    """A layer that has nothing of its own: an image of it shows the disk that is its parent."""

    def __init__(self, disk: SnapshotSource, info: ImageInfo) -> None:
        self.size = disk.size
        self.traits = disk.traits
        self._info = info

    def map(self, offset: int, length: int) -> Extent:
        """A hole, wherever."""
        return Extent(offset, length, Kind.HOLE)

    def unit(self, offset: int) -> Extent:
        """Nothing is encoded."""
        raise AssertionError(offset)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Nothing is encoded."""
        raise AssertionError(unit, buffer)

    def info(self) -> ImageInfo:
        """Of the snapshot."""
        return self._info

    def close(self) -> None:
        """Nothing to close."""


def open_as_image(location: Location, access: Access) -> Image:
    """The disk that an address means, as an image; closing it closes the repository.

    Raises:
        ImagingError: as :func:`open_selected`.
    """
    repository, snapshot = open_selected(location, access)
    disk = repository.source(snapshot, on_close=repository.close)
    layer = _Nothing(disk, image_info(repository, snapshot))
    return Image(layer, name=disk.name, parent=disk)


def teller(on_event: OnEvent) -> OnDamaged:
    """Tells of snapshots that cannot be read: they are no reason not to read others."""

    def tell(error: RepositoryError) -> None:
        what = f"{error.args[0]}: it is left out"
        on_event(Finding(Severity.WARNING, error.name or "snapshot", what))

    return tell


def open_selected(location: Location, access: Access) -> tuple[Repository, Snapshot]:
    """The snapshot that an address means, and its repository, which has to be closed.

    Raises:
        RepositoryError: if the repository is missing or damaged.
        UsageError: if it has no such disk, or no such snapshot of it.
    """
    if access.format not in (None, "raw"):
        raise UsageError(
            f"is a disk in a repository, and of no format: found -f {access.format}",
            name=location.text,
        )
    repository = open_repository(location.base, access)
    try:
        selector = location.snapshot or access.snapshot
        return repository, repository.select(location.image, selector, teller(access.on_event))
    except BaseException:
        repository.close()
        raise
