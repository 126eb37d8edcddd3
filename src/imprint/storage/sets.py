"""Several files that are one image: put in the place of an older one as a whole.

Names are changed one by one, so that the first one, which people open, is free while the
others change::

    NAME1 -> NAME1.partial.old, then NAME2 likewise …      the old image steps aside
    NAME2.partial = NAME2 …, then NAME1.partial = NAME1    the new one gets second names
    NAME.partial and NAME.partial.old of all are removed

A file with both names is known to be ours: as long as there is no NAME1, whoever begins next
takes it back, and gives the old files their names again. File systems without hard links rename
instead, after NAME.partial.named is there to say so.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from imprint.core.errors import RefusedError, TargetError
from imprint.core.system import fsync_folder, reason_of
from imprint.storage.file import lock_exclusively
from imprint.storage.pending import is_published, mark_path, partial_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from imprint.storage.pending import PendingFile

OLD_SUFFIX: Final = ".old"
"""Behind the temporary name of what takes its place."""


def begin_set(first: Path, further: Iterable[Path], *, at_least: int) -> list[Path]:
    """Undo or complete what a killed :func:`commit_set` has begun.

    The caller has the temporary file of ``first`` open, so that nobody else is at it.

    Args:
        first: name of the image's first file.
        further: names of the others, the second one first.
        at_least: so many files are looked for, and then on up to a name that is free.

    Returns:
        What there is of ``further``.

    Raises:
        TargetError: if the system does not permit it.
        TargetBusyError: if another program is making one of the files.
    """
    found: list[Path] = []
    for number, path in enumerate(further, 2):
        if any(map(os.path.lexists, (path, *_further_names(path)))):
            found.append(path)
        elif number > at_least:
            break
    with _told(first):
        if os.path.lexists(first):
            for path in reversed(found):  # what another kill leaves is found by counting
                _discard(path)
            mark_path(first).unlink(missing_ok=True)
            _remove_old((first, *found))
        else:
            mark_path(first).unlink(missing_ok=True)
            for path in reversed(found):
                if is_published(path):
                    path.unlink(missing_ok=True)
                _discard(path)
            _restore((first, *found))
    return [path for path in found if os.path.lexists(path)]


def commit_set(files: Sequence[PendingFile], old: Iterable[Path]) -> None:
    """Let finished files take their names, the first one last, in the place of ``old``.

    Args:
        files: of the new image.
        old: further files of the old one: all that :func:`begin_set` has found.

    Raises:
        TargetError: if the system does not permit it; the old image is there again then.
        RefusedError: if a name was taken meanwhile; likewise.
    """
    first = files[0]
    names = list(dict.fromkeys((*(file.final_path for file in files), *old)))
    if len(names) == 1:
        first.commit()
        return
    for file in files:
        file.flush()
    with _told(first.final_path):
        try:
            if first.may_replace:
                _step_aside(names)
            for file in files[1:]:
                file.publish()
            fsync_folder(first.final_path.parent)
            first.publish()
            fsync_folder(first.final_path.parent)
        except BaseException as error:
            for file in reversed(files):
                file.withdraw(keep=isinstance(error, RefusedError))
            _restore(names)
            raise
        _remove_old(names)
        for file in reversed(files):
            file.finish()


def old_path(path: Path) -> Path:
    """Where the old content of ``path`` is kept while all of its image is replaced."""
    partial = partial_path(path)
    return partial.with_name(partial.name + OLD_SUFFIX)


def _step_aside(names: Sequence[Path]) -> None:
    """Free the names of an old image, that of its first file first and durably."""
    for index, path in enumerate(names):
        with contextlib.suppress(FileNotFoundError):
            path.rename(old_path(path))
        if index == 0:
            fsync_folder(path.parent)


def _restore(names: Sequence[Path]) -> None:
    """Give old files their names again, the first one last and durably."""
    for path in reversed(names):
        if path == names[0]:
            fsync_folder(path.parent)
        with contextlib.suppress(FileNotFoundError):
            old_path(path).rename(path)
    fsync_folder(names[0].parent)


def _remove_old(names: Sequence[Path]) -> None:
    for path in reversed(names):
        old_path(path).unlink(missing_ok=True)


def _further_names(path: Path) -> tuple[Path, ...]:
    return partial_path(path), old_path(path), mark_path(path)


def _discard(path: Path) -> None:
    """Remove the temporary file of ``path``, unless another program is writing it."""
    partial = partial_path(path)
    try:
        fd = os.open(partial, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        mark_path(path).unlink(missing_ok=True)
        return
    try:
        lock_exclusively(fd, str(partial))
        mark_path(path).unlink(missing_ok=True)  # first: without the file, it says something else
        partial.unlink(missing_ok=True)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise TargetError(reason_of(failure), name=str(path)) from failure
