"""Cluster 0: the header, its extensions and the backing file's name.

Whatever of it is not known to us is kept as it is when the cluster is written anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    CorruptImageError,
    TruncatedImageError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.limits import DISK_SIZE_MAX, NAME_BYTES_MAX
from imprint.core.units import align_up, div_up
from imprint.formats.qcow2 import layout
from imprint.formats.qcow2.layout import ExtensionHead, FeatureName, Header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage

_ENTRY_BYTES: Final = 8
_FEATURE_KINDS: Final = ("incompatible", "compatible", "autoclear")


@dataclass(frozen=True)
class HeaderArea:
    """What cluster 0 says.

    Attributes:
        header: the fixed part.
        extra: additional header fields that are newer than imprint, kept as they are.
        extensions: type and data, in the order of the file; none of type ``EXTENSION_END``.
        backing_name: as written; ``None`` if there is no backing file.
    """

    header: Header
    extra: bytes = b""
    extensions: tuple[tuple[int, bytes], ...] = ()
    backing_name: bytes | None = None

    @property
    def cluster_size(self) -> int:
        """In bytes."""
        return 1 << self.header.cluster_bits

    @property
    def refcount_bits(self) -> int:
        """Width of a refcount: 1 to 64."""
        return 1 << self.header.refcount_order

    @property
    def is_extended(self) -> bool:
        """Whether L2 entries have 128 bits."""
        return bool(self.header.incompatible_features & layout.INCOMPATIBLE_EXTENDED_L2)

    @property
    def has_data_file(self) -> bool:
        """Whether guest clusters are in an external file."""
        return bool(self.header.incompatible_features & layout.INCOMPATIBLE_DATA_FILE)

    @property
    def is_data_file_raw(self) -> bool:
        """Whether that file has to stay readable as a raw image."""
        return self.has_data_file and bool(
            self.header.autoclear_features & layout.AUTOCLEAR_RAW_DATA_FILE
        )

    @property
    def entries_per_l2(self) -> int:
        """Clusters that one L2 table describes."""
        return self.cluster_size // (16 if self.is_extended else _ENTRY_BYTES)

    @property
    def grain(self) -> int:
        """What the disk is allocated in: a cluster, or a subcluster where there are any."""
        return self.cluster_size // (layout.SUBCLUSTERS if self.is_extended else 1)

    def l1_entries_for(self, size: int) -> int:
        """How long the L1 table of a disk of ``size`` bytes has to be."""
        return div_up(size, self.cluster_size * self.entries_per_l2)

    def extension(self, kind: int) -> bytes | None:
        """The data of the first extension of that type."""
        return next((data for type_, data in self.extensions if type_ == kind), None)

    @property
    def backing_format(self) -> str | None:
        """The format's name as QEMU calls it, if the image says it."""
        return _text(self.extension(layout.EXTENSION_BACKING_FORMAT))

    @property
    def data_file_name(self) -> str | None:
        """Of the external data file, if the image says it."""
        return _text(self.extension(layout.EXTENSION_DATA_FILE))

    def feature_names(self) -> Iterator[str]:
        """Of the bits that are set."""
        header = self.header
        masks = (
            header.incompatible_features,
            header.compatible_features,
            header.autoclear_features,
        )
        for kind, mask in enumerate(masks):
            for bit in range(mask.bit_length()):
                if mask >> bit & 1:
                    yield self.feature_name(kind, bit)

    def feature_name(self, kind: int, bit: int) -> str:
        """What the image itself calls a feature bit, or else what we do."""
        table = self.extension(layout.EXTENSION_FEATURE_NAMES) or b""
        for start in range(0, len(table) - FeatureName.SIZE + 1, FeatureName.SIZE):
            entry = FeatureName.unpack(table[start : start + FeatureName.SIZE])
            if (entry.kind, entry.bit) == (kind, bit):
                return entry.name.rstrip(b"\0").decode("utf-8", "replace")
        for known_kind, known_bit, name in layout.FEATURE_NAMES:
            if (known_kind, known_bit) == (kind, bit):
                return name
        return f"{_FEATURE_KINDS[kind]} feature {bit}"

    def with_header(self, **changes: int) -> HeaderArea:
        """A copy with some fields of the fixed part changed."""
        return replace(self, header=self.header.replace(**changes))

    def with_extension(self, kind: int, data: bytes | None) -> HeaderArea:
        """A copy with the extension replaced where it stands, added, or (``None``) removed."""
        found = [type_ for type_, _ in self.extensions]
        kept = list(self.extensions)
        if kind in found:
            index = found.index(kind)
            kept[index : index + 1] = [] if data is None else [(kind, data)]
        elif data is not None:
            kept.insert(0, (kind, data))
        return replace(self, extensions=tuple(kept))

    def with_backing(self, name: bytes | None, format_name: str | None) -> HeaderArea:
        """A copy that names another backing file, or none."""
        data = None
        if name is not None and format_name is not None:
            data = layout.BACKING_FORMATS.get(format_name, format_name).encode()
        area = self.with_extension(layout.EXTENSION_BACKING_FORMAT, data)
        return replace(area, backing_name=name)

    def pack_header(self) -> bytes:
        """The fixed part as it stands on the disk, ``header_length`` bytes."""
        return self.header.pack()[: self.header.header_length] + self.extra

    def pack(self, where: str) -> tuple[HeaderArea, bytes]:
        """Lay the cluster out anew: the area with its new offsets, and its bytes, unpadded.

        The feature name table only serves error messages; it goes if there is no room.

        Raises:
            UsageError: if it does not fit into one cluster.
        """
        for area in (self, self.with_extension(layout.EXTENSION_FEATURE_NAMES, None)):
            extensions = b"".join(_pack_extension(*item) for item in area.extensions)
            # The end of the extensions is marked, also where zeros would follow anyway.
            extensions += ExtensionHead(type=layout.EXTENSION_END, length=0).pack()
            name = area.backing_name or b""
            start = area.header.header_length + len(extensions)
            if start + len(name) <= area.cluster_size and len(name) <= NAME_BYTES_MAX:
                placed = area.with_header(
                    backing_file_offset=start if name else 0, backing_file_size=len(name)
                )
                return placed, placed.pack_header() + extensions + name
        raise UsageError(
            f"expected a backing file name of at most {NAME_BYTES_MAX} bytes that fits into "
            f"the first cluster, found {len(self.backing_name or b'')} bytes",
            name=where,
        )


