"""Clients that send garbage, stop half-way or come in hundreds harm nobody but themselves."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.errors import ReadError
from imprint.endpoints.cow import MEMORY
from imprint.endpoints.open import Access
from imprint.endpoints.serving import Wish, open_exports
from imprint.exports.nbd.export import Export
from imprint.exports.nbd.server import Policy
from imprint.filters.cutoff import filled_up
from imprint.protocols.nbd.constants import Command
from imprint.protocols.nbd.transmission import Request
from imprint.storage.memory import MemoryStorage
from imprint.storage.nbd import NbdStorage
from imprint.testing.nbd_peers import running, serving, socket_path, uri

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE: Final = 1 << 20
WRITABLE: Final = 64 << 20
CONTENT: Final = random.Random(3).randbytes(SIZE)
GREETING: Final = b"NBDMAGICIHAVEOPT\x00\x03"
# EXPORT_NAME with an empty name, and no zeros after the reply: the shortest way in.
ENTER: Final = struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0)
ENTERED_BYTES: Final = 18 + 10


class _Damaged(MemoryStorage):
    """Cannot be read in its second quarter."""

    def readinto(self, buffer: memoryview, offset: int) -> None:
        if offset < SIZE // 2 and offset + len(buffer) > SIZE // 4:
            raise ReadError("medium error", name=self.name)
        super().readinto(buffer, offset)


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(60)
    client.connect(str(path))
    return client


def receive(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = client.recv(length - len(data))
        assert part, f"expected {length} bytes, found {len(data)}"
        data += part
    return data


def enter(path: Path) -> socket.socket:
    client = connect(path)
    client.sendall(ENTER)
    receive(client, ENTERED_BYTES)
    return client


def is_served(path: Path) -> bool:
    """Whether a client that behaves gets the disk."""
    with closing(NbdStorage.open(uri(path))) as disk:
        data = bytearray(SIZE)
        disk.readinto(memoryview(data), 0)
    return data == CONTENT


def is_dropped(client: socket.socket) -> bool:
    """Whether the server ends the connection by itself."""
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


@pytest.fixture
def server() -> Iterator[Path]:
    with serving(Export("", MemoryStorage(CONTENT, writable=False))) as path:
        yield path


@pytest.fixture(scope="module")
def lasting() -> Iterator[Path]:
    with serving(Export("", MemoryStorage(CONTENT, writable=False))) as path:
        yield path


@settings(max_examples=60)
@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([b"IHAVEOPT", ENTER, b"\x25\x60\x95\x13", b"\x00" * 12, b"\xff" * 8]),
            st.builds(
                lambda option, length: b"IHAVEOPT" + struct.pack(">II", option, length),
                st.integers(0, 12),
                st.sampled_from([0, 1, 6, 65536, 65537, 2**32 - 1]),
            ),
            st.builds(
                lambda *fields: struct.pack(">IHHQQI", 0x25609513, *fields),
                st.sampled_from([0, 1, 4, 8, 0xFFFF]),
                st.integers(0, 9),
                st.integers(0, 2**64 - 1),
                st.sampled_from([0, 1, SIZE - 1, SIZE, 2**63, 2**64 - 1]),
                st.sampled_from([0, 1, SIZE, 32 << 20, 2**32 - 1]),
            ),
        ),
        max_size=8,
    ),
    enters=st.booleans(),
)
def test_garbage_ends_its_own_connection_only(
    lasting: Path, data: list[bytes], *, enters: bool
) -> None:
    """Fails if any bytes end the server, or it serves others wrongly afterwards."""
    with connect(lasting) as client:
        # It may not want to hear all of that.
        with contextlib.suppress(OSError):
            client.sendall((ENTER if enters else b"") + b"".join(data))
            client.shutdown(socket.SHUT_WR)
        assert is_dropped(client)
    assert is_served(lasting)


@pytest.mark.parametrize("length", [0, 1, 4, 12, 20, 27])
def test_who_stops_half_way_is_dropped(length: int) -> None:
    """Fails if a message that never ends keeps its connection for ever."""
    policy = Policy(timeout_s=0.2, negotiation_s=0.2)
    with serving(Export("", MemoryStorage(CONTENT, writable=False)), policy=policy) as path:
        with connect(path) as client:
            client.sendall(ENTER[:length])
            if length >= len(ENTER):
                client.sendall(Request(0, Command.READ, 1, 0, 512).pack()[: length - 15])
            assert is_dropped(client)
        assert is_served(path)


def test_a_request_that_never_ends_is_dropped_and_an_idle_client_is_not() -> None:
    """Fails if the patience with requests is that with silence."""
    policy = Policy(timeout_s=0.2, negotiation_s=30)
    export = Export("", MemoryStorage(CONTENT, writable=False))
    with serving(export, policy=policy) as path, enter(path) as idle, enter(path) as stuck:
        stuck.sendall(Request(0, Command.READ, 1, 0, 512).pack()[:10])
        assert is_dropped(stuck)
        idle.sendall(Request(0, Command.READ, 7, 0, 512).pack())
        expected = bytes.fromhex("67446698 00000000 0000000000000007") + CONTENT[:512]
        assert receive(idle, len(expected)) == expected


def test_two_hundred_connections_keep_nobody_out(server: Path) -> None:
    """Fails if connections that say nothing take the places of clients."""
    with ExitStack() as stack:
        for _ in range(200):
            client = stack.enter_context(connect(server))
            client.sendall(ENTER[:4])
        assert is_served(server)


def test_when_all_places_are_taken_by_clients_the_next_one_is_refused() -> None:
    """Fails if the limit does not hold, or a client has to leave for a stranger."""
    policy = Policy(connections=3)
    export = Export("", MemoryStorage(CONTENT, writable=False))
    with serving(export, policy=policy) as path, ExitStack() as stack:
        clients = [stack.enter_context(enter(path)) for _ in range(3)]
        for _ in range(2):
            for client in clients:
                client.sendall(Request(0, Command.READ, 1, 0, 16).pack())
                assert receive(client, 32)[16:] == CONTENT[:16]
            refused = stack.enter_context(connect(path))
            assert is_dropped(refused)


def test_who_leaves_in_the_middle_of_everything_is_forgotten(server: Path) -> None:
    """Fails if replies that nobody takes keep a thread, or end the server."""
    for _ in range(5):
        client = enter(server)
        for cookie in range(60):
            client.sendall(Request(0, Command.READ, cookie, 0, SIZE).pack())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    assert is_served(server)


@pytest.mark.oracle("nbdcopy")
def test_a_client_that_is_killed_harms_nobody(server: Path) -> None:
    """Fails if the server suffers with its client."""
    with subprocess.Popen(["nbdcopy", uri(server), "null:"]) as client:
        client.kill()
    assert is_served(server)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Request(0x8000, Command.READ, 1, 0, 512), 22),
        (Request(4, Command.READ, 1, 0, 512), 22),  # DF without structured replies
        (Request(2, Command.READ, 1, 0, 512), 22),
        (Request(0, Command.READ, 1, SIZE, 1), 22),
        (Request(0, Command.READ, 1, 2**64 - 1, 2), 22),
        (Request(0, Command.READ, 1, 0, 2**32 - 1), 22),
        (Request(0, Command.WRITE, 1, 0, 0), 1),
        (Request(0, Command.TRIM, 1, 0, 512), 1),
        (Request(0, Command.WRITE_ZEROES, 1, 0, 512), 1),
        (Request(0, Command.BLOCK_STATUS, 1, 0, 512), 22),
        (Request(0, Command.RESIZE, 1, 0, 512), 22),
        (Request(0, 99, 1, 0, 512), 22),
        (Request(0, Command.FLUSH, 1), 0),
        (Request(0, Command.CACHE, 1, 0, SIZE), 0),
        (Request(0, Command.READ, 1, 0, 0), 0),
    ],
)
def test_what_may_not_be_asked_for_is_refused_with_its_number(
    server: Path, request_: Request, error: int
) -> None:
    """Fails if a request is carried out that the protocol forbids, or the wrong error told."""
    with enter(server) as client:
        client.sendall(request_.pack())
        assert receive(client, 16) == struct.pack(">IIQ", 0x67446698, error, 1)
        client.sendall(Request(0, Command.READ, 2, 0, 16).pack())
        assert receive(client, 32)[16:] == CONTENT[:16]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Request(0, Command.WRITE_ZEROES, 1, WRITABLE - 512, 1024), 28),
        (Request(0, Command.TRIM, 1, WRITABLE - 512, 1024), 22),
        (Request(0, Command.CACHE, 1, WRITABLE - 512, 1024), 22),
        (Request(0, Command.READ, 1, 0, (32 << 20) + 1), 22),  # EOVERFLOW is for DF only
        (Request(0, Command.READ, 1, 0, 32 << 20), 0),
        (Request(16, Command.WRITE_ZEROES, 1, 0, 512), 22),  # FAST_ZERO is not offered
    ],
)
def test_what_a_disk_that_is_written_refuses_has_its_number(
    tmp_path: Path, request_: Request, error: int
) -> None:
    """Fails if the error is another one than the protocol has: clients act upon it."""
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(WRITABLE)
    (export,) = open_exports([str(disk)], Access(), Wish(cow=MEMORY))
    with closing(export.disk), serving(export) as path, enter(path) as client:
        client.sendall(request_.pack())
        assert receive(client, 16) == struct.pack(">IIQ", 0x67446698, error, 1)


def test_what_a_disk_lacks_is_an_error_and_no_zeros() -> None:
    """Fails if a copy that was cut short is served as if zeros stood behind its end."""
    cut = filled_up(MemoryStorage(CONTENT, writable=False), 2 * SIZE, name="cut")
    with serving(Export("", cut)) as path, closing(NbdStorage.open(uri(path))) as disk:
        view = memoryview(bytearray(SIZE))
        disk.readinto(view, 0)
        assert view == CONTENT
        with pytest.raises(ReadError, match="cut off"):
            disk.readinto(view, SIZE)


def test_bad_areas_are_errors_of_their_requests_only() -> None:
    """Fails if what cannot be read ends the connection, or good data is lost with it."""
    with serving(Export("", _Damaged(CONTENT, writable=False))) as path:
        with closing(NbdStorage.open(uri(path))) as disk:
            view = memoryview(bytearray(SIZE // 4))
            disk.readinto(view, 0)
            assert view == CONTENT[: SIZE // 4]
            with pytest.raises(ReadError, match="medium error"):
                disk.readinto(view, SIZE // 4)
            disk.readinto(view, SIZE // 2)
            assert view == CONTENT[SIZE // 2 : SIZE // 4 * 3]
        with enter(path) as client:  # simple replies
            client.sendall(Request(0, Command.READ, 9, SIZE // 4, 512).pack())
            client.sendall(Request(0, Command.READ, 8, 0, 16).pack())
            both = receive(client, 16 + 32)
            assert bytes.fromhex("67446698 00000005 0000000000000009") in both
            assert CONTENT[:16] in both


MEMORY_PROGRAM: Final = """
import pathlib, re, sys
from imprint.cli.main import main
code = main(sys.argv[1:])
# Not what getrusage says: before exec, this process was a copy of its parent.
status = pathlib.Path("/proc/self/status").read_text()
print(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1], file=sys.stderr)
sys.exit(code)
"""


def test_memory_is_bounded_by_no_wish_of_a_client(tmp_path: Path) -> None:
    """Fails if what clients ask for and do not take, or announce and do not send, is held."""
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
        file.write(CONTENT)
    with socket_path() as path, ExitStack() as stack:
        arguments = ["serve", str(disk), "--unix", str(path), "--cow", "memory"]
        command = [sys.executable, "-c", MEMORY_PROGRAM, *arguments]
        process = stack.enter_context(running(command, path))
        for _ in range(8):
            client = stack.enter_context(enter(path))
            for cookie in range(16):
                client.sendall(Request(0, Command.READ, cookie, 0, 32 << 20).pack())
        for length in (32 << 20, 2**32 - 1):
            client = stack.enter_context(enter(path))
            with contextlib.suppress(ConnectionError):
                client.sendall(Request(0, Command.WRITE, 1, 0, length).pack() + bytes(2 << 20))
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert int(said.split()[-1]) < 200 << 10  # KiB
