"""Laying out a new Parallels image, and predicting its size."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.extent import Kind
from imprint.core.formats import Measure, Option, OptionKind
from imprint.core.tables import PagedTable
from imprint.core.units import MIB, align_up, div_up
from imprint.formats.parallels.layout import MAGIC_V2, SECTOR_BYTES, Header
from imprint.formats.parallels.slots import Slots
from imprint.formats.parallels.writer import WritableParallelsLayer, check_size, cylinders

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Storage
    from imprint.core.formats import CreateSpec

CLUSTER_SIZE: Final = Option(
    "cluster_size",
    "what is allocated at a time, whole sectors",
    OptionKind.SIZE,
    default=1 * MIB,
)
OPTIONS: Final = (CLUSTER_SIZE,)

CLUSTER_SIZE_MAX: Final = 256 * MIB


def plan(spec: CreateSpec) -> Header:
    """The header of the image that ``spec`` asks for.

    Raises:
        UsageError: if it makes no sense.
    """
    if spec.parent is not None:
        raise UsageError("parallels: an image outside of a bundle cannot have a parent")
    cluster_size = spec.options.get("cluster_size", CLUSTER_SIZE.default)
    assert isinstance(cluster_size, int)
    if cluster_size % SECTOR_BYTES or not 0 < cluster_size <= CLUSTER_SIZE_MAX:
        raise UsageError(
            f"option cluster_size: expected whole sectors, 512 to 256M, found {cluster_size}"
        )
    size = align_up(spec.size, SECTOR_BYTES)  # the format counts sectors
    entries = div_up(size, cluster_size)
    header = Header(
        magic=MAGIC_V2,
        cylinders=cylinders(size // SECTOR_BYTES),
        cluster_sectors=cluster_size // SECTOR_BYTES,
        bat_entries=entries,
        disk_sectors=size // SECTOR_BYTES,
    )
    check_size(size, header)
    return header.replace(data_sector=header.data_offset // SECTOR_BYTES)


def create_layer(storage: Storage, spec: CreateSpec) -> WritableParallelsLayer:
    """Write header and table of an empty disk. Durable at the layer's first flush.

    Raises:
        UsageError: if the options contradict each other, the size or the parent.
    """
    header = plan(spec)
    storage.resize(header.data_offset)  # the table is zeros
    storage.write(memoryview(header.pack()), 0)
    bat = PagedTable(array("I", [0]) * header.bat_entries, "little")
    return WritableParallelsLayer(storage, header, bat, Slots(storage, header))


def measure(source: Source, spec: CreateSpec) -> Measure:
    """Clusters that have data, and what lies before them."""
    header = plan(spec)
    size = header.cluster_size
    used = behind = 0
    for extent in source.extents(0, source.size):
        if extent.kind in (Kind.DATA, Kind.ENCODED):
            first = max(behind, extent.offset // size)
            behind = max(behind, div_up(extent.end, size))
            used += behind - first
    full = header.data_offset + header.bat_entries * size
    return Measure(header.data_offset + used * size, full)