def read(storage: Storage) -> HeaderArea:
    """Parse and validate cluster 0. Reads at most one cluster.

    Raises:
        FormatError: if it is no sound QCOW2 header.
        UnsupportedFeatureError: for another version, or an unknown incompatible feature.
    """
    head = _read(storage, 0, min(storage.size, Header.SIZE))
    header = _fixed_part(Header.unpack(head.ljust(Header.SIZE, b"\0")), storage)
    cluster = _read(storage, 0, min(storage.size, 1 << header.cluster_bits))
    if header.header_length > len(cluster):
        raise TruncatedImageError(
            f"expected a header of {header.header_length} bytes, found {len(cluster)}",
            name=storage.name,
        )
    if header.header_length < Header.SIZE:
        # What lies behind the header's end are extensions, not fields.
        cut = cluster[: header.header_length].ljust(Header.SIZE, b"\0")
        header = Header.unpack(cut).replace(
            refcount_order=header.refcount_order, header_length=header.header_length
        )
    name = _backing_name(header, cluster, storage.name)
    end = header.backing_file_offset or len(cluster)
    extensions = tuple(_extensions(cluster, header.header_length, end, storage.name))
    area = HeaderArea(header, cluster[Header.SIZE : header.header_length], extensions, name)
    _check_features(area, storage.name)
    _check_tables(area, storage)
    return area


def _fixed_part(header: Header, storage: Storage) -> Header:
    """Check what the rest of the parsing stands on; version 2 gets its implied values."""
    where = storage.name
    header.require("magic", header.magic == layout.MAGIC, repr(layout.MAGIC), where=where)
    header.require(
        "version", header.version in (2, 3), "2 or 3", where=where, error=UnsupportedFeatureError
    )
    is_v2 = header.version == 2
    shortest = layout.HEADER_LENGTH_V2 if is_v2 else layout.HEADER_LENGTH_V3_MIN
    if storage.size < shortest:
        raise TruncatedImageError(
            f"expected at least {shortest} bytes, found {storage.size}", name=where
        )
    header.require(
        "cluster_bits",
        layout.CLUSTER_BITS_MIN <= header.cluster_bits <= layout.CLUSTER_BITS_MAX,
        f"{layout.CLUSTER_BITS_MIN} to {layout.CLUSTER_BITS_MAX}",
        where=where,
    )
    if is_v2:
        return header.replace(
            incompatible_features=0,
            compatible_features=0,
            autoclear_features=0,
            refcount_order=layout.REFCOUNT_ORDER_V2,
            header_length=layout.HEADER_LENGTH_V2,
            compression_type=0,
        )
    length = header.header_length
    header.require(
        "header_length",
        shortest <= length <= 1 << header.cluster_bits and length % 8 == 0,
        f"a multiple of 8 from {shortest} to the cluster size",
        where=where,
    )
    return header


def _backing_name(header: Header, cluster: bytes, where: str) -> bytes | None:
    if header.backing_file_offset == 0:
        return None
    start, length = header.backing_file_offset, header.backing_file_size
    header.require(
        "backing_file_offset",
        header.header_length <= start <= 1 << header.cluster_bits,
        "an offset in the first cluster, behind the header",
        where=where,
    )
    header.require(
        "backing_file_size",
        length <= NAME_BYTES_MAX and start + length <= len(cluster),
        f"at most {NAME_BYTES_MAX}, and to end in the first cluster",
        where=where,
    )
    return cluster[start : start + length] or None


