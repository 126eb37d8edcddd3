"""The files of a disk in pieces of 2 GiB: their names, and changing the disk's size.

The descriptor decides what belongs to the disk. Files are made before it names them, and
removed after it has ceased to; a crash wastes a file, and loses none.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import FileMaking, Reference
from imprint.core.errors import ImagingError, RefusedError, UnsupportedFeatureError, UsageError
from imprint.core.units import div_up
from imprint.formats.vmdk.create import SPLIT_FLAT, SPLIT_SECTORS, SPLIT_SPARSE, write_sparse
from imprint.formats.vmdk.descriptor import EXTENTS_MAX, TEXT_BYTES_MAX, Descriptor, ExtentLine
from imprint.formats.vmdk.headers import magic_of, read_hosted, read_text
from imprint.formats.vmdk.layout import SECTOR
from imprint.formats.vmdk.parts import FlatPart
from imprint.formats.vmdk.sparse_writer import WritableSparsePart

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Storage
    from imprint.formats.vmdk.parts import WritablePart
    from imprint.formats.vmdk.writer import WritableVmdkLayer

_NUMBERED: Final = re.compile(r"(.*-[sf])(\d{3,6})((?:-\d{1,3})?)\.vmdk", re.IGNORECASE)
_ATTEMPTS: Final = 100

_UNFINISHED: Final = ".partial"
"""Files are named for what they will be, not for what they are while they are made."""


def is_split(descriptor: Descriptor) -> bool:
    """Whether the disk is in pieces of 2 GiB."""
    return descriptor.create_type.lower() in (SPLIT_SPARSE.lower(), SPLIT_FLAT.lower())


def named(base: str, name: str, attempt: int) -> str:
    """A file of the image ``base``; attempts after the first are for names that are taken."""
    return f"{base}-{name}{f'-{attempt}' if attempt > 1 else ''}.vmdk"


def base_of(storage: Storage) -> str:
    """What the names of all files begin with."""
    name = re.split(r"[/\\]", storage.name)[-1].removesuffix(_UNFINISHED)
    if re.search(r'["\x00-\x1f]', name):
        raise UsageError(f"vmdk: expected a name without quotes, found {name!r}")
    return name[:-5] if name.lower().endswith(".vmdk") else name


def is_of(base: str, name: str) -> bool:
    """Whether a file was named for the image ``base``, and so is nobody else's."""
    return bool(re.fullmatch(rf"{re.escape(base)}-(flat|[sf]\d{{3,6}})(-\d{{1,3}})?\.vmdk", name))


def claim(part: WritablePart, line: ExtentLine) -> None:
    """Cut off what lies behind a flat extent, if the file was made for it alone."""
    is_ours = re.fullmatch(r".*-(flat|f\d{3,6})(-\d{1,3})?\.vmdk", line.file, re.IGNORECASE)
    if is_ours and not line.offset and isinstance(part, FlatPart):
        part.claim()


def files_of(storage: Storage) -> set[str]:
    """Which files an image names; none if it is another one's format, or damaged."""
    try:
        kind = magic_of(storage)
        if kind == "TEXT":
            return {line.file for line in read_text(storage).extents}
        if kind == "SPARSE" and (descriptor := read_hosted(storage).descriptor) is not None:
            return {line.file for line in descriptor.extents}
    except ImagingError:
        pass
    return set()


