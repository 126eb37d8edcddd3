"""Looking for a file in a folder, whose names are in a tree."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB
from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.layout import STRIDE, FileName, IndexBlock, IndexEntry, IndexRoot
from imprint.filesystems.ntfs.records import unprotected

if TYPE_CHECKING:
    from imprint.filesystems.ntfs.files import Files

_INDEX: Final = "$I30"
_ROOT_HEAD_AT: Final = 16
_BLOCK_HEAD_AT: Final = 24
_BLOCK_BYTES_MAX: Final = 64 * KIB
_DEPTH_MAX: Final = 16
_CAPITALS: Final = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


class _Answer(NamedTuple):
    """What a node says: the record, or the node below that may have it, or neither."""

    record: int | None = None
    below: int | None = None


def find_file(files: Files, folder: int, name: str) -> int | None:
    """The number of the record of a file; ``None`` if the folder has none of that name.

    Args:
        files: of the volume.
        folder: number of the folder's record.
        name: of the file, in capitals of ASCII. What the volume says of other capitals does not
            matter then: other letters come behind these.

    Raises:
        CorruptImageError: if the folder's tree makes no sense.
    """
    reader, geometry = files.reader, files.geometry
    root = files.value(folder, layout.INDEX_ROOT, _INDEX)
    if root is None or root.runs:
        raise CorruptImageError(
            f"MFT record {folder}: expected a folder, found no index", name=geometry.where
        )
    data = memoryview(root.read(reader, geometry, 0, root.size))
    head = IndexRoot.unpack(data, where=geometry.where)
    size = head.block_size
    answer = _search(data, _ROOT_HEAD_AT, head, name)
    if answer.below is None:
        return answer.record
    nodes = files.value(folder, layout.INDEX_ALLOCATION, _INDEX)
    is_size = STRIDE <= size <= _BLOCK_BYTES_MAX and size.bit_count() == 1
    if nodes is None or not is_size:
        raise CorruptImageError(f"{root.what}: expected nodes, found none", name=geometry.where)
    unit = geometry.cluster_size if geometry.cluster_size <= size else STRIDE
    for _ in range(_DEPTH_MAX):
        block = nodes.read(reader, geometry, answer.below * unit, size)
        view = unprotected(block, layout.INDEX_MARK, nodes.what, geometry.where)
        answer = _search(view, _BLOCK_HEAD_AT, IndexBlock.unpack(view), name)
        if answer.below is None:
            return answer.record
    raise CorruptImageError(
        f"{nodes.what}: expected a tree, found more than {_DEPTH_MAX} levels", name=geometry.where
    )


def _search(data: memoryview, head_at: int, head: IndexRoot | IndexBlock, name: str) -> _Answer:
    """Go to the first entry that is not before ``name``."""
    position = head_at + head.entries_offset
    end = min(head_at + head.entries_end, len(data))
    target = name.encode("utf-16-be")
    while position + IndexEntry.SIZE <= end:
        entry = IndexEntry.unpack(data[position:])
        is_last = bool(entry.flags & layout.INDEX_ENTRY_LAST)
        found = b"" if is_last else _name(data[position + IndexEntry.SIZE :][: entry.key_length])
        if found == target:
            return _Answer(record=entry.reference & layout.REFERENCE_MASK)
        if is_last or found > target:
            if not entry.flags & layout.INDEX_ENTRY_NODE or entry.length < IndexEntry.SIZE + 8:
                return _Answer()
            below = data[position + entry.length - 8 : position + entry.length]
            return _Answer(below=int.from_bytes(below, "little"))
        position += max(entry.length, IndexEntry.SIZE)
    return _Answer()


def _name(key: memoryview) -> bytes:
    """The name in a key so that it compares as the tree is sorted."""
    if len(key) < FileName.SIZE:
        return b""
    length = min(2 * FileName.unpack(key).name_length, (len(key) - FileName.SIZE) & ~1)
    text = bytes(key[FileName.SIZE : FileName.SIZE + length]).decode("utf-16-le", "surrogatepass")
    return text.translate(_CAPITALS).encode("utf-16-be", "surrogatepass")
