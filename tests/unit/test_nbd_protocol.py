"""The NBD protocol without a network: bytes as ``doc/proto.md`` has them, and both ends at once."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import NetworkError, UnsupportedFeatureError, UsageError
from imprint.protocols.nbd.asking import Opened, ask
from imprint.protocols.nbd.constants import Errno, Feature
from imprint.protocols.nbd.options import BlockSizes, Offer
from imprint.protocols.nbd.serving import Agreed, serve
from imprint.protocols.nbd.steps import Receive, Send
from imprint.protocols.nbd.transmission import (
    Request,
    data_head,
    end_chunk,
    error_chunk,
    hole_chunk,
    parse_chunk,
    parse_error,
    parse_status,
    simple_reply,
    status_chunk,
)
from imprint.storage.nbd_address import Address

if TYPE_CHECKING:
    from imprint.protocols.nbd.steps import Negotiation

GREETING = b"NBDMAGIC" + b"IHAVEOPT" + b"\x00\x03"
REPLY = bytes.fromhex("0003e889045565a9")
DISK = Offer(
    "disk", 5 << 30, Feature.HAS_FLAGS | Feature.READ_ONLY, "text", BlockSizes(512, 65536, 1 << 25)
)


def talk(negotiation: Negotiation[Agreed | None], said: bytes) -> tuple[bytes, Agreed | None]:
    """What the server sends to a client that says this, and what comes of it."""
    sent, given_, secured = b"", b"", 0
    try:
        step = next(negotiation)
        while True:
            given_ = b""
            if isinstance(step, Send):
                sent += step.data
            elif isinstance(step, Receive):
                assert len(said) >= step.length, f"expected {step.length} bytes more"
                given_, said = said[: step.length], said[step.length :]
            else:
                secured += 1
            step = negotiation.send(given_)
    except StopIteration as end:
        assert not said
        agreed: Agreed | None = end.value
        return sent, agreed


def between(
    offers: dict[str, Offer], name: str, *, tls: bool, server_tls: bool
) -> tuple[Opened, Agreed | None]:
    """Let both ends talk to each other; what each has come to."""
    client, server = ask(name, tls=tls), serve(offers, tls=server_tls)
    pipes = {"client": b"", "server": b""}  # what each was sent
    steps = {"client": next(client), "server": next(server)}
    results: dict[str, object] = {}
    while len(results) < 2:
        moved = False
        for me, other, negotiation in (("client", "server", client), ("server", "client", server)):
            while me not in results:
                step = steps[me]
                data = b""
                if isinstance(step, Send):
                    pipes[other] += step.data
                elif isinstance(step, Receive):
                    if len(pipes[me]) < step.length:
                        break
                    data, pipes[me] = pipes[me][: step.length], pipes[me][step.length :]
                moved = True
                try:
                    steps[me] = negotiation.send(data)
                except StopIteration as end:
                    results[me] = end.value
        assert moved, "both wait"
    opened, agreed = results["client"], results["server"]
    assert isinstance(opened, Opened)
    assert agreed is None or isinstance(agreed, Agreed)
    return opened, agreed


def option(number: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def reply(number: int, kind: int, data: bytes = b"") -> bytes:
    return REPLY + struct.pack(">III", number, kind, len(data)) + data


def test_the_oldest_way_in_gets_size_flags_and_124_zeros() -> None:
    """Fails if a client without fixed newstyle, or without NO_ZEROES, is not understood."""
    expected = GREETING + struct.pack(">QH", 5 << 30, 3) + bytes(124)
    sent, agreed = talk(serve({"disk": DISK}, tls=False), bytes(4) + option(1, b"disk"))
    assert sent == expected
    assert agreed == Agreed(DISK, is_structured=False, has_status=False)
    sent, agreed = talk(
        serve({"disk": DISK}, tls=False), b"\0\0\0\x03" + option(99, b"?") + option(1)
    )
    unsupported = sent[len(GREETING) : len(GREETING) + 16]
    assert unsupported == REPLY + struct.pack(">II", 99, (1 << 31) + 1)
    assert sent.endswith(struct.pack(">QH", 5 << 30, 3))
    assert agreed is not None


def test_all_that_is_asked_for_is_told() -> None:
    """Fails if a reply differs from what the protocol prints for it."""
    choice = struct.pack(">I4sHHHH", 4, b"disk", 3, 1, 2, 3)
    contexts = struct.pack(">I4sII15sI7s", 4, b"disk", 2, 15, b"base:allocation", 7, b"x-y:zzz")
    said = (
        b"\0\0\0\x03"
        + option(8)
        + option(10, contexts)
        + option(9, struct.pack(">I4sI", 4, b"disk", 0))
        + option(3)
        + option(7, choice)
    )
    sent, agreed = talk(serve({"disk": DISK}, tls=False), said)
    assert sent == b"".join(
        (
            GREETING,
            reply(8, 1),
            reply(10, 4, b"\0\0\0\x01base:allocation"),
            reply(10, 1),
            reply(9, 4, b"\0\0\0\0base:allocation"),
            reply(9, 1),
            reply(3, 2, b"\0\0\0\x04disktext"),
            reply(3, 1),
            reply(7, 3, struct.pack(">HQH", 0, 5 << 30, 3 | 128)),
            reply(7, 3, b"\0\x01disk"),
            reply(7, 3, b"\0\x02text"),
            reply(7, 3, struct.pack(">HIII", 3, 512, 65536, 1 << 25)),
            reply(7, 1),
        )
    )
    assert agreed == Agreed(DISK, is_structured=True, has_status=True)


@pytest.mark.parametrize(
    ("number", "data", "error"),
    [
        (3, b"x", 3),
        (8, b"x", 3),
        (7, b"", 3),
        (7, b"\0\0\0\x09disk\0\0", 3),
        (7, b"\0\0\0\x04disk\0\x02\0\0", 3),
        (7, b"\0\0\0\x02\xff\xff\0\0", 3),
        (10, b"\0\0\0\x04disk\0\0\0\0", 3),  # without structured replies
        (9, b"\0\0\0\x04disk\xff\xff\xff\xff", 3),
        (5, b"", 2),  # TLS that is not set up
        (7, b"\0\0\0\x01x\0\0", 6),
        (11, b"", 1),
    ],
)
def test_options_that_make_no_sense_are_refused_and_negotiation_goes_on(
    number: int, data: bytes, error: int
) -> None:
    """Fails if one ends the connection, or is taken for something else."""
    said = b"\0\0\0\x03" + option(number, data) + option(2)
    sent, agreed = talk(serve({"disk": DISK}, tls=False), said)
    assert struct.unpack_from(">I", sent, len(GREETING) + 12)[0] == (1 << 31) + error
    assert sent.endswith(reply(2, 1))
    assert agreed is None


@pytest.mark.parametrize("said", [b"\0\0\0\x04", b"\0\0\0\x03" + b"IHAVEOPX" + bytes(8)])
def test_who_breaks_the_rules_is_dropped(said: bytes) -> None:
    """Fails if a server goes on with a client that it does not understand."""
    with pytest.raises(NetworkError):
        talk(serve({"disk": DISK}, tls=False), said)


def test_with_tls_nothing_is_told_before_it() -> None:
    """Fails if a name or a size is told in the clear, or what was agreed in the clear counts."""
    choice = struct.pack(">I4sH", 4, b"disk", 0)
    said = b"\0\0\0\x03" + option(3) + option(8) + option(7, choice) + option(5) + option(5)
    sent, agreed = talk(serve({"disk": DISK}, tls=True), said + option(7, choice))
    assert agreed == Agreed(DISK, is_structured=False, has_status=False)
    before, _, after = sent.partition(reply(5, 1))
    assert b"disk" not in before
    assert before.count(struct.pack(">I", (1 << 31) + 5)) == 3
    assert after.startswith(reply(5, (1 << 31) + 3))
    with pytest.raises(NetworkError):
        talk(serve({"disk": DISK}, tls=True), b"\0\0\0\x03" + option(1, b"disk"))


@pytest.mark.parametrize("tls", [False, True])
def test_both_ends_understand_each_other(*, tls: bool) -> None:
    """Fails if the client asks what the server does not answer."""
    opened, agreed = between({"disk": DISK}, "disk", tls=tls, server_tls=tls)
    assert agreed == Agreed(DISK, is_structured=True, has_status=True)
    assert (opened.is_structured, opened.context) == (True, 1)
    assert opened.offer.size == DISK.size
    assert opened.offer.blocks == DISK.blocks
    assert opened.offer.features == DISK.features | Feature.DF


def test_refusals_say_what_to_do() -> None:
    """Fails if a user is not told of TLS, of the exports there are, or of an old server."""
    with pytest.raises(NetworkError, match="needs TLS"):
        between({"disk": DISK}, "disk", tls=False, server_tls=True)
    with pytest.raises(NetworkError, match="no TLS"):
        between({"disk": DISK}, "disk", tls=True, server_tls=False)
    with pytest.raises(NetworkError, match="has no export 'x'") as caught:
        between({"disk": DISK}, "x", tls=False, server_tls=False)
    assert caught.value.advice == "it has: 'disk'"
    client = ask("x", tls=False)
    next(client)
    with pytest.raises(UnsupportedFeatureError):
        client.send(b"NBDMAGIC" + bytes.fromhex("00420281861253").rjust(8, b"\0"))


def test_messages_of_transmission_are_those_of_the_protocol() -> None:
    """Fails if a field is elsewhere than ``doc/proto.md`` has it."""
    request = Request(1, 3, 0x1122334455667788, 0x99, 0xAA)
    packed = bytes.fromhex("25609513 0001 0003 1122334455667788 0000000000000099 000000aa")
    assert request.pack() == packed
    assert Request.parse(packed) == request
    cookie = bytes.fromhex("0000000000000005")
    assert simple_reply(5, Errno.EIO) == bytes.fromhex("67446698 00000005") + cookie
    head = bytes.fromhex("668e33ef")
    assert data_head(5, 0x1000, 512, is_last=True) == (
        head + b"\0\x01\0\x01" + cookie + struct.pack(">IQ", 520, 0x1000)
    )
    assert hole_chunk(5, 0x1000, 512, is_last=False) == (
        head + b"\0\0\0\x02" + cookie + struct.pack(">IQI", 12, 0x1000, 512)
    )
    assert end_chunk(5) == head + b"\0\x01\0\0" + cookie + bytes(4)
    assert error_chunk(5, 5, "bad", 7) == (
        head + b"\0\x01\x80\x02" + cookie + struct.pack(">IIH3sQ", 17, 5, 3, b"bad", 7)
    )
    assert status_chunk(5, 1, [(512, 0), (1024, 3)]) == (
        head + b"\0\x01\0\x05" + cookie + struct.pack(">IIIIII", 20, 1, 512, 0, 1024, 3)
    )


@given(st.binary(min_size=20, max_size=20), st.binary(max_size=64))
def test_any_bytes_are_a_message_or_one_error(head: bytes, payload: bytes) -> None:
    """Fails if a message of a stranger raises anything else."""
    for part in (head, bytes.fromhex("668e33ef") + head[4:]):
        with contextlib.suppress(NetworkError):
            chunk = parse_chunk(part)
            if chunk.is_error and len(payload) >= 6:
                parse_error(chunk.kind, payload)
        if len(payload) % 8 == 4:
            with contextlib.suppress(NetworkError):
                parse_status(payload)


@pytest.mark.parametrize(
    "text",
    [
        *("nbd:///x?socket=/y", "nbd+unix:///x", "nbd+unix://host/x?socket=/y", "http://x"),
        *("nbd://host:99999/", "nbd://host/%ff", "nbd://host/?what=1", "nbd+unix:///?socket="),
        *("nbd://host/" + "x" * 5000, "nbd://[::1/x"),
    ],
)
def test_urls_that_are_none_of_nbd_are_refused(text: str) -> None:
    """Fails if a typing error connects to somebody."""
    with pytest.raises(UsageError):
        Address.parse(text)


def test_urls_say_what_the_specification_has_them_say() -> None:
    """Fails if a URL that libnbd understands means something else here."""
    plain = Address.parse("nbd://example.org/a%2Fb")
    assert (plain.host, plain.port, plain.export, plain.path) == ("example.org", 10809, "a/b", None)
    assert not plain.is_secure
    secure = Address.parse("nbds://[::1]:1234?tls-certificates=/pki&tls-hostname=disk")
    assert (secure.host, secure.port, secure.export) == ("disk", 1234, "")
    assert secure.is_secure
    assert str(secure.certificates) == "/pki"
    local = Address.parse("nbd+unix:///?socket=/run/a%20b")
    assert (local.path, local.export) == ("/run/a b", "")
