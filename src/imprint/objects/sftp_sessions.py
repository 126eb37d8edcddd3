"""Connections to an SFTP server: made when needed, shared by threads, thrown away when broken."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import NetworkError, PassphraseError, RefusedError
from imprint.core.system import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from paramiko import SFTPClient, SSHClient

TIMEOUT_S: Final = 30.0
SSH_PORT: Final = 22

_SILENT: Final = logging.NullHandler()
_SESSIONS_MAX: Final = 4  # in one connection; OpenSSH permits 10


@dataclass(frozen=True)
class SftpServer:
    """A machine, and how to log in.

    Keys come from the agent, from ``keys`` and from where OpenSSH has them.

    Attributes:
        host: name or address.
        port: of the SSH server.
        user: ``None``: the name of the user of this process.
        known_hosts: files of the host keys to trust, beside those that OpenSSH trusts.
        keys: files of private keys to log in with.
        timeout_s: for connecting, and for each answer.
    """

    host: str
    port: int = SSH_PORT
    user: str | None = None
    known_hosts: tuple[Path, ...] = ()
    keys: tuple[Path, ...] = ()
    timeout_s: float = TIMEOUT_S

    @property
    def label(self) -> str:
        """As an address has it."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}" + (f":{self.port}" if self.port != SSH_PORT else "")


class Sessions:
    """SFTP sessions in one connection, each used by one thread at a time."""

    def __init__(self, server: SftpServer, name: str) -> None:
        """Connects to nothing yet; errors are about ``name``."""
        self._server = server
        self._name = name
        self._lock = threading.Lock()
        self._room = threading.Semaphore(_SESSIONS_MAX)
        self._connection: SSHClient | None = None
        self._idle: list[SFTPClient] = []

    @contextlib.contextmanager
    def borrow(self) -> Iterator[SFTPClient]:
        """A session; if it breaks, so does the connection, and the next one makes a new one.

        Raises:
            NetworkError: if the server cannot be reached, or the connection breaks.
            RefusedError: if the server is not who it should be.
            PassphraseError: if it lets nobody in.
        """
        from paramiko import SSHException

        with self._room:
            try:
                session = self._session()
            except (SSHException, EOFError) as failure:
                self.close()
                raise NetworkError(f"no session: {failure}", name=self._name) from failure
            try:
                yield session
            except (SSHException, EOFError, TimeoutError, ConnectionError) as failure:
                self.close()
                raise NetworkError("the connection broke off", name=self._name) from failure
            except OSError as failure:
                if str(failure) == "Socket is closed":  # as paramiko says it
                    self.close()
                    raise NetworkError("the connection broke off", name=self._name) from failure
                self._give_back(session)
                raise
            except BaseException:
                self._give_back(session)
                raise
            else:
                self._give_back(session)

    def close(self) -> None:
        """Close the connection. The next :meth:`borrow` makes a new one."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._idle.clear()
        if connection is not None:
            connection.close()

    def _session(self) -> SFTPClient:
        with self._lock:
            if self._connection is None:
                self._idle.clear()
                self._connection = self._connect()
            if self._idle:
                return self._idle.pop()
            session = self._connection.open_sftp()
            channel = session.get_channel()
            assert channel is not None
            channel.settimeout(self._server.timeout_s)
            return session

    def _give_back(self, session: SFTPClient) -> None:
        with self._lock:
            channel = session.get_channel()
            if self._connection is not None and channel is not None and not channel.closed:
                self._idle.append(session)

    def _connect(self) -> SSHClient:
        import paramiko

        # What fails is raised here; left alone, it would be printed with a traceback as well.
        logging.getLogger("paramiko").addHandler(_SILENT)
        server = self._server
        client = paramiko.SSHClient()
        try:
            client.load_system_host_keys()
            for path in server.known_hosts:
                client.load_host_keys(str(path))
            client.set_missing_host_key_policy(paramiko.RejectPolicy())
            client.connect(
                server.host,
                server.port,
                server.user,
                key_filename=[str(path) for path in server.keys],  # type: ignore[arg-type]
                timeout=server.timeout_s,
                banner_timeout=server.timeout_s,
                auth_timeout=server.timeout_s,
                channel_timeout=server.timeout_s,
            )
        except BaseException as failure:
            client.close()
            raise self._meaning(failure) from failure
        transport = client.get_transport()
        assert transport is not None
        transport.set_keepalive(15)
        return client

    def _meaning(self, failure: BaseException) -> BaseException:
        from paramiko import AuthenticationException, BadHostKeyException, SSHException

        if isinstance(failure, BadHostKeyException):
            return RefusedError("the server has another key than before", name=self._name)
        if isinstance(failure, AuthenticationException):
            return PassphraseError(
                "the server lets nobody in with the keys that were tried",
                name=self._name,
                advice="`ssh-add` gives a key to the agent, which is asked for keys",
            )
        if isinstance(failure, SSHException) and "known_hosts" in str(failure):
            return RefusedError(
                "the key of the server is not known",
                name=self._name,
                advice="`ssh` to it once, to see its key and to accept it",
            )
        if isinstance(failure, OSError):
            return NetworkError(f"cannot connect: {reason_of(failure)}", name=self._name)
        if isinstance(failure, (SSHException, EOFError)):
            return NetworkError(f"cannot connect: {failure}", name=self._name)
        return failure
