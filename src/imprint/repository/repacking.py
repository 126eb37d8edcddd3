"""Packs of which much is waste: what is needed of them is copied to new packs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import RepositoryError
from imprint.repository.pack import GROUP_BYTES, PACK_BYTES, PackKind, encode_group, pack_object
from imprint.repository.pack_reading import read_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from imprint.repository.live import Live, PackUse
    from imprint.repository.pack import Directory
    from imprint.repository.repository import Repository
    from imprint.repository.writing import ChunkWriter

SMALL_BYTES: Final = PACK_BYTES // 8
"""A pack below this is small: each capture leaves some."""


class Wasteful(NamedTuple):
    """A pack that is worth being repacked.

    Attributes:
        name: of the pack.
        used: bytes of it that are needed, about.
    """

    name: bytes
    used: int


def find_wasteful(
    uses: Mapping[bytes, PackUse], *, waste_max: float, small_max: int
) -> list[Wasteful]:
    """The packs that are worth being repacked, of those that are needed in part.

    Args:
        uses: of packs that may be touched.
        waste_max: part of a pack that may be waste, 0 to 1.
        small_max: so many small packs of a kind are left as they are.
    """
    found = [
        Wasteful(name, use.used)
        for name, use in uses.items()
        if use.groups - use.used > waste_max * use.groups
    ]
    for kind in PackKind:
        small = [
            Wasteful(name, use.used)
            for name, use in uses.items()
            if use.kind == kind and use.groups < SMALL_BYTES
        ]
        if len(small) > max(1, small_max):
            found += small
    return sorted(set(found))


def copy_needed(
    repository: Repository,
    live: Live,
    packs: Collection[bytes],
    writer: ChunkWriter,
    tell: Callable[[int], None],
) -> None:
    """Copy what is needed of packs to new ones, and make sure that it is there then.

    Args:
        repository: that they are in.
        live: says what is needed.
        packs: names of them.
        writer: to which the chunks of these packs are absent.
        tell: called with the bytes of chunks that were copied, for each group.

    Raises:
        RepositoryError: if something that is needed is damaged.
        TargetError: if there is no room.
    """
    for pack in packs:
        directory = read_directory(repository.store, pack, repository.protection)
        for names in _groups_of(directory, live, pack):
            is_new = writer.claim(names)
            wanted = [name for name, fits in zip(names, is_new, strict=True) if fits]
            if wanted:
                chunks = [repository.chunks.read(name) for name in wanted]
                group = encode_group(chunks, repository.format.level)
                writer.add(group, wanted, directory.kind)
                tell(group.raw)
    writer.finish()
    for pack in packs:
        directory = read_directory(repository.store, pack, repository.protection)
        for names in _groups_of(directory, live, pack):
            if not writer.has_all(names):
                raise RepositoryError(
                    "expected all chunks in the new packs, some are not",
                    name=f"{repository.name}/{pack_object(pack)}",
                )


def _groups_of(directory: Directory, live: Live, pack: bytes) -> Iterator[list[bytes]]:
    """The names of chunks that are needed, as many as fit into a group."""
    names: list[bytes] = []
    size = 0
    for name, length in zip(directory.chunk_names(), directory.lengths, strict=True):
        if not live.is_needed(name, pack):
            continue
        if names and size + length > GROUP_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += length
    if names:
        yield names
