"""Files that are being made: written under a temporary name, renamed when they are whole.

``NAME`` is written as ``NAME.partial`` beside its final place and renamed when it is durable,
so that ``NAME`` is always the old content or the new one.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final, Self

from imprint.core.errors import RefusedError, TargetBusyError, TargetError
from imprint.core.system import fsync_folder, reason_of
from imprint.storage import linux
from imprint.storage.direct import DirectWriter
from imprint.storage.file import FileStorage, lock_exclusively

if TYPE_CHECKING:
    from pathlib import Path

PARTIAL_SUFFIX: Final = ".partial"

# Measured on a copy of 1 GiB: 8 MiB takes a third off the time, with the final flush
# included; from 32 MiB on the gain depends on luck.
_WRITEBACK_BYTES: Final = 8 << 20


class PendingFile(FileStorage):
    """A file that is being made; it gets its name when :meth:`commit` succeeds."""

    def __init__(self, path: Path, partial: Path, fd: int, *, may_replace: bool) -> None:
        """Takes over ``fd``, which is open on ``partial``; use :meth:`create` or :meth:`resume`."""
        super().__init__(partial, fd, is_writable=True)
        self._direct = DirectWriter(fd)
        self._handed_over = 0
        self._final = path
        self._may_replace = may_replace
        self._is_published = False
        self._is_done = False

    @classmethod
    def create(cls, path: Path, *, may_replace: bool) -> Self:
        """Begin a new file; what an earlier attempt left under the temporary name goes.

        Raises:
            RefusedError: if ``path`` exists and may not be replaced, or is not a file.
            TargetBusyError: if another process is writing it.
        """
        check_replaceable(path, may_replace=may_replace)
        return cls._open(path, os.O_CREAT, may_replace=may_replace, truncate=True)

    @classmethod
    def resume(cls, path: Path, *, may_replace: bool) -> Self:
        """Go on with a file that an earlier attempt left unfinished.

        Raises:
            ReadError: if there is none.
            RefusedError: as for :meth:`create`.
        """
        check_replaceable(path, may_replace=may_replace)
        return cls._open(path, 0, may_replace=may_replace, truncate=False)

    @classmethod
    def _open(cls, path: Path, flags: int, *, may_replace: bool, truncate: bool) -> Self:
        partial = partial_path(path)
        flags |= os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(partial, flags, 0o666)
            try:
                _claim(fd, partial)
                if truncate and os.fstat(fd).st_nlink > 1:
                    # It was finished, and killed before it lost this name: empty another one.
                    partial.unlink()
                    finished, fd = fd, os.open(partial, flags | os.O_EXCL, 0o666)
                    os.close(finished)
                    _claim(fd, partial)
                if truncate:
                    os.ftruncate(fd, 0)
            except BaseException:
                os.close(fd)
                raise
        except OSError as failure:
            raise TargetError(reason_of(failure), name=str(partial)) from failure
        return cls(path, partial, fd, may_replace=may_replace)

    @property
    def final_path(self) -> Path:
        """The name that it will have."""
        return self._final

    @property
    def may_replace(self) -> bool:
        """Whether it may take the place of another file."""
        return self._may_replace

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``, and let the disk begin with it: the end has to wait for less."""
        try:
            done = self._direct.write(data, offset)
        except OSError as failure:
            raise self._write_error(failure, offset) from failure
        self._size = max(self._size, offset + done)
        if done == len(data):
            return
        super().write(data[done:], offset + done)
        end = offset + len(data)
        if end - self._handed_over >= _WRITEBACK_BYTES:
            linux.start_writeback(self._fd, self._handed_over, end - self._handed_over)
            self._handed_over = end

    def commit(self) -> None:
        """Make it durable, then visible, then the name durable."""
        if self._is_done:
            return
        try:
            os.fsync(self._fd)
            _publish(self._path, self._final, may_replace=self._may_replace)
            fsync_folder(self._final.parent)
        except OSError as failure:
            raise TargetError(reason_of(failure), name=str(self._final)) from failure
        except RefusedError:
            self._is_done = True  # the finished image stays under its temporary name
            raise
        self._is_done = True
        self.close()

    def publish(self) -> None:
        """Give it its name, which has to be free, so that :func:`is_published` says so.

        For files that are one image: it is flushed before, and :meth:`finish` comes after.

        Raises:
            RefusedError: if the name is not free.
        """
        if not _link(self._path, self._final):
            check_replaceable(self._final, may_replace=False)
            mark_path(self._final).touch()
            fsync_folder(self._final.parent)
            self._path.rename(self._final)
        self._is_published = True

    def withdraw(self, *, keep: bool) -> None:
        """Take back what :meth:`publish` did; :meth:`abort` removes it, unless ``keep``."""
        if self._is_published:
            self._is_published = False
            self._final.replace(self._path)
            with contextlib.suppress(FileNotFoundError):
                self._final.unlink()  # two names of one file: renaming has changed nothing
        mark_path(self._final).unlink(missing_ok=True)
        if keep:
            self._is_done = True
            self.close()

    def finish(self) -> None:
        """Remove the temporary name of a file that has its own, and close it."""
        self._is_done = True
        try:
            self._path.unlink(missing_ok=True)
            mark_path(self._final).unlink(missing_ok=True)
        finally:
            self.close()

    def abort(self) -> None:
        """Remove what was written so far."""
        try:
            if not self._is_done:
                self._is_done = True
                _remove(self._path)
        finally:
            self.close()

    def close(self) -> None:
        """Close it; what is not committed stays under its temporary name."""
        self._direct.close()
        super().close()


