"""In which state files were left: what tells it, for whoever has another state of the same volume.

A file system notes in a file's inode when the file was changed. If all that an inode says follows
a change, and is the same in two states of a volume, the file's content is taken to be the same,
too, and need not be read. That goes by what the file system's own driver does. What
is written past it, into the device, is not seen; the two cases that are usual are looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

from imprint.filesystems.allocation import Allocating
from imprint.filesystems.probes.linux import SWAP_PAGES, swap
from imprint.filters.peek import Peek
from imprint.filters.window import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Source

FILE_RUNS_MAX: Final = 1 << 16
"""Of one file; of one that is in more pieces nothing is told."""

_BOOT_ENVIRONMENT_BYTES: Final = 1024
_SWAP_BYTES_MIN: Final = 10 * SWAP_PAGES[0]
_SWAP_HEAD_BYTES: Final = SWAP_PAGES[-1]


class FileState(NamedTuple):
    """A file, and in which state it is.

    Attributes:
        number: of its inode or record.
        state: two that are equal, and have equal ``runs``, mean the same content. It has no other
            meaning.
        changed_ns: when the file was changed, in nanoseconds since 1970, by the clock of
            whoever wrote it; if it cannot be told exactly, then rather later.
        size: in bytes.
        runs: ``(offset, length)`` of its extents in the volume, in the order of its content.
    """

    number: int
    state: object
    changed_ns: int
    size: int
    runs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class States:
    """The files of a volume.

    Attributes:
        identity: what is the same as long as it is the same file system, of the same shape.
        doubts: why nothing should be concluded from its files, one sentence each.
        written_ns: when the file system was last written, as ``changed_ns``; ``None``: not told.
        files: ascending by number. Files that change without their inode are left out, and so are
            folders and all else that is no regular file.
    """

    identity: tuple[object, ...]
    doubts: tuple[str, ...]
    written_ns: int | None
    files: Iterator[FileState]


@runtime_checkable
class Dating(Allocating, Protocol):
    """A kind of file system whose files tell, better than any program could, when they changed."""

    def states(self, volume: Source) -> States:
        """All files, as they were left. Journals are not replayed: they are doubts.

        Reads metadata only; bounded in time and memory by the volume's size. Its iterator
        raises the same.

        Raises:
            CorruptImageError: if a structure cannot be followed.
            UnsupportedFeatureError: if the file system has a feature that may change its meaning.
            ReadError: if a part of it cannot be read.
        """


def listed(runs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...] | None:
    """Runs of one file; ``None`` if they are too many."""
    found = tuple(islice(runs, FILE_RUNS_MAX + 1))
    return None if len(found) > FILE_RUNS_MAX else found


def is_written_past(volume: Source, file: FileState) -> bool:
    """Whether a file is one of those that are written without their file system.

    The kernel writes into the blocks of a swap file. GRUB has no driver that writes, and
    writes into the block of its environment, whose file has 1024 bytes.

    Raises:
        ReadError: if the file cannot be read.

    Source: Linux ``mm/swapfile.c`` (``setup_swap_extents``); GRUB manual, "Environment block".
    """
    if file.size == _BOOT_ENVIRONMENT_BYTES:
        return True
    if file.size < _SWAP_BYTES_MIN or file.size % SWAP_PAGES[0]:
        return False
    offset, length = file.runs[0]
    head = Window(volume, offset, min(length, _SWAP_HEAD_BYTES), name=volume.name)
    return swap(Peek(head, budget=_SWAP_HEAD_BYTES)) is not None
