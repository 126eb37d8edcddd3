"""A snapshot as a disk that can be read anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from imprint.core.buffers import fill_zero
from imprint.core.contracts import Traits
from imprint.core.errors import LostDataError, RepositoryError
from imprint.core.extent import Extent, Kind, coalesce
from imprint.repository.nodes import Piece, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.repository.chunks import ChunkReader
    from imprint.repository.nodes import Leaf
    from imprint.repository.protection import Protection
    from imprint.repository.snapshots import Snapshot

KINDS: Final = {
    Piece.DATA: Kind.ENCODED,
    Piece.ZERO: Kind.ZERO,
    Piece.HOLE: Kind.HOLE,
    Piece.UNUSED: Kind.UNUSED,
    Piece.BAD: Kind.BAD,
}
"""What the entries of a leaf are to those who read the disk."""


class SnapshotSource:
    """The disk of a snapshot. Whatever is read is checked against the snapshot's name.

    Attributes:
        snapshot: whose disk it is.
        tree: of it.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        chunks: ChunkReader,
        protection: Protection,
        name: str,
        *,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """``on_close`` is called once, when the disk is closed: for what it was opened with."""
        self.snapshot = snapshot
        self._chunks = chunks
        self._name_of = protection.name_of
        self._name = name
        self._on_close = on_close
        root = bytes.fromhex(snapshot.manifest.root)
        self.tree = Tree(root, snapshot.manifest.size, lambda node: bytes(chunks.read(node)))

    @property
    def name(self) -> str:
        """The address of the snapshot."""
        return self._name

    @property
    def size(self) -> int:
        """Of the disk, in bytes."""
        return self.snapshot.manifest.size

    @property
    def traits(self) -> Traits:
        """Of the disk."""
        manifest = self.snapshot.manifest
        return Traits(logical_sector=manifest.sector, physical_sector=manifest.physical_sector)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`.

        Raises:
            LostDataError: if some of it is damaged or missing.
            RepositoryError: if all of the disk is lost.
        """
        try:
            self._read(buffer, offset)
        except RepositoryError as failure:
            self.tree.check_root()
            raise LostDataError(
                str(failure.args[0]),
                name=failure.name,
                offset=offset,
                length=len(buffer),
                advice=failure.advice,
            ) from failure

    def _read(self, buffer: memoryview, offset: int) -> None:
        parts: list[tuple[bytes, int, memoryview]] = []
        end = offset + len(buffer)
        position = offset
        while position < end:
            leaf = self.tree.leaf_at(position)
            borders = leaf.borders
            entry = leaf.entry_at(position)
            while position < end and entry < len(leaf.kinds):
                stop = min(end, borders[entry + 1])
                view = buffer[position - offset : stop - offset]
                if leaf.kinds[entry] == Piece.DATA:
                    parts.append((leaf.name_of(entry), position - borders[entry], view))
                else:
                    fill_zero(view)
                position = stop
                entry += 1
        self._chunks.readinto_many(parts)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What the disk is made of; data is encoded, as chunks."""
        return coalesce(self._extents(offset, offset + length))

    def _extents(self, start: int, end: int) -> Iterator[Extent]:
        for low, high, name in self.tree.leaves(start, end):
            leaf = self.tree.leaf(name, low, high)
            for at, kind, length in zip(leaf.borders, leaf.kinds, leaf.lengths, strict=False):
                if at < end and at + length > start:
                    extent = Extent(at, length, KINDS[Piece(kind)])
                    yield extent.clip(start, end)

    def differing(self, leaf: Leaf, offset: int, present: memoryview) -> list[tuple[int, int]]:
        """What of some bytes is not what the disk has there: ``(offset, length)`` of whole chunks.

        Reads nothing: chunks are told by their names.

        Args:
            leaf: that holds all of them.
            offset: of the disk, at which a chunk begins.
            present: the bytes to judge, up to where a chunk ends.
        """
        found = []
        end = offset + len(present)
        for entry in range(leaf.entry_at(offset), len(leaf.kinds)):
            start, stop = leaf.borders[entry], leaf.borders[entry + 1]
            if stop > end:
                break
            if self._name_of(present[start - offset : stop - offset]) != leaf.name_of(entry):
                found.append((start, stop - start))
        return found

    def close(self) -> None:
        """Close the repository, if the disk owns it."""
        if self._on_close is not None:
            on_close, self._on_close = self._on_close, None
            on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
