"""HFS+ inside of a volume of classic HFS, as it was in its early years.

Source: Apple Technical Note TN1150, "HFS Wrapper".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import CorruptImageError
from imprint.filesystems.probes.apple import HFS_OFFSET, HfsMasterBlock
from imprint.filters.window import Window

if TYPE_CHECKING:
    from imprint.core.contracts import Source


def unwrapped(volume: Source) -> tuple[Source, int]:
    """The volume of HFS+, and where it begins in this one, in bytes.

    Itself, and 0, if it is in no wrapper. What is given stays its owner's. Of a volume that was cut
    short, as much as is there.

    Raises:
        CorruptImageError: if the wrapper ends before what is in it begins.
        ReadError: if it cannot be read.
    """
    if volume.size < HFS_OFFSET + HfsMasterBlock.SIZE:
        return volume, 0
    head = bytearray(HfsMasterBlock.SIZE)
    volume.readinto(memoryview(head), HFS_OFFSET)
    place = HfsMasterBlock.unpack(head).embedded
    if place is None:
        return volume, 0
    start, length = place
    if start >= volume.size:
        raise CorruptImageError(
            f"expected HFS+ inside of the volume's {volume.size} bytes, "
            f"found 0x{start:x} + 0x{length:x}",
            name=volume.name,
        )
    return Window(volume, start, min(length, volume.size - start)), start
