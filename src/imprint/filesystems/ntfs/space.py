"""What the bitmap of NTFS says, and what is in use whatever it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.core.runs import Runs
from imprint.core.units import KIB, div_up
from imprint.filesystems.collected import CollectedRuns
from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.records import HOLE

if TYPE_CHECKING:
    from imprint.filesystems.ntfs.files import Files, Value

_PIECE_BYTES: Final = 256 * KIB
"""Of the bitmap at a time: it may hold a million runs."""

_BAD_CLUSTERS_NAME: Final = "$Bad"


class Space(NamedTuple):
    """What is in use.

    Attributes:
        used: in bytes of the volume.
        doubts: see :class:`~imprint.filesystems.allocation.Allocation`.
        notes: the same.
    """

    used: Runs
    doubts: tuple[str, ...]
    notes: tuple[str, ...]


def read_space(files: Files) -> Space:
    """Read the bitmap, and compare it with what cannot be free.

    Raises:
        CorruptImageError: if it does not fit to the volume.
    """
    geometry, size = files.geometry, files.reader.size
    bitmap = files.value(layout.RECORD_BITMAP, layout.DATA)
    needed = div_up(geometry.cluster_count, 8)
    if bitmap is None or bitmap.initialized < needed:
        found = "none" if bitmap is None else f"{bitmap.initialized}"
        raise CorruptImageError(
            f"bitmap: expected {needed} bytes, found {found}", name=geometry.where
        )
    told = _told(files, bitmap, needed)
    own = _own(files)
    bad = _bad(files)
    unit = geometry.cluster_size
    outside = Runs.of(
        [(0, layout.BOOT_BYTES), (geometry.clusters_end, size - geometry.clusters_end)]
    )
    doubts, notes = [], []
    if len(own - told):
        doubts.append("the bitmap has clusters of the file system's own files as free")
    if len(bad - told):
        doubts.append("the bitmap has bad clusters as free")
    if not _is_rest_set(files, bitmap):
        doubts.append("the bitmap has clusters behind the volume's end as free")
    if bad.total:
        notes.append(f"{bad.total} clusters are marked as bad")
    if not _has_copy(files):
        notes.append("there is no copy of its boot sector behind its last cluster")
    used = Runs.union([(told | own | bad).scaled(unit), outside])
    return Space(used, tuple(doubts), tuple(notes))


def _told(files: Files, bitmap: Value, needed: int) -> Runs:
    """What the bitmap has, in clusters."""
    count = files.geometry.cluster_count
    collected = CollectedRuns()
    for offset in range(0, needed, _PIECE_BYTES):
        length = min(_PIECE_BYTES, needed - offset)
        piece = bitmap.read(files.reader, files.geometry, offset, length)
        collected.add_bits(piece, 8 * offset, min(8 * length, count - 8 * offset))
    return collected.runs().clip(0, count)


def _own(files: Files) -> Runs:
    """Clusters of the files that every volume has; those of their first records."""
    runs: list[tuple[int, int]] = []
    for number in range(layout.FIXED_RECORDS):
        runs += files.own_extents(number)
    runs += [run for run in files.mft.runs if run[0] != HOLE]
    return Runs.of(runs)


def _bad(files: Files) -> Runs:
    """Clusters that cannot be written to: the only ones of a file that is a hole else."""
    value = files.value(layout.RECORD_BAD_CLUSTERS, layout.DATA, _BAD_CLUSTERS_NAME)
    return (
        Runs.of(run for run in value.runs if run[0] != HOLE) if value is not None else Runs.of([])
    )


def _is_rest_set(files: Files, bitmap: Value) -> bool:
    """Whether bits for clusters that do not exist are set, so that nobody takes them."""
    first = files.geometry.cluster_count // 8
    length = min(bitmap.initialized - first, _PIECE_BYTES)
    if length <= 0:
        return True
    rest = int.from_bytes(bitmap.read(files.reader, files.geometry, first, length), "little")
    bits = files.geometry.cluster_count - 8 * first
    return rest >> bits == (1 << 8 * length - bits) - 1


def _has_copy(files: Files) -> bool:
    """Whether the last sector, of the volume or of those counted, is the first one's copy."""
    geometry, reader = files.geometry, files.reader
    size = geometry.sector_size
    boot = reader.read(0, size, "boot sector")
    places = {geometry.end, reader.size - size, geometry.end - size}
    return any(
        reader.read(place, size, "copy of the boot sector") == boot
        for place in sorted(places)
        if geometry.clusters_end <= place <= reader.size - size
    )
