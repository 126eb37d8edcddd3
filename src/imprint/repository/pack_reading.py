"""Reading what a pack says of itself: its head, and the directory at its end.

Source: docs/repository-format.md, Packs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import RepositoryError
from imprint.core.units import KIB, MIB
from imprint.repository import envelope
from imprint.repository.envelope import What
from imprint.repository.pack import (
    FOOT,
    FOOT_MAGIC,
    HEAD,
    MAGIC,
    VERSION,
    Directory,
    PackKind,
    pack_object,
)
from imprint.repository.protection import KEY_BYTES

if TYPE_CHECKING:
    from imprint.objects.contract import ObjectStore
    from imprint.repository.protection import Protection

_TAIL_BYTES: Final = 64 * KIB
"""Read at once at a pack's end: most directories are shorter."""

DIRECTORY_BYTES_MAX: Final = 64 * MIB
"""Of a directory as stored: 1.8 million chunks in one pack."""


class Head(NamedTuple):
    """The start of a pack.

    Attributes:
        kind: of its chunks.
        sender: the X25519 key that it was sealed with; empty if it is not sealed.
    """

    kind: PackKind
    sender: bytes

    @property
    def size(self) -> int:
        """Where the first group begins."""
        return HEAD.size + len(self.sender)


def parse_head(data: bytes, *, is_sealed: bool) -> Head:
    """Read the first 40 bytes of a pack.

    Args:
        data: what was read; shorter if the pack is.
        is_sealed: whether the repository is encrypted.

    Raises:
        RepositoryError: if it is not the head of a pack of this repository.
    """
    if len(data) < HEAD.size + is_sealed * KEY_BYTES:
        raise RepositoryError(f"expected the head of a pack, found {len(data)} bytes")
    magic, version, kind, cipher, reserved = HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or kind > max(PackKind) or reserved:
        raise RepositoryError(f"expected the head of a pack, found {data[: HEAD.size].hex()}")
    if cipher != is_sealed:
        raise RepositoryError(f"expected a pack with cipher {int(is_sealed)}, found {cipher}")
    return Head(PackKind(kind), data[HEAD.size : HEAD.size + is_sealed * KEY_BYTES])


def read_directory(store: ObjectStore, pack: bytes, protection: Protection) -> Directory:
    """The directory of the pack ``pack``; nothing of its groups is read.

    Raises:
        MissingObjectError: if there is no such pack.
        RepositoryError: if it is damaged.
    """
    name = pack_object(pack)
    where = f"{store.name}/{name}"
    is_sealed = protection.is_encrypted
    head_bytes = HEAD.size + is_sealed * KEY_BYTES
    head_data = store.get_range(name, 0, head_bytes)
    found = store.stat(name)
    size = 0 if found is None else found.size
    if size < head_bytes + FOOT.size:
        raise RepositoryError(f"expected a pack, found {size} bytes", name=where)
    tail = store.get_range(name, max(head_bytes, size - _TAIL_BYTES), _TAIL_BYTES)
    try:
        head = parse_head(head_data, is_sealed=is_sealed)
        length = _directory_length(tail, size - head_bytes - FOOT.size)
        start = size - FOOT.size - length
        blob = tail[-FOOT.size - length : -FOOT.size]
        if len(blob) != length:
            blob = store.get_range(name, start, length)
        directory = _directory(head, blob, start, protection)
    except RepositoryError as failure:
        raise RepositoryError(
            str(failure.args[0]), name=where, offset=size - len(tail)
        ) from failure
    return directory


def directory_of(pack: bytes, protection: Protection) -> Directory:
    """The directory in all bytes of a pack.

    Raises:
        RepositoryError: if it is damaged.
    """
    is_sealed = protection.is_encrypted
    head = parse_head(pack[: HEAD.size + is_sealed * KEY_BYTES], is_sealed=is_sealed)
    length = _directory_length(pack, len(pack) - head.size - FOOT.size)
    start = len(pack) - FOOT.size - length
    return _directory(head, pack[start : -FOOT.size], start, protection)


def _directory(head: Head, blob: bytes, start: int, protection: Protection) -> Directory:
    """Of its bytes, which begin at ``start`` of the pack."""
    content = envelope.unwrap(blob, What.DIRECTORY, protection)
    directory = Directory.parse(content, head.kind, start=head.size)
    end = head.size + sum(directory.stored)
    if end != start:
        raise RepositoryError(f"expected the directory behind the groups at {end}: it is not")
    return directory


def _directory_length(tail: bytes, room: int) -> int:
    """From the foot at the end of ``tail``."""
    if len(tail) < FOOT.size:
        raise RepositoryError("the pack ends before its foot")
    length, magic = FOOT.unpack_from(tail, len(tail) - FOOT.size)
    if magic != FOOT_MAGIC:
        raise RepositoryError(f"expected the foot of a pack, found {magic.hex()}")
    if length > min(room, DIRECTORY_BYTES_MAX):
        raise RepositoryError(f"expected a directory inside of the pack, found one of {length}")
    assert isinstance(length, int)
    return length
