"""Negotiation as a server leads it.

Source: NetworkBlockDevice/nbd ``doc/proto.md``, "Newstyle negotiation", "Fixed newstyle
negotiation", "TLS support" (modes NOTLS and FORCEDTLS).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import NetworkError
from imprint.protocols.nbd.constants import (
    ALLOCATION,
    GREETING,
    OPTION_MAGIC,
    Feature,
    Handshake,
    Option,
    Reply,
)
from imprint.protocols.nbd.options import (
    OPTION_DATA_MAX,
    OPTION_HEAD,
    Offer,
    malformed,
    pack_facts,
    pack_reply,
    pack_text,
    parse_choice,
    parse_contexts,
)
from imprint.protocols.nbd.steps import Negotiation, Receive, Secure, Send

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTEXT_ID: Final = 1
"""Of ``base:allocation``, the only context there is."""

_OPTIONS_MAX: Final = 1024  # that a client may try before it has to decide
_NAME_AND_SIZE: Final = struct.Struct(">QH")
_ZEROES: Final = bytes(124)
_EXCHANGED: Final = Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES


@dataclass(frozen=True)
class Agreed:
    """What transmission begins with.

    Attributes:
        offer: the export.
        is_structured: replies are structured.
        has_status: block status may be asked for.
    """

    offer: Offer
    is_structured: bool
    has_status: bool


class _Server:
    """What is known of a client while it negotiates."""

    def __init__(self, offers: Mapping[str, Offer], *, needs_tls: bool) -> None:
        self._offers = offers
        self._needs_tls = needs_tls
        self.is_secure = False
        self._is_structured = False
        self._context: Offer | None = None

    def find(self, name: str) -> Offer | None:
        """The export of a name; without one, the first that there is."""
        if name == "" and name not in self._offers:
            return next(iter(self._offers.values()), None)
        return self._offers.get(name)

    @property
    def is_barred(self) -> bool:
        """Whether nothing is told before TLS."""
        return self._needs_tls and not self.is_secure

    def agreed(self, offer: Offer) -> Agreed:
        """What has been negotiated, for this export."""
        return Agreed(offer, self._is_structured, self._context is offer)

    def features(self, offer: Offer) -> Feature:
        """Of an export, for this client."""
        return offer.features | (Feature.DF if self._is_structured else Feature(0))

    def forget(self) -> None:
        """Nothing that was said before TLS counts."""
        self._is_structured, self._context = False, None

    def answer(self, option: int, data: bytes) -> tuple[bytes, Offer | None]:
        """The replies to an option, and the export with which transmission begins.

        Raises:
            NetworkError: if the option makes no sense.
        """
        if option == Option.LIST:
            return self._list(data), None
        if option in (Option.INFO, Option.GO):
            return self._choose(option, data)
        if option == Option.STRUCTURED_REPLY:
            _expect_nothing(data)
            self._is_structured = True
            return pack_reply(option, Reply.ACK), None
        if option in (Option.SET_META_CONTEXT, Option.LIST_META_CONTEXT):
            return self._contexts(option, data), None
        return pack_reply(option, Reply.ERR_UNSUP, b"this option is not known here"), None

    def _list(self, data: bytes) -> bytes:
        _expect_nothing(data)
        listed = [
            pack_reply(
                Option.LIST, Reply.SERVER, pack_text(offer.name) + offer.description.encode()
            )
            for offer in self._offers.values()
        ]
        return b"".join(listed) + pack_reply(Option.LIST, Reply.ACK)

    def _choose(self, option: int, data: bytes) -> tuple[bytes, Offer | None]:
        name, wanted = parse_choice(data)
        offer = self.find(name)
        if offer is None:
            return _unknown(option), None
        facts = pack_facts(option, offer, wanted, self.features(offer))
        is_end = option == Option.GO
        return facts + pack_reply(option, Reply.ACK), offer if is_end else None

    def _contexts(self, option: int, data: bytes) -> bytes:
        if option == Option.SET_META_CONTEXT:
            self._context = None
        name, queries = parse_contexts(data)
        if not self._is_structured:
            raise malformed("block status needs structured replies")
        offer = self.find(name)
        if offer is None:
            return _unknown(option)
        is_listing = option == Option.LIST_META_CONTEXT
        wanted = ALLOCATION in queries or (is_listing and (not queries or "base:" in queries))
        found = b""
        if wanted:
            if not is_listing:
                self._context = offer
            identity = 0 if is_listing else CONTEXT_ID
            context = identity.to_bytes(4) + ALLOCATION.encode()
            found = pack_reply(option, Reply.META_CONTEXT, context)
        return found + pack_reply(option, Reply.ACK)


def serve(offers: Mapping[str, Offer], *, tls: bool) -> Negotiation[Agreed | None]:
    """Negotiate with a client that has just connected; ``None``: it has left, as it should.

    Args:
        offers: exports by their name.
        tls: nothing is told and nothing is served without it.

    Raises:
        NetworkError: if the client does not keep to the protocol.
    """
    yield Send(GREETING + struct.pack(">QH", OPTION_MAGIC, _EXCHANGED))
    flags = int.from_bytes((yield Receive(4)))
    if flags & ~int(_EXCHANGED):  # of a flag, ~ gives only those that have names
        raise malformed(f"unknown flags 0x{flags:x}")
    server = _Server(offers, needs_tls=tls)
    is_fixed = bool(flags & Handshake.FIXED_NEWSTYLE)
    for _ in range(_OPTIONS_MAX):
        magic, option, length = OPTION_HEAD.unpack((yield Receive(OPTION_HEAD.size)))
        if magic != OPTION_MAGIC:
            raise malformed("expected an option")
        if length > OPTION_DATA_MAX:
            raise malformed(f"expected an option of at most {OPTION_DATA_MAX} bytes")
        data = (yield Receive(length)) if length else b""
        if option == Option.EXPORT_NAME:
            return (yield from _export_by_name(server, data, flags))
        if not is_fixed:
            raise malformed("expected the name of an export")
        if option == Option.ABORT:
            yield Send(pack_reply(option, Reply.ACK))
            return None
        if option == Option.STARTTLS:
            yield from _start_tls(server, data, has_tls=tls)
            continue
        if server.is_barred:
            yield Send(pack_reply(option, Reply.ERR_TLS_REQD, b"this server needs TLS"))
            continue
        try:
            replies, offer = server.answer(option, data)
        except NetworkError as error:
            replies, offer = pack_reply(option, Reply.ERR_INVALID, str(error).encode()), None
        yield Send(replies)
        if offer is not None:
            return server.agreed(offer)
    raise malformed(f"more than {_OPTIONS_MAX} options")


def _export_by_name(server: _Server, data: bytes, flags: int) -> Negotiation[Agreed]:
    """The old way to begin transmission, which has no way to refuse."""
    offer = None if server.is_barred else server.find(data.decode(errors="replace"))
    if offer is None:
        raise NetworkError("asks for an export that is not there, or needs TLS")
    tail = b"" if flags & Handshake.NO_ZEROES else _ZEROES
    yield Send(_NAME_AND_SIZE.pack(offer.size, server.features(offer)) + tail)
    return server.agreed(offer)


def _start_tls(server: _Server, data: bytes, *, has_tls: bool) -> Negotiation[None]:
    if not has_tls:
        yield Send(pack_reply(Option.STARTTLS, Reply.ERR_POLICY, b"TLS is not set up here"))
    elif server.is_secure or data:
        yield Send(pack_reply(Option.STARTTLS, Reply.ERR_INVALID))
    else:
        yield Send(pack_reply(Option.STARTTLS, Reply.ACK))
        yield Secure()
        server.is_secure = True
        server.forget()


def _unknown(option: int) -> bytes:
    return pack_reply(option, Reply.ERR_UNKNOWN, b"there is no such export")


def _expect_nothing(data: bytes) -> None:
    if data:
        raise malformed("expected an option without data")
