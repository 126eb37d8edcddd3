"""What is known of an image without reading its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = str | int | bool | None


@dataclass(frozen=True)
class SnapshotInfo:
    """An internal snapshot.

    Attributes:
        id: unique in the image, as the format writes it.
        name: what the user called it; need not be unique.
        size: of the disk at that time, in bytes.
        time_s: when it was taken, in seconds since 1970.
        vm_state_size: bytes of a saved machine's memory, 0 if there are none.
    """

    id: str
    name: str
    size: int
    time_s: float
    vm_state_size: int = 0


@dataclass(frozen=True)
class BitmapInfo:
    """A persistent dirty bitmap.

    Attributes:
        name: of the bitmap.
        granularity: bytes of the disk that one bit stands for.
        flags: ``in-use``, ``auto`` …
    """

    name: str
    granularity: int
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageInfo:
    """Facts about one image, its parents not included.

    Attributes:
        format: the format's name.
        size: of the disk, in bytes.
        options: what was chosen when it was made, in the words of the format's options.
        parent: name of the image it builds upon, as written in it.
        parent_format: format of that, where the image says it.
        data_file: name of the file that holds its data, where that is another one.
        encryption: the method, or ``None``.
        hashes: of the whole disk, as the image keeps them: hexadecimal digests by name.
        case: what an examiner noted in it, by field: ``case_number``, ``examiner`` …
        uuid: of the image, where it has one.
        snapshots: internal ones, oldest first.
        bitmaps: persistent dirty bitmaps.
        features: names of the format's feature bits that are set.
        files: further files that the image is made of, as they were opened.
        missing: parts of the disk that nothing can be said of, since a file of the image is not
            there or breaks off: offset and length, ascending.
        notes: what the user should know, one sentence each.
        warnings: likewise, what should be known even by those who do not ask: the image may
            not be what it is taken for.
    """

    format: str
    size: int
    options: Mapping[str, Value] = field(default_factory=dict)
    parent: str | None = None
    parent_format: str | None = None
    data_file: str | None = None
    encryption: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    case: Mapping[str, str] = field(default_factory=dict)
    uuid: str | None = None
    snapshots: tuple[SnapshotInfo, ...] = ()
    bitmaps: tuple[BitmapInfo, ...] = ()
    features: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
