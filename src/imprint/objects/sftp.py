"""Objects as files of a folder on another machine, over SFTP, through ``paramiko``.

The layout is that of :mod:`imprint.objects.local`. OpenSSH offers more than the protocol has:
``fsync@openssh.com`` makes a file durable, ``posix-rename@openssh.com`` replaces one. The names in
a folder cannot be made durable from here.

Source: draft-ietf-secsh-filexfer-02 (SFTP version 3); OpenSSH, *PROTOCOL*, section 4.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import stat
import time
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError, TargetError
from imprint.core.system import reason_of
from imprint.core.units import KIB
from imprint.objects.contract import MissingObjectError, ObjectExistsError, ObjectInfo
from imprint.objects.local import STALE_S
from imprint.objects.names import check_name, check_prefix, is_name
from imprint.objects.sftp_sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from paramiko import SFTPAttributes, SFTPClient, SFTPFile

    from imprint.objects.sftp_sessions import SftpServer

_PARTIAL: Final = ".partial"
_WRITE_BYTES: Final = 256 * KIB
# A day: the clocks of two machines may differ, and nothing tells a slow writer from a dead one.
_STALE_S: Final = 24 * STALE_S


class SftpStore:
    """A folder with objects on another machine. It is made by the first :meth:`put`."""

    def __init__(self, server: SftpServer, folder: str) -> None:
        """Connects to nothing yet.

        Args:
            server: the machine, and how to log in.
            folder: from the root if it begins with a slash, else from the user's home.
        """
        self._name = f"sftp://{server.label}/{folder}"
        self._folder = folder.rstrip("/") or "/"
        self._sessions = Sessions(server, self._name)
        self._is_clean = False

    @property
    def name(self) -> str:
        """The address, without a password."""
        return self._name

    @property
    def latency_s(self) -> float:
        """Of opening, reading and closing a file."""
        return 0.03

    def get(self, name: str) -> bytes:
        """All of an object.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if it cannot be read.
            NetworkError: if the other machine does not answer.
        """
        return self.get_range(name, 0, 1 << 62)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Part of an object.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if it cannot be read.
            NetworkError: if the other machine does not answer.
        """
        path = self._path(name)
        try:
            with self._sessions.borrow() as session, session.open(path, "rb") as file:
                size = file.stat().st_size or 0
                wanted = min(length, size - offset)
                if wanted <= 0:
                    return b""
                # All requests at once: one after the other, each would wait for the line.
                found: list[bytes] = list(file.readv([(offset, wanted)]))
        except FileNotFoundError:
            raise MissingObjectError("there is no such object", name=self._address(name)) from None
        except OSError as failure:
            raise ReadError(reason_of(failure), name=self._address(name)) from failure
        if sum(map(len, found)) != wanted:
            raise ReadError(
                f"expected {wanted} bytes, found {sum(map(len, found))}",
                name=self._address(name),
                offset=offset,
                length=length,
            )
        return b"".join(found)

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Make an object; its content is durable when this returns, if the server can do that.

        Raises:
            ObjectExistsError: if ``only_new`` and there is one already.
            TargetError: if it cannot be stored.
            NetworkError: if the other machine does not answer.
        """
        path = self._path(name)
        temporary = f"{self._folder}/{_PARTIAL}/{secrets.token_hex(16)}"
        try:
            with self._sessions.borrow() as session:
                if only_new and _is_there(session, path):
                    raise ObjectExistsError("exists already", name=self._address(name))
                try:
                    self._write(session, temporary, b"".join(parts))
                    self._publish(session, temporary, path, only_new=only_new)
                except OSError:
                    with contextlib.suppress(OSError):
                        session.remove(temporary)
                    raise
        except FileExistsError:
            raise ObjectExistsError("exists already", name=self._address(name)) from None
        except OSError as failure:
            raise TargetError(reason_of(failure), name=self._address(name)) from failure

    def delete(self, name: str) -> None:
        """Remove an object.

        Raises:
            TargetError: if the other machine does not permit it.
            NetworkError: if it does not answer.
        """
        try:
            with self._sessions.borrow() as session:
                session.remove(self._path(name))
        except FileNotFoundError:
            return
        except OSError as failure:
            reason = f"cannot be removed: {reason_of(failure)}"
            raise TargetError(reason, name=self._address(name)) from failure

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below a prefix, ascending.

        Raises:
            ReadError: if a folder cannot be read.
            NetworkError: if the other machine does not answer.
        """
        return self._walk(check_prefix(prefix))

    def stat(self, name: str) -> ObjectInfo | None:
        """Size and age of one object.

        Raises:
            ReadError: if the other machine does not tell.
            NetworkError: if it does not answer.
        """
        path = self._path(name)
        try:
            with self._sessions.borrow() as session:
                found = session.lstat(path)
        except FileNotFoundError:
            return None
        except OSError as failure:
            raise ReadError(reason_of(failure), name=self._address(name)) from failure
        return _info(name, found) if stat.S_ISREG(found.st_mode or 0) else None

    def close(self) -> None:
        """Log out."""
        self._sessions.close()

    def _path(self, name: str) -> str:
        return f"{self._folder}/{check_name(name)}"

    def _address(self, name: str) -> str:
        return f"{self._name}/{name}"

    def _write(self, session: SFTPClient, path: str, content: bytes) -> None:
        """A file of that name, which is durable as far as the server can do that."""
        try:
            file = session.open(path, "wbx")
        except FileNotFoundError:
            _make_folder(session, path.rpartition("/")[0])
            file = session.open(path, "wbx")
        with file:
            for start in range(0, len(content), _WRITE_BYTES):
                # The last write waits for the answers to all, and fails if one of them did.
                file.set_pipelined(start + _WRITE_BYTES < len(content))
                file.write(content[start : start + _WRITE_BYTES])
            if file.stat().st_size != len(content):
                raise OSError(errno.EIO, "the file was not written as a whole")
            _fsync(session, file)
        if not self._is_clean:
            self._is_clean = True
            _remove_stale(session, path.rpartition("/")[0])

    def _publish(self, session: SFTPClient, temporary: str, path: str, *, only_new: bool) -> None:
        # A plain rename fails where there is a file: OpenSSH makes a second link and removes the
        # first, so that of two who come at once one succeeds.
        give = session.rename if only_new else session.posix_rename
        try:
            give(temporary, path)
        except FileNotFoundError:
            _make_folder(session, path.rpartition("/")[0])
            give(temporary, path)
        except OSError as failure:
            if only_new and _is_there(session, path):
                raise FileExistsError(errno.EEXIST, "exists already") from failure
            raise

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        try:
            with self._sessions.borrow() as session:
                found = session.listdir_attr(f"{self._folder}/{prefix}")
        except FileNotFoundError:
            return
        except OSError as failure:
            raise ReadError(reason_of(failure), name=self._address(prefix)) from failure
        entries = {
            entry.filename + "/" * stat.S_ISDIR(entry.st_mode or 0): entry
            for entry in found
            if is_name(entry.filename)
        }
        for name, entry in sorted(entries.items(), key=lambda item: item[0]):
            if name.endswith("/"):
                yield from self._walk(prefix + name)
            elif stat.S_ISREG(entry.st_mode or 0):
                yield _info(prefix + name, entry)


