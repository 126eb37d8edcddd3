"""Writing over a disk without touching it: what is written goes into an overlay.

The overlay is a QCOW2 that names the disk as its parent. In a file, it can be kept, used again,
and merged by ``commit``.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.errors import RefusedError, TargetError, UnsupportedFeatureError
from imprint.core.formats import CreateSpec
from imprint.core.image import Image, WritableImage
from imprint.core.system import exists
from imprint.endpoints.gate import FolderGate
from imprint.endpoints.location import Where, parse
from imprint.storage.file import FileStorage
from imprint.storage.pending import PendingFile

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Storage

MEMORY: Final = "memory"
"""Instead of a file's name: what is written is forgotten in the end."""


class _Given(FolderGate):
    """Gives an overlay the disk that is open already, whatever name it knows it by."""

    def __init__(self, source: Source, reference: Reference) -> None:
        super().__init__()
        self._source = source
        self._reference = reference

    def parent(self, reference: Reference, beside: Storage) -> Source:
        """The disk.

        Raises:
            RefusedError: if the overlay was made for another one.
        """
        expected, found = self._reference, reference
        # QEMU's users name a disk from the folder of the overlay.
        folder = Path(beside.name).absolute().parent
        names = (found.name, os.path.normpath(folder / (found.name or "")))
        if expected.name in names and _is_same_format(expected.format, found.format):
            return self._source
        raise RefusedError(
            f"expected an overlay of {expected.name} ({expected.format}), "
            f"found one of {found.name} ({found.format})",
            name=beside.name,
        )


def _is_same_format(one: str | None, other: str | None) -> bool:
    """Whether two names are of one format, as far as an image says which it is."""
    return None in (one, other) or formats.get(one or "").name == formats.get(other or "").name


class _Memory(FileStorage):
    """A file without a name, in memory, of which it may not take all."""

    def __init__(self, fd: int) -> None:
        super().__init__(Path(MEMORY), fd, is_writable=True)
        self._room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``, as long as there is room."""
        if offset + len(data) > self._room:
            full = OSError(errno.ENOSPC, "half of the memory is taken")
            raise TargetError(
                "no space left: half of the memory is taken", name=self.name
            ) from full
        super().write(data, offset)


def open_overlay(
    source: Source, address: str, place: str, *, snapshot: str | None = None
) -> WritableImage:
    """An overlay of a disk, which it owns from then on; see :func:`WritableImage`.

    Args:
        source: the disk.
        address: by which the overlay shall name it.
        place: a file, made if it is not there, or :data:`MEMORY`.
        snapshot: of the image which internal snapshot the disk is; ``None``: its present state.

    Raises:
        RefusedError: if the file is something else, or the overlay of another disk.
        TargetError: if it cannot be written.
    """
    reference = _reference(source, address, snapshot)
    gate = _Given(source, reference)
    qcow2 = formats.get("qcow2")
    if place == MEMORY:
        if not hasattr(os, "memfd_create"):
            raise UnsupportedFeatureError("overlays in memory need Linux: name a file")
        storage: FileStorage = _Memory(os.memfd_create("imprint", os.MFD_CLOEXEC))
        try:
            image = qcow2.create(storage, CreateSpec(source.size, gate, {}, reference, source))
        except BaseException:
            storage.close()
            raise
        assert isinstance(image, WritableImage)
        return image
    path = Path(place)
    if not exists(path):
        _make(path, CreateSpec(source.size, gate, {}, reference, source))
    return _open(path, source, gate)


def _make(path: Path, spec: CreateSpec) -> None:
    pending = PendingFile.create(path, may_replace=False)
    try:
        formats.get("qcow2").create(pending, spec).commit()
    except BaseException:
        pending.abort()
        raise


def _open(path: Path, source: Source, gate: FolderGate) -> WritableImage:
    storage = FileStorage.open(path, writable=True)
    try:
        if formats.detect(storage) != "qcow2":
            raise RefusedError("expected an overlay, found something else", name=str(path))
        image = formats.get("qcow2").edit(storage, gate)
    except BaseException:
        storage.close()
        raise
    if image.parent is not source or image.size < source.size:
        image.close()
        raise RefusedError(
            f"expected an overlay of {source.size} bytes over {source.name}, found another image",
            name=str(path),
        )
    return image


def _reference(source: Source, address: str, snapshot: str | None) -> Reference:
    """How the overlay names the disk: so that other programs find it, where they can.

    What they cannot open by a name alone has one by which they find nothing.
    """
    location = parse(address)
    if location.where is Where.REPOSITORY:
        return Reference(source.name, "raw")  # which says which snapshot it is, also of the newest
    name, kind = address, "raw"
    if location.where in (Where.FILE, Where.DEVICE):
        name = f"{location.path.absolute()}{location.text[len(location.base) :]}"
        if not location.is_part and isinstance(source, Image):
            kind = source.info().format
    return Reference(name if snapshot is None else f"{name}, snapshot {snapshot}", kind)
