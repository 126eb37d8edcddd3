"""The files of a volume in batches, with what has to be asked for to read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import FormatError, NotFoundError, ReadError, RepositoryError
from imprint.filesystems import remains
from imprint.filesystems.tree import Holding, Times, Type
from imprint.filesystems.walking import walk
from imprint.filters.pieces import Pieces
from imprint.transfer.ahead import ahead

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Entry, FileTree

DAMAGED: Final = (ReadError, FormatError, RepositoryError, NotFoundError)
"""What is said of a file that cannot be had."""

HOLE: Final = -1
"""In place of where a part of a file lies."""

ORPHANS: Final = f"/{remains.ORPHANS}"
"""The folder of what was deleted and has no name any more."""

BAD_CLUSTERS: Final = ("/$BadClus", "$Bad")
"""NTFS's file and its stream that is as large as the volume, with places where clusters are bad."""

BATCH_FILES: Final = 1000
_BATCHES_AHEAD: Final = 4


class Special(NamedTuple):
    """A content that is more than the extents of its file.

    Attributes:
        parts: where it lies in the volume, ``(start, length)`` in bytes, in its order, with
            ``HOLE`` for a start; ``None``: it does not lie there as it is.
        content: it, if it has no parts.
        error: why it cannot be had.
        is_map: it has no bytes at all, and is as large as the volume: nothing to be hashed.
    """

    parts: tuple[tuple[int, int], ...] | None = None
    content: Source | None = None
    error: str | None = None
    is_map: bool = False


class Batch(NamedTuple):
    """Some files.

    Attributes:
        entries: in the order of the walk; streams follow their file as ``PATH:STREAM``.
        special: of some of them, by index.
    """

    entries: list[Entry]
    special: dict[int, Special]


def batches(
    tree: FileTree, volume: Source, *, deleted: bool, contents: bool
) -> Generator[Batch, None, None]:
    """All files of a volume; the tree is asked in a thread of its own.

    Args:
        tree: of the volume; nobody else may ask it until this has ended.
        volume: that it is of.
        deleted: deleted ones, too.
        contents: say how to get what does not lie in extents, and tell streams.

    Raises:
        ImagingError: if the root cannot be read.
    """
    return ahead(_batches(tree, volume, deleted=deleted, contents=contents), steps=_BATCHES_AHEAD)


def is_hashed(entry: Entry) -> bool:
    """Whether it is a file with a content of its own; a deleted one may be another's by now."""
    kind = entry.type
    has_bytes = kind is Type.FILE or kind is Type.SYSTEM
    return has_bytes and not (entry.is_deleted and entry.is_allocated)


def _batches(tree: FileTree, volume: Source, *, deleted: bool, contents: bool) -> Iterator[Batch]:
    entries: list[Entry] = []
    special: dict[int, Special] = {}
    if contents and isinstance(tree, Holding):
        tree.hold_contents()
    for entry in walk(tree, deleted=deleted):
        is_further = contents and not entry.is_plain and entry.size and entry.held is None
        if is_further and is_hashed(entry):
            special[len(entries)] = _special(tree, volume, entry, None)
        if entry.is_deleted and entry.path == ORPHANS:
            entry = entry._replace(times=Times())  # noqa: PLW2901 - what is made up has none
        entries.append(entry)
        if entry.streams and contents and not (entry.is_deleted and entry.is_allocated):
            for stream in entry.streams:
                found = _special(tree, volume, entry, stream)
                if (entry.path, stream) == BAD_CLUSTERS and entry.type is Type.SYSTEM:
                    found = found._replace(is_map=_is_hole(found))
                special[len(entries)] = found
                entries.append(_stream(entry, stream, found))
        if len(entries) >= BATCH_FILES:
            yield Batch(entries, special)
            entries, special = [], {}
    yield Batch(entries, special)


def _special(tree: FileTree, volume: Source, entry: Entry, stream: str | None) -> Special:
    try:
        content = tree.content(entry, stream)
    except DAMAGED as failure:
        return Special(error=str(failure.args[0]))
    if isinstance(content, Pieces) and content.members == (volume,):
        return Special(
            tuple(
                (HOLE if piece.member is None else piece.member_offset, piece.length)
                for piece in content.within(0, content.size)
            )
        )
    return Special(content=content)


def _is_hole(special: Special) -> bool:
    """Whether it has no place on the volume: in clusters that are not bad, bytes may be hidden."""
    return special.parts is not None and all(start == HOLE for start, _ in special.parts)


def _stream(entry: Entry, stream: str, special: Special) -> Entry:
    """A further content of a file as a file of its own."""
    size = sum(length for _, length in special.parts or ())
    if special.content is not None:
        size = special.content.size
    return entry._replace(
        path=f"{entry.path}:{stream}",
        type=Type.FILE,
        size=size,
        extents=(),
        target=None,
        streams=(),
        is_plain=False,
        named=None,
        held=None,
    )
