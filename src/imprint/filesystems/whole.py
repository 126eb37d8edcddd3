"""File systems that are written at once and have no free space: ISO 9660, UDF, squashfs.

What lies behind their end is kept too: hash trees of dm-verity stand there, further
sessions, and signatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.runs import Runs
from imprint.filesystems.allocation import Allocation

if TYPE_CHECKING:
    from imprint.core.contracts import Source

_UNIT: Final = 2048


class WholeVolume:
    """A file system that uses all of its volume."""

    def allocation(self, volume: Source) -> Allocation:
        """All; see :class:`~imprint.filesystems.allocation.Allocating`. Reads nothing."""
        return Allocation(_UNIT, Runs.whole(volume.size))


FILE_SYSTEM: Final = WholeVolume()
