"""Packs: objects of about 32 MiB that hold groups of chunks, with a directory at the end.

Whatever is kept for each chunk is a column of an ``array``: no object for each of the hundreds
of thousands of chunks that a machine works on.

Source: docs/repository-format.md, Packs.
"""

from __future__ import annotations

import enum
import struct
from array import array
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.codecs import zstd
from imprint.core.errors import RepositoryError
from imprint.core.units import KIB, MIB
from imprint.repository import envelope
from imprint.repository.columns import Columns, little
from imprint.repository.envelope import What
from imprint.repository.protection import NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from imprint.repository.protection import Protection

CHUNK_MAX: Final = 1 * MIB
"""Length of a chunk, at most: a reader refuses longer ones."""

CHUNK_BYTES: Final = 256 * KIB
"""What large files are cut into. Who reads 4 KiB has to prove a whole chunk: with 1 MiB that takes
twice as long, while three disks that resemble each other take up the same."""

GROUP_BYTES: Final = 800 * KIB
"""Chunks are put into a group until it has so many bytes. Who reads 4 KiB has to decode half of it:
with 1 MiB disks take 1 % less and such reads 20 % longer, with 1.5 MiB 2 % less and 60 % longer."""

GROUP_BYTES_MAX: Final = 16 * MIB
"""What a reader takes: as much as it has to hold in memory for the sake of one chunk."""

PACK_BYTES: Final = 32 * MIB
"""Groups are put into a pack until it has so many bytes."""

PLAIN: Final = 0
ZSTANDARD: Final = 1
"""Codecs of groups."""

HEAD: Final = struct.Struct("<4sBBBB")
_COUNTS: Final = struct.Struct("<II")
FOOT: Final = struct.Struct("<Q4s")
MAGIC: Final = b"IMPp"
FOOT_MAGIC: Final = b"IMPf"
VERSION: Final = 1


class PackKind(enum.IntEnum):
    """What the chunks of a pack are."""

    DATA = 0
    NODES = 1


class Group(NamedTuple):
    """Chunks that were compressed together.

    Attributes:
        stored: what goes into the pack, not encrypted.
        raw: length of the chunks together, in bytes.
        codec: how ``stored`` holds them: ``PLAIN`` or ``ZSTANDARD``.
        lengths: of the chunks.
    """

    stored: bytes
    raw: int
    codec: int
    lengths: tuple[int, ...]


class FinishedPack(NamedTuple):
    """A pack that is ready to be put.

    Attributes:
        name: of the pack, 32 bytes.
        parts: its content.
        directory: what is in it.
    """

    name: bytes
    parts: list[bytes]
    directory: Directory


def pack_object(name: bytes) -> str:
    """The object that holds the pack ``name``."""
    digits = name.hex()
    return f"packs/{digits[:2]}/{digits}"


def encode_group(chunks: Sequence[bytes | memoryview], level: int) -> Group:
    """Compress chunks together; thread-safe.

    Args:
        chunks: their bytes, at most ``GROUP_BYTES_MAX`` together, none of them empty.
        level: of Zstandard.
    """
    content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    raw = len(content)
    lengths = tuple(map(len, chunks))
    frame = zstd.compress_large(content, level=level)
    if len(frame) <= raw - raw // 32 and len(frame) < raw:
        return Group(frame, raw, ZSTANDARD, lengths)
    return Group(bytes(content), raw, PLAIN, lengths)


def nonce(number: int) -> bytes:
    """Under which a group of a sealed pack is encrypted."""
    return number.to_bytes(12, "big")


class PackBuilder:
    """Puts groups one behind the other. For one thread at a time.

    Args:
        kind: of its chunks.
        protection: of the repository.

    Attributes:
        size: what it has come to, without a directory.
    """

    def __init__(self, kind: PackKind, protection: Protection) -> None:
        self._protection = protection
        sealed = protection.seal()
        head = HEAD.pack(MAGIC, VERSION, kind, sealed is not None, 0)
        self._aead = None if sealed is None else sealed[1]
        self._parts = [head if sealed is None else head + sealed[0]]
        self._directory = Directory(kind, start=len(self._parts[0]))
        self.size = len(self._parts[0])

    def add(self, group: Group, names: Sequence[bytes]) -> None:
        """Take a group; ``names`` are those of its chunks."""
        assert len(names) == len(group.lengths)
        stored = group.stored
        if self._aead is not None:
            stored = self._aead.encrypt(nonce(len(self._directory.stored)), stored, None)
        self._directory.append(group, len(stored), names)
        self._parts.append(stored)
        self.size += len(stored)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self._directory.stored

    def finish(self) -> FinishedPack:
        """Write the directory, and find the pack's name."""
        from blake3 import blake3

        content = self._directory.serialise()
        blob = envelope.wrap(What.DIRECTORY, content, self._protection)
        parts = [*self._parts, blob, FOOT.pack(len(blob), FOOT_MAGIC)]
        hasher = blake3()
        for part in parts:
            hasher.update(part)
        return FinishedPack(hasher.digest(), parts, self._directory)


