"""The content of index objects, and the groups that they speak of.

Source: docs/repository-format.md, Index.
"""

from __future__ import annotations

import struct
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import RepositoryError
from imprint.core.units import KIB
from imprint.repository.columns import Columns, little
from imprint.repository.index_table import RECORD_BYTES, join_columns, split_columns
from imprint.repository.pack import PackKind, check_groups
from imprint.repository.protection import NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

COUNTS: Final = struct.Struct("<III")
"""Numbers of packs, groups and chunks, at the start."""

BLOCK_CHUNKS: Final = 64 * KIB
"""Handled at a time."""


def assemble(
    front: Sequence[bytes | bytearray], chunks: int, blocks: Iterable[bytes | bytearray]
) -> bytes:
    """The content of an index object.

    Args:
        front: all that comes before the chunks.
        chunks: how many there are.
        blocks: their records, as tables have them, ascending.
    """
    start = sum(map(len, front))
    content = bytearray(start + RECORD_BYTES * chunks)
    content[:start] = b"".join(front)
    first = 0
    for block in blocks:
        last = first + len(block) // RECORD_BYTES
        names, columns = split_columns(block)
        for number, column in enumerate(columns):
            at = start + 4 * chunks * number
            content[at + 4 * first : at + 4 * last] = little(column)
        at = start + 12 * chunks
        content[at + NAME_BYTES * first : at + NAME_BYTES * last] = names
        first = last
    assert first == chunks
    return bytes(content)


class Place(NamedTuple):
    """Where a chunk is.

    Attributes:
        pack: the pack's name.
        group_position: where the group begins in the pack.
        group_stored: its length there.
        group_raw: its length decoded.
        codec: how it is compressed.
        group_number: of the group in its pack.
        offset: where the chunk begins in the decoded group.
        length: of the chunk.
    """

    pack: bytes
    group_position: int
    group_stored: int
    group_raw: int
    codec: int
    group_number: int
    offset: int
    length: int


class IndexContent:
    """The content of an index object, looked at without copying it.

    Attributes:
        packs: names of the packs that it speaks of.
        counts: number of groups of each.
        kinds: of each.
        positions: of groups in their packs.
        stored: lengths of groups as stored.
        raw: lengths of groups decoded.
        codecs: of groups.
        chunks: how many chunks it has.

    Raises:
        RepositoryError: if it contradicts itself.
    """

    def __init__(self, content: bytes | memoryview) -> None:
        view = memoryview(content)
        if len(view) < COUNTS.size:
            raise RepositoryError(f"index: expected 12 bytes or more, found {len(view)}")
        packs, groups, chunks = COUNTS.unpack_from(view)
        expected = COUNTS.size + 37 * packs + 13 * groups + 44 * chunks
        if len(view) != expected:
            raise RepositoryError(
                f"index of {packs} packs, {groups} groups and {chunks} chunks: "
                f"expected {expected} bytes, found {len(view)}"
            )
        columns = Columns(view, COUNTS.size)
        names = columns.take(NAME_BYTES * packs).tobytes()
        self.packs = [name for (name,) in struct.iter_unpack(f"{NAME_BYTES}s", names)]
        self.counts = columns.numbers(packs)
        self.kinds = columns.take(packs).tobytes()
        self.positions = columns.numbers(groups)
        self.stored = columns.numbers(groups)
        self.raw = columns.numbers(groups)
        self.codecs = columns.take(groups).tobytes()
        self.chunks = chunks
        self._numbers = [columns.take(4 * chunks) for _ in range(3)]
        self._names = columns.take(NAME_BYTES * chunks)
        if sum(self.counts) != groups:
            raise RepositoryError(f"index: expected {groups} groups, found {sum(self.counts)}")
        if self.kinds and max(self.kinds) > max(PackKind):
            raise RepositoryError(f"index: expected packs of kind 0 or 1, found {max(self.kinds)}")
        check_groups(self.stored, self.raw, self.codecs)

    def record_blocks(self, numbers: array[int]) -> Iterator[bytearray]:
        """The chunks as records of a table; ``numbers[n]`` takes the place of group ``n``.

        Raises:
            RepositoryError: if there is no such group.
        """
        for start in range(0, self.chunks, BLOCK_CHUNKS):
            end = min(start + BLOCK_CHUNKS, self.chunks)
            count = end - start
            groups, offsets, lengths = (
                Columns(column, 4 * start).numbers(count) for column in self._numbers
            )
            try:
                groups = array("I", map(numbers.__getitem__, groups))
            except IndexError:
                raise RepositoryError(
                    f"index: expected groups below {len(numbers)}, found {max(groups)}"
                ) from None
            names = self._names[NAME_BYTES * start : NAME_BYTES * end]
            yield join_columns(names, (groups, offsets, lengths))


class Groups:
    """All groups that an index speaks of. Columns only ever grow, so that numbers stay valid.

    Attributes:
        packs: names of packs, in the order in which they came.
        kinds: of packs.
        first: number of the first group of each pack.
        pack: number of the pack of each group.
        position: of each group in its pack.
        stored: length of each group in its pack.
        raw: length of each group decoded.
        codec: of each group.
    """

    def __init__(self) -> None:
        self.packs: list[bytes] = []
        self.kinds = bytearray()
        self.first = array("I")
        self.pack = array("I")
        self.position = array("I")
        self.stored = array("I")
        self.raw = array("I")
        self.codec = bytearray()
        self._known: dict[bytes, int] = {}

    def add(self, content: IndexContent) -> array[int]:
        """Take the groups of an index object; gives their numbers here."""
        numbers = array("I")
        start = 0
        ends = accumulate(content.counts)
        for pack, kind, end in zip(content.packs, content.kinds, ends, strict=True):
            known = self._known.get(pack)
            if known is None or not self._is_same(known, content, start, end):
                known = self._append(pack, kind, content, start, end)
            first = self.first[known]
            numbers.extend(range(first, first + end - start))
            start = end
        return numbers

    def _is_same(self, pack: int, content: IndexContent, start: int, end: int) -> bool:
        """Whether what is known of a pack already is what ``content`` says."""
        first = self.first[pack]
        last = first + end - start
        return (
            self.position[first:last] == content.positions[start:end]
            and self.stored[first:last] == content.stored[start:end]
            and self.raw[first:last] == content.raw[start:end]
            and self.codec[first:last] == content.codecs[start:end]
            and (first == last or self.pack[last - 1] == pack)
        )

    def _append(self, pack: bytes, kind: int, content: IndexContent, start: int, end: int) -> int:
        number = len(self.packs)
        self._known[pack] = number
        self.packs.append(pack)
        self.kinds.append(kind)
        self.first.append(len(self.pack))
        self.position.extend(content.positions[start:end])
        self.stored.extend(content.stored[start:end])
        self.raw.extend(content.raw[start:end])
        self.codec += content.codecs[start:end]
        self.pack.extend(array("I", [number]) * (end - start))
        return number

    def place(self, found: tuple[int, int, int]) -> Place:
        """What a table has found, in full."""
        group, offset, length = found
        pack = self.pack[group]
        return Place(
            self.packs[pack],
            self.position[group],
            self.stored[group],
            self.raw[group],
            self.codec[group],
            group - self.first[pack],
            offset,
            length,
        )
