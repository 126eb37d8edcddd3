"""Folders that are written into by their descriptors: no link on the way is ever followed."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

from imprint.core.errors import RefusedError, TargetBusyError, TargetError
from imprint.core.system import reason_of
from imprint.endpoints.extracted_names import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OPEN_MAX: Final = 64
"""Folders of the way to the present one that are kept open; others are opened again."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TargetFolders:
    """A folder, and those below it, each named by the names on the way to it."""

    def __init__(self, path: Path) -> None:
        """Open the folder that all goes into, and make it if there is none.

        Raises:
            TargetError: if that is not possible, or it is no folder.
            TargetBusyError: if another extraction goes on there.
        """
        import fcntl

        self._path = path
        self._open: dict[tuple[str, ...], int] = {}
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Links on the way to it are the user's own.
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as failure:
            raise TargetError(reason_of(failure), name=str(path)) from failure
        try:
            fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            os.close(self._root)
            if failure.errno in (errno.EAGAIN, errno.EACCES):
                what = "another program extracts files into it"
                raise TargetBusyError(what, name=str(path)) from failure
            raise TargetError(reason_of(failure), name=str(path)) from failure

    def descriptor(self, names: Sequence[str]) -> int:
        """Of an existing folder; valid until the next call.

        Raises:
            RefusedError: if what has such a name is no folder, or a link.
        """
        way = tuple(names)
        if not way:
            return self._root
        found = self._open.get(way)
        if found is not None:
            return found
        known = len(way) - 1
        while known and way[:known] not in self._open:
            known -= 1
        current = self._open[way[:known]] if known else self._root
        for depth in range(known + 1, len(way) + 1):
            try:
                current = os.open(way[depth - 1], _FOLDER, dir_fd=current)
            except OSError as failure:
                raise RefusedError(
                    "expected a folder to put files in, found something else"
                    if failure.errno in (errno.ELOOP, errno.ENOTDIR)
                    else reason_of(failure),
                    name=self.shown(way[:depth]),
                ) from failure
            self._open[way[:depth]] = current
            self._forget(way[:depth])
        return current

    def make(self, folder: Sequence[str], name: str, *, is_private: bool = False) -> bool:
        """Make a folder; whether it was not there before.

        Args:
            folder: that it is in.
            name: of it.
            is_private: nobody else may look into it before it gets its own permissions.

        Raises:
            RefusedError: if something else has the name.
        """
        mode = 0o700 if is_private else 0o777
        try:
            os.mkdir(name, mode, dir_fd=self.descriptor(folder))
        except FileExistsError:
            self.descriptor((*folder, name))
            return False
        return True

    def begin(self, folder: Sequence[str], *, is_private: bool = False) -> int:
        """A new file in a folder, open for writing, that has no name of its own yet.

        Args:
            folder: that it is in.
            is_private: nobody else may read it before it gets its own permissions.
        """
        where, mode = self.descriptor(folder), 0o600 if is_private else 0o666
        try:
            return os.open(TEMPORARY, _NEW, mode, dir_fd=where)
        except FileExistsError:  # of an extraction that was killed
            os.unlink(TEMPORARY, dir_fd=where)
            return os.open(TEMPORARY, _NEW, mode, dir_fd=where)

    def publish(self, folder: Sequence[str], name: str, *, may_replace: bool) -> None:
        """Give the new file or link its name.

        Raises:
            FileExistsError: if it is taken, and may not be replaced.
        """
        where = self.descriptor(folder)
        if may_replace:
            os.rename(TEMPORARY, name, src_dir_fd=where, dst_dir_fd=where)
            return
        try:
            os.link(TEMPORARY, name, src_dir_fd=where, dst_dir_fd=where, follow_symlinks=False)
        except OSError as failure:
            if failure.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            if self.facts(folder, name) is not None:  # a file system without hard links
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from failure
            os.rename(TEMPORARY, name, src_dir_fd=where, dst_dir_fd=where)
            return
        os.unlink(TEMPORARY, dir_fd=where)

    def drop(self, folder: Sequence[str]) -> None:
        """Remove the new file, if it has no name of its own."""
        with contextlib.suppress(OSError, RefusedError):
            os.unlink(TEMPORARY, dir_fd=self.descriptor(folder))

    def facts(self, folder: Sequence[str], name: str) -> os.stat_result | None:
        """Of what has a name, links not followed; ``None``: nothing has it."""
        try:
            return os.stat(name, dir_fd=self.descriptor(folder), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def begin_link(self, folder: Sequence[str], target: str) -> None:
        """A new symbolic link that has no name of its own yet."""
        where = self.descriptor(folder)
        try:
            os.symlink(target, TEMPORARY, dir_fd=where)
        except FileExistsError:
            os.unlink(TEMPORARY, dir_fd=where)
            os.symlink(target, TEMPORARY, dir_fd=where)

    def begin_name(self, folder: Sequence[str], other: Sequence[str], name: str) -> None:
        """A further name of a file that was made before, as a new file.

        Raises:
            OSError: if the system does not permit it.
        """
        source = self.descriptor(other)
        held = os.dup(source)
        try:
            where = self.descriptor(folder)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(TEMPORARY, dir_fd=where)
            os.link(name, TEMPORARY, src_dir_fd=held, dst_dir_fd=where, follow_symlinks=False)
        finally:
            os.close(held)

    def shown(self, names: Sequence[str]) -> str:
        """The path, for people."""
        return str(self._path.joinpath(*names))

    def close(self) -> None:
        """Close all of them."""
        for found in self._open.values():
            os.close(found)
        self._open.clear()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _forget(self, way: tuple[str, ...]) -> None:
        """Close what is not on the way to a folder, and what is far above it."""
        for other in [item for item in self._open if way[: len(item)] != item]:
            os.close(self._open.pop(other))
        if len(self._open) > OPEN_MAX:
            os.close(self._open.pop(min(self._open, key=len)))