def _info(name: str, found: SFTPAttributes) -> ObjectInfo:
    return ObjectInfo(name, found.st_size or 0, float(found.st_mtime or 0))


def _is_there(session: SFTPClient, path: str) -> bool:
    try:
        session.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _make_folder(session: SFTPClient, folder: str) -> None:
    """Make a folder and those that it is in."""
    if not folder or _is_there(session, folder):
        return
    _make_folder(session, folder.rpartition("/")[0])
    try:
        session.mkdir(folder)
    except OSError:
        if not _is_there(session, folder):  # or another writer has just made it
            raise


def _fsync(session: SFTPClient, file: SFTPFile) -> None:
    """Make a file durable; a server that cannot be asked for it decides by itself."""
    from paramiko.sftp import CMD_EXTENDED

    with contextlib.suppress(OSError):
        # paramiko has no function for this extension, but sends any.
        session._request(  # type: ignore[attr-defined]  # noqa: SLF001
            CMD_EXTENDED, "fsync@openssh.com", file.handle
        )


def _remove_stale(session: SFTPClient, folder: str) -> None:
    """Remove what was left unfinished long ago, by the clock of the server."""
    with contextlib.suppress(OSError):
        entries = session.listdir_attr(folder)
        newest = max((entry.st_mtime or 0 for entry in entries), default=time.time())
        for entry in entries:
            if (entry.st_mtime or 0) < newest - _STALE_S:
                with contextlib.suppress(OSError):
                    session.remove(f"{folder}/{entry.filename}")
