"""Envelopes: how all small objects of a repository are stored, compressed and encrypted.

Source: ``docs/repository-format.md``, "Envelopes".
"""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from imprint.codecs import zstd
from imprint.core.errors import CorruptImageError, RepositoryError
from imprint.core.layout import Structure, raw, uint
from imprint.core.units import GIB, KIB, MIB
from imprint.repository.protection import KEY_BYTES, NO_NONCE, NONCE_BYTES, TAG_BYTES, decrypt

if TYPE_CHECKING:
    from imprint.repository.protection import Aead, Bytes, Protection

MAGIC: Final = b"IMPe"
VERSION: Final = 1

_CHECK_BYTES: Final = 32

_LEVEL: Final = 3

_GROWTH_MAX: Final = 8
"""How much longer than its frame an index or directory may be: more than half of each is names,
which do not compress, so that a short object which claims to hold 1 GiB is none."""

_GROWTH_FREE_BYTES: Final = 64 * KIB
"""Below this, growth is nothing to be afraid of."""


class Head(Structure, size=16, endian="<"):
    """In front of every envelope."""

    magic: bytes = raw(4, at=0, doc="MAGIC")
    version: int = uint(1, at=4, doc="VERSION")
    what: int = uint(1, at=5, doc="What")
    codec: int = uint(1, at=6, doc="Codec")
    guard: int = uint(1, at=7, doc="Guard")
    length: int = uint(8, at=8, doc="of the content, decoded")


class What(enum.IntEnum):
    """What an envelope holds."""

    INDEX = 1
    SNAPSHOT = 2
    SIGNATURE = 3
    TAGS = 4
    SESSION = 5
    CONDEMNED = 6
    DIRECTORY = 7


class Codec(enum.IntEnum):
    """How the content is encoded."""

    PLAIN = 0
    ZSTANDARD = 1


class Guard(enum.IntEnum):
    """The field ``protection``: how the content is protected."""

    NONE = 0
    INDEX_KEY = 1
    SEALED = 2


CONTENT_BYTES_MAX: Final = {
    What.INDEX: 1 * GIB,
    What.SNAPSHOT: 4 * MIB,
    What.SIGNATURE: 1 * MIB,
    What.TAGS: 1 * MIB,
    What.SESSION: 1 * MIB,
    What.CONDEMNED: 64 * MIB,
    What.DIRECTORY: 64 * MIB,
}
"""Of the content, decoded. 1 GiB of index speaks of 20 million chunks, 64 MiB of condemned packs of
a million; the rest is JSON of some KiB, and JSON takes 30 times its length once it is parsed."""

HEAD_BYTES: Final = Head.SIZE

_BOUND: Final = frozenset({What.SIGNATURE, What.TAGS, What.SESSION, What.CONDEMNED})
"""Whose names do not follow from their content, and so belong to what is proven."""

_GROWING_LITTLE: Final = frozenset({What.INDEX, What.DIRECTORY})


def wrap(what: What, content: Bytes, protection: Protection, *, name: str | None = None) -> bytes:
    """The object that holds ``content``.

    Args:
        what: it holds.
        content: at most ``CONTENT_BYTES_MAX`` of ``what``.
        protection: of the repository.
        name: of the object; needed for signatures, tags, sessions and condemned packs.

    Raises:
        RepositoryError: if ``content`` is larger than any reader accepts.
    """
    if len(content) > CONTENT_BYTES_MAX[what]:
        raise RepositoryError(
            f"expected at most {CONTENT_BYTES_MAX[what]} bytes of content, found {len(content)}",
            name=name,
        )
    encoded, codec = _encode(what, content)
    guard = _guard(what, protection)
    head = Head(
        magic=MAGIC, version=VERSION, what=what, codec=codec, guard=guard, length=len(content)
    ).pack()
    if guard is Guard.NONE:
        check = blake3(head).update(encoded).digest()
        return b"".join((head, encoded, check))
    if guard is Guard.SEALED:
        sealed = protection.seal()
        assert sealed is not None
        sender, aead = sealed
        return b"".join((head, sender, aead.encrypt(NO_NONCE, encoded, head)))
    nonce = os.urandom(NONCE_BYTES)
    associated = head + _bound_name(what, name)
    return b"".join((head, nonce, _index_aead(protection).encrypt(nonce, encoded, associated)))