def _extensions(cluster: bytes, start: int, end: int, where: str) -> Iterator[tuple[int, bytes]]:
    position = start
    while position + ExtensionHead.SIZE <= end:
        head = ExtensionHead.unpack(cluster[position : position + ExtensionHead.SIZE])
        if head.type == layout.EXTENSION_END:
            return
        data = position + ExtensionHead.SIZE
        head.require(
            "length",
            head.length <= end - data,
            f"at most 0x{end - data:x}",
            where=where,
            at=position,
        )
        yield head.type, cluster[data : data + head.length]
        position = data + align_up(head.length, 8)


def _pack_extension(kind: int, data: bytes) -> bytes:
    padding = bytes(-len(data) % 8)
    return ExtensionHead(type=kind, length=len(data)).pack() + data + padding


def _check_features(area: HeaderArea, where: str) -> None:
    header = area.header
    unknown = header.incompatible_features & ~layout.INCOMPATIBLE_KNOWN
    if unknown:
        bits = [bit for bit in range(unknown.bit_length()) if unknown >> bit & 1]
        named = ", ".join(area.feature_name(0, bit) for bit in bits)
        raise UnsupportedFeatureError(
            f"expected known incompatible features, found: {named}", name=where
        )
    header.require(
        "crypt_method",
        header.crypt_method in (layout.CRYPT_NONE, layout.CRYPT_AES, layout.CRYPT_LUKS),
        "0 (none), 1 (AES) or 2 (LUKS)",
        where=where,
        error=UnsupportedFeatureError,
    )
    order = header.refcount_order
    header.require("refcount_order", order <= layout.REFCOUNT_ORDER_MAX, "at most 6", where=where)
    is_typed = bool(header.incompatible_features & layout.INCOMPATIBLE_COMPRESSION_TYPE)
    header.require(
        "compression_type",
        is_typed == (header.compression_type != layout.COMPRESSION_ZLIB),
        "0 exactly if the incompatible feature bit 3 is clear",
        where=where,
    )
    header.require(
        "compression_type",
        header.compression_type in layout.COMPRESSION_NAMES,
        "0 (zlib) or 1 (zstd)",
        where=where,
        error=UnsupportedFeatureError,
    )
    header.require(
        "cluster_bits",
        not area.is_extended or header.cluster_bits >= layout.CLUSTER_BITS_MIN_EXTENDED,
        f"at least {layout.CLUSTER_BITS_MIN_EXTENDED} with extended L2 entries",
        where=where,
    )
    if area.is_data_file_raw and area.backing_name is not None:
        raise CorruptImageError(
            "expected no backing file beside a raw external data file", name=where
        )


def _check_tables(area: HeaderArea, storage: Storage) -> None:
    """Refuse tables that are out of bounds, before anything is allocated for them."""
    header, where, cluster_size = area.header, storage.name, area.cluster_size
    header.require(
        "size", header.size <= DISK_SIZE_MAX, f"at most 0x{DISK_SIZE_MAX:x}", where=where
    )
    needed = area.l1_entries_for(header.size)
    l1_bytes = header.l1_size * _ENTRY_BYTES
    header.require(
        "l1_size",
        needed <= header.l1_size and l1_bytes <= layout.L1_BYTES_MAX,
        f"0x{needed:x} to 0x{layout.L1_BYTES_MAX // _ENTRY_BYTES:x}",
        where=where,
    )
    _check_place(header, "l1_table_offset", l1_bytes, cluster_size, storage)
    table_bytes = header.refcount_table_clusters * cluster_size
    limit = max(layout.REFCOUNT_TABLE_BYTES_MAX, cluster_size)
    header.require(
        "refcount_table_clusters",
        0 < table_bytes <= limit,
        f"1 to 0x{limit // cluster_size:x}",
        where=where,
    )
    _check_place(header, "refcount_table_offset", _ENTRY_BYTES, cluster_size, storage)
    header.require(
        "nb_snapshots",
        header.nb_snapshots <= layout.SNAPSHOT_COUNT_MAX,
        f"at most 0x{layout.SNAPSHOT_COUNT_MAX:x}",
        where=where,
    )
    _check_place(header, "snapshots_offset", header.nb_snapshots * 40, cluster_size, storage)


def _check_place(
    header: Header, field: str, length: int, cluster_size: int, storage: Storage
) -> None:
    """A table of ``length`` bytes has to begin at a cluster and to lie in the file."""
    if length == 0:
        return
    offset = getattr(header, field)
    header.require(
        field,
        offset > 0 and offset % cluster_size == 0,
        "a multiple of the cluster size",
        where=storage.name,
    )
    header.require(
        field,
        offset + length <= storage.size,
        f"0x{length:x} bytes inside the file's 0x{storage.size:x}",
        where=storage.name,
        error=TruncatedImageError,
    )


def _read(storage: Storage, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    storage.readinto(memoryview(buffer), offset)
    return bytes(buffer)


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "surrogateescape")
