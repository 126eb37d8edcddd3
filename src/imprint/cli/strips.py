"""What pictures of a disk show: its partitions, and the room between them, from start to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imprint.endpoints.survey import Survey, Volume


@dataclass(frozen=True)
class Strip:
    """A stretch of the disk that gets a box of its own.

    Attributes:
        start: first byte.
        end: first byte behind it.
        texts: what is written in it: number, kind, label.
        is_part: whether it is a partition, not room between them.
    """

    start: int
    end: int
    texts: tuple[str, str, str]
    is_part: bool


def disk_strips(survey: Survey) -> list[Strip]:
    """The disk from start to end: partitions, and the room between them."""
    volumes = [
        item
        for item in survey.volumes
        if not item.partition.is_container and not item.partition.is_free
    ]
    if not volumes:
        found = survey.filesystem
        kind = found.kind if found is not None else "no partitions"
        label = (found.label if found is not None else None) or ""
        return [Strip(0, survey.size, (kind, label, ""), is_part=found is not None)]
    strips: list[Strip] = []
    position = 0
    for volume in sorted(volumes, key=lambda item: item.partition.start):
        start, end = clipped(volume, survey.size)
        start = max(start, position)  # of two that overlap, the first is drawn whole
        if start >= end:
            continue
        if start > position:
            strips.append(_free(position, start))
        strips.append(Strip(start, end, _texts(volume), is_part=True))
        position = end
    if position < survey.size:
        strips.append(_free(position, survey.size))
    return _without_slivers(strips, survey.size)


def limited(strips: list[Strip], count_max: int) -> list[Strip]:
    """Where there are too many to be drawn, the small ones that are neighbours become one."""
    if len(strips) <= count_max:
        return strips
    by_size = sorted(strips, key=lambda strip: strip.start - strip.end)
    large = {strip.start for strip in by_size[: (count_max - 1) // 2]}
    joined: list[Strip] = []
    is_open = False
    for strip in strips:
        if strip.start in large:
            joined.append(strip)
            is_open = False
            continue
        start = joined.pop().start if is_open else strip.start
        joined.append(Strip(start, strip.end, ("more", "", ""), is_part=False))
        is_open = True
    return joined


def borders(strip: Strip, count: int) -> list[int]:
    """Where the ``count`` cells of a box begin, and where the last one ends."""
    length = strip.end - strip.start
    return [strip.start + length * index // count for index in range(count + 1)]


def clipped(volume: Volume, disk_size: int) -> tuple[int, int]:
    """The part of a partition that the disk has."""
    part = volume.partition
    return min(part.start, disk_size), min(part.end, disk_size)


def label_of(volume: Volume) -> str:
    """What the user called the file system, else the partition."""
    found = volume.filesystem
    return (found.label if found is not None else None) or volume.partition.name


def percent(part: int, whole: int) -> str:
    """Rounded down, so that 100 % is all; a little is not nothing."""
    share = part * 100 // whole if whole else 0
    return "<1 %" if part and not share else f"{share} %"


def _free(start: int, end: int) -> Strip:
    return Strip(start, end, ("free", "", ""), is_part=False)


def _texts(volume: Volume) -> tuple[str, str, str]:
    kind = volume.filesystem.kind if volume.filesystem is not None else volume.partition.type
    return (str(volume.partition.index), kind, label_of(volume))


def _without_slivers(strips: list[Strip], disk_size: int) -> list[Strip]:
    """Room that is there for alignment only is shown with its neighbour."""
    kept: list[Strip] = []
    start = 0
    for strip in strips:
        if not strip.is_part and (strip.end - strip.start) * 200 < disk_size:
            if strip.end == disk_size and kept:
                last = kept.pop()
                kept.append(Strip(last.start, disk_size, last.texts, last.is_part))
            continue
        kept.append(Strip(start, strip.end, strip.texts, strip.is_part))
        start = strip.end
    return kept or [_free(0, disk_size)]
