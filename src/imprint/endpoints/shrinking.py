"""Whether a disk fits a smaller target: only if there is nothing behind its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError, TargetTooSmallError
from imprint.core.units import MIB, align_up, format_size
from imprint.filesystems.table import allocator
from imprint.filters.window import Window
from imprint.volumes import gpt_writing

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.endpoints.survey import Survey, Volume
    from imprint.volumes.changing import Change

_SHRINKERS: Final = {
    "ext2": "resize2fs",
    "ext3": "resize2fs",
    "ext4": "resize2fs",
    "ntfs": "ntfsresize",
    "btrfs": "btrfs filesystem resize",
    "LVM2_member": "pvresize",
}


def check_shrink(source: Source, survey: Survey, change: Change) -> None:
    """Refuse a target that ends before the last partition does.

    Args:
        source: the disk as it is.
        survey: what is on it: a sound table.
        change: the target.

    Raises:
        TargetTooSmallError: with how small the disk could get, and what has to be done for it.
    """
    table = survey.table
    assert table is not None
    border = change.size
    if table.kind == "gpt":
        border = gpt_writing.usable_end(source, table.sector_size, change)
    behind = [each for each in survey.volumes if each.partition.end > border]
    if not behind:
        return
    last = max(behind, key=lambda each: each.partition.end)
    needed = last.partition.end + change.size - border
    said = f"has {change.size} bytes, {needed} are needed: partition {last.partition.index}"
    raise TargetTooSmallError(
        f"{said} ends at {last.partition.end}",
        length=needed,
        advice=_advice(source, last, change.size - border),
    )


def _advice(source: Source, last: Volume, table_bytes: int) -> str:
    """How small the disk could get, if the last partition were made smaller first."""
    item = last.partition
    if last.filesystem is None:
        return "what is in it is not known: nothing of it can be left out"
    kind = last.filesystem.kind
    name = f"the {kind} in partition {item.index}"
    tool = _SHRINKERS.get(kind)
    if tool is None:
        return f"{name} cannot be shrunk: make it anew, and copy the files"
    file_system = allocator(kind)
    if file_system is None or kind == "LVM2_member":
        return f"{tool} makes it smaller, then the partition has to be"
    try:
        found = file_system.allocation(Window(source, item.start, item.length))
    except (FormatError, ReadError) as error:
        return f"{name} has to be checked first: {error.args[0]}"
    # Its tool can move blocks, so that about as much as is used will do.
    needed = align_up(item.start + found.used.total, MIB) + table_bytes
    used = format_size(found.used.total)
    return (
        f"{name} uses {used}: shrunk by {tool}, then the partition, the disk could have about "
        f"{format_size(needed)}"
    )
