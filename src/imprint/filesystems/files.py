"""Where the contents of files lie: what tells it, for whoever cuts a disk into pieces.

Nothing depends on it but how much two disks are found to have in common. So it is read quickly,
not verified: journals are not replayed, checksums not compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from imprint.filesystems.allocation import Allocating

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source


@runtime_checkable
class Locating(Allocating, Protocol):
    """A kind of file system that can tell where its files lie. Nothing is written."""

    def file_runs(self, volume: Source) -> Iterator[tuple[int, int, int]]:
        """``(position, offset, length)`` of each extent of each file, in any order, in bytes.

        ``position`` is where it begins in its file, as far as that is known, else 0; ``offset``
        where in the volume. Neighbours are not united: the border between two files is what is
        asked for. Some may be missing, or wrong, and several may have the same place; all are
        inside of the volume. Bounded in time and memory by the volume's size.

        Raises:
            CorruptImageError: if a structure cannot be followed.
            UnsupportedFeatureError: if the file system has a feature that may change its meaning.
            ReadError: if a part of it cannot be read.
        """
