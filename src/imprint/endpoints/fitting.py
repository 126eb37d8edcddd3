"""What has to change of a disk so that it fits its target: decided before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    CorruptImageError,
    RefusedError,
    TargetTooSmallError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import Finding, OnEvent, Severity
from imprint.core.units import MIB, align_down, format_size
from imprint.endpoints.fitted import FittedSource
from imprint.endpoints.growing import STAYS, Grower, grower
from imprint.endpoints.shrinking import check_shrink
from imprint.endpoints.survey import Survey, describe
from imprint.filters.window import Window
from imprint.volumes import gpt_writing, mbr_writing, read_table
from imprint.volumes.changing import Change, Patch

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.endpoints.survey import Volume
    from imprint.volumes import PartitionTable

SECTOR_SIZES: Final = (512, 4096)

_RECOVERY: Final = frozenset({"de94bba4-06d1-4d40-a16a-bfd50179d6ac", "0x27"})


@dataclass(frozen=True)
class Fit:
    """What the user wants to have fitted.

    Attributes:
        grow: make the last partition, and what is in it, fill a larger target.
        shrink: leave out what is behind the end of a smaller target, if nothing is there.
        size: of a file that is written; ``None``: that of the one that is there, or the image's.
        sector_size: of the target, if it cannot be asked, or shall not be.
    """

    grow: bool = False
    shrink: bool = False
    size: int | None = None
    sector_size: int | None = None

    @property
    def is_asked(self) -> bool:
        """Whether anything is wanted at all."""
        return self != Fit()


@dataclass(frozen=True)
class Room:
    """What the target offers.

    Attributes:
        size: in bytes.
        sector_size: that its users can address; ``None``: whatever the table says.
        is_device: and not a file.
    """

    size: int
    sector_size: int | None = None
    is_device: bool = False


@dataclass(frozen=True)
class Grown:
    """A partition that gets larger. Lengths are in bytes.

    Attributes:
        index: of the partition.
        start: where it begins on the disk.
        old: its length in the image.
        new: its length on the target.
        kind: of what is in it.
        grower: makes that as large; ``None``: it stays as it is.
    """

    index: int
    start: int
    old: int
    new: int
    kind: str
    grower: Grower | None

    def to_json(self) -> dict[str, object]:
        """As ``restore --json`` has it: the file system only if it has grown too."""
        return {
            "partition": self.index,
            "from": self.old,
            "to": self.new,
            "filesystem": None if self.grower is None else self.kind,
        }


@dataclass(frozen=True)
class Fitting:
    """What is to be written instead of the image as it is.

    Attributes:
        size: of the disk on the target, in bytes.
        patches: what is other than in the image.
        grown: which partition gets larger.
    """

    size: int
    patches: tuple[Patch, ...] = ()
    grown: Grown | None = None

    def apply(self, source: Source) -> Source:
        """The disk as it shall be written; owns ``source``."""
        if not self.patches and self.size == source.size:
            return source
        return FittedSource(source, self.size, self.patches)


def plan_fitting(source: Source, room: Room, fit: Fit, on_event: OnEvent) -> Fitting:
    """Decide what has to change, and refuse what cannot be done.

    Args:
        source: the disk as it is.
        room: what the target offers.
        fit: what is wanted.
        on_event: told what the user should know, and what is left as it is.

    Raises:
        ImagingError: of the kind that says why it cannot be done.
    """
    _check_sizes(source, room, fit)
    is_other_size = room.size != source.size
    if not fit.is_asked and room.sector_size is None and not is_other_size:
        return Fitting(source.size)
    survey = describe(source)
    table = survey.table
    sector_size = room.sector_size or (table.sector_size if table is not None else 512)
    is_converted = _is_converted(source, table, sector_size, fit, on_event)
    grows = fit.grow and room.size > source.size
    shrinks = fit.shrink and room.size < source.size
    if not (grows or shrinks or is_converted):
        _tell_old_place(source, table, room, on_event)
        return Fitting(source.size)
    table = _sound(source, table)
    size = room.size if grows or shrinks or room.size > source.size else source.size
    if size % sector_size:
        raise UsageError(f"expected a size in sectors of {sector_size} bytes, found {size}")
    change = Change(size, sector_size)
    if shrinks:
        check_shrink(source, survey, change)
        what = f"{source.size - size} bytes that are in no partition are left out"
        on_event(Finding(Severity.WARNING, source.name, what))
    grown = None
    if grows:
        border = _border(source, table, change, on_event)
        grown = _plan_growth(source, survey, border, room, on_event)
        change = replace(change, index=grown.index, end=grown.start + grown.new)
    if is_converted:
        _tell_other_sectors(source, survey, table.sector_size, sector_size, on_event)
    if table.kind == "gpt":
        patches = gpt_writing.fit(source, table.sector_size, change)
    else:
        patches = mbr_writing.fit(source, table, change)
    fitting = Fitting(size, tuple(patches), grown)
    _check_result(source, fitting, table, change)
    return fitting


def _check_sizes(source: Source, room: Room, fit: Fit) -> None:
    if fit.size is not None and not (fit.grow or fit.shrink):
        raise UsageError("--size needs --grow or --shrink-to-fit")
    if fit.grow and not fit.shrink and room.size < source.size:
        raise TargetTooSmallError(
            f"has {room.size} bytes, {source.size} are needed",
            advice="--shrink-to-fit leaves out what is behind its end, if nothing is there",
        )
    if fit.grow and not fit.shrink and room.size == source.size:
        raise RefusedError(
            f"expected a target that is larger than the image's {source.size} bytes, found "
            "one of the same size",
            advice="--size gives the size of a file; a file that is there keeps its own",
        )


def _is_converted(
    source: Source,
    table: PartitionTable | None,
    sector_size: int,
    fit: Fit,
    on_event: OnEvent,
) -> bool:
    """Whether the table has to count in other sectors."""
    if table is None or table.kind not in ("gpt", "mbr") or table.sector_size == sector_size:
        return False
    if table.kind == "gpt" and sector_size in SECTOR_SIZES:
        return True
    what = (
        f"expected sectors of {table.sector_size} bytes, as its {table.kind.upper()} counts, "
        f"found {sector_size}"
    )
    if fit.is_asked:
        advice = "only a GPT can be made to count in sectors of 512 or 4096 bytes"
        raise UnsupportedFeatureError(what, name=source.name, advice=advice)
    what += ": the partitions will not be found where they are"
    on_event(Finding(Severity.WARNING, "partition table", what))
    return False


def _tell_old_place(
    source: Source, table: PartitionTable | None, room: Room, on_event: OnEvent
) -> None:
    """A restore is byte by byte unless something else is asked for."""
    if table is not None and table.kind == "gpt" and room.size > source.size:
        what = (
            f"stays in the middle of the target, which has {room.size} bytes: --grow or "
            "sgdisk -e moves it to the end"
        )
        on_event(Finding(Severity.WARNING, "backup GPT", what))


def _sound(source: Source, table: PartitionTable | None) -> PartitionTable:
    """The table, if it can be relied upon."""
    if table is None or table.kind not in ("gpt", "mbr"):
        found = "none" if table is None else f"one of kind {table.kind}"
        raise UnsupportedFeatureError(
            f"expected a GPT or MBR to fit to the target, found {found}", name=source.name
        )
    for finding in table.findings:
        if finding.severity is not Severity.INFO:
            raise UnsupportedFeatureError(
                f"expected a sound partition table, found: {finding.where}: {finding.what}",
                name=source.name,
                advice="repair it first (sgdisk -v, sfdisk --verify), or restore it as it is",
            )
    return table


def _border(source: Source, table: PartitionTable, change: Change, on_event: OnEvent) -> int:
    """Where partitions have to end on the target."""
    if table.kind == "gpt":
        return gpt_writing.usable_end(source, table.sector_size, change)
    border = mbr_writing.usable_end(change)
    if border < change.size:
        what = f"an MBR cannot reach beyond {format_size(border)}: what is behind is not used"
        on_event(Finding(Severity.WARNING, "partition table", what))
    return border


def _plan_growth(
    source: Source, survey: Survey, border: int, room: Room, on_event: OnEvent
) -> Grown:
    """Which partition gets how large, and how what is in it follows."""
    volumes = [each for each in survey.volumes if not each.partition.is_container]
    if not volumes:
        raise UnsupportedFeatureError("expected a partition, found none", name=source.name)
    volume = max(volumes, key=lambda each: each.partition.end)
    item = volume.partition
    for other in survey.volumes:
        if other.partition.start >= item.end:
            raise UnsupportedFeatureError(
                f"partition {item.index} is not the last: an extended one is behind it",
                name=source.name,
            )
    end = align_down(border, MIB)
    if end <= item.end:
        raise RefusedError(
            f"expected room behind partition {item.index}, which ends at {item.end}, "
            f"found that it could end at {end}",
            name=source.name,
        )
    kind = None if volume.filesystem is None else volume.filesystem.kind
    try:
        if item.code in _RECOVERY:
            raise UnsupportedFeatureError(
                f"the last partition, {item.index}, is one for recovery and needs no more room",
                advice="without --grow it is restored as it is; partitions are never moved",
            )
        part = Window(source, item.start, item.length)
        how = grower(kind, part, end - item.start, on_device=room.is_device)
    except UnsupportedFeatureError as error:
        raise _with_other(error, source, volumes, room) from error
    assert kind is not None
    if how is None:
        what = f"the {kind} in it stays as it is: {STAYS[kind]}"
        on_event(Finding(Severity.WARNING, f"partition {item.index}", what))
    return Grown(item.index, item.start, item.length, end - item.start, kind, how)


def _with_other(
    error: UnsupportedFeatureError, source: Source, volumes: list[Volume], room: Room
) -> UnsupportedFeatureError:
    """The refusal, with the partition before that could be grown if it were the last."""
    message = str(error.args[0])
    for volume in sorted(volumes, key=lambda each: -each.partition.end)[1:]:
        item = volume.partition
        if volume.filesystem is None or item.code in _RECOVERY:
            continue
        kind = volume.filesystem.kind
        part = Window(source, item.start, item.length)
        try:
            grower(kind, part, item.length, on_device=room.is_device)
        except (UnsupportedFeatureError, CorruptImageError):
            continue
        message += f"; partition {item.index} ({kind}) could be, but is not the last"
        break
    return UnsupportedFeatureError(message, name=source.name, advice=error.advice)


def _tell_other_sectors(
    source: Source, survey: Survey, old: int, new: int, on_event: OnEvent
) -> None:
    """Who else knows the sectors than the table."""
    what = f"counts in sectors of {new} bytes now, not of {old}: boot loaders may not start"
    on_event(Finding(Severity.WARNING, "GPT", what))
    for volume in survey.volumes:
        if volume.filesystem is None:
            continue
        kind, item = volume.filesystem.kind, volume.partition
        unit = _unit(kind, Window(source, item.start, item.length))
        if unit is not None and unit < new:
            what = f"its {kind} counts in units of {unit} bytes, and may not be mounted from {new}"
            on_event(Finding(Severity.WARNING, f"partition {item.index}", what))


def _unit(kind: str, volume: Source) -> int | None:
    """What a file system reads at least; ``None`` if it does not mind.

    Source: the boot sectors of FAT and NTFS (bytes per sector, offset 11), of exFAT (shift,
    offset 108), the superblocks of XFS (``sb_sectsize``, 102) and ext (``s_log_block_size``).
    """
    head = bytearray(min(2048, volume.size))
    volume.readinto(memoryview(head), 0)
    if kind in ("vfat", "ntfs"):
        return int.from_bytes(head[11:13], "little")
    if kind == "exfat":
        return 1 << min(head[108], 12)
    if kind == "xfs":
        return int.from_bytes(head[102:104], "big")
    if kind in ("ext2", "ext3", "ext4"):
        return 1024 << min(int.from_bytes(head[1048:1052], "little"), 6)
    return None


def _check_result(source: Source, fitting: Fitting, table: PartitionTable, change: Change) -> None:
    """Read the table as it will be: it has to be right before anything is written."""
    fitted = fitting.apply(source)
    found = read_table(fitted, sector_size=change.sector_size)
    expected = {
        (item.index, item.start, change.end if item.index == change.index else item.end)
        for item in table.partitions
        if not item.is_container
    }
    partitions = () if found is None else found.partitions
    places = {(item.index, item.start, item.end) for item in partitions if not item.is_container}
    bad = [] if found is None else [each for each in found.findings if each.what]
    bad = [each for each in bad if each.severity is not Severity.INFO]
    if found is None or places != expected or bad:
        why = bad[0].what if bad else "other partitions"
        raise CorruptImageError(
            f"expected that the table can be fitted, found: {why}", name=source.name
        )
