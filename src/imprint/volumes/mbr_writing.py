"""Master boot records in which the last partition gets a new end.

Source: as for :mod:`imprint.volumes.mbr`. A logical partition has its size in three places: in
its own extended boot record, in the entry of the record before that leads there, and the
extended partition has to hold it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.volumes import mbr
from imprint.volumes.changing import Patch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.volumes.changing import Change
    from imprint.volumes.table import Partition, PartitionTable

SECTORS_MAX: Final = 1 << 32
"""What 32 bits can count: 2 TiB in sectors of 512 bytes."""

_ENTRIES_AT: Final = 446
_COUNT_AT: Final = 12
_CHS_END_AT: Final = 5
_HEADS: Final = 255
_TRACK_SECTORS: Final = 63
_CYLINDERS_MAX: Final = 1023


def usable_end(change: Change) -> int:
    """Where partitions have to end at the latest, in bytes."""
    return min(change.size, (SECTORS_MAX - 1) * change.sector_size)


def fit(source: Source, table: PartitionTable, change: Change) -> list[Patch]:
    """What has to be replaced so that a partition ends where ``change`` says.

    Only places that change are given, 16 bytes each. The caller has made sure that there is
    nothing behind the partition, and that the table had no findings.

    Args:
        source: the disk as it is.
        table: that was read of it.
        change: its sectors have to be those of the table.

    Raises:
        UnsupportedFeatureError: if the partition is one of a BSD label.
        CorruptImageError: if its entry is not where it was.
        ReadError: if the table cannot be read.
    """
    if change.index is None:
        return []
    item = table.find(change.index)
    assert item is not None
    if item.index < mbr.FIRST_LOGICAL:
        return [_ended(source, _primary_at(item.index), 0, change)]
    outer = next(
        (
            each
            for each in table.partitions
            if each.is_container and each.start < item.start < each.end
        ),
        None,
    )
    if outer is None or int(outer.code, 16) not in mbr.EXTENDED_TYPES:
        raise UnsupportedFeatureError(
            f"partition {item.index} is one of a BSD label, which cannot be fitted",
            advice="its own system can: gpart resize, disklabel",
        )
    patches = [
        _ended(source, at, base, change)
        for at, base in _logical_at(source, item, outer, table.sector_size)
    ]
    if outer.end < change.end:
        patches.append(_ended(source, _primary_at(outer.index), 0, change))
    return patches


def _primary_at(index: int) -> int:
    return _ENTRIES_AT + (index - 1) * mbr.Entry.SIZE


def _logical_at(
    source: Source, item: Partition, outer: Partition, sector_size: int
) -> Iterator[tuple[int, int]]:
    """Where entries are that have to change, and from which byte their starts count."""
    position, link_at = outer.start, None
    for _ in range(mbr.CHAIN_LENGTH_MAX):
        step = None
        for at in range(position + _ENTRIES_AT, position + 510, mbr.Entry.SIZE):
            entry = _entry(source, at)
            if not entry.sector_count:
                continue
            if entry.type in mbr.EXTENDED_TYPES:
                step = step or (at, outer.start + entry.start_lba * sector_size)
            elif position + entry.start_lba * sector_size == item.start:
                yield at, position
                if link_at is not None:
                    yield link_at, outer.start
                return
        if step is None:
            break
        link_at, position = step
    raise CorruptImageError(
        f"expected an extended boot record of partition {item.index}, found none",
        name=source.name,
    )


def _entry(source: Source, at: int) -> mbr.Entry:
    return mbr.Entry.unpack(_read(source, at))


def _read(source: Source, at: int) -> bytearray:
    buffer = bytearray(mbr.Entry.SIZE)
    source.readinto(memoryview(buffer), at)
    return buffer


def _ended(source: Source, at: int, base: int, change: Change) -> Patch:
    """An entry whose start counts from byte ``base``, with the new end."""
    record = _read(source, at)
    start = base // change.sector_size + mbr.Entry.unpack(record).start_lba
    end = change.end // change.sector_size
    record[_COUNT_AT:] = (end - start).to_bytes(4, "little")
    record[_CHS_END_AT : _CHS_END_AT + 3] = _chs(end - 1)
    return Patch(at, bytes(record))


def _chs(lba: int) -> bytes:
    """The sector as old systems count: head, sector and cylinder; the largest if it is beyond."""
    cylinder, rest = divmod(lba, _HEADS * _TRACK_SECTORS)
    head, sector = divmod(rest, _TRACK_SECTORS)
    if cylinder > _CYLINDERS_MAX:
        cylinder, head, sector = _CYLINDERS_MAX, _HEADS - 1, _TRACK_SECTORS - 1
    return bytes((head, (sector + 1) | cylinder >> 2 & 0xC0, cylinder & 0xFF))
