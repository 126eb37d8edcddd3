"""The groups of packs as whole ones: for checking, rescuing and passing on what is in them."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.codecs import zstd
from imprint.core.errors import CorruptImageError, ImagingError, ReadError, RepositoryError
from imprint.core.units import MIB
from imprint.repository.index_table import RECORD_BYTES
from imprint.repository.pack import HEAD, PLAIN, nonce, pack_object
from imprint.repository.pack_reading import directory_of, parse_head
from imprint.repository.protection import KEY_BYTES, decrypt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from imprint.objects.contract import ObjectInfo, ObjectStore
    from imprint.repository.index import ChunkIndex
    from imprint.repository.pack import Directory
    from imprint.repository.protection import Aead, Protection

PACKS: Final = "packs/"

_RECORD: Final = struct.Struct("<32sIII")
_BLOCK_RECORDS: Final = 64 << 10
_PIECE_BYTES: Final = 1 * MIB
_SECTOR_BYTES: Final = 4096


class ChunkAt(NamedTuple):
    """A chunk of a group.

    Attributes:
        name: of it.
        offset: where it begins in the decoded group.
        length: in bytes.
    """

    name: bytes
    offset: int
    length: int


class GroupAt(NamedTuple):
    """A group of a pack, and what has to be in it.

    Attributes:
        number: in its pack.
        position: where it begins in the pack.
        stored: its length there.
        raw: its length decoded.
        codec: how it is compressed.
        chunks: that it holds, by offset.
    """

    number: int
    position: int
    stored: int
    raw: int
    codec: int
    chunks: list[ChunkAt]

    @property
    def is_full(self) -> bool:
        """Whether the chunks are all that is in the group, one behind the other."""
        ends = [0, *(chunk.offset + chunk.length for chunk in self.chunks)]
        starts = [*(chunk.offset for chunk in self.chunks), self.raw]
        return ends == starts


class OpenGroup(NamedTuple):
    """A group that was read.

    Attributes:
        stored: as it was compressed, not encrypted; empty if it is damaged.
        content: decoded, as far as that was possible.
        sound: for each chunk whether it is what its name says.
        reason: what is wrong; empty if nothing is.
    """

    stored: bytes | memoryview
    content: memoryview
    sound: list[bool]
    reason: str


@dataclass(frozen=True)
class GroupDamage:
    """A group of which something is damaged.

    Attributes:
        number: in its pack.
        position: in the pack, in bytes.
        length: in the pack, in bytes.
        chunks: names of its damaged chunks.
        reason: what is wrong.
    """

    number: int
    position: int
    length: int
    chunks: tuple[bytes, ...]
    reason: str


@dataclass(frozen=True)
class Inspection:
    """What is known of a pack after all of it was read.

    Attributes:
        pack: its name.
        size: in bytes; 0 if there is none.
        reasons: what is wrong with it as a whole.
        groups: its groups that are damaged.
        chunks: how many chunks it has.
    """

    pack: bytes
    size: int
    reasons: tuple[str, ...] = ()
    groups: tuple[GroupDamage, ...] = ()
    chunks: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reasons and not self.groups

    @property
    def damaged(self) -> Iterator[bytes]:
        """Names of its damaged chunks."""
        for group in self.groups:
            yield from group.chunks


def groups_of(directory: Directory) -> list[GroupAt]:
    """What a pack's directory says of its groups."""
    found = []
    chunks = zip(directory.chunk_names(), directory.offsets(), directory.lengths, strict=True)
    columns = zip(
        directory.positions(),
        directory.stored,
        directory.raw,
        directory.codecs,
        directory.counts,
        strict=True,
    )
    for number, (position, stored, raw, codec, count) in enumerate(columns):
        own = [ChunkAt(*next(chunks)) for _ in range(count)]
        found.append(GroupAt(number, position, stored, raw, codec, own))
    return found


def indexed_groups(index: ChunkIndex, packs: Collection[bytes]) -> dict[bytes, list[GroupAt]]:
    """What the index says of the groups of some packs; goes through all of it."""
    columns = index.groups
    index.tables()
    numbers = {number for number, pack in enumerate(columns.pack) if columns.packs[pack] in packs}
    chunks: defaultdict[int, set[ChunkAt]] = defaultdict(set)
    for table in index.tables() if numbers else ():
        for first in range(0, len(table), _BLOCK_RECORDS):
            last = min(first + _BLOCK_RECORDS, len(table))
            records = table.read(RECORD_BYTES * first, RECORD_BYTES * last)
            for name, group, offset, length in _RECORD.iter_unpack(records):
                if group in numbers:
                    chunks[group].add(ChunkAt(name, offset, length))
    found: dict[bytes, list[GroupAt]] = {}
    for number in sorted(numbers):
        place = columns.place((number, 0, 0))
        own = sorted(chunks[number], key=lambda chunk: (chunk.offset, chunk.name))
        group = GroupAt(
            place.group_number,
            place.group_position,
            place.group_stored,
            place.group_raw,
            place.codec,
            own,
        )
        found.setdefault(place.pack, []).append(group)
    return found


