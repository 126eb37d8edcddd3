"""Which files lie on parts of a disk that could not be read, and which ranges of them.

Names need pytsk3 (the Sleuth Kit), the extra ``browse``. Without it, and for file systems that it
does not know, the ranges are told of files without names, as far as our own drivers find them.

Source: pytsk3, https://github.com/py4n6/pytsk; its classes have the names of the Sleuth Kit's.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imprint.core.contracts import Salvage
from imprint.core.errors import FormatError, ImagingError, ReadError
from imprint.core.events import ignore
from imprint.core.extent import Kind
from imprint.core.runs import Runs
from imprint.endpoints.survey import describe
from imprint.endpoints.used import Volume, VolumeTree
from imprint.filesystems.files import Locating
from imprint.filesystems.table import allocator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Passphrase, Source

_DEPTH_MAX: Final = 256
_ENTRIES_MAX: Final = 20_000_000


class Damage(NamedTuple):
    """A range of a file that was not read.

    Attributes:
        where: the volume: ``partition 2``.
        path: of the file, from the volume's root; ``None``: not known.
        inode: its number; ``None``: not known.
        position: of the range in the file, in bytes.
        length: in bytes.
    """

    where: str
    path: str | None
    inode: int | None
    position: int
    length: int


def lacking(source: Source) -> Runs:
    """What of a disk could not be read, or was not tried, when its image was made."""
    if isinstance(source, Salvage):
        return Runs.of((extent.offset, extent.length) for extent in source.bad_extents())
    extents = source.extents(0, source.size)
    return Runs.of((item.offset, item.length) for item in extents if item.kind is Kind.BAD)


def damaged_files(source: Source, missing: Runs, *, passphrase: Passphrase) -> Iterator[Damage]:
    """Ranges of files that lie on ``missing``, which is in bytes of the disk.

    Args:
        source: the disk; what is missing reads as zeros.
        missing: what could not be read.
        passphrase: asks for the secrets of encrypted volumes.

    Raises:
        ReadError: if the disk itself cannot be read.
    """
    tree = VolumeTree(source, describe(source), passphrase, ignore)
    for volume in tree.volumes():
        inside = Runs.union(
            missing.clip(span.disk, span.disk + span.end - span.start).shifted(
                span.start - span.disk
            )
            for span in volume.spans
        )
        if len(inside) and volume.kind is not None:
            yield from _in_volume(volume, inside)


def _in_volume(volume: Volume, missing: Runs) -> Iterator[Damage]:
    named = _open_named(volume.source)
    if named is not None:
        yield from _named(volume, named, missing)
        return
    file_system = None if volume.kind is None else allocator(volume.kind)
    if isinstance(file_system, Locating):
        # What is missing may be what tells where files are: some are found all the same.
        with contextlib.suppress(FormatError, ReadError):
            for position, offset, length in file_system.file_runs(volume.source):
                for start, size in missing.clip(offset, offset + length):
                    yield Damage(volume.where, None, None, position + start - offset, size)


def _open_named(source: Source) -> Any | None:  # noqa: ANN401 - pytsk3 has no types
    """The file system as pytsk3 sees it; ``None`` without pytsk3, or if it does not know it."""
    try:
        pytsk3 = importlib.import_module("pytsk3")
    except ImportError:
        return None

    class _Disk(pytsk3.Img_Info):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

        def read(self, offset: int, size: int) -> bytes:
            data = bytearray(max(0, min(size, source.size - offset)))
            try:
                source.readinto(memoryview(data), offset)
            except ImagingError as error:
                raise OSError(str(error)) from error
            return bytes(data)

        def get_size(self) -> int:
            return source.size

    try:
        return pytsk3.FS_Info(_Disk())
    except OSError:
        return None


def _named(volume: Volume, named: Any, missing: Runs) -> Iterator[Damage]:  # noqa: ANN401
    """Walk all folders, each once."""
    unit = int(named.info.block_size)
    seen: set[int] = set()
    folders: list[tuple[int, str, int]] = [(int(named.info.root_inum), "", 0)]
    count = 0
    while folders:
        inode, path, depth = folders.pop()
        if inode in seen or depth > _DEPTH_MAX:
            continue
        seen.add(inode)
        try:
            entries = list(named.open_dir(inode=inode))
        except OSError:
            continue
        for entry in entries:
            count += 1
            if count > _ENTRIES_MAX:
                return
            found = _entry(entry)
            if found is None:
                continue
            name, number, is_folder = found
            if is_folder:
                folders.append((number, f"{path}/{name}", depth + 1))
            for position, length in _hit(entry, unit, missing):
                yield Damage(volume.where, f"{path}/{name}", number, position, length)


def _entry(entry: Any) -> tuple[str, int, bool] | None:  # noqa: ANN401
    """Name, inode, and whether it is a folder; ``None`` for what is deleted, or no file."""
    meta, name = entry.info.meta, entry.info.name
    if meta is None or name is None or name.name in (b".", b".."):
        return None
    if not int(meta.flags) & _ALLOCATED:
        return None
    return name.name.decode(errors="replace"), int(meta.addr), int(meta.type) == _FOLDER


_ALLOCATED: Final = 0x01  # TSK_FS_META_FLAG_ALLOC
_FOLDER: Final = 0x02  # TSK_FS_META_TYPE_DIR
_NOT_STORED: Final = 0x03  # TSK_FS_ATTR_RUN_FLAG_FILLER, ..._SPARSE


def _hit(entry: Any, unit: int, missing: Runs) -> Iterator[tuple[int, int]]:  # noqa: ANN401
    """Ranges of a file's content that are missing."""
    try:
        size = int(entry.info.meta.size)
        for attribute in entry:
            for run in attribute:
                if int(run.flags) & _NOT_STORED:
                    continue
                start = int(run.addr) * unit
                for at, length in missing.clip(start, start + int(run.len) * unit):
                    position = int(run.offset) * unit + at - start
                    if position < size:
                        yield position, min(length, size - position)
    except OSError:
        return
