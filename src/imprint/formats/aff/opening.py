"""Opening AFF in one file, AFD in several, and AFM beside a raw image."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Reference
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    ReferenceRefusedError,
    UnsupportedFeatureError,
)
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import div_up
from imprint.formats.aff.segments import PAGE_BYTES_MAX, Contents, walk

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Storage

_MEMBER: Final = re.compile(r"file_(\d{3,6})\.aff", re.IGNORECASE)
_RAW_FILES_MAX: Final = 4096
_SECTOR: Final = 512


@dataclass
class Found:
    """A disk and the files that it is in.

    Attributes:
        storage: the file that was named.
        contents: its segments, and those of the others.
        kind: ``AFF``, ``AFD`` or ``AFM``.
        size: of the disk, in bytes.
        page_size: in bytes.
        sector: in bytes.
        others: files that were opened for it.
        raws: of an AFM, the files that hold the disk, in order; ``None``: it is missing.
        raw_size: bytes in each of them but the last.
        warnings: what the user has to know.
    """

    storage: Storage
    contents: Contents
    kind: str
    size: int
    page_size: int
    sector: int
    others: list[Storage] = field(default_factory=list)
    raws: list[Storage | None] = field(default_factory=list)
    raw_size: int = 0
    warnings: list[str] = field(default_factory=list)

    def close_others(self) -> None:
        """Close those that the caller did not open."""
        for storage in self.others:
            storage.close()


def find(storage: Storage, opener: Opener, *, incomplete: bool = False) -> Found:
    """Read all segments, and open the other files. On an error nothing but ``storage`` stays open.

    Args:
        storage: the file that was named.
        opener: for the others.
        incomplete: raw files may be missing.

    Raises:
        FormatError: if it is not sound.
        ReferenceRefusedError: if a file is missing.
    """
    contents = Contents()
    walk(storage, contents)
    kind = contents.text("aff_file_type") or "AFF"
    others: list[Storage] = []
    try:
        if kind == "AFD":
            others = _members(storage, contents, opener)
        found = _described(storage, contents, kind)
        found.others = others
        if kind == "AFM":
            _open_raws(found, opener, incomplete=incomplete)
    except BaseException:
        for other in others:
            other.close()
        raise
    return found


def _members(storage: Storage, contents: Contents, opener: Opener) -> list[Storage]:
    """The other files of a folder of files, known by the mark that all of them have."""
    flag = contents.values.get("badflag")
    candidates: list[tuple[int, Storage]] = []
    for sibling in opener.siblings(storage, ".aff"):
        match = _MEMBER.fullmatch(PurePosixPath(sibling.name).name)
        if match is None:
            sibling.close()
        else:
            candidates.append((int(match.group(1)), sibling))
    taken: list[Storage] = []
    try:
        for _, sibling in sorted(candidates, key=lambda item: item[0]):
            own = Contents()
            try:
                walk(sibling, own)
            except ImagingError:
                own.values.clear()
            if own.values.get("badflag") != flag:
                sibling.close()
                continue
            taken.append(sibling)
            walk(sibling, contents)
    except BaseException:
        for _, sibling in candidates:
            sibling.close()
        raise
    return taken


def _described(storage: Storage, contents: Contents, kind: str) -> Found:
    page_size = contents.numbers.get("pagesize", contents.numbers.get("segsize", 0))
    if not 0 < page_size <= PAGE_BYTES_MAX:
        error = CorruptImageError if not page_size else UnsupportedFeatureError
        raise error(
            f"expected pages of 1 to {PAGE_BYTES_MAX} bytes, found {page_size}", name=storage.name
        )
    sector = contents.numbers.get("sectorsize", _SECTOR)
    if sector.bit_count() != 1 or not _SECTOR <= sector <= 1 << 16:
        sector = _SECTOR
    warnings: list[str] = []
    size = contents.quad("imagesize")
    if size is None:
        size = (max(contents.pages, default=-1) + 1) * page_size
        warnings.append("the size of the disk is not stored: a file is missing, or was cut off")
    if size > DISK_SIZE_MAX:
        raise CorruptImageError(
            f"expected a disk of at most {DISK_SIZE_MAX} bytes, found {size}", name=storage.name
        )
    return Found(storage, contents, kind, size, page_size, sector, warnings=warnings)


def _open_raws(found: Found, opener: Opener, *, incomplete: bool) -> None:
    """The raw files beside the metadata: ``.000``, ``.001`` …, or one."""
    contents, name = found.contents, found.storage.name
    pages = contents.quad("pages_per_raw_image_file") or 0
    found.raw_size = pages * found.page_size or max(found.size, 1)
    count = div_up(found.size, found.raw_size)
    extension = contents.text("raw_image_file_extension") or "000"
    if count > _RAW_FILES_MAX or not re.fullmatch(r"[A-Za-z0-9]{1,8}", extension):
        raise UnsupportedFeatureError(
            f"expected at most {_RAW_FILES_MAX} raw files, found {count} from .{extension}",
            name=name,
        )
    stem = PurePosixPath(name).stem
    width = len(extension)
    for number in range(count):
        suffix = f"{int(extension) + number:0{width}d}" if extension.isdigit() else extension
        raw_name = f"{stem}.{suffix}"
        try:
            raw = opener.data_file(Reference(raw_name, format="raw"), found.storage)
        except ReferenceRefusedError:
            if not incomplete:
                raise
            found.raws.append(None)
            found.warnings.append(f"the file {raw_name} is missing")
            continue
        found.others.append(raw)
        found.raws.append(raw)