class PackOpener:
    """Opens the groups of one pack, whose bytes are there.

    Args:
        pack: its bytes, perhaps damaged or too short.
        protection: of the repository.
    """

    def __init__(self, pack: bytes | memoryview, protection: Protection) -> None:
        self._view = memoryview(pack)
        self._protection = protection
        self._aead: Aead | None = None
        self._problem = ""
        if protection.is_encrypted:
            try:
                head = parse_head(bytes(self._view[: HEAD.size + KEY_BYTES]), is_sealed=True)
                self._aead = protection.unseal(head.sender)
            except RepositoryError as failure:
                self._problem = str(failure.args[0])

    def open(self, group: GroupAt) -> OpenGroup:
        """Decode a group, and prove its chunks; thread-safe."""
        stored: bytes | memoryview = self._view[group.position : group.position + group.stored]
        try:
            stored = self._decrypted(group, stored)
        except RepositoryError as failure:
            return OpenGroup(
                b"", memoryview(b""), [False] * len(group.chunks), str(failure.args[0])
            )
        return opened(group, stored, self._protection)

    def _decrypted(self, group: GroupAt, stored: bytes | memoryview) -> bytes | memoryview:
        if len(stored) != group.stored:
            raise RepositoryError(f"expected {group.stored} bytes, found {len(stored)}")
        if not self._protection.is_encrypted:
            return stored
        if self._aead is None:
            raise RepositoryError(self._problem)
        return decrypt(self._aead, nonce(group.number), stored, None, what="group")


def inspect(
    pack: bytes, data: bytes, protection: Protection, known: Sequence[GroupAt] = ()
) -> Inspection:
    """Prove all of a pack.

    Args:
        pack: its name.
        data: its bytes.
        protection: of the repository.
        known: what the index says of its groups: used if its own directory is damaged.
    """
    from blake3 import blake3

    reasons = []
    if blake3(data).digest() != pack:
        reasons.append("its bytes are not what its name says")
    try:
        groups: Sequence[GroupAt] = groups_of(directory_of(data, protection))
    except RepositoryError as failure:
        reasons.append(str(failure.args[0]))
        groups = known
    opener = PackOpener(data, protection)
    damaged = []
    for group in groups:
        found = opener.open(group)
        if found.reason:
            lost = (
                chunk.name
                for chunk, fits in zip(group.chunks, found.sound, strict=True)
                if not fits
            )
            damaged.append(
                GroupDamage(group.number, group.position, group.stored, tuple(lost), found.reason)
            )
    chunks = sum(len(group.chunks) for group in groups)
    return Inspection(pack, len(data), tuple(reasons), tuple(damaged), chunks)


def missing_pack(pack: bytes, known: Sequence[GroupAt], reason: str) -> Inspection:
    """Of a pack that cannot be read at all."""
    damaged = tuple(
        GroupDamage(
            group.number,
            group.position,
            group.stored,
            tuple(chunk.name for chunk in group.chunks),
            reason,
        )
        for group in known
    )
    return Inspection(pack, 0, (reason,), damaged, sum(len(group.chunks) for group in known))


def read_pack(store: ObjectStore, pack: bytes) -> bytes:
    """All of a pack; zeros for what the medium that it is on does not give.

    Raises:
        MissingObjectError: if there is none.
        NetworkError: if the store does not answer.
    """
    name = pack_object(pack)
    try:
        return store.get(name)
    except ReadError:
        info = store.stat(name)
    size = 0 if info is None else info.size
    pieces: list[bytes] = []
    for start in range(0, size, _PIECE_BYTES):
        length = min(_PIECE_BYTES, size - start)
        try:
            pieces.append(_exactly(store.get_range(name, start, length), length))
        except ReadError:
            pieces += _sectors(store, name, start, length)
    return b"".join(pieces)


def _sectors(store: ObjectStore, name: str, start: int, length: int) -> Iterator[bytes]:
    for at in range(start, start + length, _SECTOR_BYTES):
        wanted = min(_SECTOR_BYTES, start + length - at)
        try:
            found = store.get_range(name, at, wanted)
        except ReadError:
            found = b""
        yield _exactly(found, wanted)


def _exactly(data: bytes, length: int) -> bytes:
    return data[:length].ljust(length, b"\0")


def pack_of(object_name: str) -> bytes | None:
    """The name of the pack that an object holds; ``None`` if it cannot be one."""
    try:
        pack = bytes.fromhex(object_name.rpartition("/")[2])
    except ValueError:
        return None
    return pack if pack_object(pack) == object_name else None


def list_packs(store: ObjectStore) -> dict[bytes, ObjectInfo]:
    """All packs that there are, by name."""
    listed = ((pack_of(item.name), item) for item in store.list(PACKS))
    return {pack: item for pack, item in listed if pack is not None}


def opened(group: GroupAt, stored: bytes | memoryview, protection: Protection) -> OpenGroup:
    """Decode a group that was decrypted, and prove its chunks."""
    content, reason = _decoded(group, stored)
    name_of = protection.name_of
    sound = [
        name_of(content[chunk.offset : chunk.offset + chunk.length]) == chunk.name
        for chunk in group.chunks
    ]
    if not all(sound) and not reason:
        reason = "chunks are not what their names say"
    return OpenGroup(b"" if reason else stored, content, sound, reason)


def _decoded(group: GroupAt, stored: bytes | memoryview) -> tuple[memoryview, str]:
    """The group's bytes; those before the damage if there is some, and what is wrong."""
    if group.codec == PLAIN:
        wrong = "" if len(stored) == group.raw else f"expected {group.raw} bytes"
        return memoryview(stored), wrong
    try:
        return memoryview(zstd.decompress(stored, group.raw)), ""
    except CorruptImageError as failure:
        return memoryview(_beginning(group, stored)), str(failure.args[0])


def _beginning(group: GroupAt, stored: bytes | memoryview) -> bytes:
    """What a damaged frame gives before the damage, chunk by chunk."""
    decoder = zstd.Decoder(stored)
    borders = sorted({0, *(chunk.offset + chunk.length for chunk in group.chunks)})
    pieces = []
    for start, end in pairwise(borders):
        try:
            pieces.append(decoder.read(end - start))
        except ImagingError:
            break
    return b"".join(pieces)
