"""Files in FAT images changed without mounting them, and new FAT file systems."""

from __future__ import annotations

import contextlib
import stat
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint import formats
from imprint.core.errors import (
    NotFoundError,
    ReadError,
    RefusedError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.system import reason_of
from imprint.endpoints.images import check_size
from imprint.endpoints.location import Location, Where, parse
from imprint.endpoints.open import detect_format, open_editable
from imprint.endpoints.survey import describe, open_partition
from imprint.endpoints.target import TargetRequest, create_target
from imprint.filesystems.fat.editor import FatEditor
from imprint.filesystems.fat.making import Shape, make, shape_of
from imprint.filesystems.identify import identify
from imprint.filters.window import EditableWindow
from imprint.storage.file import FileStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from imprint.core.contracts import Target
    from imprint.core.image import WritableImage
    from imprint.endpoints.open import Access

_KIND: Final = "vfat"
_DEPTH_MAX: Final = 128
_LOOKED_AT: Final = 1 << 20


class Put(NamedTuple):
    """What was put into an image.

    Attributes:
        files: how many.
        folders: how many were made.
        size: of the files, in bytes.
        skipped: files of this machine that are none, such as devices and links to folders.
    """

    files: int
    folders: int
    size: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class MadeFat:
    """A new file system.

    Attributes:
        bits: of an entry of its FAT: 12, 16 or 32.
        size: in bytes.
        cluster_size: in bytes.
        serial: its number.
    """

    bits: int
    size: int
    cluster_size: int
    serial: int


@dataclass
class _Putting:
    """Counts what was put."""

    files: int = 0
    folders: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self.skipped: list[str] = []


@contextlib.contextmanager
def opened(address: str, access: Access) -> Iterator[tuple[FatEditor, str]]:
    """The file system of an address that leads into one, for changes, and the path in it.

    Raises:
        UsageError: if it leads into none, or into what cannot be changed in place.
        UnsupportedFeatureError: if that is not FAT.
        CorruptImageError: if it has to be checked first.
        TargetBusyError: if another program uses the image.
    """
    location = parse(address)
    if location.inside is None:
        raise UsageError("expected IMAGE:/PATH, found no path", name=address)
    with _volume(location.outermost, access) as volume:
        found = identify(volume)
        if found is None or found.kind != _KIND:
            kind = "nothing that is known" if found is None else found.kind
            raise UnsupportedFeatureError(
                f"holds {kind}: files can be changed in FAT only", name=location.base
            )
        editor = FatEditor(volume)
        try:
            yield editor, location.inside
        finally:
            editor.close()


def put(
    files: Sequence[Path], address: str, access: Access, *, recursive: bool, force: bool
) -> Put:
    """Copy files of this machine into an image: into a folder, or one file under a new name.

    Args:
        files: what to copy; links are followed, but in folders only those to files.
        address: where to, as ``IMAGE:/PATH``.
        access: how the image is opened.
        recursive: copy folders, with all that is in them.
        force: replace files that are there.

    Raises:
        ReadError: if a file cannot be read.
        RefusedError: if something has its name already.
        TargetTooSmallError: if there is no room.
        UsageError: if several files shall become one, or a folder is not asked for.
    """
    done = _Putting()
    with opened(address, access) as (editor, path):
        into = editor.is_folder(path)
        if into is None and path.endswith("/"):
            raise NotFoundError("no such folder", name=address)
        if not into and len(files) > 1:
            raise UsageError("expected a folder for several files", name=address)
        for file in files:
            if file.is_dir() and not recursive:
                raise UsageError("is a folder", name=str(file), advice="-r copies it")
            name = file.name or file.resolve().name
            place = f"{path.rstrip('/')}/{name}" if into else path
            _put(editor, file, place, done, force=force)
    return Put(done.files, done.folders, done.size, tuple(done.skipped))


def make_fat(
    address: str,
    access: Access,
    request: TargetRequest,
    *,
    size: int | None,
    bits: int | None,
    label: str,
    serial: int | None,
) -> MadeFat:
    """Make an empty FAT file system: in a new image, or in one that exists.

    Args:
        address: of the image, or of a partition in it.
        access: how an image that exists is opened.
        request: what to make if there is none; its ``force`` also lets what is in an image go.
        size: of a new image, in bytes; ``None``: the image exists.
        bits: 12, 16 or 32; ``None``: what is usual for the size.
        label: of the file system; empty: none.
        serial: its number; ``None``: of the time.

    Raises:
        RefusedError: if the image has content, and ``force`` is not set.
        UsageError: if there is no such file system of that size.
    """
    seconds = time.time() if request.time_s is None else float(request.time_s)
    number = int(seconds * 1000) & 0xFFFFFFFF if serial is None else serial

    def made(shape: Shape) -> MadeFat:
        return MadeFat(shape.bits, shape.sectors * 512, shape.cluster_sectors * 512, number)

    if size is not None:
        check_size(size)
        shape = shape_of(size, bits)
        target = create_target(request, request.spec(size, access, None))
        try:
            make(_New(target), shape, label=label, serial=number, hidden=0, seconds=seconds)
            target.commit()
        except BaseException:
            target.abort()
            raise
        return made(shape)
    with _volume(parse(address), access) as volume:
        if not request.force:
            _check_empty(volume)
        shape = shape_of(volume.size, bits)
        hidden = volume.start // 512
        make(volume, shape, label=label, serial=number, hidden=hidden, seconds=seconds)
    return made(shape)


class _New:
    """A target that shows nothing before it is committed, so that no order counts."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def write(self, data: memoryview, offset: int) -> None:
        self._target.write(data, offset)

    def flush(self) -> None:
        pass


@contextlib.contextmanager
def _volume(location: Location, access: Access) -> Iterator[EditableWindow]:
    """A disk in an image file, or a partition of it, for changes in place."""
    if location.where is not Where.FILE or location.disk is not None or location.inner:
        raise UsageError(
            "only image files, and partitions in them, can be changed", name=location.text
        )
    with contextlib.closing(_editable(location, access)) as image:
        start, length = 0, image.size
        if location.partition is not None:
            part = open_partition(image, location.partition)
            start, length = part.start, part.size
        yield EditableWindow(image, start, length, name=location.text)
        image.flush()


def _editable(location: Location, access: Access) -> WritableImage:
    """The image; what is taken for raw has a file system or a table of its own."""
    if access.format is None:
        format_, storage = detect_format(location.base, access)
        with contextlib.closing(storage):
            survey = describe(storage) if format_.name == formats.get("raw").name else None
        if survey is not None and (survey.filesystem or survey.table):
            access = replace(access, format="raw")
    return open_editable(location.base, access)


def _check_empty(volume: EditableWindow) -> None:
    survey = describe(volume)
    held = survey.filesystem.kind if survey.filesystem else survey.table and survey.table.kind
    if held is None:
        head = bytearray(min(_LOOKED_AT, volume.size))
        volume.readinto(memoryview(head), 0)
        held = "data" if any(head) else None
    if held is not None:
        raise RefusedError(f"holds {held}", name=volume.name, advice="--force overwrites it")


def _put(
    editor: FatEditor, file: Path, path: str, done: _Putting, *, force: bool, depth: int = 0
) -> None:
    if depth and file.is_symlink() and not file.is_file():  # folders may hold themselves
        done.skipped.append(str(file))
        return
    try:
        facts = file.stat()
        inside = sorted(file.iterdir()) if stat.S_ISDIR(facts.st_mode) else None
    except OSError as failure:
        raise ReadError(reason_of(failure), name=str(file)) from failure
    if inside is not None:
        if depth > _DEPTH_MAX:
            raise UsageError("folders are too deep in each other", name=str(file))
        if editor.is_folder(path) is None:
            editor.mkdir(path, facts.st_mtime)
            done.folders += 1
        for item in inside:
            _put(editor, item, f"{path}/{item.name}", done, force=force, depth=depth + 1)
        return
    if not stat.S_ISREG(facts.st_mode):
        done.skipped.append(str(file))
        return
    with contextlib.closing(FileStorage.open(file)) as content:
        editor.put(path, content, facts.st_mtime, may_replace=force)
        done.files += 1
        done.size += content.size
