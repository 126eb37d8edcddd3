"""From a file to a layer: which kind it is, which others belong to it, and its parent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Reference
from imprint.core.errors import CorruptImageError, ReferenceRefusedError, UnsupportedFeatureError
from imprint.core.image import Image
from imprint.formats.vmdk.descriptor import FLAT_KINDS, Descriptor, ExtentLine
from imprint.formats.vmdk.headers import SparseFile, magic_of, read_hosted, read_sparse, read_text
from imprint.formats.vmdk.layer import VmdkLayer
from imprint.formats.vmdk.layout import SECTOR
from imprint.formats.vmdk.parts import FailingPart, FlatPart, ZeroPart
from imprint.formats.vmdk.sparse import SparsePart

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage
    from imprint.core.info import Value
    from imprint.formats.vmdk.parts import Part

_ALONE: Final = (
    "This is an extent without its descriptor: if it is one of several, or has a parent, "
    "the rest is missing."
)


@dataclass
class Found:
    """What belongs to an image.

    Attributes:
        storage: of the descriptor.
        descriptor: what it says.
        lines: extent and file by part, for those who write: ``None`` where there is no file.
        parts: of the disk.
        own: the sparse file that ``storage`` itself is.
        notes: for ``info``.
    """

    storage: Storage
    descriptor: Descriptor
    lines: list[tuple[ExtentLine, Storage | None, SparseFile | None]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    own: SparseFile | None = None
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Value]:
        """For ``info``."""
        facts: dict[str, Value] = {}
        if len(self.lines) != 1:
            facts["extents"] = len(self.lines)
        first = next((sparse for _, _, sparse in self.lines if sparse is not None), None)
        if first is not None:
            facts["grain_size"] = first.geometry.grain
            if first.header is not None:
                facts["version"] = first.header.version
                facts["zeroed_grain"] = first.geometry.has_zeroed
            if first.header is not None and first.header.is_unclean:
                facts["unclean"] = True
        return facts

    def layer(self) -> VmdkLayer:
        """For reading."""
        return VmdkLayer(
            self.storage,
            self.descriptor,
            self.parts,
            facts=self.facts,
            notes=self.notes,
            is_embedded=self.own is not None,
        )

    def others(self) -> tuple[Storage, ...]:
        """All files but ``storage``, each once."""
        files = (file for _, file, _ in self.lines if file is not None)
        return tuple({id(file): file for file in files if file is not self.storage}.values())

    def close_others(self) -> None:
        """Close what was opened besides ``storage``."""
        for storage in self.others():
            storage.close()


def find(storage: Storage, opener: Opener) -> Found:
    """Read the descriptor and open all that it names but its parent.

    Raises:
        FormatError: if anything of it makes no sense, or may not be opened.
    """
    kind = magic_of(storage)
    if kind == "TEXT":
        return _assemble(Found(storage, read_text(storage)), opener)
    if not kind:
        raise CorruptImageError("expected a vmdk, found another file", name=storage.name)
    sparse = read_hosted(storage) if kind == "SPARSE" else read_sparse(storage)
    descriptor = sparse.descriptor
    if descriptor is None:
        line = ExtentLine("RW", sparse.geometry.size // SECTOR, sparse.kind)
        found = Found(storage, Descriptor(extents=(line,)), own=sparse, notes=(_ALONE,))
    elif sparse.geometry.size == 0 and descriptor.sectors:
        found = Found(storage, descriptor)  # only a container for the text
    else:
        found = Found(storage, descriptor, own=sparse)
    return _assemble(found, opener)


def open_parent(
    storage: Storage, descriptor: Descriptor, opener: Opener
) -> tuple[Source | None, tuple[str, ...]]:
    """Open the parent, if there is one; also gives what is to be said about it.

    The hint may be a path of another system, or of before the images were moved: then a file
    of that name beside the image will do. The content's CID tells if it is another one.

    Raises:
        ReferenceRefusedError: if there is none, or it may not be opened.
    """
    if not descriptor.has_parent:
        return None, ()
    hint = descriptor.settings.get("parentfilenamehint")
    if not hint:
        raise ReferenceRefusedError(
            "expected a parentFileNameHint that names its parent, found none", name=storage.name
        )
    try:
        parent = opener.parent(Reference(hint, format="vmdk"), storage)
    except ReferenceRefusedError:
        name = re.split(r"[/\\]", hint)[-1]
        if name in (hint, ""):
            raise
        try:
            parent = opener.parent(Reference(name, format="vmdk"), storage)
        except ReferenceRefusedError:
            parent = None
        if parent is None:
            raise
    if isinstance(parent, Image):
        found = parent.info().options.get("cid")
        if found != descriptor.parent_cid:
            note = (
                f"The parent {hint} has changed since: "
                f"expected CID {descriptor.parent_cid}, found {found}."
            )
            return parent, (note,)
    return parent, ()


def _assemble(found: Found, opener: Opener) -> Found:
    """Make parts of the descriptor's lines."""
    lines = [line for line in found.descriptor.extents if line.sectors]
    if not lines and not (found.own is not None and found.descriptor.extents):
        if found.own is None:
            raise CorruptImageError("expected at least one extent, found none", name=_name(found))
        lines = [ExtentLine("RW", found.own.geometry.size // SECTOR, found.own.kind)]
        found.notes += ("The descriptor names no extent; the file itself is taken for the disk.",)
    own = _own_line(found, lines)
    opened: dict[str, Storage] = {}
    try:
        for number, line in enumerate(lines):
            if line is own:
                _add_own(found, line, is_only=len(lines) == 1)
            else:
                _add(found, line, number, opener, opened)
    except BaseException:
        for storage in opened.values():
            storage.close()
        raise
    return found


def _own_line(found: Found, lines: list[ExtentLine]) -> ExtentLine | None:
    """Which extent the file with the embedded descriptor is: its name may be an old one."""
    if found.own is None or not lines:
        return None
    if len(lines) == 1:
        return lines[0]
    name = _base(found.storage.name)
    named = [line for line in lines if _base(line.file) == name]
    sized = [
        line
        for line in lines
        if line.kind == found.own.kind and line.sectors * SECTOR == found.own.geometry.size
    ]
    return next(iter(named or sized), None)


def _add_own(found: Found, line: ExtentLine, *, is_only: bool) -> None:
    assert found.own is not None
    sparse = found.own
    size = sparse.geometry.size
    if line.sectors * SECTOR != size and is_only:
        # Its header is one sector, and so is never half old and half new.
        said, counts = line.sectors, size // SECTOR
        note = f"The descriptor says {said} sectors, the header {counts}, which counts."
        found.notes += (note,)
        line = replace(line, sectors=size // SECTOR)
    elif line.sectors * SECTOR > size:
        raise _too_short(found, line, size)
    if size == 0:
        return
    found.lines.append((line, found.storage, sparse))
    if line.access == "NOACCESS":
        found.parts.append(FailingPart(line.sectors * SECTOR, found.storage))
        return
    found.parts.append(_sparse_part(found.storage, sparse, line))


def _add(
    found: Found, line: ExtentLine, number: int, opener: Opener, opened: dict[str, Storage]
) -> None:
    size = line.sectors * SECTOR
    if line.access == "NOACCESS":
        found.lines.append((line, None, None))
        found.parts.append(FailingPart(size, found.storage))
        return
    if line.kind == "ZERO":
        found.lines.append((line, None, None))
        found.parts.append(ZeroPart(size))
        return
    storage = opened.get(line.file)
    if storage is None:
        storage = opener.data_file(Reference(line.file, format="raw"), found.storage)
        opened[line.file] = storage
    if line.kind in FLAT_KINDS:
        found.lines.append((line, storage, None))
        found.parts.append(FlatPart(storage, size, line.offset * SECTOR))
        return
    if line.offset:
        raise UnsupportedFeatureError(
            f"extent {number}: a sparse extent with an offset is not supported",
            name=_name(found),
        )
    try:
        sparse = read_sparse(storage)
    except ReferenceRefusedError as error:
        # A gate that lets an image be looked at without its files fails when they are read.
        found.lines.append((line, storage, None))
        found.parts.append(FailingPart(size, found.storage, error))
        return
    if sparse.geometry.size < size:
        raise _too_short(found, line, sparse.geometry.size)
    found.lines.append((line, storage, sparse))
    found.parts.append(_sparse_part(storage, sparse, line))


def _sparse_part(storage: Storage, sparse: SparseFile, line: ExtentLine) -> SparsePart:
    geometry = replace(sparse.geometry, size=line.sectors * SECTOR)
    return SparsePart(storage, geometry, sparse.tables)


def _too_short(found: Found, line: ExtentLine, size: int) -> CorruptImageError:
    return CorruptImageError(
        f"extent {line.file or '(itself)'}: expected {line.sectors} sectors, "
        f"found {size // SECTOR}",
        name=_name(found),
    )


def _base(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _name(found: Found) -> str:
    return found.storage.name
