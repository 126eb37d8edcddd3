"""Index objects that name packs which are to go are replaced by ones that do not.

Many small ones become few on the way: each capture leaves one.
Source: ``docs/repository-format.md``, Index.
"""

from __future__ import annotations

import struct
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from imprint.objects.contract import MissingObjectError
from imprint.repository.columns import little
from imprint.repository.envelope import What, unwrap
from imprint.repository.index_content import COUNTS, IndexContent, assemble
from imprint.repository.index_table import RECORD_BYTES, split_columns
from imprint.repository.writing import index_object

if TYPE_CHECKING:
    from collections.abc import Collection

    from imprint.core.cancel import CancelToken
    from imprint.objects.contract import ObjectStore
    from imprint.repository.protection import Protection

INDEX: Final = "index/"

_SMALL_BYTES: Final = 1 << 20
"""An index object below this is small: 25 000 chunks."""

_SMALL_MAX: Final = 16
"""So many small ones are left as they are."""

_MERGED_CHUNKS: Final = 256 * 1024
"""In an object that is made of several, at most: what is sorted in memory."""

_DROPPED: Final = (1 << 32) - 1
_RECORD: Final = struct.Struct(f"{RECORD_BYTES}s")


def replace_index(
    store: ObjectStore,
    protection: Protection,
    gone: Collection[bytes],
    *,
    cancel: CancelToken | None = None,
) -> None:
    """Make index objects forget packs. At any moment all other packs are in some object.

    Args:
        store: of the repository.
        protection: of the repository.
        gone: names of packs.
        cancel: stops it between two objects.

    Raises:
        RepositoryError: if an index object is damaged.
        TargetError: if there is no room for a new one.
        Cancelled: if ``cancel`` says so.
    """
    listed = list(store.list(INDEX))
    small = {item.name for item in listed if item.size < _SMALL_BYTES}
    merged = small if len(small) > _SMALL_MAX else set[str]()
    joined = _Joined()
    for item in listed:
        if cancel is not None:
            cancel.check()
        content = _read(store, protection, item.name)
        if content is None:
            continue
        if item.name not in merged and not any(pack in gone for pack in content.packs):
            continue
        if joined.names and joined.chunks + content.chunks > _MERGED_CHUNKS:
            joined.replace(store, protection)
            joined = _Joined()
        joined.add(item.name, content, gone)
    joined.replace(store, protection)


def _read(store: ObjectStore, protection: Protection, name: str) -> IndexContent | None:
    try:
        data = store.get(name)
    except MissingObjectError:
        return None
    return IndexContent(unwrap(data, What.INDEX, protection, name=f"{store.name}/{name}"))


class _Joined:
    """Index objects on their way to become one."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.chunks = 0
        self._first: dict[tuple[bytes, bytes], int] = {}
        self._packs: list[bytes] = []
        self._counts = array("I")
        self._kinds = bytearray()
        self._positions = array("I")
        self._stored = array("I")
        self._raw = array("I")
        self._codecs = bytearray()
        self._blocks: list[bytes | bytearray] = []

    def add(self, name: str, content: IndexContent, gone: Collection[bytes]) -> None:
        """Take what an object says, but for packs that are gone."""
        self.names.append(name)
        numbers = array("I")
        start = 0
        ends = accumulate(content.counts)
        for pack, kind, end in zip(content.packs, content.kinds, ends, strict=True):
            if pack in gone:
                numbers.extend(array("I", [_DROPPED]) * (end - start))
            else:
                first = self._take_pack(content, pack, kind, range(start, end))
                numbers.extend(range(first, first + end - start))
            start = end
        for block in content.record_blocks(numbers):
            kept = _without_dropped(block)
            self.chunks += len(kept) // RECORD_BYTES
            self._blocks.append(kept)

    def _take_pack(self, content: IndexContent, pack: bytes, kind: int, groups: range) -> int:
        """The number that the first group of a pack has here."""
        start, end = groups.start, groups.stop
        columns = (content.positions, content.stored, content.raw)
        says = b"".join(little(column[start:end]) for column in columns)
        first = self._first.get((pack, says))
        if first is None:
            # Usually a pack is in one object. A crash leaves what was replaced, and the new one.
            first = self._first[pack, says] = len(self._stored)
            self._packs.append(pack)
            self._counts.append(end - start)
            self._kinds.append(kind)
            self._positions.extend(content.positions[start:end])
            self._stored.extend(content.stored[start:end])
            self._raw.extend(content.raw[start:end])
            self._codecs += content.codecs[start:end]
        return first

    def replace(self, store: ObjectStore, protection: Protection) -> None:
        """Put the new object, if anything is left to be said, and remove the old ones."""
        kept = ""
        if self._packs:
            kept, data = index_object(self._content(), protection)
            store.put(kept, (data,))
        for name in self.names:
            if name != kept:
                store.delete(name)

    def _content(self) -> bytes:
        blocks: list[bytes | bytearray] = self._blocks
        if len(self.names) > 1:
            records = (record for block in blocks for (record,) in _RECORD.iter_unpack(block))
            blocks = [b"".join(sorted(set(records)))]
            self.chunks = len(blocks[0]) // RECORD_BYTES
        front: list[bytes | bytearray] = [
            COUNTS.pack(len(self._packs), len(self._stored), self.chunks),
            *self._packs,
            little(self._counts),
            self._kinds,
            little(self._positions),
            little(self._stored),
            little(self._raw),
            self._codecs,
        ]
        return assemble(front, self.chunks, blocks)


def _without_dropped(block: bytearray) -> bytes | bytearray:
    """Records of groups that are kept."""
    groups = split_columns(block)[1][0]
    if _DROPPED not in groups:
        return block
    records = _RECORD.iter_unpack(block)
    return b"".join(
        record for (record,), group in zip(records, groups, strict=True) if group != _DROPPED
    )
