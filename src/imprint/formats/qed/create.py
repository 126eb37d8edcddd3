"""Opening a QED for writing, laying out a new one, and predicting its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, RefusedError, UnsupportedFeatureError, UsageError
from imprint.core.extent import Kind
from imprint.core.formats import Measure, Option, OptionKind
from imprint.core.limits import DIRTY_TABLE_BYTES_MAX, NAME_BYTES_MAX
from imprint.core.units import KIB, align_up, div_up
from imprint.core.usage import Usage
from imprint.formats.qed.check import problems
from imprint.formats.qed.layout import (
    CLUSTER_SIZE_MAX,
    CLUSTER_SIZE_MIN,
    FEATURE_BACKING,
    FEATURE_BACKING_RAW,
    FEATURE_NEED_CHECK,
    MAGIC,
    SECTOR_BYTES,
    TABLE_SIZE_MAX,
    Header,
    backing_name,
    read_header,
)
from imprint.formats.qed.writer import WritableQedLayer, check_size

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Storage
    from imprint.core.formats import CreateSpec

CLUSTER_SIZE: Final = Option(
    "cluster_size", "what is allocated at a time", OptionKind.SIZE, default=64 * KIB
)
TABLE_SIZE: Final = Option(
    "table_size",
    "of the L1 and each L2 table, in clusters",
    OptionKind.NUMBER,
    default=4,
    choices=(1, 2, 4, 8, TABLE_SIZE_MAX),
)
OPTIONS: Final = (CLUSTER_SIZE, TABLE_SIZE)


def plan(spec: CreateSpec) -> Header:
    """The header of the image that ``spec`` asks for.

    Raises:
        UsageError: if it makes no sense.
    """
    cluster = spec.options.get("cluster_size", CLUSTER_SIZE.default)
    table = spec.options.get("table_size", TABLE_SIZE.default)
    assert isinstance(cluster, int)
    assert isinstance(table, int)
    in_range = CLUSTER_SIZE_MIN <= cluster <= CLUSTER_SIZE_MAX
    if cluster.bit_count() != 1 or not in_range or cluster * table > DIRTY_TABLE_BYTES_MAX:
        raise UsageError(
            "option cluster_size: expected a power of two, 4K to 64M, and tables of at most "
            f"{DIRTY_TABLE_BYTES_MAX} bytes, found {cluster}"
        )
    name = _name(spec)
    features = 0
    if name:
        features = FEATURE_BACKING
        if spec.parent is not None and spec.parent.format == "raw":
            features |= FEATURE_BACKING_RAW
    header = Header(
        magic=MAGIC,
        cluster_size=cluster,
        table_size=table,
        header_size=1,
        features=features,
        l1_table_offset=cluster,
        disk_size=align_up(spec.size, SECTOR_BYTES),  # the format counts sectors
        backing_offset=Header.SIZE if name else 0,
        backing_size=len(name),
    )
    check_size(header.disk_size, header)
    return header


def create_layer(storage: Storage, spec: CreateSpec) -> WritableQedLayer:
    """Write header and L1 table of an empty disk. Durable at the layer's first flush.

    Raises:
        UsageError: if the options contradict each other, the size or the parent.
    """
    header = plan(spec)
    name = _name(spec)
    storage.resize(header.cluster_size * (1 + header.table_size))  # the table is zeros
    storage.write(memoryview(header.pack() + name), 0)
    usage = Usage(storage, header.cluster_size)
    usage.take(0, storage.size)
    return WritableQedLayer(
        storage,
        header,
        usage,
        backing=backing_name(storage, header),
        parent_size=0 if spec.parent_source is None else spec.parent_source.size,
    )


def edit_layer(storage: Storage, *, parent_size: int = 0) -> WritableQedLayer:
    """Open for writing: every entry of the tables is checked.

    Raises:
        CorruptImageError: also if two clusters share a place, or one is not in the file.
        RefusedError: if the image was not closed properly.
        UnsupportedFeatureError: also if its tables are too large to be held.
    """
    header = read_header(storage)
    if header.features & FEATURE_NEED_CHECK:
        raise RefusedError(
            "is in use, or was not closed properly",
            name=storage.name,
            advice="imprint check --repair clears the mark if the image is sound",
        )
    if header.table_size * header.cluster_size > DIRTY_TABLE_BYTES_MAX:
        raise UnsupportedFeatureError(
            f"expected tables of at most {DIRTY_TABLE_BYTES_MAX} bytes to write, "
            f"found {header.table_size} clusters of {header.cluster_size}",
            name=storage.name,
        )
    usage = Usage(storage, header.cluster_size)
    for where, problem in problems(storage, header, usage):
        raise CorruptImageError(
            f"{where}: {problem}",
            name=storage.name,
            advice="it can be read, and copied into a new image",
        )
    backing = backing_name(storage, header)
    if header.autoclear_features:  # what they promise may not hold for long
        header = header.replace(autoclear_features=0)
        storage.write(memoryview(header.pack()), 0)
        storage.flush()
    return WritableQedLayer(storage, header, usage, backing=backing, parent_size=parent_size)


def measure(source: Source, spec: CreateSpec) -> Measure:
    """Clusters that have data, the tables that name them, and what lies before them."""
    header = plan(spec)
    size = header.cluster_size
    table_reach, table_bytes = size * header.table_count, size * header.table_size
    units = {size: 0, table_reach: 0}
    for unit in units:
        behind = 0
        for extent in source.extents(0, source.size):
            if extent.kind in (Kind.DATA, Kind.ENCODED):
                first = max(behind, extent.offset // unit)
                behind = max(behind, div_up(extent.end, unit))
                units[unit] += behind - first
    before = size + table_bytes
    full = div_up(header.disk_size, size) * size
    full += div_up(header.disk_size, table_reach) * table_bytes
    return Measure(before + units[size] * size + units[table_reach] * table_bytes, before + full)


def _name(spec: CreateSpec) -> bytes:
    """Of the parent, as it is written into the image.

    Raises:
        UsageError: if it is too long.
    """
    if spec.parent is None:
        return b""
    name = (spec.parent.name or "").encode("utf-8", "surrogateescape")
    if not 0 < len(name) <= NAME_BYTES_MAX:
        raise UsageError(f"qed: expected a parent's name of 1 to {NAME_BYTES_MAX} bytes")
    return name
