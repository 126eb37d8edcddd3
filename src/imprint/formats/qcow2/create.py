"""Laying out a new image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.buffers import ZEROS
from imprint.core.contracts import Reference
from imprint.core.errors import RefusedError, UnsupportedFeatureError, UsageError
from imprint.core.filesets import FilesTarget
from imprint.core.image import WritableImage
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import align_up, div_up, format_size
from imprint.formats.qcow2 import crypto, layout, subclusters
from imprint.formats.qcow2.header import HeaderArea
from imprint.formats.qcow2.layer import Qcow2Layer
from imprint.formats.qcow2.layout import FeatureName, Header
from imprint.formats.qcow2.refcounts import Refcounts
from imprint.formats.qcow2.writer import Writer

if TYPE_CHECKING:
    from imprint.codecs.luks import Parameters
    from imprint.core.contracts import Storage, Target
    from imprint.core.formats import CreateSpec

_SECTOR: Final = 512
_ENTRY_BYTES: Final = 8
_VERSIONS: Final = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
_COMPRESSION_TYPES: Final = {name: kind for kind, name in layout.COMPRESSION_NAMES.items()}
_DATA_FILE_FORMAT: Final = "raw"


@dataclass(frozen=True)
class Plan:
    """The options of a new image, checked against each other.

    Attributes:
        size: of the disk, rounded up to whole sectors: QEMU would not see the rest.
        version: 2 or 3.
        cluster_bits: log2 of the cluster size.
        refcount_bits: width of a refcount.
        is_lazy: whether QEMU may postpone refcount updates.
        compression_type: what compressed clusters are compressed with.
        compression: ``none``, or the codec that this writer shall use.
        level: of that codec; ``None`` is its default.
        is_extended: whether there are subclusters.
        data_file: name of the external data file.
        is_data_file_raw: whether that is to be readable as a raw image.
        preallocation: ``off``, ``metadata``, ``falloc`` or ``full``.
        parent: the backing file.
        encryption: of the disk; ``None`` if it is plain.
    """

    size: int
    version: int
    cluster_bits: int
    refcount_bits: int
    is_lazy: bool
    compression_type: int
    compression: str
    level: int | None
    is_extended: bool
    data_file: str | None
    is_data_file_raw: bool
    preallocation: str
    parent: Reference | None
    encryption: Parameters | None

    @property
    def cluster_size(self) -> int:
        """In bytes."""
        return 1 << self.cluster_bits


def plan(spec: CreateSpec) -> Plan:
    """Options as they will be.

    Raises:
        UsageError: if they contradict each other or the size.
    """
    options = spec.options
    compression = str(options.get("compression", "none"))
    named = options.get("compression_type")
    if named is not None and compression not in ("none", named):
        raise UsageError(f"compression={compression} contradicts compression_type={named}")
    kind = str(named) if named is not None else compression
    cluster_size = int(options.get("cluster_size", 65536))
    parent, backing_format = spec.parent, options.get("backing_fmt")
    if backing_format is not None:
        if parent is None:
            raise UsageError("backing_fmt is for images with a backing file")
        parent = Reference(parent.name, str(backing_format))
    level = options.get("level")
    data_file = options.get("data_file")
    is_raw = bool(options.get("data_file_raw", False))
    preallocation = str(options.get("preallocation", "off"))
    made = Plan(
        size=align_up(spec.size, _SECTOR),
        version=_VERSIONS[str(options.get("compat", "1.1"))],
        cluster_bits=cluster_size.bit_length() - 1,
        refcount_bits=int(options.get("refcount_bits", 16)),
        is_lazy=bool(options.get("lazy_refcounts", False)),
        compression_type=_COMPRESSION_TYPES.get(kind, layout.COMPRESSION_ZLIB),
        compression=compression,
        level=None if level is None else int(level),
        is_extended=bool(options.get("extended_l2", False)),
        data_file=None if data_file is None else str(data_file),
        is_data_file_raw=is_raw,
        # A raw data file has to be what the disk is: no cluster of it may be unallocated.
        preallocation="metadata" if is_raw and preallocation == "off" else preallocation,
        parent=parent,
        encryption=crypto.parameters_of(options),
    )
    _check(made, cluster_size)
    _check_encryption(made)
    return made


def create(storage: Storage, spec: CreateSpec) -> Target:
    """Lay out a new image in an empty storage.

    Raises:
        UsageError: if the options contradict each other or the size.
    """
    made = plan(spec)
    layer = make_layer(storage, made, spec)
    try:
        if made.preallocation != "off":
            _preallocate(layer, made.preallocation)
        return _target(layer, made, is_fresh=True)
    except BaseException:
        if made.data_file is not None:
            layer.data.abort()
        raise


def resume(storage: Storage, spec: CreateSpec) -> Target:
    """Take up an image that :func:`create` began; see ``Resuming``.

    Raises:
        FormatError: if it is not sound.
        RefusedError: if it is another image than ``spec`` describes.
    """
    made = plan(spec)
    if made.data_file is not None:
        raise UnsupportedFeatureError("an image with an external data file cannot be resumed")
    layer = Qcow2Layer.open(storage, spec.opener, writable=True, parent=spec.parent_source)
    if layer.is_encrypted != (made.encryption is not None):
        raise RefusedError(
            "expected an unfinished image that is encrypted just as the new one shall be",
            name=storage.name,
        )
    if (layer.size, layer.area.cluster_size) != (made.size, made.cluster_size):
        raise RefusedError(
            f"expected an unfinished disk of {made.size} bytes, found one of {layer.size}",
            name=storage.name,
        )
    return _target(layer, made, is_fresh=False)


def _target(layer: Qcow2Layer, made: Plan, *, is_fresh: bool) -> Target:
    # Through what encrypts, so that nobody offers to copy plain bytes past it.
    storage = layer.storage if made.encryption is None else layer.data
    if made.compression != "none":
        from imprint.formats.qcow2.compressed import CompressedTarget

        return CompressedTarget(layer, level=made.level, is_fresh=is_fresh)
    others = () if made.data_file is None else (layer.data,)
    image = WritableImage(
        layer,
        storage,
        name=storage.name,
        parent=layer.parent,
        is_fresh=is_fresh,
        others=others,
    )
    return FilesTarget(image) if others else image


def make_layer(storage: Storage, made: Plan, spec: CreateSpec) -> Qcow2Layer:
    """An empty image, its header and tables written but not flushed."""
    area, head = header_area(made).pack(storage.name)
    table_clusters = _refcount_table_clusters(made, area)
    refcounts = Refcounts.create(storage, area, table_clusters)
    entries = area.l1_entries_for(made.size)
    l1_offset = 0
    if entries:
        clusters = div_up(entries * _ENTRY_BYTES, made.cluster_size)
        l1_offset = refcounts.allocate_exactly(clusters) * made.cluster_size
    data = storage
    if made.encryption is not None:
        luks, data = crypto.new_data(made.encryption, spec.options, storage, spec.opener)
        place = refcounts.allocate_exactly(div_up(len(luks), made.cluster_size))
        place *= made.cluster_size
        storage.write(memoryview(luks), place)
        area, head = crypto.with_place(area, place, len(luks)).pack(storage.name)
    area = area.with_header(
        l1_size=entries,
        l1_table_offset=l1_offset,
        refcount_table_offset=made.cluster_size,
        refcount_table_clusters=table_clusters,
    )
    storage.resize(refcounts.tail * made.cluster_size)
    storage.write(memoryview(head), 0)
    storage.write(memoryview(area.pack_header()), 0)
    if made.data_file is not None:
        data = spec.opener.data_file(Reference(made.data_file, _DATA_FILE_FORMAT), storage)
        data.resize(made.size)
    layer = Qcow2Layer(storage, area, data=data, parent=spec.parent_source)
    layer.use_writer(Writer(layer, refcounts))
    return layer


def _check(made: Plan, cluster_size: int) -> None:
    """Refuse what no image can be, before anything is written."""
    smallest = layout.CLUSTER_BITS_MIN_EXTENDED if made.is_extended else layout.CLUSTER_BITS_MIN
    if (
        cluster_size != made.cluster_size
        or not smallest <= made.cluster_bits <= layout.CLUSTER_BITS_MAX
    ):
        raise UsageError(
            f"expected a cluster size that is a power of two from {format_size(1 << smallest)} "
            f"to 2 MiB, found {cluster_size}"
        )
    if made.version == 2:
        newer = {
            "refcount_bits": made.refcount_bits != 16,
            "lazy_refcounts": made.is_lazy,
            "compression_type=zstd": made.compression_type != layout.COMPRESSION_ZLIB,
            "extended_l2": made.is_extended,
            "data_file": made.data_file is not None,
            "encrypt.format": made.encryption is not None,
        }
        for name, is_used in newer.items():
            if is_used:
                raise UsageError(f"{name} needs compat=1.1")
    if made.is_data_file_raw and made.data_file is None:
        raise UsageError("data_file_raw needs data_file")
    if made.data_file is not None and made.compression != "none":
        raise UsageError("an image with an external data file cannot be compressed")
    if made.is_data_file_raw and made.parent is not None:
        raise UsageError("a raw external data file cannot have a backing file")
    if made.preallocation != "off" and made.parent is not None and not made.is_extended:
        raise UsageError("preallocation would hide the backing file; extended_l2 avoids that")
    if made.preallocation != "off" and made.compression != "none":
        raise UsageError("preallocation is of no use in a compressed image")
    if made.level is not None:
        _check_level(made.compression, made.level)
    entry_bytes = 16 if made.is_extended else _ENTRY_BYTES
    per_l1_entry = made.cluster_size // entry_bytes * made.cluster_size
    limit = min(layout.L1_BYTES_MAX // _ENTRY_BYTES * per_l1_entry, DISK_SIZE_MAX)
    if made.size > limit:
        raise UsageError(
            f"expected a disk of at most {limit} bytes with clusters of {made.cluster_size}, "
            f"found {made.size}",
            advice="use larger clusters",
        )


def _check_encryption(made: Plan) -> None:
    if made.encryption is None:
        return
    if made.compression != "none":
        raise UsageError("an encrypted image cannot be compressed")
    if made.data_file is not None:
        raise UsageError("an encrypted image cannot have an external data file")
    if made.preallocation not in ("off", "full"):
        raise UsageError(
            f"preallocation={made.preallocation} would read as random bytes once decrypted; "
            "full does not"
        )


def _check_level(compression: str, level: int) -> None:
    lowest, highest = {"zlib": (0, 9), "zstd": (1, 19)}.get(compression, (0, -1))
    if not lowest <= level <= highest:
        raise UsageError(
            f"expected a level from {lowest} to {highest} for {compression}, found {level}"
            if highest > 0
            else "level needs compression"
        )


def header_area(made: Plan) -> HeaderArea:
    """The header without what depends on where the tables are."""
    features = {
        layout.INCOMPATIBLE_DATA_FILE: made.data_file is not None,
        layout.INCOMPATIBLE_COMPRESSION_TYPE: made.compression_type != 0,
        layout.INCOMPATIBLE_EXTENDED_L2: made.is_extended,
    }
    is_v2 = made.version == 2
    header = Header(
        magic=layout.MAGIC,
        version=made.version,
        cluster_bits=made.cluster_bits,
        size=made.size,
        incompatible_features=sum(bit for bit, is_set in features.items() if is_set),
        compatible_features=layout.COMPATIBLE_LAZY_REFCOUNTS if made.is_lazy else 0,
        autoclear_features=layout.AUTOCLEAR_RAW_DATA_FILE if made.is_data_file_raw else 0,
        refcount_order=made.refcount_bits.bit_length() - 1,
        header_length=layout.HEADER_LENGTH_V2 if is_v2 else Header.SIZE,
        compression_type=made.compression_type,
        crypt_method=layout.CRYPT_NONE if made.encryption is None else layout.CRYPT_LUKS,
    )
    extensions: list[tuple[int, bytes]] = []
    if made.data_file is not None:
        extensions.append((layout.EXTENSION_DATA_FILE, _encode(made.data_file)))
    if not is_v2:
        names = (
            FeatureName(kind=kind, bit=bit, name=name.encode()).pack()
            for kind, bit, name in layout.FEATURE_NAMES
        )
        extensions.append((layout.EXTENSION_FEATURE_NAMES, b"".join(names)))
    area = HeaderArea(header, b"", tuple(extensions), None)
    if made.parent is None or made.parent.name is None:
        return area
    return area.with_backing(_encode(made.parent.name), made.parent.format)


def _refcount_table_clusters(made: Plan, area: HeaderArea) -> int:
    """Enough for every cluster of the disk and its tables: then the table never moves."""
    data = 0 if made.data_file is not None else div_up(made.size, made.cluster_size)
    tables = div_up(made.size, made.cluster_size * area.entries_per_l2)
    per_block = made.cluster_size * 8 // made.refcount_bits
    luks = div_up(crypto.header_bytes(made.encryption), made.cluster_size)
    clusters = data + tables + div_up(tables * _ENTRY_BYTES, made.cluster_size) + luks + 16
    # Each block counts itself and the others, which a 16th more is ample for.
    blocks = div_up(clusters, per_block) * 17 // 16 + 1
    length = min(blocks * _ENTRY_BYTES, layout.REFCOUNT_TABLE_BYTES_MAX)
    return div_up(length, made.cluster_size)


def _preallocate(layer: Qcow2Layer, how: str) -> None:
    """Give every cluster its place; ``falloc`` and ``full`` also claim the room for them.

    Subclusters stay unallocated at their place, so that a backing file shows through.
    """
    is_reserved = layer.area.is_extended and not layer.area.is_data_file_raw
    position = 0
    while position < layer.disk_size:
        extent = layer.allocate(position, layer.disk_size - position)
        if is_reserved:
            subclusters.reserve(layer.writer, extent)
        else:
            layer.link(extent)
        if how != "metadata":
            for start in range(0, extent.length, len(ZEROS)):
                piece = memoryview(ZEROS)[: extent.length - start]
                layer.data.write(piece, extent.storage_offset + start)
        position = extent.end
    layer.flush()


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
