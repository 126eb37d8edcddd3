"""Making new images, of one file or several."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Reference
from imprint.core.errors import (
    CorruptImageError,
    RefusedError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.image import WritableImage
from imprint.formats.vmdk.create import (
    SPARSE,
    SPLIT_SECTORS,
    STREAM,
    Plan,
    describe,
    plan,
    write_sparse,
)
from imprint.formats.vmdk.descriptor import ExtentLine
from imprint.formats.vmdk.headers import read_hosted
from imprint.formats.vmdk.layout import SECTOR
from imprint.formats.vmdk.opening import Found, find
from imprint.formats.vmdk.writer import edit_layer

if TYPE_CHECKING:
    from imprint.core.contracts import Storage, Target, Traits
    from imprint.core.extent import Extent
    from imprint.core.formats import CreateSpec

_UNFINISHED: Final = ".partial"
"""Files are named for what they will be, not for what they are while they are made."""


class FilesTarget:
    """A new image of several files. It cannot be resumed, so it does not offer checkpoints."""

    def __init__(self, image: WritableImage) -> None:
        """``image`` commits the files before the descriptor that names them."""
        self._image = image

    @property
    def name(self) -> str:
        """Path of the descriptor."""
        return self._image.name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._image.size

    @property
    def traits(self) -> Traits:
        """Those of the image."""
        return self._image.traits

    def write(self, data: memoryview, offset: int) -> None:
        """Store ``data``."""
        self._image.write(data, offset)

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros."""
        self._image.zero(offset, length)

    def can_offload(self, extent: Extent) -> bool:
        """Whether the system can move the extent."""
        return self._image.can_offload(extent)

    def copy_from(self, extent: Extent) -> None:
        """Let the system move it."""
        self._image.copy_from(extent)

    def commit(self) -> None:
        """Make all files durable and visible, the descriptor last."""
        self._image.commit()

    def abort(self) -> None:
        """Remove them all."""
        self._image.abort()


def create(storage: Storage, spec: CreateSpec) -> Target:
    """Lay out a new image in an empty storage.

    Raises:
        UsageError: if the options contradict each other, the size or the parent.
        RefusedError: if a file of it exists already.
    """
    made = plan(spec, storage)
    base = _base(storage)
    if made.subformat == STREAM:
        from imprint.formats.vmdk.stream import StreamTarget  # loads what compresses

        line = ExtentLine("RDONLY", made.size // SECTOR, "SPARSE", f"{base}.vmdk")
        return StreamTarget(storage, made, describe(made, [line]))
    if made.subformat == SPARSE:
        line = ExtentLine("RW", made.size // SECTOR, "SPARSE", f"{base}.vmdk")
        write_sparse(storage, made, made.size, describe(made, [line]))
        layer = edit_layer(find(storage, spec.opener), is_fresh=True)
        return WritableImage(
            layer, storage, name=storage.name, parent=spec.parent_source, is_fresh=True
        )
    return _create_files(storage, spec, made, base)


def resume(storage: Storage, spec: CreateSpec) -> WritableImage:
    """Take up an image that :func:`create` began.

    Raises:
        UnsupportedFeatureError: for subformats other than monolithicSparse.
        CorruptImageError: if it is not the image that ``spec`` asks for.
    """
    made = plan(spec, storage)
    if made.subformat != SPARSE:
        raise UnsupportedFeatureError(f"a {made.subformat} vmdk cannot be resumed")
    layer = edit_layer(find(storage, spec.opener))
    if layer.size != made.size or layer.descriptor.has_parent != (spec.parent is not None):
        raise CorruptImageError(
            f"expected an unfinished image of {made.size} bytes, found {layer.size}",
            name=storage.name,
        )
    return WritableImage(layer, storage, name=storage.name, parent=spec.parent_source)


def _create_files(storage: Storage, spec: CreateSpec, made: Plan, base: str) -> FilesTarget:
    """The files first, so that one that exists already is found before anything is written."""
    lines = _lines(made, base)
    files: list[Storage] = []
    try:
        for line in lines:
            file = spec.opener.data_file(Reference(line.file, format="raw"), storage)
            files.append(file)
            if made.is_flat:
                file.resize(line.sectors * SECTOR)
            else:
                write_sparse(file, made, line.sectors * SECTOR, None)
        text = describe(made, lines)
        storage.write(memoryview(text.encode("utf-8", "surrogateescape")), 0)
        layer = edit_layer(_found(storage, made, lines, files), is_fresh=True)
    except BaseException as failure:
        for file in files:
            file.abort()
        if isinstance(failure, RefusedError):
            # Replaced one by one, they would for a moment be of two images.
            failure.advice = "remove the files of the old image first"
        raise
    image = WritableImage(layer, storage, name=storage.name, is_fresh=True, others=tuple(files))
    return FilesTarget(image)


def _found(storage: Storage, made: Plan, lines: list[ExtentLine], files: list[Storage]) -> Found:
    from imprint.formats.vmdk.headers import read_text

    found = Found(storage, read_text(storage))
    for line, file in zip(lines, files, strict=True):
        found.lines.append((line, file, None if made.is_flat else read_hosted(file)))
    return found


def _lines(made: Plan, base: str) -> list[ExtentLine]:
    sectors = made.size // SECTOR
    if not made.is_split:
        return [ExtentLine("RW", sectors, "FLAT", f"{base}-flat.vmdk")]
    kind, letter = ("FLAT", "f") if made.is_flat else ("SPARSE", "s")
    return [
        ExtentLine(
            "RW", min(SPLIT_SECTORS, sectors - start), kind, f"{base}-{letter}{number:03}.vmdk"
        )
        for number, start in enumerate(range(0, sectors, SPLIT_SECTORS), 1)
    ]


def _base(storage: Storage) -> str:
    """What the names of all files begin with."""
    name = re.split(r"[/\\]", storage.name)[-1].removesuffix(_UNFINISHED)
    if re.search(r'["\x00-\x1f]', name):
        raise UsageError(f"vmdk: expected a name without quotes, found {name!r}")
    return name[:-5] if name.lower().endswith(".vmdk") else name
