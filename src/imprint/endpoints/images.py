"""What is done with one image file: make it, change its size, predict it, check it."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.core.buffers import fill_zero
from imprint.core.contracts import Reference, Traits
from imprint.core.errors import (
    CorruptImageError,
    RefusedError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import Finding, Severity
from imprint.core.extent import Extent, Kind
from imprint.core.formats import Checkable, CreateSpec, SnapshotKeeping, parse_options
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.system import exists
from imprint.core.units import format_size
from imprint.endpoints.appliance import kinds
from imprint.endpoints.location import Where, parse
from imprint.endpoints.open import (
    Access,
    detect_format,
    open_editable,
    open_editable_storage,
    open_image,
    open_package,
    open_source,
)
from imprint.endpoints.target import (
    TargetRequest,
    check_not_source,
    create_target,
    stored_size,
)
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imprint.core.contracts import Source, Storage
    from imprint.core.formats import Format, Measure
    from imprint.core.info import SnapshotInfo

_CHECK_SUFFIX: Final = "images have no structures that could be checked"


@dataclass(frozen=True)
class Created:
    """A new image.

    Attributes:
        format: its name.
        size: of the disk, in bytes: what was asked for, in units that the format has.
        stored_size: of its files, in bytes.
        parent: as written into it.
    """

    format: str
    size: int
    stored_size: int
    parent: Reference | None = None


@dataclass(frozen=True)
class Resized:
    """An image whose size was changed. All in bytes.

    Attributes:
        old_size: of the disk before.
        size: of the disk now.
        cut: data that was stored behind the new end.
    """

    old_size: int
    size: int
    cut: int = 0


def create(
    request: TargetRequest,
    size: int | None,
    access: Access,
    *,
    parent: str | None = None,
    parent_format: str | None = None,
) -> Created:
    """Make an empty image, or an overlay over ``parent``.

    Args:
        request: what to make.
        size: of the disk, in bytes; ``None``: that of the parent.
        access: how the parent's own parents may be opened.
        parent: path of an image; a relative one is looked for in the current folder, then
            in the new image's.
        parent_format: its format; ``None``: found by content. It is recorded either way.

    Raises:
        UsageError: if there is neither a size nor a parent, or the options make no sense.
        RefusedError: if the file exists and may not be replaced.
    """
    format_ = request.chosen_format()
    reference = None
    sources: tuple[str, ...] = ()
    if parent is not None:
        if not format_.support.parent:
            raise UnsupportedFeatureError(f"{format_.name} images cannot have a parent")
        path = find_parent(parent, request.location.path)
        sources = (str(path),)
        check_not_source(request, sources)
        reference = reference_to(path, parent, request.location.path, parent_format)
        tell_if_elsewhere(path, request.location.path, access)
    if size is None:
        if reference is None:
            raise UsageError("expected a size, or --parent with an image that has one")
        size = _size_of(path, reference, access)
    check_size(size)
    spec = request.spec(size, access, reference, sources=sources)
    try:
        target = create_target(request, spec)
        made = target.size
        target.commit()
    finally:
        if spec.parent_source is not None:
            spec.parent_source.close()
    return Created(format_.name, made, stored_size(request.location.path, spec), reference)


def find_parent(name: str, image: Path) -> Path:
    """The file that the user means by ``name``: here, or beside ``image``.

    Raises:
        UsageError: if it can be no file.
    """
    if exists(path := Path(name)):
        return path
    if parse(name).where not in (Where.FILE, Where.INSIDE):  # the latter: a colon in its name
        raise UsageError("expected a file as parent", name=name)
    return image.parent / name


def reference_to(path: Path, name: str, image: Path, format_name: str | None) -> Reference:
    """How ``image`` shall name its parent ``path``, which the user wrote as ``name``.

    Absolute stays absolute; else relative to the image's folder, so that both can move.

    Raises:
        ReadError: if the parent cannot be read.
        UsageError: if ``format_name`` is no format.
    """
    if format_name is None:
        format_, storage = detect_format(str(path), Access())
        storage.close()
        format_name = format_.name
    format_name = formats.get(format_name).name
    if Path(name).is_absolute():
        return Reference(name, format_name)
    # Only the folders are resolved: a parent that is a link stays the name of a link.
    whole = path.parent.resolve() / path.name
    relative = os.path.relpath(whole, image.parent.resolve())
    # With a colon in its first part it would be taken for a URL, by QEMU too.
    prefix = "./" if ":" in relative.partition("/")[0] else ""
    return Reference(prefix + relative, format_name)


def tell_if_elsewhere(parent: Path, image: Path, access: Access) -> None:
    """Say what reading an image takes whose parent is not in its own folder."""
    folder = parent.resolve().parent
    if folder != image.resolve().parent:
        what = f"its parent is in another folder: reading it takes --allow-parent {folder}"
        access.on_event(Finding(Severity.INFO, str(image), what))


def check_size(size: int) -> None:
    """Refuse what no offset can reach.

    Raises:
        UsageError: if it is above the limit.
    """
    if size > DISK_SIZE_MAX:
        limit = format_size(DISK_SIZE_MAX)
        raise UsageError(f"expected a disk of at most {limit}, found {format_size(size)}")


def resize(
    address: str, size: int, access: Access, *, relative: bool = False, shrink: bool = False
) -> Resized:
    """Change the size of an image's disk in place; what is new reads as zeros.

    Args:
        address: of the image file.
        size: in bytes.
        access: how it may be opened.
        relative: ``size`` is added to the present one.
        shrink: it may become smaller, whatever is stored there.

    Raises:
        RefusedError: if it would become smaller without ``shrink``.
        UsageError: if the size makes no sense.
    """
    image = open_editable(address, access)
    with closing(image):
        old = image.size
        new = old + size if relative else size
        if new < 0:
            raise UsageError(f"expected a size of at least 0, found {new}", name=address)
        check_size(new)
        cut = 0
        if new < old:
            cut = _data_in(image, new, old - new)
            if not shrink:
                loss = f"{format_size(cut)} of data there" if cut else "no data there"
                raise RefusedError(
                    f"would be cut from {old} to {new} bytes, with {loss}",
                    name=address,
                    advice="--shrink says that this is meant",
                )
        if new != old:
            image.resize(new)
        return Resized(old, image.size, cut)


def measure(
    source: str | None,
    size: int,
    format_name: str,
    options: Mapping[str, str],
    access: Access,
) -> tuple[int, Measure]:
    """Predict what a disk takes up in a format: its size, and the prediction.

    Args:
        source: address of the disk; ``None``: an empty one of ``size`` bytes.
        size: counts only without ``source``.
        format_name: of the image.
        options: for its making, as text.
        access: how the source may be opened.

    Raises:
        UnsupportedFeatureError: if the format cannot be written.
        UsageError: if the options make no sense.
    """
    if kinds.by_name(format_name) is not None:
        raise UnsupportedFeatureError(f"{format_name}: the size of packages is not predicted")
    format_ = formats.get(format_name)
    if not format_.support.write:
        raise UnsupportedFeatureError(f"{format_.name} images cannot be written")
    check_size(size)
    disk = _Empty(size) if source is None else open_source(source, access)
    with closing(disk):
        is_used = source is not None and access.used is not None
        values = parse_options(format_.name, format_.options, options, used_only=is_used)
        spec = CreateSpec(disk.size, access.gate(), values)
        return disk.size, format_.measure(disk, spec)


def check(address: str, access: Access, *, repair: bool) -> Iterator[Finding]:
    """Compare an image's structures with each other; what is wrong, as it is found.

    Damage that stops the check is its last finding.

    Raises:
        UnsupportedFeatureError: if there is nothing to check, or ``repair`` is not possible.
        FormatError: if it is no image of the format at all.
    """
    package = None if repair else open_package(address, access)
    if package is not None:
        from imprint.endpoints.appliance import checking  # only for packages

        with closing(package):
            yield from checking.check(address, package, access)
        return
    if repair:
        name, storage = open_editable_storage(address, access)
        format_ = access.driver(name)
    else:
        format_, storage = detect_format(address, access)
    with closing(storage):
        if not isinstance(format_, Checkable):
            raise UnsupportedFeatureError(f"{format_.name} {_CHECK_SUFFIX}", name=address)
        if repair and not format_.support.repair:
            raise UnsupportedFeatureError(f"{format_.name} images cannot be repaired", name=address)
        try:
            yield from format_.check(storage, access.gate(), repair=repair)
        except CorruptImageError as error:
            yield Finding(Severity.ERROR, error.name or address, str(error.args[0]))


def list_snapshots(address: str, access: Access) -> tuple[SnapshotInfo, ...]:
    """Internal snapshots, oldest first.

    Raises:
        UnsupportedFeatureError: if the format has none.
    """
    format_, storage = detect_format(address, access)
    try:
        _snapshots(format_, address)
        image = format_.open(storage, access.gate())
    except BaseException:
        storage.close()
        raise
    with closing(image):
        return image.info().snapshots


def create_snapshot(address: str, name: str, access: Access) -> SnapshotInfo:
    """Keep the disk as it is now.

    Raises:
        UnsupportedFeatureError: if the format has no snapshots.
    """
    keeper, storage = _open_keeper(address, access)
    with closing(storage):
        return keeper.create_snapshot(storage, access.gate(), name)


def apply_snapshot(address: str, key: str, access: Access) -> None:
    """Go back to a snapshot, by name or id: the disk's present content is lost.

    Raises:
        UnsupportedFeatureError: if the format has no snapshots.
    """
    keeper, storage = _open_keeper(address, access)
    with closing(storage):
        keeper.apply_snapshot(storage, access.gate(), key)


def delete_snapshot(address: str, key: str, access: Access) -> None:
    """Forget a snapshot, by name or id.

    Raises:
        UnsupportedFeatureError: if the format has no snapshots.
    """
    keeper, storage = _open_keeper(address, access)
    with closing(storage):
        keeper.delete_snapshot(storage, access.gate(), key)


class _Empty:
    """A disk without content, to be measured."""

    def __init__(self, size: int) -> None:
        self.name = "an empty disk"
        self.size = size
        self.traits = Traits()

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Zeros."""
        fill_zero(buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """One hole."""
        if length:
            yield Extent(offset, length, Kind.HOLE)

    def close(self) -> None:
        """Nothing is open."""


def _open_keeper(address: str, access: Access) -> tuple[SnapshotKeeping, Storage]:
    name, storage = open_editable_storage(address, access)
    try:
        return _snapshots(formats.get(name), address), storage
    except BaseException:
        storage.close()
        raise


def _snapshots(format_: Format, address: str) -> SnapshotKeeping:
    if not isinstance(format_, SnapshotKeeping):
        raise UnsupportedFeatureError(
            f"{format_.name} images have no internal snapshots", name=address
        )
    return format_


def _size_of(path: Path, reference: Reference, access: Access) -> int:
    parent_access = Access(
        format=reference.format,
        allowed=access.allowed,
        passphrase=access.passphrase,
        size_policy=access.size_policy,
    )
    with closing(open_image(str(path), parent_access)) as image:
        return image.size


def _data_in(source: Source, offset: int, length: int) -> int:
    return sum(
        extent.length for extent in source.extents(offset, length) if extent.kind in HAS_BYTES
    )
