"""Options and their replies, as bytes and as values; shared by both ends.

Source: NetworkBlockDevice/nbd ``doc/proto.md``, "Fixed newstyle negotiation", "Option types",
"Option reply types".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import NetworkError
from imprint.protocols.nbd.constants import (
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    STRING_BYTES_MAX,
    Feature,
    Info,
    Reply,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

OPTION_HEAD: Final = struct.Struct(">QII")
"""Magic, option, length of its data."""

REPLY_HEAD: Final = struct.Struct(">QIII")
"""Magic, the option, type of the reply, length of its data."""

OPTION_DATA_MAX: Final = 64 << 10
"""Bytes of an option or its reply: names and queries of 4 KiB each, and few of them."""

_LENGTH: Final = struct.Struct(">I")
_COUNT: Final = struct.Struct(">H")
_EXPORT: Final = struct.Struct(">HQH")
_BLOCK_SIZE: Final = struct.Struct(">HIII")


@dataclass(frozen=True)
class BlockSizes:
    """Bounds of requests, in bytes: the defaults are those of the protocol.

    Attributes:
        minimum: offsets and lengths are multiples of it.
        preferred: multiples of it are not read before they are written.
        maximum: of what one request may carry.
    """

    minimum: int = 1
    preferred: int = 4096
    maximum: int = 32 << 20


@dataclass(frozen=True)
class Offer:
    """An export, as it is described to clients.

    Attributes:
        name: by which it is asked for.
        size: in bytes.
        features: what can be done with it.
        description: for people.
        blocks: bounds of requests.
    """

    name: str
    size: int
    features: Feature
    description: str = ""
    blocks: BlockSizes = BlockSizes()


class Fields:
    """Reads the data of an option or a reply, front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self._at

    def number(self) -> int:
        """32 bits."""
        return int.from_bytes(self._take(4))

    def short(self) -> int:
        """16 bits."""
        return int.from_bytes(self._take(2))

    def text(self, length: int | None = None) -> str:
        """So many bytes of UTF-8; all that is left, by default."""
        length = self.left if length is None else length
        if length > STRING_BYTES_MAX:
            raise malformed(f"expected a string of at most {STRING_BYTES_MAX} bytes")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise malformed("expected UTF-8") from None

    def sized_text(self) -> str:
        """A string with its length before it."""
        return self.text(self.number())

    def end(self) -> None:
        """Nothing may follow."""
        if self.left:
            raise malformed("expected the end of an option")

    def _take(self, length: int) -> bytes:
        if length > self.left:
            raise malformed("expected more data")
        self._at += length
        return self._data[self._at - length : self._at]


def malformed(what: str) -> NetworkError:
    """The error of a peer that does not keep to the protocol."""
    return NetworkError(f"the other side does not keep to the NBD protocol: {what}")


def pack_option(option: int, data: bytes = b"") -> bytes:
    """An option, as a client sends it."""
    return OPTION_HEAD.pack(OPTION_MAGIC, option, len(data)) + data


def pack_reply(option: int, kind: int, data: bytes = b"") -> bytes:
    """A reply to an option."""
    return REPLY_HEAD.pack(OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def pack_text(text: str) -> bytes:
    """A string with its length before it."""
    encoded = text.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def pack_choice(name: str, wanted: Iterable[Info]) -> bytes:
    """Data of ``INFO`` and ``GO``."""
    listed = list(wanted)
    return pack_text(name) + b"".join(map(_COUNT.pack, [len(listed), *listed]))


def parse_choice(data: bytes) -> tuple[str, tuple[int, ...]]:
    """The name of an export, and which facts are wanted."""
    fields = Fields(data)
    name = fields.sized_text()
    wanted = tuple(fields.short() for _ in range(fields.short()))
    fields.end()
    return name, wanted


def pack_contexts(name: str, queries: Iterable[str]) -> bytes:
    """Data of ``SET_META_CONTEXT`` and ``LIST_META_CONTEXT``."""
    listed = list(queries)
    return pack_text(name) + _LENGTH.pack(len(listed)) + b"".join(map(pack_text, listed))


def parse_contexts(data: bytes) -> tuple[str, tuple[str, ...]]:
    """The name of an export, and the queries."""
    fields = Fields(data)
    name = fields.sized_text()
    count = fields.number()
    if count * _LENGTH.size > fields.left:
        raise malformed("expected more queries")
    queries = tuple(fields.sized_text() for _ in range(count))
    fields.end()
    return name, queries


def pack_facts(option: int, offer: Offer, wanted: Iterable[int], features: Feature) -> bytes:
    """The ``INFO`` replies of an export; what every client has to know comes unasked."""
    asked = set(wanted)
    blocks = offer.blocks
    facts = [_EXPORT.pack(Info.EXPORT, offer.size, features)]
    if Info.NAME in asked:
        facts.append(_COUNT.pack(Info.NAME) + offer.name.encode())
    if Info.DESCRIPTION in asked and offer.description:
        facts.append(_COUNT.pack(Info.DESCRIPTION) + offer.description.encode())
    if Info.BLOCK_SIZE in asked:
        facts.append(
            _BLOCK_SIZE.pack(Info.BLOCK_SIZE, blocks.minimum, blocks.preferred, blocks.maximum)
        )
    return b"".join(pack_reply(option, Reply.INFO, fact) for fact in facts)


def parse_fact(data: bytes, offer: Offer) -> Offer:
    """What is known of an export after one more ``INFO`` reply."""
    fields = Fields(data)
    kind = fields.short()
    if kind == Info.EXPORT and len(data) == _EXPORT.size:
        _, size, features = _EXPORT.unpack(data)
        return Offer(offer.name, size, Feature(features), offer.description, offer.blocks)
    if kind == Info.BLOCK_SIZE and len(data) == _BLOCK_SIZE.size:
        _, minimum, preferred, maximum = _BLOCK_SIZE.unpack(data)
        is_power = minimum and minimum & (minimum - 1) == 0
        if not is_power or minimum > 1 << 16 or maximum < max(minimum, 512):
            raise malformed(f"expected sizes of blocks, found {minimum} to {maximum}")
        blocks = BlockSizes(minimum, preferred, maximum)
        return Offer(offer.name, offer.size, offer.features, offer.description, blocks)
    if kind in (Info.EXPORT, Info.BLOCK_SIZE):
        raise malformed(f"found {len(data)} bytes of a fact")
    if kind == Info.DESCRIPTION:
        text = fields.text()
        return Offer(offer.name, offer.size, offer.features, text, offer.blocks)
    return offer