def _claim(fd: int, partial: Path) -> None:
    """Lock an open temporary file, and make sure that it still is the one of that name.

    Another process may have finished and renamed it since it was opened: emptying it now
    would empty a finished image.
    """
    lock_exclusively(fd, str(partial))
    ours = os.fstat(fd)
    if not stat.S_ISREG(ours.st_mode):
        raise RefusedError("exists and is not a regular file", name=str(partial))
    try:
        named = partial.lstat()
    except FileNotFoundError:
        named = None
    if named is None or (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino):
        raise TargetBusyError("was just finished by another program", name=str(partial))


def partial_path(path: Path) -> Path:
    """Where the content of ``path`` is kept while it is not whole."""
    return path.with_name(path.name + PARTIAL_SUFFIX)


def mark_path(path: Path) -> Path:
    """What is beside ``path`` while it may have been published but cannot have two names."""
    return path.with_name(path.name + PARTIAL_SUFFIX + ".named")


def is_published(path: Path) -> bool:
    """Whether ``path`` is what a :class:`PendingFile` published and did not come to finish."""
    partial = partial_path(path)
    try:
        return os.path.samestat(path.lstat(), partial.lstat())
    except FileNotFoundError:
        return os.path.lexists(mark_path(path)) and not os.path.lexists(partial)


def discard(path: Path) -> None:
    """Remove a file, and what is left of an attempt to make it; it may be gone already.

    Raises:
        TargetError: if the system does not permit it.
    """
    _remove(path)
    _remove(partial_path(path))


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as failure:
        raise TargetError(f"cannot be removed: {reason_of(failure)}", name=str(path)) from failure


def check_replaceable(path: Path, *, may_replace: bool) -> None:
    """Refuse to write to ``path`` unless it is free, or a file that may be replaced.

    Raises:
        RefusedError: if not.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as failure:
        raise TargetError(reason_of(failure), name=str(path)) from failure
    if stat.S_ISLNK(mode) and path.exists():
        mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise RefusedError("exists and is not a regular file", name=str(path))
    if not may_replace:
        raise RefusedError("exists already", name=str(path), advice="--force replaces it")


def _publish(partial: Path, final: Path, *, may_replace: bool) -> None:
    """Give the file its name; without permission to replace, only if the name is free."""
    if may_replace:
        partial.replace(final)
        return
    if _link(partial, final):
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    else:
        check_replaceable(final, may_replace=False)
        partial.rename(final)


def _link(partial: Path, final: Path) -> bool:
    """Give a file the name ``final`` as well; ``False``: its file system has no such thing.

    Raises:
        RefusedError: if the name is not free.
    """
    try:
        os.link(partial, final)
    except FileExistsError:
        raise RefusedError(
            "appeared while it was being written",
            name=str(final),
            advice=f"the finished image is in {partial}",
        ) from None
    except OSError:
        return False
    return True
