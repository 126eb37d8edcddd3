"""Linux swap: nothing of it is needed but its header, as long as no machine sleeps in it.

Source: Linux ``include/linux/swap.h`` (``union swap_header``), ``kernel/power/swap.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.filesystems.allocation import Allocation, VolumeReader
from imprint.filesystems.probes.linux import SWAP_PAGES, SwapHeader

if TYPE_CHECKING:
    from imprint.core.contracts import Source

HEADER_AT: Final = 1024


class Swap:
    """A swap area. One that a hibernated system is in has another mark, and is no swap."""

    def allocation(self, volume: Source) -> Allocation:
        """The first page, and what is behind the area's end.

        See :class:`~imprint.filesystems.allocation.Allocating`.
        """
        reader = VolumeReader(volume)
        header = SwapHeader.unpack(reader.read(HEADER_AT, SwapHeader.SIZE, "swap header"))
        for page_size in SWAP_PAGES:
            mark = reader.read(page_size - 10, 10, "mark of swap")
            if mark == b"SWAPSPACE2" and header.version == 1:
                break
        else:
            raise UnsupportedFeatureError(
                "swap: expected version 1 in this byte order, found another", name=volume.name
            )
        end = min((header.last_page + 1) * page_size, volume.size)
        used = Runs.of([(0, page_size), (end, volume.size - end)])
        return Allocation(page_size, used)


FILE_SYSTEM: Final = Swap()
