"""Objects as files of a folder: written beside, made durable, then given their name.

``FOLDER/.partial`` holds what is being written. No object can have a name with a dot, so nothing
in there is ever taken for one; what a killed process leaves there is removed an hour later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError, TargetError
from imprint.core.system import fsync_folder, is_folder, reason_of
from imprint.core.units import MIB, format_size
from imprint.objects.contract import MissingObjectError, ObjectExistsError, ObjectInfo
from imprint.objects.names import check_name, check_prefix, is_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BULK_PREFIXES: Final = ("packs/", "parity/")
"""What fills a disk. It may not take the last room, without which nothing could be removed."""

RESERVE_BYTES_MAX: Final = 64 * MIB
_RESERVE_DIVISOR: Final = 50  # of a small file system, 2 %

STALE_S: Final = 3600.0
"""Age of an unfinished file that nobody holds locked; a put takes seconds."""

_PARTIAL: Final = ".partial"
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStore:
    """A folder with objects. It is made by the first :meth:`put`."""

    def __init__(
        self,
        folder: Path,
        *,
        bulk: tuple[str, ...] = BULK_PREFIXES,
        reserve_bytes: int | None = None,
    ) -> None:
        """Looks at nothing yet.

        Args:
            folder: where the objects are, or will be.
            bulk: prefixes of objects that have to leave a reserve of room for others.
            reserve_bytes: how much; ``None``: 2 % of the file system, at most 64 MiB.
        """
        self._folder = folder
        self._bulk = bulk
        self._reserve = reserve_bytes
        self._lock = threading.Lock()
        self._is_clean = False

    @property
    def name(self) -> str:
        """The path of the folder."""
        return str(self._folder)

    @property
    def latency_s(self) -> float:
        """Of opening a file."""
        return 0.0001

    def get(self, name: str) -> bytes:
        """All of an object.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if it cannot be read.
        """
        return self.get_range(name, 0, 1 << 62)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Part of an object.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if it cannot be read.
        """
        path = f"{self._folder}/{check_name(name)}"  # making a Path takes longer than opening it
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as failure:
            raise ReadError(reason_of(failure), name=path) from failure
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise _missing(path)
            return _read(fd, offset, min(length, found.st_size - offset))
        except OSError as failure:
            raise ReadError(
                reason_of(failure), name=path, offset=offset, length=length
            ) from failure
        finally:
            os.close(fd)

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Make an object, whole and durable.

        Raises:
            ObjectExistsError: if ``only_new`` and there is one already.
            TargetError: if it cannot be stored.
        """
        path = self._path(name)
        try:
            if only_new and os.path.lexists(path):
                raise _exists(path)
            temporary, fd = self._begin()
            try:
                if name.startswith(self._bulk):
                    self._leave_reserve(fd, path, sum(map(len, parts)))
                for part in parts:
                    _write(fd, memoryview(part).cast("B"))
                os.fsync(fd)
                self._publish(temporary, path, only_new=only_new)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
            finally:
                os.close(fd)
        except FileExistsError:
            raise _exists(path) from None
        except OSError as failure:
            raise TargetError(reason_of(failure), name=str(path)) from failure

    def delete(self, name: str) -> None:
        """Remove an object.

        Raises:
            TargetError: if the system does not permit it.
        """
        path = self._path(name)
        try:
            path.unlink()
            # An index has to be gone for good before the packs that it names; packs may wait.
            if not name.startswith(self._bulk):
                fsync_folder(path.parent)
        except FileNotFoundError:
            return
        except OSError as failure:
            reason = f"cannot be removed: {reason_of(failure)}"
            raise TargetError(reason, name=str(path)) from failure

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below a prefix, ascending.

        Raises:
            ReadError: if a folder cannot be read.
        """
        return self._walk(check_prefix(prefix))

    def stat(self, name: str) -> ObjectInfo | None:
        """Size and age of one object.

        Raises:
            ReadError: if the system does not tell.
        """
        path = self._path(name)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return None
        except OSError as failure:
            raise ReadError(reason_of(failure), name=str(path)) from failure
        if not stat.S_ISREG(found.st_mode):
            return None
        return ObjectInfo(name, found.st_size, found.st_mtime)

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, name: str) -> Path:
        return self._folder / check_name(name)

    def _begin(self) -> tuple[Path, int]:
        """A new, locked file beside the objects."""
        folder = self._folder / _PARTIAL
        temporary = folder / secrets.token_hex(16)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            _make_folder(folder)
            fd = os.open(temporary, flags, 0o666)
        try:
            _claim(fd)
            with self._lock:
                is_first, self._is_clean = not self._is_clean, True
            if is_first:
                _remove_stale(folder)
        except BaseException:
            os.close(fd)
            raise
        return temporary, fd

    def _leave_reserve(self, fd: int, path: Path, size: int) -> None:
        """Refuse what would leave no room for the small objects that make room again."""
        room = os.fstatvfs(fd)
        reserve = self._reserve
        if reserve is None:
            reserve = min(RESERVE_BYTES_MAX, room.f_blocks * room.f_frsize // _RESERVE_DIVISOR)
        free = room.f_bavail * room.f_frsize
        if free - size < reserve:
            raise TargetError(
                f"no space left: expected room for {format_size(size)} and {format_size(reserve)} "
                f"in reserve, found {format_size(free)}",
                name=str(path),
                advice="`repo forget` and `repo prune` make room",
            )

    def _publish(self, temporary: Path, path: Path, *, only_new: bool) -> None:
        """Give a file its name, and make that durable."""
        give = _give_new if only_new else os.replace
        try:
            give(temporary, path)
        except FileNotFoundError:
            _make_folder(path.parent)
            give(temporary, path)
        fsync_folder(path.parent)

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = self._folder / prefix
        try:
            with os.scandir(folder) as entries:
                found = [
                    entry.name + "/" if entry.is_dir(follow_symlinks=True) else entry.name
                    for entry in entries
                    if is_name(entry.name)
                ]
        except FileNotFoundError:
            return
        except OSError as failure:
            raise ReadError(reason_of(failure), name=str(folder)) from failure
        for name in sorted(found):  # "a-b" comes before "a/c": as whole names are compared
            if name.endswith("/"):
                yield from self._walk(prefix + name)
            elif (info := self.stat(prefix + name)) is not None:
                yield info


def _read(fd: int, offset: int, length: int) -> bytes:
    """As much as there is of a range."""
    parts = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _give_new(temporary: Path, path: Path) -> None:
    """Give a file a name that nobody has.

    Raises:
        FileExistsError: if somebody has it.
    """
    try:
        os.link(temporary, path)
    except OSError as failure:
        if failure.errno not in _NO_LINKS:
            raise
    else:
        temporary.unlink()
        return
    # A file system without hard links: of all who come this way, one at a time.
    fd = os.open(temporary.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        temporary.rename(path)
    finally:
        os.close(fd)


def _make_folder(folder: Path) -> None:
    """Make a folder and those that it is in; their names are durable afterwards."""
    if is_folder(folder):
        return
    _make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    fsync_folder(folder.parent)


def _remove_stale(folder: Path) -> None:
    """Remove what was left unfinished long ago by a process that no longer lives."""
    horizon = time.time() - STALE_S
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.stat(follow_symlinks=False).st_mtime > horizon:
                continue
            with contextlib.suppress(OSError):
                fd = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if _claim(fd):
                        Path(entry).unlink()
                finally:
                    os.close(fd)


def _claim(fd: int) -> bool:
    """Lock an open file for as long as it is open, unless somebody else has."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:  # file systems without locks are left with the age alone
        return failure.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _missing(path: Path | str) -> MissingObjectError:
    return MissingObjectError("there is no such object", name=str(path))


def _exists(path: Path) -> ObjectExistsError:
    return ObjectExistsError("exists already", name=str(path))