def shrink(layer: WritableVmdkLayer, opener: Opener, base: str, size: int) -> None:
    """Cut off the end: the descriptor first, then what it does not name any more."""
    parts, lines = layer.parts, _lines(layer)
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.size)
    kept = next(count for count in range(1, len(parts) + 1) if starts[count] >= size)
    last, inside = parts[kept - 1], size - starts[kept - 1]
    dropped = list(zip(lines[kept:], parts[kept:], strict=True))
    lines[kept - 1 :] = [replace(lines[kept - 1], sectors=inside // SECTOR)]
    layer.describe(lines, parts[:kept])
    last.resize(inside)
    if isinstance(last, FlatPart):
        last.trim()
    layer.measure()
    for line, part in dropped:
        for storage in part.storages:
            storage.close()
        if isinstance(opener, FileMaking) and is_of(base, line.file):
            opener.remove_file(line.file, layer.storage)


def grow(layer: WritableVmdkLayer, opener: Opener, size: int) -> None:
    """Let the last file grow to 2 GiB, then add more.

    Raises:
        UnsupportedFeatureError: if it needs more files than can be made.
    """
    parts, lines = list(layer.parts), _lines(layer)
    last, limit = parts[-1], SPLIT_SECTORS * SECTOR
    grown = max(last.size, min(limit, last.size + size - layer.size))
    missing = size - layer.size - (grown - last.size)
    if missing and not isinstance(opener, FileMaking):
        raise UnsupportedFeatureError("cannot make further files", name=layer.storage.name)
    names = _names(layer, lines, missing) if missing else []
    if grown > last.size:
        claim(last, lines[-1])
        last.resize(grown)
    lines[-1] = replace(lines[-1], sectors=grown // SECTOR)
    made: list[tuple[str, WritablePart]] = []
    try:
        for prefix, number in names:
            length = min(limit, missing)
            made.append(_add(layer, opener, f"{prefix}{number:03}", length))
            lines.append(replace(lines[-1], sectors=length // SECTOR, file=made[-1][0], offset=0))
            missing -= length
        layer.describe(lines, [*parts, *(part for _, part in made)])
    except BaseException:
        for name, part in made:
            for storage in part.storages:
                storage.close()
            if isinstance(opener, FileMaking):
                opener.remove_file(name, layer.storage)
        raise
    layer.measure()


def _lines(layer: WritableVmdkLayer) -> list[ExtentLine]:
    lines = list(layer.descriptor.extents)
    if len(lines) != len(layer.parts):
        raise UnsupportedFeatureError(
            "a disk with empty extents cannot be resized", name=layer.storage.name
        )
    return lines


def _names(
    layer: WritableVmdkLayer, lines: list[ExtentLine], missing: int
) -> list[tuple[str, int]]:
    """What the names of further files begin with, and their numbers."""
    name = layer.storage.name
    if layer.descriptor.has_parent:
        raise UnsupportedFeatureError(
            "a delta disk cannot grow by further files: its parent would show in them",
            name=name,
            advice="flatten it first (imprint rebase)",
        )
    last = lines[-1]
    found = _NUMBERED.fullmatch(last.file)
    if found is None or "/" in last.file or "\\" in last.file:
        raise UnsupportedFeatureError(
            f"expected a last file with a number, like disk-s001.vmdk, found {last.file!r}",
            name=name,
        )
    grain = max(part.grain for part in layer.parts)
    if layer.parts[-1].size > SPLIT_SECTORS * SECTOR and layer.parts[-1].size % grain:
        raise UnsupportedFeatureError(f"expected extents of whole grains of {grain}", name=name)
    count = div_up(missing, SPLIT_SECTORS * SECTOR)
    text_bytes = len(layer.descriptor.text) + count * (len(last.text) + 8)
    if len(lines) + count > EXTENTS_MAX or text_bytes > TEXT_BYTES_MAX:
        raise UnsupportedFeatureError(f"expected at most {EXTENTS_MAX} files", name=name)
    first = int(found[2]) + 1
    return [(found[1], number) for number in range(first, first + count)]


def _add(
    layer: WritableVmdkLayer, opener: Opener, stem: str, length: int
) -> tuple[str, WritablePart]:
    """Make a whole, durable file that nothing names yet."""
    name, file = _make(layer.storage, opener, stem)
    before = layer.parts[-1]
    try:
        if isinstance(before, WritableSparsePart):
            geometry = before.geometry
            write_sparse(file, length, None, grain=geometry.grain, has_zeroed=geometry.has_zeroed)
        else:
            file.resize(length)
        file.commit()
    except BaseException:
        file.abort()
        raise
    file = opener.data_file(Reference(name, format="raw"), layer.storage)
    if isinstance(before, WritableSparsePart):
        sparse = read_hosted(file)
        return name, WritableSparsePart(file, sparse, length, has_parent=False, is_fresh=True)
    return name, FlatPart(file, length, 0)


def _make(storage: Storage, opener: Opener, stem: str) -> tuple[str, Storage]:
    assert isinstance(opener, FileMaking)
    base, _, last = stem.rpartition("-")
    for attempt in range(1, _ATTEMPTS):
        name = named(base, last, attempt)
        try:
            return name, opener.make_file(name, storage, is_extra=True)
        except RefusedError:
            continue  # left over, or another one's
    raise RefusedError(f"expected a free name like {stem}.vmdk, found none", name=storage.name)


def make_files(
    storage: Storage, opener: Opener, base: str, names: list[str]
) -> tuple[list[str], list[Storage]]:
    """Files for a new image: their names, and themselves.

    None has the name of one that the image has whose place it will take.

    Raises:
        RefusedError: if one exists and may not be replaced.
    """
    taken = old_files(storage, opener)
    for attempt in range(1, _ATTEMPTS):
        chosen = [named(base, name, attempt) for name in names]
        if not taken.isdisjoint(chosen):
            continue
        try:
            return chosen, _make_all(storage, opener, chosen, is_extra=attempt > 1)
        except RefusedError:
            if attempt == 1:
                raise
    raise RefusedError("expected free names for its files, found none", name=storage.name)


def old_files(storage: Storage, opener: Opener) -> set[str]:
    """What the image names whose place ``storage`` will take."""
    old = opener.replaced(storage) if isinstance(opener, FileMaking) else None
    if old is None:
        return set()
    try:
        return files_of(old)
    finally:
        old.close()


def remove_old(storage: Storage, opener: Opener, base: str, names: set[str]) -> None:
    """Remove those of the old image's files that were named for it, now that it is gone."""
    if isinstance(opener, FileMaking):
        for name in sorted(names):
            if is_of(base, name):
                opener.remove_file(name, storage)


def _make_all(
    storage: Storage, opener: Opener, names: list[str], *, is_extra: bool
) -> list[Storage]:
    files: list[Storage] = []
    try:
        for name in names:
            if isinstance(opener, FileMaking):
                files.append(opener.make_file(name, storage, is_extra=is_extra))
            else:
                files.append(opener.data_file(Reference(name, format="raw"), storage))
    except BaseException:
        for file in files:
            file.abort()
        raise
    return files
