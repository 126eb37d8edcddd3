"""Index objects that no longer speak of some packs."""

from __future__ import annotations

import struct
from array import array
from itertools import accumulate, compress
from typing import TYPE_CHECKING, Final

from imprint.objects.contract import MissingObjectError
from imprint.repository.columns import little
from imprint.repository.envelope import What, unwrap
from imprint.repository.index_content import COUNTS, IndexContent
from imprint.repository.index_table import split_columns
from imprint.repository.protection import NAME_BYTES
from imprint.repository.writing import put_index

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from imprint.objects.contract import ObjectStore
    from imprint.repository.protection import Protection

INDEX: Final = "index/"
_DROPPED: Final = 0xFFFFFFFF


def drop_packs(store: ObjectStore, protection: Protection, packs: Collection[bytes]) -> int:
    """Replace each index object that speaks of some packs by one that does not; new ones first.

    Returns:
        How many were replaced.

    Raises:
        RepositoryError: if an index object is damaged.
    """
    wanted = frozenset(packs)
    count = 0
    for info in list(store.list(INDEX)):
        try:
            data = store.get(info.name)
        except MissingObjectError:
            continue  # somebody else has replaced it
        content = unwrap(data, What.INDEX, protection, name=f"{store.name}/{info.name}")
        left = without_packs(content, wanted)
        if left is None:
            continue
        if left:
            put_index(store, protection, left)
        store.delete(info.name)
        count += 1
    return count


def without_packs(content: bytes, packs: Collection[bytes]) -> bytes | None:
    """The content of an index object without what it says of some packs.

    Returns:
        ``None`` if it speaks of none of them; nothing if it speaks of no others.

    Raises:
        RepositoryError: if it contradicts itself.
    """
    index = IndexContent(content)
    kept = [pack not in packs for pack in index.packs]
    if all(kept):
        return None
    if not any(kept):
        return b""
    of_groups = [fits for fits, count in zip(kept, index.counts, strict=True) for _ in range(count)]
    numbers = array("I", (at - 1 for at in accumulate(of_groups)))
    for at, fits in enumerate(of_groups):
        if not fits:
            numbers[at] = _DROPPED
    names, columns = bytearray(), (array("I"), array("I"), array("I"))
    for block_names, block in _kept_chunks(index, numbers):
        names += block_names
        for column, more in zip(columns, block, strict=True):
            column.extend(more)
    return b"".join(
        (
            COUNTS.pack(sum(kept), sum(of_groups), len(columns[0])),
            *compress(index.packs, kept),
            little(array("I", compress(index.counts, kept))),
            bytes(compress(index.kinds, kept)),
            *(
                little(array("I", compress(column, of_groups)))
                for column in (index.positions, index.stored, index.raw)
            ),
            bytes(compress(index.codecs, of_groups)),
            *map(little, columns),
            names,
        )
    )


def _kept_chunks(
    index: IndexContent, numbers: array[int]
) -> Iterator[tuple[bytes, list[array[int]]]]:
    """Names and columns of the chunks whose groups have a number."""
    for records in index.record_blocks(numbers):
        names, columns = split_columns(bytes(records))
        kept = [group != _DROPPED for group in columns[0]]
        if not all(kept):
            each = (name for (name,) in struct.iter_unpack(f"{NAME_BYTES}s", names))
            names = bytearray().join(compress(each, kept))
            columns = [array("I", compress(column, kept)) for column in columns]
        yield bytes(names), columns
