"""Targets: what the other end of an NBD connection sends, to the server and to the client."""

from __future__ import annotations

import contextlib
import io
import struct
from typing import TYPE_CHECKING, Final, cast

from imprint.core.errors import ImagingError
from imprint.exports.nbd.connection import Transmission
from imprint.exports.nbd.export import Export
from imprint.filters.shared import SharedDisk
from imprint.formats import get
from imprint.protocols.nbd.asking import ask
from imprint.protocols.nbd.constants import (
    ALLOCATION,
    ChunkType,
    Command,
    Feature,
    Info,
    Option,
    Reply,
)
from imprint.protocols.nbd.options import (
    Offer,
    pack_choice,
    pack_contexts,
    pack_facts,
    pack_option,
    pack_reply,
    pack_text,
)
from imprint.protocols.nbd.serving import serve
from imprint.protocols.nbd.steps import drive
from imprint.protocols.nbd.transmission import (
    CHUNK,
    Request,
    data_head,
    end_chunk,
    error_chunk,
    hole_chunk,
    simple_reply,
    status_chunk,
)
from imprint.storage.memory import MemoryStorage
from imprint.storage.nbd_link import Link
from imprint.storage.nbd_status import StatusCache
from imprint.testing.fuzzing.target import Target
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.channel import Channel

_DISK_BYTES: Final = 64 << 10
_WORDS: Final = (
    *(b"IHAVEOPT", b"NBDMAGIC", bytes.fromhex("0003e889045565a9"), bytes.fromhex("25609513")),
    *(bytes.fromhex("67446698"), bytes.fromhex("668e33ef"), ALLOCATION.encode(), b"base:"),
    *(b"\xff" * 4, b"\xff" * 8, b"\x80\0\0\x01", b"\0\0\0\0", b"\x80\x01", b"\x80\x02"),
)


class _Canned:
    """A connection on which everything was said already; what is sent is thrown away."""

    is_secure = False

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def has(self, length: int) -> bool:
        return len(self._stream.getbuffer()) - self._stream.tell() >= length

    def receive(self, length: int, *, is_idle: bool = False) -> bytes:
        del is_idle
        data = self._stream.read(length)
        if len(data) != length:
            raise ConnectionResetError
        return data

    def receive_into(self, view: memoryview) -> None:
        view[:] = self.receive(len(view))

    def skip(self, length: int) -> None:
        if len(self._stream.read(length)) != length:
            raise ConnectionResetError

    def send(self, *parts: bytes | memoryview) -> None:
        del parts

    def break_off(self) -> None:
        self._stream.seek(0, io.SEEK_END)


def targets() -> Iterator[Target]:
    """Both ends."""
    yield Target("nbd-server", _client_seeds, (serve_bytes,), words=_WORDS)
    yield Target("nbd-client", _server_seeds, (read_from_bytes,), words=_WORDS)


def serve_bytes(content: bytes) -> None:
    """Negotiate with a client that says this, and serve it a disk that it may write."""
    raw = get("raw").edit(MemoryStorage(bytes(_DISK_BYTES)), DictOpener({}))
    export = Export("disk", SharedDisk(raw))
    channel = _Canned(content)
    with contextlib.suppress(ConnectionError):
        agreed = drive(serve({"disk": export.offer}, tls=False), channel, _never)
        if agreed is not None:
            Transmission(cast("Channel", channel), export, agreed).run()


def read_from_bytes(content: bytes) -> None:
    """Read, and ask for block status, from a server that says this."""
    channel = _Canned(content)
    with contextlib.suppress(ConnectionError):
        link = Link(cast("Channel", channel), drive(ask("disk", tls=False), channel, _never))
        size = link.opened.offer.size
        view = memoryview(bytearray(4096))
        status = link.start(Command.BLOCK_STATUS, 0, 1 << 30)
        read = link.start(Command.READ, 0, 4096, view=view)
        flush = link.start(Command.FLUSH, 0, 0)
        try:
            for pending in (status, read, flush):
                link.wait(pending)
        except ImagingError:
            pass
        if status.runs:
            StatusCache().learn(0, status.runs, size, 0)


