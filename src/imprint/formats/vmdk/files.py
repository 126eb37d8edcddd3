"""Making new images, of one file or several."""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Self

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.filesets import FilesTarget
from imprint.core.image import WritableImage
from imprint.formats.vmdk import split
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
    from collections.abc import Callable

    from imprint.core.contracts import Storage, Target
    from imprint.core.formats import CreateSpec


class NewImage(WritableImage):
    """A new image; with it, the further files go of an old one whose place it has taken."""

    _remove_old: Callable[[], None] | None = None

    def replacing(self, remove_old: Callable[[], None]) -> Self:
        """``remove_old`` is called when the image is there."""
        self._remove_old = remove_old
        return self

    def commit(self) -> None:
        """Make it durable and visible, then tidy up."""
        super().commit()
        if self._remove_old is not None:
            self._remove_old()


def create(storage: Storage, spec: CreateSpec) -> Target:
    """Lay out a new image in an empty storage.

    Raises:
        UsageError: if the options contradict each other, the size or the parent.
        RefusedError: if a file of it exists and may not be replaced.
    """
    made = plan(spec, storage)
    base = split.base_of(storage)
    if made.is_split or made.is_flat:
        return _create_files(storage, spec, made, base)
    old = split.old_files(storage, spec.opener)
    remove_old = partial(split.remove_old, storage, spec.opener, base, old)
    if made.subformat == STREAM:
        from imprint.formats.vmdk.stream import StreamTarget  # loads what compresses

        line = ExtentLine("RDONLY", made.size // SECTOR, "SPARSE", f"{base}.vmdk")
        return StreamTarget(storage, made, describe(made, [line]), when_done=remove_old)
    line = ExtentLine("RW", made.size // SECTOR, "SPARSE", f"{base}.vmdk")
    _write_sparse(storage, made, made.size, describe(made, [line]))
    layer = edit_layer(find(storage, spec.opener), spec.opener, is_fresh=True)
    image = NewImage(layer, storage, name=storage.name, parent=spec.parent_source, is_fresh=True)
    return image.replacing(remove_old)


def resume(storage: Storage, spec: CreateSpec) -> WritableImage:
    """Take up an image that :func:`create` began.

    Raises:
        UnsupportedFeatureError: for subformats other than monolithicSparse.
        CorruptImageError: if it is not the image that ``spec`` asks for.
    """
    made = plan(spec, storage)
    if made.subformat != SPARSE:
        raise UnsupportedFeatureError(f"a {made.subformat} vmdk cannot be resumed")
    layer = edit_layer(find(storage, spec.opener), spec.opener)
    if layer.size != made.size or layer.descriptor.has_parent != (spec.parent is not None):
        raise CorruptImageError(
            f"expected an unfinished image of {made.size} bytes, found {layer.size}",
            name=storage.name,
        )
    old = split.old_files(storage, spec.opener)
    image = NewImage(layer, storage, name=storage.name, parent=spec.parent_source)
    return image.replacing(
        partial(split.remove_old, storage, spec.opener, split.base_of(storage), old)
    )


def _create_files(storage: Storage, spec: CreateSpec, made: Plan, base: str) -> FilesTarget:
    """The files first, so that one that exists already is found before anything is written."""
    old = split.old_files(storage, spec.opener)
    sectors, names = _pieces(made)
    names, files = split.make_files(storage, spec.opener, base, names)
    try:
        kind = "FLAT" if made.is_flat else "SPARSE"
        lines = [ExtentLine("RW", *each) for each in zip(sectors, repeat(kind), names)]
        for line, file in zip(lines, files, strict=True):
            if made.is_flat:
                file.resize(line.sectors * SECTOR)
            else:
                _write_sparse(file, made, line.sectors * SECTOR, None)
        text = describe(made, lines)
        storage.write(memoryview(text.encode("utf-8", "surrogateescape")), 0)
        layer = edit_layer(_found(storage, made, lines, files), spec.opener, is_fresh=True)
    except BaseException:
        for file in files:
            file.abort()
        raise
    image = NewImage(layer, storage, name=storage.name, is_fresh=True, others=tuple(files))
    remove_old = partial(split.remove_old, storage, spec.opener, base, old - set(names))
    return FilesTarget(image.replacing(remove_old))


def _write_sparse(storage: Storage, made: Plan, size: int, text: str | None) -> None:
    write_sparse(storage, size, text, grain=made.grain, has_zeroed=made.has_zeroed)


def _found(storage: Storage, made: Plan, lines: list[ExtentLine], files: list[Storage]) -> Found:
    from imprint.formats.vmdk.headers import read_text

    found = Found(storage, read_text(storage))
    for line, file in zip(lines, files, strict=True):
        found.lines.append((line, file, None if made.is_flat else read_hosted(file)))
    return found


def _pieces(made: Plan) -> tuple[list[int], list[str]]:
    """Sectors of each file, and what is added to the image's name."""
    sectors = made.size // SECTOR
    if not made.is_split:
        return [sectors], ["flat"]
    letter = "f" if made.is_flat else "s"
    starts = range(0, sectors, SPLIT_SECTORS)
    return (
        [min(SPLIT_SECTORS, sectors - start) for start in starts],
        [f"{letter}{number:03}" for number in range(1, len(starts) + 1)],
    )
