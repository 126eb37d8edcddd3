"""Fast commits: records of changes at the journal's end, in place of a transaction.

They tell which blocks files were given, and no bitmap knows these blocks yet. All of them
are counted as used, whether or not the commit that they are part of was written whole.

Source: Linux ``fs/ext4/fast_commit.c`` (``ext4_fc_replay_scan``), ``fs/ext4/fast_commit.h``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from imprint.filesystems.ext import layout
from imprint.filesystems.ext.layout import FastHead, FastRange, FastTag, FastTail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.ext.ring import Ring
    from imprint.filesystems.ext.trees import Trees


class UnknownFastCommitError(Exception):
    """They are of a kind that is not known."""


def fast_ranges(ring: Ring, trees: Trees, sequence: int) -> list[tuple[int, int]] | None:
    """Runs of blocks that files were given since the log ended before ``sequence``.

    ``None`` if there are fast commits of an unknown kind.

    Raises:
        CorruptImageError: if they are outside of the file system.
    """
    ranges: list[tuple[int, int]] = []
    try:
        for kind, value in _all_records(ring, sequence):
            if kind == layout.FAST_ADD_RANGE:
                item = FastRange.unpack(value)
                piece = trees.extent(item.extent, f"fast commit of inode {item.inode}")
                ranges.append((piece.block, piece.length))
    except UnknownFastCommitError:
        return None
    return ranges


def fast_changes(ring: Ring, sequence: int) -> dict[int, int]:
    """How many changes of each kind, ``layout.FAST_…``, were made since the log ended.

    Raises:
        UnknownFastCommitError: if there are fast commits of an unknown kind.
    """
    return Counter(kind for kind, _ in _all_records(ring, sequence))


def _all_records(ring: Ring, sequence: int) -> Iterator[tuple[int, memoryview]]:
    """Those of the fast commits that follow what the log has before ``sequence``."""
    for position in range(ring.end + 1, ring.count):
        records = list(_records(ring.read(position, 1)))
        if position == ring.end + 1:
            if not records or records[0][0] != layout.FAST_HEAD:
                return
            head = FastHead.unpack(records[0][1])
            if head.sequence != sequence:
                return
            if head.features:
                raise UnknownFastCommitError
        yield from records
        tails = [FastTail.unpack(value) for kind, value in records if kind == layout.FAST_TAIL]
        if not records or any(tail.sequence != sequence for tail in tails):
            return


_LENGTHS = {
    layout.FAST_HEAD: FastHead.SIZE,
    layout.FAST_TAIL: FastTail.SIZE,
    layout.FAST_ADD_RANGE: FastRange.SIZE,
}


def _records(block: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Records of one block, up to the first that is none."""
    position = 0
    while position + FastTag.SIZE <= len(block):
        tag = FastTag.unpack(block[position : position + FastTag.SIZE])
        position += FastTag.SIZE
        end = position + tag.length
        if tag.kind not in layout.FAST_TAGS or end > len(block):
            return
        if tag.length < _LENGTHS.get(tag.kind, 0):
            return
        yield tag.kind, block[position:end]
        position = end