def _never() -> None:
    raise ConnectionResetError


def _client_seeds() -> list[bytes]:
    hello = struct.pack(">I", 3)
    named = hello + pack_option(Option.EXPORT_NAME, b"disk")
    requests = (
        Request(0, Command.READ, 1, 512, 1024).pack()
        + Request(0, Command.WRITE, 2, 512, 5).pack()
        + b"12345"
        + Request(2, Command.WRITE_ZEROES, 3, 0, 4096).pack()
        + Request(1, Command.TRIM, 4, 0, 4096).pack()
        + Request(0, Command.CACHE, 5, 0, 4096).pack()
        + Request(0, Command.FLUSH, 6).pack()
        + Request(4, Command.READ, 7, 0, 65536).pack()
        + Request(8, Command.BLOCK_STATUS, 8, 0, 65536).pack()
    )
    haggled = (
        hello
        + pack_option(Option.LIST)
        + pack_option(Option.STRUCTURED_REPLY)
        + pack_option(Option.LIST_META_CONTEXT, pack_contexts("disk", ()))
        + pack_option(Option.SET_META_CONTEXT, pack_contexts("disk", (ALLOCATION,)))
        + pack_option(Option.INFO, pack_choice("", (Info.NAME, Info.DESCRIPTION)))
        + pack_option(Option.STARTTLS)
        + pack_option(Option.GO, pack_choice("disk", (Info.BLOCK_SIZE,)))
    )
    end = Request(0, Command.DISC, 9).pack()
    return [named + requests + end, haggled + requests + end, hello + pack_option(Option.ABORT)]


def _server_seeds() -> list[bytes]:
    offer = Offer("disk", 1 << 20, Feature.HAS_FLAGS | Feature.FLUSH | Feature.DF, "for people")
    wanted = (Info.BLOCK_SIZE, Info.NAME, Info.DESCRIPTION)
    greeting = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
    ack = pack_reply(Option.STRUCTURED_REPLY, Reply.ACK)
    context = (1).to_bytes(4) + ALLOCATION.encode()
    haggled = (
        greeting
        + ack
        + pack_reply(Option.SET_META_CONTEXT, Reply.META_CONTEXT, context)
        + pack_reply(Option.SET_META_CONTEXT, Reply.ACK)
        + pack_facts(Option.GO, offer, wanted, offer.features)
        + pack_reply(Option.GO, Reply.ACK)
    )
    structured = (
        status_chunk(1, 1, [(4096, 0), (1 << 20, 3)])
        + hole_chunk(2, 0, 1024, is_last=False)
        + data_head(2, 1024, 3072, is_last=False)
        + bytes(3072)
        + end_chunk(2)
        + simple_reply(3)
    )
    failing = error_chunk(1, 5, "bad") + error_chunk(2, 5, "worse", 512) + simple_reply(3, 28)
    unsupported = (
        greeting
        + pack_reply(Option.STRUCTURED_REPLY, Reply.ERR_UNSUP)
        + pack_reply(Option.GO, Reply.ERR_UNSUP)
        + struct.pack(">QH", 1 << 20, 5)
    )
    unknown = (
        greeting
        + pack_reply(Option.STRUCTURED_REPLY, Reply.ERR_UNSUP)
        + pack_reply(Option.GO, Reply.ERR_UNKNOWN)
        + pack_reply(Option.LIST, Reply.SERVER, pack_text("other"))
        + pack_reply(Option.LIST, Reply.ACK)
    )
    odd = CHUNK.pack(0x668E33EF, 1, ChunkType.OFFSET_DATA, 2, 8)
    return [
        haggled + structured,
        haggled + failing,
        haggled + odd,
        unsupported + simple_reply(1, 22) + simple_reply(2) + bytes(4096) + simple_reply(3),
        unknown,
    ]
