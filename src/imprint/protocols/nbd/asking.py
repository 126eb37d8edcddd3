"""Negotiation as a client leads it.

Source: NetworkBlockDevice/nbd ``doc/proto.md``, "Newstyle negotiation", "Option types".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from imprint.core.errors import NetworkError, UnsupportedFeatureError
from imprint.protocols.nbd.constants import (
    ALLOCATION,
    GREETING,
    OLD_STYLE_MAGIC,
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    Feature,
    Handshake,
    Info,
    Option,
    Reply,
)
from imprint.protocols.nbd.options import (
    OPTION_DATA_MAX,
    REPLY_HEAD,
    Fields,
    Offer,
    malformed,
    pack_choice,
    pack_contexts,
    pack_option,
    parse_fact,
)
from imprint.protocols.nbd.steps import Negotiation, Receive, Secure, Send

_REPLIES_MAX: Final = 4096  # to one option: a server may list so many exports
_LISTED_MAX: Final = 8
_ZEROES_BYTES: Final = 124
_ERROR: Final = 1 << 31


@dataclass(frozen=True)
class Opened:
    """What transmission begins with.

    Attributes:
        offer: what the server says of the export.
        is_structured: replies are structured.
        context: id of ``base:allocation``; ``None``: block status cannot be asked for.
    """

    offer: Offer
    is_structured: bool
    context: int | None


def ask(name: str, *, tls: bool) -> Negotiation[Opened]:
    """Ask a server for an export.

    Args:
        name: of the export.
        tls: begin with TLS, and give up if the server refuses it.

    Raises:
        NetworkError: if the server refuses, or does not keep to the protocol.
        UnsupportedFeatureError: if it speaks only the protocol of before 2011.
    """
    flags = yield from _greet()
    if tls:
        kind, data = yield from _final(Option.STARTTLS)
        if kind != Reply.ACK:
            raise _refusal("the server offers no TLS", data)
        yield Secure()
    is_structured = False
    context: int | None = None
    if flags & Handshake.FIXED_NEWSTYLE:
        kind, data = yield from _final(Option.STRUCTURED_REPLY)
        if kind == Reply.ERR_TLS_REQD:
            raise NetworkError("the server needs TLS", advice="nbds:// asks for it")
        is_structured = kind == Reply.ACK
        if is_structured:
            context = yield from _set_context(name)
        offer = yield from _go(name)
        if offer is not None:
            return Opened(offer, is_structured, context)
    return Opened((yield from _by_name(name, flags)), is_structured, context)


def _greet() -> Negotiation[int]:
    """What the server says first; gives the flags that both have."""
    greeting, magic = struct.unpack(">8sQ", (yield Receive(16)))
    if greeting == GREETING and magic == OLD_STYLE_MAGIC:
        raise UnsupportedFeatureError("the server speaks only the old style of NBD")
    if greeting != GREETING or magic != OPTION_MAGIC:
        raise malformed("expected its greeting")
    flags = int.from_bytes((yield Receive(2))) & (Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES)
    yield Send(flags.to_bytes(4))
    return flags


def _replies(option: int, data: bytes = b"") -> Negotiation[list[tuple[int, bytes]]]:
    """Send an option; gives all replies, the last one ending it."""
    yield Send(pack_option(option, data))
    replies: list[tuple[int, bytes]] = []
    for _ in range(_REPLIES_MAX):
        magic, of, kind, length = REPLY_HEAD.unpack((yield Receive(REPLY_HEAD.size)))
        if magic != OPTION_REPLY_MAGIC or of != option:
            raise malformed("expected a reply to an option")
        if length > OPTION_DATA_MAX:
            raise malformed(f"expected a reply of at most {OPTION_DATA_MAX} bytes")
        content = (yield Receive(length)) if length else b""
        replies.append((kind, content))
        if kind == Reply.ACK or kind & _ERROR:
            return replies
    raise malformed(f"more than {_REPLIES_MAX} replies")


def _final(option: int, data: bytes = b"") -> Negotiation[tuple[int, bytes]]:
    """The same for options of which only the last reply matters."""
    replies = yield from _replies(option, data)
    return replies[-1]


def _set_context(name: str) -> Negotiation[int | None]:
    data = pack_contexts(name, (ALLOCATION,))
    replies = yield from _replies(Option.SET_META_CONTEXT, data)
    if replies[-1][0] != Reply.ACK:
        return None
    for kind, content in replies:
        if kind == Reply.META_CONTEXT:
            fields = Fields(content)
            number = fields.number()
            if fields.text() == ALLOCATION:
                return number
    return None


def _go(name: str) -> Negotiation[Offer | None]:
    """Begin transmission; ``None``: the server knows only the old way."""
    choice = pack_choice(name, (Info.BLOCK_SIZE,))
    replies = yield from _replies(Option.GO, choice)
    kind, data = replies[-1]
    if kind == Reply.ERR_UNSUP:
        return None
    if kind == Reply.ERR_TLS_REQD:
        raise NetworkError("the server needs TLS", advice="nbds:// asks for it")
    if kind == Reply.ERR_UNKNOWN:
        raise (yield from _missing(name))
    if kind != Reply.ACK:
        raise _refusal(f"the server refuses the export {name!r:.80}", data)
    offer = Offer(name, -1, Feature(0))
    for kind, content in replies:
        if kind == Reply.INFO:
            offer = parse_fact(content, offer)
    if offer.size < 0:
        raise malformed("it does not say how large the export is")
    return offer


def _missing(name: str) -> Negotiation[NetworkError]:
    """The error of an export that is not there, with those that are."""
    replies = yield from _replies(Option.LIST)
    found = [Fields(data).sized_text() for kind, data in replies if kind == Reply.SERVER]
    advice = None
    if found:
        more = ", …" if len(found) > _LISTED_MAX else ""
        advice = f"it has: {', '.join(map(repr, found[:_LISTED_MAX]))}{more}"
    return NetworkError(f"the server has no export {name!r:.80}", advice=advice)


def _by_name(name: str, flags: int) -> Negotiation[Offer]:
    """The old way, in which a server that refuses hangs up."""
    yield Send(pack_option(Option.EXPORT_NAME, name.encode()))
    size, features = struct.unpack(">QH", (yield Receive(10)))
    if not flags & Handshake.NO_ZEROES:
        yield Receive(_ZEROES_BYTES)
    return Offer(name, size, Feature(features))


def _refusal(what: str, data: bytes) -> NetworkError:
    """An error with what the server says of it."""
    said = data.decode(errors="replace")[:200]
    said = "".join(char if char.isprintable() else " " for char in said).strip()
    return NetworkError(f"{what}: {said}" if said else what)