def unwrap(data: Bytes, what: What, protection: Protection, *, name: str | None = None) -> bytes:
    """The content of an object.

    Args:
        data: all bytes of the object.
        what: it has to hold.
        protection: of the repository.
        name: of the object, also for errors; needed where :func:`wrap` needs it.

    Raises:
        RepositoryError: if it is damaged, holds something else or belongs elsewhere.
        PassphraseError: if it is sealed, and the repository was unlocked for adding only.
    """
    where = name or f"{what.name.lower()} object"
    view = memoryview(data)
    size, codec = _check_head(view, what, _guard(what, protection), where)
    encoded = _opened(view, what, protection, name, where)
    _check_growth(what, codec, size, len(encoded), where)
    if codec is Codec.PLAIN:
        return bytes(encoded)
    try:
        return zstd.decompress(encoded, size)
    except CorruptImageError as failure:
        raise RepositoryError(str(failure.args[0]), name=where) from failure


def _encode(what: What, content: Bytes) -> tuple[Bytes, Codec]:
    """``content`` as a frame, if that is shorter and does not look like an attack."""
    frame = zstd.compress(memoryview(content), level=_LEVEL)
    if len(frame) >= len(content) or len(content) > _grown_max(what, len(frame)):
        return content, Codec.PLAIN
    return frame, Codec.ZSTANDARD


def _grown_max(what: What, frame_bytes: int) -> int:
    """How long the content of a frame may be."""
    limit = CONTENT_BYTES_MAX[what]
    if what not in _GROWING_LITTLE:
        return limit
    return min(limit, _GROWTH_FREE_BYTES + _GROWTH_MAX * frame_bytes)


def _guard(what: What, protection: Protection) -> Guard:
    if not protection.is_encrypted:
        return Guard.NONE
    return Guard.SEALED if what is What.SNAPSHOT else Guard.INDEX_KEY


def _bound_name(what: What, name: str | None) -> bytes:
    if what not in _BOUND:
        return b""
    assert name is not None, "an object whose name is proven needs one"
    return name.encode("ascii", "replace")


def _index_aead(protection: Protection) -> Aead:
    aead = protection.index_aead
    assert aead is not None
    return aead


def _check_head(view: memoryview, what: What, guard: Guard, where: str) -> tuple[int, Codec]:
    """The length of the content and its codec."""
    if len(view) < HEAD_BYTES:
        raise RepositoryError(f"expected an envelope, found {len(view)} bytes", name=where)
    head = Head.unpack(view)
    if head.magic != MAGIC:
        raise RepositoryError(f"expected an envelope, found {head.magic!r}", name=where)
    if head.version != VERSION:
        raise RepositoryError(
            f"expected an envelope of version {VERSION}, found version {head.version}", name=where
        )
    if head.what != what:
        raise RepositoryError(f"expected content {what:d}, found content {head.what}", name=where)
    if head.guard != guard:
        raise RepositoryError(
            f"expected protection {guard:d}, as this repository has it, found {head.guard}",
            name=where,
        )
    if head.codec not in (Codec.PLAIN, Codec.ZSTANDARD):
        raise RepositoryError(f"expected codec 0 or 1, found {head.codec}", name=where)
    if head.length > CONTENT_BYTES_MAX[what]:
        raise RepositoryError(
            f"expected at most {CONTENT_BYTES_MAX[what]} bytes of content, found {head.length}",
            name=where,
        )
    return head.length, Codec(head.codec)


def _opened(
    view: memoryview, what: What, protection: Protection, name: str | None, where: str
) -> Bytes:
    """The encoded content, proven."""
    guard = _guard(what, protection)
    head = view[:HEAD_BYTES]
    front = {Guard.NONE: 0, Guard.INDEX_KEY: NONCE_BYTES, Guard.SEALED: KEY_BYTES}[guard]
    behind = _CHECK_BYTES if guard is Guard.NONE else TAG_BYTES
    if len(view) < HEAD_BYTES + front + behind:
        raise RepositoryError(f"expected a whole envelope, found {len(view)} bytes", name=where)
    first = view[HEAD_BYTES : HEAD_BYTES + front]
    body = view[HEAD_BYTES + front :]
    if guard is Guard.NONE:
        if blake3(view[:-_CHECK_BYTES]).digest() != view[-_CHECK_BYTES:]:
            raise RepositoryError("expected its own checksum, found another", name=where)
        return body[:-_CHECK_BYTES]
    if guard is Guard.SEALED:
        return decrypt(protection.unseal(bytes(first)), NO_NONCE, body, head, what=where)
    associated = bytes(head) + _bound_name(what, name)
    return decrypt(_index_aead(protection), bytes(first), body, associated, what=where)


def _check_growth(what: What, codec: Codec, size: int, encoded: int, where: str) -> None:
    """Refuse a length that the encoded content cannot have."""
    if codec is Codec.PLAIN and size != encoded:
        raise RepositoryError(f"expected {size} bytes of content, found {encoded}", name=where)
    if codec is Codec.ZSTANDARD and size > _grown_max(what, encoded):
        raise RepositoryError(
            f"expected at most {_grown_max(what, encoded)} bytes of content, found {size}",
            name=where,
        )