class Directory:
    """What is in a pack. The columns of groups and of chunks are in the pack's order.

    Attributes:
        kind: of the chunks.
        start: where the first group begins in the pack.
        stored: lengths of groups as stored, tags included.
        raw: lengths of groups decoded.
        codecs: of groups.
        lengths: of chunks.
        names: of chunks, 32 bytes each.
        counts: number of chunks in each group.
    """

    def __init__(self, kind: PackKind, *, start: int) -> None:
        self.kind = kind
        self.start = start
        self.stored = array("I")
        self.raw = array("I")
        self.codecs = bytearray()
        self.lengths = array("I")
        self.names = bytearray()
        self.counts = array("I")

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self.lengths)

    def append(self, group: Group, stored: int, names: Sequence[bytes]) -> None:
        """Add a group behind the others; ``stored`` is its length in the pack."""
        self.stored.append(stored)
        self.raw.append(group.raw)
        self.codecs.append(group.codec)
        self.lengths.extend(group.lengths)
        self.names += b"".join(names)
        self.counts.append(len(names))

    def positions(self) -> array[int]:
        """Where each group begins in the pack."""
        ends = accumulate(self.stored, initial=self.start)
        return array("I", (at for at, _ in zip(ends, self.stored, strict=False)))

    def offsets(self) -> array[int]:
        """Where each chunk begins in its decoded group."""
        found = array("I")
        first = 0
        for count in self.counts:
            found.extend(accumulate(self.lengths[first : first + count - 1], initial=0))
            first += count
        return found

    def groups(self) -> array[int]:
        """The number of the group of each chunk."""
        found = array("I")
        for number, count in enumerate(self.counts):
            found.extend(array("I", [number]) * count)
        return found

    def chunk_names(self) -> Iterator[bytes]:
        """The names one by one."""
        return (name for (name,) in struct.iter_unpack(f"{NAME_BYTES}s", self.names))

    def serialise(self) -> bytes:
        """The content of the directory's envelope."""
        return b"".join(
            (
                _COUNTS.pack(len(self.stored), len(self.lengths)),
                little(self.stored),
                little(self.raw),
                self.codecs,
                little(self.lengths),
                self.names,
            )
        )

    @classmethod
    def parse(cls, content: bytes | memoryview, kind: PackKind, *, start: int) -> Directory:
        """Read what :meth:`serialise` has made.

        Raises:
            RepositoryError: if it contradicts itself.
        """
        view = memoryview(content)
        if len(view) < _COUNTS.size:
            raise RepositoryError(f"directory: expected 8 bytes or more, found {len(view)}")
        groups, chunks = _COUNTS.unpack_from(view)
        expected = _COUNTS.size + 9 * groups + 36 * chunks
        if len(view) != expected:
            raise RepositoryError(
                f"directory of {groups} groups and {chunks} chunks: expected {expected} bytes, "
                f"found {len(view)}"
            )
        found = cls(kind, start=start)
        columns = Columns(view, _COUNTS.size)
        found.stored = columns.numbers(groups)
        found.raw = columns.numbers(groups)
        found.codecs = bytearray(columns.take(groups))
        found.lengths = columns.numbers(chunks)
        found.names = bytearray(columns.take(NAME_BYTES * chunks))
        found.counts = _chunks_of_groups(found)
        return found


def _chunks_of_groups(directory: Directory) -> array[int]:
    """How many chunks each group has.

    Raises:
        RepositoryError: if groups and chunks do not fit together.
    """
    check_groups(directory.stored, directory.raw, directory.codecs)
    lengths = directory.lengths
    if lengths and not 0 < min(lengths) <= max(lengths) <= CHUNK_MAX:
        raise RepositoryError(
            f"directory: expected chunks of 1 to {CHUNK_MAX} bytes, "
            f"found one of {min(lengths) and max(lengths)}"
        )
    if directory.start + sum(directory.stored) >= 1 << 32:
        raise RepositoryError("directory: expected a pack of less than 4 GiB")
    ends = list(accumulate(lengths))
    total = 0
    first = 0
    counts = array("I")
    for number, raw in enumerate(directory.raw):
        total += raw
        last = bisect_left(ends, total, first)
        if last == len(ends) or ends[last] != total:
            raise RepositoryError(f"directory: the chunks of group {number} do not add up")
        counts.append(last + 1 - first)
        first = last + 1
    if first != len(ends):
        raise RepositoryError("directory: there are chunks behind the last group")
    return counts


def check_groups(stored: array[int], raw: array[int], codecs: Iterable[int]) -> None:
    """Make sure that groups can be decoded in bounded memory.

    Raises:
        RepositoryError: if not.
    """
    if not raw:
        return
    if not 0 < min(raw) <= max(raw) <= GROUP_BYTES_MAX:
        raise RepositoryError(
            f"expected groups of 1 to {GROUP_BYTES_MAX} bytes, found one of {min(raw) and max(raw)}"
        )
    if max(stored) > GROUP_BYTES_MAX + 16:
        raise RepositoryError(
            f"expected stored groups of at most {GROUP_BYTES_MAX + 16} bytes, "
            f"found one of {max(stored)}"
        )
    if max(codecs) > ZSTANDARD:
        raise RepositoryError(f"expected codec 0 or 1 of a group, found {max(codecs)}")
