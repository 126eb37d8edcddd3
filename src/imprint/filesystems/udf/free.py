"""Which blocks of a partition are free, for what was deleted.

Source: ECMA-167, 4/14.3 (partition header), 4/14.12 (space bitmap); OSTA UDF 2.60, 2.2.13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.filesystems.udf import layout
from imprint.filesystems.udf.layout import SpaceBitmap
from imprint.filesystems.udf.maps import NO_BITMAP
from imprint.filesystems.udf.partitions import Virtual

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.filesystems.udf.icbs import Icbs
    from imprint.filesystems.udf.maps import Mapped
    from imprint.filesystems.udf.partitions import Space

_WRITE_ONCE_MAX: Final = 2
"""Of accesses: read-only, and those of discs on which nothing is ever overwritten."""

_BITS_MAX: Final = 1 << 20
"""Of one question: an extent is at most that long where a block has 1 KiB."""


class FreeSpace:
    """What the bitmaps of partitions say."""

    def __init__(self, space: Space, icbs: Icbs, mapped: Mapping[int, Mapped]) -> None:
        """Nothing is read before it is asked for."""
        self._space = space
        self._icbs = icbs
        self._mapped = mapped

    def has(self, partition: int, block: int, length: int) -> bool:
        """Whether all blocks of some bytes are nobody's, as far as anything tells it."""
        mapped = self._mapped.get(partition)
        if mapped is None or isinstance(self._space.partitions[partition], Virtual):
            return False
        count = -(-length // self._space.block)
        try:
            if mapped.holder != partition:
                return self._in_file(mapped, block, count)
            if mapped.descriptor.free_bitmap:
                return self._in_partition(partition, mapped, block, count)
        except (FormatError, ReadError):
            return False
        return 0 < mapped.descriptor.access <= _WRITE_ONCE_MAX

    def _in_partition(self, partition: int, mapped: Mapped, block: int, count: int) -> bool:
        """Of one that has its bitmap within itself, block by block."""
        place = mapped.descriptor.free_bitmap_block
        head = self._space.read(partition, place, SpaceBitmap.SIZE, "space bitmap")
        first, length = _span(head, block, count)
        skipped, within = divmod(SpaceBitmap.SIZE + first, self._space.block)
        data = self._space.read(partition, place + skipped, within + length, "space bitmap")
        return _are_set(data[within:], block % 8, count)

    def _in_file(self, mapped: Mapped, block: int, count: int) -> bool:
        """Of a metadata partition, whose bitmap is a file."""
        if mapped.bitmap == NO_BITMAP:
            return False
        content = self._icbs.content(self._icbs.facts(mapped.holder, mapped.bitmap), "bitmap")
        head = bytearray(SpaceBitmap.SIZE)
        content.readinto(memoryview(head), 0)
        first, length = _span(head, block, count)
        data = bytearray(length)
        content.readinto(memoryview(data), SpaceBitmap.SIZE + first)
        return _are_set(data, block % 8, count)


def _span(head: bytes | bytearray, block: int, count: int) -> tuple[int, int]:
    """First byte and length of the bits of some blocks, behind the head of a bitmap."""
    if layout.id_of(head) != layout.BITMAP or count > _BITS_MAX:
        raise CorruptImageError("expected a space bitmap")
    if block + count > SpaceBitmap.unpack(head).bits:
        raise CorruptImageError("expected a block of the bitmap")
    first = block // 8
    return first, (block + count + 7) // 8 - first


def _are_set(data: bytes | bytearray, skipped: int, count: int) -> bool:
    """Whether all bits of a range are: the lowest of a byte is the first."""
    bits = int.from_bytes(data, "little") >> skipped
    wanted = (1 << count) - 1
    return bits & wanted == wanted
