"""Comparing the map of a CHD with the file and the parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.usage import findings
from imprint.formats.chd import hunkmap
from imprint.formats.chd.hunkmap import read_map
from imprint.formats.chd.layout import read_header, read_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.core.events import Finding
    from imprint.formats.chd.hunkmap import HunkMap
    from imprint.formats.chd.layout import Header


def check(storage: Storage) -> Iterator[Finding]:
    """Everything that can be wrong with a map whose header and checksum are sound."""
    header = read_header(storage)
    read_metadata(storage, header)
    return findings(_problems(storage, header, read_map(storage, header)))


def _problems(storage: Storage, header: Header, hunks: HunkMap) -> Iterator[tuple[str, str]]:
    size, end = header.hunk_size, storage.size
    count = len(hunks.kinds)
    for index, (kind, offset) in enumerate(zip(hunks.kinds, hunks.offsets, strict=True)):
        what = None
        if kind < hunkmap.PLAIN or kind == hunkmap.PLAIN:
            length = size if kind == hunkmap.PLAIN else hunks.lengths[index]
            if offset + length > end:
                what = f"expected {length} bytes inside the file, found them at 0x{offset:x}"
            elif kind < hunkmap.PLAIN and kind >= len(header.codecs):
                what = "expected a codec, found an image without compression"
        elif kind == hunkmap.SELF:
            # What is the same as another hunk is the same as one that is stored, further ahead.
            if offset >= count or hunks.kinds[offset] == hunkmap.SELF:
                what = f"expected a hunk that is stored, found 0x{offset:x}"
        elif kind == hunkmap.UNKNOWN:
            what = "expected a kind of hunk, found none that is known"
        elif kind == hunkmap.PARENT and not header.parent_ids:
            what = "expected no parent, found a place in it"
        if what is not None:
            yield f"hunk {index}", what
