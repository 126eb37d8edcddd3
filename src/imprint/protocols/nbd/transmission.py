"""Requests and replies of transmission, as bytes and as values; shared by both ends.

Source: NetworkBlockDevice/nbd ``doc/proto.md``, "Transmission", "Structured reply types",
"Request types".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.protocols.nbd.constants import (
    CHUNK_DONE,
    CHUNK_ERROR,
    CHUNK_MAGIC,
    DESCRIPTORS_MAX,
    REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRING_BYTES_MAX,
    ChunkType,
)
from imprint.protocols.nbd.options import malformed

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST: Final = struct.Struct(">IHHQQI")
SIMPLE_REPLY: Final = struct.Struct(">IIQ")
CHUNK: Final = struct.Struct(">IHHQI")
"""Magic, flags, type, cookie, length of the payload."""

_DATA: Final = struct.Struct(">IHHQIQ")
_HOLE: Final = struct.Struct(">IHHQIQI")
_ERROR: Final = struct.Struct(">IH")
_OFFSET: Final = struct.Struct(">Q")
_DESCRIPTOR: Final = struct.Struct(">II")

ERROR_BYTES_MAX: Final = _ERROR.size + STRING_BYTES_MAX + _OFFSET.size
STATUS_BYTES_MAX: Final = 4 + DESCRIPTORS_MAX * _DESCRIPTOR.size


class Request(NamedTuple):
    """What a client asks for.

    Attributes:
        flags: :class:`~imprint.protocols.nbd.constants.CommandFlag`.
        command: :class:`~imprint.protocols.nbd.constants.Command`.
        cookie: the client's name for it, that comes back in the reply.
        offset: in bytes.
        length: in bytes; of ``WRITE``, that so much data follows.
    """

    flags: int
    command: int
    cookie: int
    offset: int = 0
    length: int = 0

    def pack(self) -> bytes:
        """As bytes."""
        return REQUEST.pack(REQUEST_MAGIC, *self)

    @classmethod
    def parse(cls, data: bytes) -> Request:
        """From so many bytes as ``REQUEST`` has.

        Raises:
            NetworkError: if they are no request.
        """
        magic, flags, command, cookie, offset, length = REQUEST.unpack(data)
        if magic != REQUEST_MAGIC:
            raise malformed("expected a request")
        return cls(flags, command, cookie, offset, length)


class Chunk(NamedTuple):
    """The head of a part of a structured reply.

    Attributes:
        flags: whether it is the last.
        kind: :class:`~imprint.protocols.nbd.constants.ChunkType`.
        cookie: of the request.
        length: of the payload that follows.
    """

    flags: int
    kind: int
    cookie: int
    length: int

    @property
    def is_last(self) -> bool:
        """Whether the reply ends with it."""
        return bool(self.flags & CHUNK_DONE)

    @property
    def is_error(self) -> bool:
        """Whether it says that the request has failed."""
        return bool(self.kind & CHUNK_ERROR)


class Failure(NamedTuple):
    """What a server says of a request that has failed.

    Attributes:
        number: :class:`~imprint.protocols.nbd.constants.Errno`, or another one.
        message: for people; may be empty.
        offset: where, if the server says that.
    """

    number: int
    message: str = ""
    offset: int | None = None


def simple_reply(cookie: int, error: int = 0) -> bytes:
    """A reply without data, or the head of one that is followed by it."""
    return SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie)


def data_head(cookie: int, offset: int, length: int, *, is_last: bool) -> bytes:
    """What goes before ``length`` bytes of data."""
    return _DATA.pack(
        CHUNK_MAGIC,
        CHUNK_DONE if is_last else 0,
        ChunkType.OFFSET_DATA,
        cookie,
        _OFFSET.size + length,
        offset,
    )


def hole_chunk(cookie: int, offset: int, length: int, *, is_last: bool) -> bytes:
    """A range that reads as zeros."""
    flags = CHUNK_DONE if is_last else 0
    kind = ChunkType.OFFSET_HOLE
    return _HOLE.pack(CHUNK_MAGIC, flags, kind, cookie, 12, offset, length)


def end_chunk(cookie: int) -> bytes:
    """Nothing more: the request is done."""
    return CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, ChunkType.NONE, cookie, 0)


def error_chunk(cookie: int, error: int, message: str = "", offset: int | None = None) -> bytes:
    """The request has failed, at ``offset`` if that is known; the last chunk of its reply."""
    text = message.encode(errors="replace")[:STRING_BYTES_MAX]
    payload = _ERROR.pack(error, len(text)) + text
    kind = ChunkType.ERROR
    if offset is not None:
        payload += _OFFSET.pack(offset)
        kind = ChunkType.ERROR_OFFSET
    return CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, kind, cookie, len(payload)) + payload


def status_chunk(cookie: int, context: int, runs: Iterable[tuple[int, int]]) -> bytes:
    """Block status: lengths and flags of runs; the only chunk of its reply."""
    payload = context.to_bytes(4) + b"".join(_DESCRIPTOR.pack(*run) for run in runs)
    kind = ChunkType.BLOCK_STATUS
    return CHUNK.pack(CHUNK_MAGIC, CHUNK_DONE, kind, cookie, len(payload)) + payload


def parse_reply(data: bytes) -> tuple[int, int]:
    """Error and cookie of a simple reply.

    Raises:
        NetworkError: if it is none.
    """
    magic, error, cookie = SIMPLE_REPLY.unpack(data)
    if magic != SIMPLE_REPLY_MAGIC:
        raise malformed("expected a reply")
    return error, cookie


def parse_chunk(data: bytes) -> Chunk:
    """The head of a part of a structured reply.

    Raises:
        NetworkError: if it is none.
    """
    magic, flags, kind, cookie, length = CHUNK.unpack(data)
    if magic != CHUNK_MAGIC:
        raise malformed("expected a structured reply")
    chunk = Chunk(flags, kind, cookie, length)
    if kind == ChunkType.NONE and (length or not chunk.is_last):
        raise malformed("an empty part of a reply that is none")
    if chunk.is_error and not _ERROR.size <= length <= ERROR_BYTES_MAX:
        raise malformed(f"an error of {length} bytes")
    if kind == ChunkType.BLOCK_STATUS and (length > STATUS_BYTES_MAX or length % 8 != 4):  # noqa: PLR2004
        raise malformed(f"block status of {length} bytes")
    return chunk


def parse_error(kind: int, payload: bytes) -> Failure:
    """What an error says.

    Raises:
        NetworkError: if it contradicts itself.
    """
    number, length = _ERROR.unpack_from(payload)
    text, rest = payload[_ERROR.size : _ERROR.size + length], payload[_ERROR.size + length :]
    if len(text) != length or not number:
        raise malformed("an error that contradicts itself")
    message = "".join(char if char.isprintable() else " " for char in text.decode(errors="replace"))
    if kind == ChunkType.ERROR_OFFSET and len(rest) == _OFFSET.size:
        return Failure(number, message, _OFFSET.unpack(rest)[0])
    return Failure(number, message)


def parse_hole(payload: bytes) -> tuple[int, int]:
    """Offset and length of a range that reads as zeros."""
    offset, length = struct.unpack(">QI", payload)
    return offset, length


def parse_status(payload: bytes) -> tuple[int, list[tuple[int, int]]]:
    """The context of block status, and lengths and flags of its runs.

    Raises:
        NetworkError: if a run is empty, or there is none.
    """
    runs: list[tuple[int, int]] = list(_DESCRIPTOR.iter_unpack(payload[4:]))
    if not runs or not all(length for length, _ in runs):
        raise malformed("an empty run of block status")
    return int.from_bytes(payload[:4]), runs
