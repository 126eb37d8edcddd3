"""Objects on another machine, over SFTP: against OpenSSH's own server."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import NetworkError, PassphraseError, RefusedError, TargetError
from imprint.objects.local import LocalStore
from imprint.objects.retrying import Retries, RetryingStore
from imprint.objects.sftp import SftpStore
from imprint.objects.sftp_sessions import SftpServer
from imprint.testing.object_servers import free_port, ssh_server, user_name
from imprint.testing.object_suite import ObjectStoreContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imprint.objects.contract import ObjectStore

STRANGER = """
import sys
from imprint.core.errors import NetworkError
from imprint.objects.sftp import SftpStore
from imprint.objects.sftp_sessions import SftpServer
try:
    SftpStore(SftpServer("127.0.0.1", int(sys.argv[1]), "somebody"), "r").get("format")
except NetworkError as failure:
    print("NetworkError", failure)
"""
pytestmark = pytest.mark.oracle("sshd", "ssh-keygen")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    """A server, and how to log in."""
    pytest.importorskip("paramiko")
    folder = tmp_path_factory.mktemp("sshd")
    with ssh_server(folder) as port:
        yield SftpServer(
            "127.0.0.1", port, user_name(), (folder / "known_hosts",), (folder / "user",), 20.0
        )


class TestSftp(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, sshd: SftpServer) -> Iterator[None]:
        self.server = sshd
        self.opened: list[ObjectStore] = []
        yield
        for store in self.opened:
            store.close()

    def make(self, tmp_path: Path) -> ObjectStore:
        return self.another(None, tmp_path)

    def another(self, store: ObjectStore | None, tmp_path: Path) -> ObjectStore:
        self.opened.append(SftpStore(self.server, str(tmp_path / "far" / "repository")))
        return self.opened[-1]


def test_the_folder_is_one_that_a_local_store_can_read(sshd: SftpServer, tmp_path: Path) -> None:
    """Fails if a repository cannot be moved between the two, or leaves other files behind."""
    store = SftpStore(sshd, str(tmp_path / "far"))
    local = LocalStore(tmp_path / "far")
    store.put("packs/aa/1", [b"far"])
    local.put("packs/aa/2", [b"near"])
    assert local.get("packs/aa/1") == b"far"
    assert [info.name for info in store.list("")] == ["packs/aa/1", "packs/aa/2"]
    assert list((tmp_path / "far" / ".partial").iterdir()) == []
    store.close()


def test_a_server_that_nobody_knows_is_refused(sshd: SftpServer, tmp_path: Path) -> None:
    """Fails if a repository's bytes go to whoever answers."""
    stranger = SftpServer(sshd.host, sshd.port, sshd.user, (), sshd.keys)
    with pytest.raises(RefusedError, match="not known"):
        SftpStore(stranger, str(tmp_path)).get("format")


def test_a_wrong_key_is_said_to_be_wrong(sshd: SftpServer, tmp_path: Path) -> None:
    """Fails if it is taken for a passing failure, and tried again."""
    wrong = SftpServer(
        sshd.host, sshd.port, sshd.user, sshd.known_hosts, (sshd.keys[0].with_name("host"),)
    )
    with pytest.raises(PassphraseError):
        SftpStore(wrong, str(tmp_path)).get("format")


def test_nobody_there_is_a_network_error(tmp_path: Path) -> None:
    """Fails if a machine that is down has another exit code."""
    server = SftpServer("127.0.0.1", free_port(), "nobody", (), (), 5.0)
    with pytest.raises(NetworkError):
        SftpStore(server, str(tmp_path)).get("format")


def test_a_folder_that_cannot_be_made_is_a_refusal(sshd: SftpServer, tmp_path: Path) -> None:
    """Fails if an error of the far disk is not the target's."""
    (tmp_path / "file").write_text("in the way")
    store = SftpStore(sshd, str(tmp_path / "file" / "repository"))
    with pytest.raises(TargetError):
        store.put("format", [b"{}"])
    store.close()


def test_a_broken_connection_is_made_again(sshd: SftpServer, tmp_path: Path) -> None:
    """Fails if one lost connection ends a backup, or is another error than the network's."""
    bare = SftpStore(sshd, str(tmp_path / "far"))
    store = RetryingStore(bare, Retries(3, 0.01, 0.02))
    data = bytes(range(256)) * 4000
    store.put("packs/aa/1", [data], only_new=True)

    def cut() -> None:
        connection = bare._sessions._connection
        assert connection is not None
        transport = connection.get_transport()
        assert transport is not None
        transport.sock.shutdown(socket.SHUT_RDWR)

    cut()
    with pytest.raises(NetworkError):
        bare.get("packs/aa/1")
    cut_after_that: list[Callable[[], object]] = [
        lambda: store.get("packs/aa/1"),
        lambda: store.put("packs/aa/2", [data]),
        lambda: store.put("packs/aa/3", [data], only_new=True),
        lambda: [info.name for info in store.list("packs/")],
        lambda: store.delete("packs/aa/2"),
    ]
    for attempt in cut_after_that:
        assert bare.stat("packs/aa/1") is not None
        cut()
        attempt()
    assert [info.name for info in store.list("")] == ["packs/aa/1", "packs/aa/3"]
    assert store.get("packs/aa/3") == data
    store.close()


def _put_many(store: SftpStore) -> None:
    for _ in range(200):
        store.put("packs/aa/1", [bytes(16 << 20)])
        store.delete("packs/aa/1")


def test_a_connection_cut_while_writing_leaves_no_object(sshd: SftpServer, tmp_path: Path) -> None:
    """Fails if a part of an object gets its name."""
    store = SftpStore(sshd, str(tmp_path / "far"))
    store.put("format", [b"{}"])
    connection = store._sessions._connection
    assert connection is not None
    transport = connection.get_transport()
    assert transport is not None
    cutter = threading.Timer(0.05, transport.sock.shutdown, [socket.SHUT_RDWR])
    cutter.start()
    with pytest.raises(NetworkError):
        _put_many(store)
    cutter.join()
    left = [info.size for info in LocalStore(tmp_path / "far").list("packs/")]
    assert left in ([], [16 << 20])
    store.close()


def test_what_is_no_ssh_server_is_one_error_and_no_noise() -> None:
    """Fails if the library prints a traceback of its own beside our error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = subprocess.Popen(
            [sys.executable, "-c", STRANGER, str(listener.getsockname()[1])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        client, _ = listener.accept()
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        client.close()
        out, noise = done.communicate(timeout=60)
    assert out.startswith("NetworkError sftp://somebody@127.0.0.1")
    assert noise == ""
