"""Targets: packs and the index of a repository, and chunks that are read as they say."""

from __future__ import annotations

import struct
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from imprint.core.errors import ImagingError
from imprint.objects.memory import MemoryStore
from imprint.repository.chunks import ChunkReader
from imprint.repository.index import ChunkIndex, IndexTable, build_index
from imprint.repository.pack import FOOT, PackKind, pack_object
from imprint.repository.pack_reading import read_directory
from imprint.repository.protection import NAME_BYTES, Plain
from imprint.testing.fuzzing.target import Target
from imprint.testing.small_packs import chunks, pack_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_GROUPS: Final = ((b"ab" * 40, b"c"), (b"d" * 90,), tuple(chunks(3, seed=1, longest=60)))
_CHECK_BYTES: Final = 32
_CHUNKS_MAX: Final = 40
_NUMBERS: Final = tuple(
    struct.pack("<I", number) for number in (0, 1, 2, 1 << 20, 1 << 24, 0xFFFFFFFF)
)


def targets() -> Iterator[Target]:
    """All of them."""
    yield Target("pack", _pack_seeds, (read_pack,), words=_NUMBERS, seal=_seal)
    yield Target("index", _index_seeds, (search_index, read_by_index), words=_NUMBERS)


def _pack_seeds() -> list[bytes]:
    packs = [
        pack_of(_GROUPS, Plain()),
        pack_of(_GROUPS[:1], Plain(), kind=PackKind.NODES),
        pack_of((), Plain()),
    ]
    return [b"".join(pack.parts) for pack in packs]


def _index_seeds() -> list[bytes]:
    packs = [pack_of(_GROUPS, Plain()), pack_of(_GROUPS[1:], Plain(), kind=PackKind.NODES)]
    directories = [(pack.name, pack.directory) for pack in packs]
    return [build_index(directories[:count]) for count in range(3)]


def read_pack(content: bytes) -> None:
    """An index can be made of what a pack says, and leads to chunks or to an error."""
    store = MemoryStore()
    name = bytes(NAME_BYTES)
    store.put(pack_object(name), (content,))
    directory = read_directory(store, name, Plain())
    index = ChunkIndex(store, Plain())
    index.add(build_index([(name, directory)]))
    _read_all(store, index, directory.chunk_names())


def search_index(content: bytes) -> None:
    """What is found in an index has a group."""
    table = IndexTable(content)
    for name in _names(content, len(table)):
        found = table.find(name)
        assert found is not None
        assert found.pack in table.packs


def read_by_index(content: bytes) -> None:
    """Wherever an index leads to, there is a chunk or an error."""
    store = MemoryStore()
    pack = pack_of(_GROUPS, Plain())
    store.put(pack_object(pack.name), pack.parts)
    index = ChunkIndex(store, Plain())
    index.add(content)
    _read_all(store, index, _names(content, len(index)))


def _names(content: bytes, count: int) -> list[bytes]:
    """Some of the names at the end of an index."""
    first = len(content) - NAME_BYTES * count
    return [
        content[first + NAME_BYTES * number :][:NAME_BYTES]
        for number in range(min(count, _CHUNKS_MAX))
    ]


def _read_all(store: MemoryStore, index: ChunkIndex, names: Iterator[bytes] | list[bytes]) -> None:
    reader = ChunkReader(store, index, Plain())
    for name in islice(names, _CHUNKS_MAX):
        with suppress(ImagingError):  # the other chunks are read all the same
            assert blake3(reader.read(name)).digest() == name


def _seal(content: bytearray) -> None:
    """Make the check of the directory right."""
    if len(content) < FOOT.size:
        return
    length, _ = FOOT.unpack_from(content, len(content) - FOOT.size)
    end = len(content) - FOOT.size
    start = end - length
    if start >= 0 and length > _CHECK_BYTES:
        check = blake3(content[start : end - _CHECK_BYTES]).digest()
        content[end - _CHECK_BYTES : end] = check
