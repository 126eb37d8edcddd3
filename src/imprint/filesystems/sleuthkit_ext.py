"""Folders of ext of several blocks, read through The Sleuth Kit.

Such a folder has blocks of a tree that finds names, in which the library takes numbers for names:
it tells files that do not exist. And a large one takes it too long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB, MIB
from imprint.filesystems.ext.names import names_in
from imprint.filesystems.sleuthkit_attributes import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE_FOLDER_BYTES: Final = MIB
"""The library compares each name with all others: 100,000 take it five seconds. So deleted names,
which only it finds, are not looked for in larger ones."""

_KINDS: Final = 0x2180
"""``TSK_FS_TYPE_EXT_DETECT``: any of the three."""

_PIECE_BYTES: Final = 64 * KIB


class Folders:
    """Reads folders as files."""

    def __init__(self, system: Any) -> None:  # noqa: ANN401 - without types
        self._system = system
        self._block = int(system.info.block_size)

    def own_names(self, inode: int) -> tuple[Iterator[tuple[str, int]], bool, list[str]] | None:
        """Name and inode of all that is in a folder, and whether it is a large one.

        Then what is damaged in it, which is not known before the names have ended. ``None``: the
        library tells it as well.

        Raises:
            OSError: of the library.
        """
        folder = self._system.open_meta(inode=inode)
        size = int(folder.info.meta.size)
        if size <= self._block:  # it has no tree; it may be within its inode
            return None
        problems: list[str] = []
        return self._in_folder(folder, size, problems), size >= LARGE_FOLDER_BYTES, problems

    def _in_folder(
        self,
        folder: Any,  # noqa: ANN401
        size: int,
        problems: list[str],
    ) -> Iterator[tuple[str, int]]:
        block = self._block
        step = max(block, _PIECE_BYTES)
        for data in parts(folder, size, step, block):
            for at in range(0, len(data), block):
                try:
                    for name, number in names_in(data, at, min(at + block, len(data))):
                        yield name.decode("utf-8", "surrogateescape"), number
                except CorruptImageError as failure:
                    problems[:] = problems[:1] or [str(failure.args[0])]


def folders_of(system: Any) -> Folders | None:  # noqa: ANN401 - without types
    """Those of a file system, if it is one of ext."""
    return Folders(system) if int(system.info.ftype) & _KINDS else None
