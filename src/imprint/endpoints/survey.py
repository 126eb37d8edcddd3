"""What is on a disk: its partition table, and the file systems in the partitions.

This is where :mod:`imprint.volumes` and :mod:`imprint.filesystems` meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, overload

from imprint.core.errors import FormatError, ReadError, TruncatedImageError, UsageError
from imprint.core.events import Finding, Severity
from imprint.filesystems import FileSystem, identify
from imprint.filesystems.iso9660.sessions import sessions_of
from imprint.filters.cutoff import filled_up, present
from imprint.filters.inside import Inside
from imprint.filters.window import Window
from imprint.volumes import Partition, PartitionTable, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

IDENTIFY_MAX: Final = 128
"""Partitions that are looked into. A table can name 2048, at about a millisecond each."""

# A disc image made for USB sticks as well has a table and is one file system all the same.
_WITH_TABLE: Final = frozenset({"iso9660", "udf"})


@dataclass(frozen=True)
class Volume:
    """A partition and what is in it.

    Attributes:
        partition: as the table says.
        filesystem: ``None`` if it is none of those known, or could not be looked at.
    """

    partition: Partition
    filesystem: FileSystem | None


@dataclass(frozen=True)
class Survey:
    """What is on a disk.

    Attributes:
        size: of the disk, in bytes.
        table: its partition table, if it has one.
        volumes: its partitions, by index.
        filesystem: that the disk as a whole is.
        findings: what is wrong with the table, and what could not be read.
        doubts: those of them that are of file systems: what is lacking of one, what it may be.
    """

    size: int
    table: PartitionTable | None
    volumes: tuple[Volume, ...] = ()
    filesystem: FileSystem | None = None
    findings: tuple[Finding, ...] = ()
    doubts: tuple[Finding, ...] = ()

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Start and length of what is in no partition; nothing if there is no table."""
        return [] if self.table is None else self.table.gaps(self.size)

    def to_json(self) -> dict[str, object]:
        """The part of ``info --json`` that is about the disk's content."""
        whole = self.filesystem
        return {
            "table": None if self.table is None else self.table.kind,
            "table_uuid": None if self.table is None else self.table.uuid,
            "sector_size": None if self.table is None else self.table.sector_size,
            "partitions": [_volume_json(volume) for volume in self.volumes],
            "gaps": [{"start": start, "length": length} for start, length in self.gaps],
            **_filesystem_json(whole),
            "findings": [
                {"severity": item.severity.value, "where": item.where, "what": item.what}
                for item in self.findings
            ],
        }


def describe(source: Source) -> Survey:
    """Look at a disk's table, and at the start of each partition.

    Reads a few hundred KiB at most for each. What cannot be read is a finding, so that a
    damaged disk can be described too.
    """
    findings: list[Finding] = []
    doubts: list[Finding] = []
    table: PartitionTable | None = None
    try:
        table = read_table(source)
    except (ReadError, FormatError) as error:
        findings.append(_unreadable("partition table", error))
    volumes: list[Volume] = []
    if table is not None:
        findings += table.findings
        looked_at = [item for item in table.partitions if _can_look(item, source.size)]
        chosen = {item.index for item in looked_at[:IDENTIFY_MAX]}
        if len(looked_at) > IDENTIFY_MAX:
            what = f"only the first {IDENTIFY_MAX} partitions were looked into"
            findings.append(Finding(Severity.INFO, "partition table", what))
        for item in table.partitions:
            found = None
            if item.index in chosen:
                end = min(item.end, source.size)
                part = Window(source, item.start, end - item.start)
                found = _identify(part, f"partition {item.index}", doubts)
            volumes.append(Volume(item, found))
    said: list[Finding] = []
    whole = _identify(source, "disk", said)
    if volumes and whole is not None and whole.kind not in _WITH_TABLE:
        whole = None  # what was there before the table, or a copy of what is in a partition
    else:
        doubts += said
    findings += doubts
    return Survey(source.size, table, tuple(volumes), whole, tuple(findings), tuple(doubts))


@overload
def open_partition(source: Source, index: int) -> Window: ...
@overload
def open_partition(source: Source, index: int, *, may_be_cut: bool) -> Source: ...
def open_partition(source: Source, index: int, *, may_be_cut: bool = False) -> Source:
    """The partition of that number as a disk of its own; it owns the source.

    Args:
        source: the disk.
        index: as its table counts.
        may_be_cut: take it although the disk ends before it; what is lacking is ``BAD`` then.

    Raises:
        UsageError: if the disk has no such partition.
        TruncatedImageError: if the disk ends before the partition does, or before it begins.
    """
    table = read_table(source)
    if table is None:
        raise UsageError("has no partition table", name=source.name)
    partition = table.find(index)
    if partition is None:
        known = ", ".join(str(item.index) for item in table.partitions) or "none"
        raise UsageError(f"has no partition {index}; it has: {known}", name=source.name)
    name = f"{source.name}#p{index}"
    if may_be_cut and partition.end > source.size:
        return Inside(window_of(source, partition), source, name=name)
    try:
        return Window(source, partition.start, partition.length, name=name)
    except TruncatedImageError as error:
        error.advice = "--incomplete reads what there is"
        raise


def window_of(disk: Source, partition: Partition) -> Window:
    """A partition as a disk of its own; what the disk has no bytes for is ``BAD``.

    The disk stays its owner's, if not all of it is there.

    Raises:
        TruncatedImageError: if the disk ends before it begins.
    """
    name = f"{disk.name}#p{partition.index}"
    whole = disk
    if partition.start < disk.size:
        whole = filled_up(disk, partition.end, name=name)
    return Window(whole, partition.start, partition.length, name=name)


def _can_look(item: Partition, disk_size: int) -> bool:
    return not item.is_container and not item.is_free and item.start < disk_size


def _identify(source: Source, where: str, findings: list[Finding]) -> FileSystem | None:
    try:
        found = identify(source)
    except (ReadError, FormatError) as error:
        findings.append(_unreadable(where, error))
        return None
    if found is not None:
        findings += [Finding(Severity.WARNING, where, what) for what in _doubts(found, source)]
    return found


def _doubts(found: FileSystem, source: Source) -> Iterator[str]:
    if found.doubt is not None:
        yield found.doubt
    if found.size is not None and found.size > (there := present(source)):
        yield f"its file system is cut off: expected {found.size} bytes, found {there}"
    if found.kind == "iso9660" and len(sessions := sessions_of(source)) > 1:
        yield (
            f"it has {len(sessions)} sessions: its files are those of the last, from sector "
            f"{sessions[-1].start}; what is in the others only counts as deleted"
        )


def _unreadable(where: str, error: ReadError | FormatError) -> Finding:
    return Finding(Severity.ERROR, where, f"could not be read: {error.args[0]}")


def _volume_json(volume: Volume) -> dict[str, object]:
    item = volume.partition
    return {
        "index": item.index,
        "start": item.start,
        "length": item.length,
        "type": item.type,
        "code": item.code,
        "name": item.name,
        "uuid": item.uuid,
        "flags": list(item.flags),
        **_filesystem_json(volume.filesystem),
    }


def _filesystem_json(found: FileSystem | None) -> dict[str, object]:
    return {
        "filesystem": None if found is None else found.kind,
        "filesystem_version": None if found is None else found.version,
        "filesystem_label": None if found is None else found.label,
        "filesystem_uuid": None if found is None else found.uuid,
    }
