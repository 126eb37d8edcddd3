"""Images built by hand from the specification: what is right is read, what is wrong is refused.

Source: QEMU ``docs/interop/qcow2.txt``. Expected bytes are those that the builder put there.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    RefusedError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.extent import Kind
from imprint.formats.qcow2 import FORMAT
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.image import Image

CLUSTER = 65536
COPIED = 1 << 63
COMPRESSED = 1 << 62
REFCOUNT_TABLE, REFCOUNT_BLOCK, L1, L2, DATA, MORE = (CLUSTER * n for n in range(1, 7))
SIZE = 10 * CLUSTER


@dataclass
class Builder:
    """A version 3 image: header, refcount table and block, L1, L2, two clusters of data.

    Attributes:
        header: fields by name, as :meth:`pack` packs them.
        extensions: type and data.
        l1: entries.
        l2: 64-bit words.
        data: from cluster ``DATA`` on.
        tail: in place of the mark that ends the extensions.
    """

    header: dict[str, int] = field(
        default_factory=lambda: {
            "version": 3,
            "backing_offset": 0,
            "backing_size": 0,
            "cluster_bits": 16,
            "size": SIZE,
            "crypt_method": 0,
            "l1_size": 1,
            "l1_offset": L1,
            "refcount_table_offset": REFCOUNT_TABLE,
            "refcount_table_clusters": 1,
            "nb_snapshots": 0,
            "snapshots_offset": 0,
            "incompatible": 0,
            "compatible": 0,
            "autoclear": 0,
            "refcount_order": 4,
            "header_length": 112,
            "compression_type": 0,
        }
    )
    extensions: list[tuple[int, bytes]] = field(default_factory=list)
    l1: list[int] = field(default_factory=lambda: [L2 | COPIED])
    l2: list[int] = field(default_factory=lambda: [DATA | COPIED, MORE | COPIED, 0, 1])
    data: bytes = b"A" * CLUSTER + b"B" * CLUSTER
    tail: bytes = b""

    def pack(self) -> bytes:
        head = struct.pack(">4sIQIIQIIQQIIQQQQIIB7x", b"QFI\xfb", *self.header.values())[
            : 72 if self.header["version"] == 2 else None
        ]
        for kind, data in self.extensions:
            head += struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
        head += self.tail or bytes(8)
        parts = {
            0: head,
            REFCOUNT_TABLE: struct.pack(">Q", REFCOUNT_BLOCK),
            REFCOUNT_BLOCK: struct.pack(">7H", *[1] * 7),
            L1: struct.pack(f">{len(self.l1)}Q", *self.l1),
            L2: struct.pack(f">{len(self.l2)}Q", *self.l2),
            DATA: self.data,
        }
        image = bytearray(DATA + len(self.data))
        for offset, part in parts.items():
            image[offset : offset + len(part)] = part
        return bytes(image)

    def open(self) -> Image:
        return FORMAT.open(MemoryStorage(self.pack(), name="disk"), DictOpener())


def build(**changes: Any) -> Builder:  # noqa: ANN401 - header fields, or attributes
    """A builder with header fields or attributes changed."""
    builder = Builder()
    for name, value in changes.items():
        if name in builder.header:
            builder.header[name] = value
        else:
            setattr(builder, name, value)
    return builder


def read(builder: Builder) -> bytes:
    image = builder.open()
    return image.read_at(0, image.size)


def compressed_entry(offset: int, length: int, cluster_bits: int = 16) -> int:
    """The specification's formula, for ``length`` bytes that begin at ``offset``."""
    x = 62 - (cluster_bits - 8)
    sectors = (offset + length + 511) // 512 - offset // 512 - 1
    return COMPRESSED | sectors << x | offset


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(6, zlib.DEFLATED, -12)
    return encoder.compress(data) + encoder.flush()


def test_the_plain_image_reads_as_the_specification_says() -> None:
    """Fails if a table is looked up in the wrong place; holes and zero clusters are zeros."""
    image = build().open()
    assert read(build()) == (b"A" * CLUSTER + b"B" * CLUSTER).ljust(SIZE, b"\0")
    kinds = [(extent.length // CLUSTER, extent.kind) for extent in image.own_extents(0, SIZE)]
    assert kinds == [(2, Kind.DATA), (1, Kind.HOLE), (1, Kind.ZERO), (6, Kind.HOLE)]


def test_the_zero_flag_hides_allocated_data() -> None:
    """Fails if a preallocated zero cluster shows what lies at its place."""
    assert read(build(l2=[DATA | COPIED | 1]))[:CLUSTER] == bytes(CLUSTER)


def test_a_version_2_header_ends_at_byte_72() -> None:
    """Fails if what follows a short header is taken for feature bits."""
    builder = build(version=2, l2=[DATA | COPIED], extensions=[(0xE2792ACA, b"\xff" * 40)])
    image = builder.open()
    assert image.read_at(0, CLUSTER) == b"A" * CLUSTER
    assert image.info().options["compat"] == "0.10"


def test_an_l1_entry_of_a_snapshot_without_flags_is_read_as_well() -> None:
    """Fails if COPIED, which only writers need, decides what is read."""
    assert read(build(l1=[L2], l2=[DATA]))[:CLUSTER] == b"A" * CLUSTER


def test_a_compressed_cluster_may_begin_at_any_byte() -> None:
    """Fails if the descriptor's offset or length is rounded."""
    plain = (b"hello " * 10923)[:CLUSTER]
    stream = raw_deflate(plain)
    for at in (0, 1, 511, 512, 700):
        data = bytes(at) + stream + b"\xee" * 4096
        entry = compressed_entry(DATA + at, len(stream))
        image = build(data=data, l2=[0, entry]).open()
        assert image.read_at(CLUSTER, CLUSTER) == plain
        extent = image._layer.map(CLUSTER, CLUSTER)
        assert (extent.kind, extent.storage_offset) == (Kind.ENCODED, DATA + at)


def test_only_the_last_sector_of_a_compressed_cluster_may_be_missing() -> None:
    """Fails if a file that ends with its data is refused, or one that is cut off is not."""
    plain = bytes(range(256)) * 256
    stream = raw_deflate(plain)
    data = stream.ljust(len(stream) + 100, b"\0")
    entry = compressed_entry(DATA, len(stream))
    assert read(build(data=stream, l2=[entry]))[:CLUSTER] == plain
    longer = compressed_entry(DATA, len(stream) + 1024)
    with pytest.raises(TruncatedImageError, match="compressed cluster at 0x50000"):
        read(build(data=data, l2=[longer]))


def test_a_cluster_that_ends_behind_the_file_is_filled_up_with_zeros() -> None:
    """Fails if the short last cluster that some writers leave is refused, or repeats bytes."""
    builder = build(data=b"A" * 1000, l2=[DATA | COPIED])
    assert read(builder)[:CLUSTER] == (b"A" * 1000).ljust(CLUSTER, b"\0")
    image = builder.open()
    assert [extent.kind for extent in image.own_extents(0, CLUSTER)] == [Kind.DATA, Kind.ZERO]
    assert image.read_at(2000, 10) == bytes(10)


def test_subclusters_are_data_zeros_or_holes_one_by_one() -> None:
    """Fails if a bit of the subcluster bitmap is off by one or from the wrong half."""
    sub = CLUSTER // 32
    allocated, zero = 0b1011, 0b0100
    words = [DATA | COPIED, zero << 32 | allocated, DATA | COPIED, 1 << 31]
    image = build(incompatible=16, l2=words).open()
    assert [(extent.offset // sub, extent.length // sub, extent.kind) for extent in
            image.own_extents(0, 2 * CLUSTER)] == [
        (0, 2, Kind.DATA),
        (2, 1, Kind.ZERO),
        (3, 1, Kind.DATA),
        (4, 59, Kind.HOLE),
        (63, 1, Kind.DATA),
    ]  # fmt: skip
    assert image.traits.grain == sub


def test_the_image_names_features_that_we_do_not_know() -> None:
    """Fails if a newer image is opened, or refused without saying what it needs."""
    names = struct.pack(">BB46s", 0, 7, b"quantum clusters")
    builder = build(incompatible=1 << 7 | 1 << 9, extensions=[(0x6803F857, names)])
    with pytest.raises(UnsupportedFeatureError, match="quantum clusters, incompatible feature 9"):
        builder.open()


def test_unknown_compatible_and_autoclear_bits_do_not_matter_for_reading() -> None:
    """Fails if an image is refused for what the specification lets a reader ignore."""
    image = build(compatible=1 << 20, autoclear=1 << 40).open()
    assert image.read_at(0, 1) == b"A"
    assert "autoclear feature 40" in image.info().features


def header_of(storage: MemoryStorage) -> dict[str, int]:
    packed = struct.unpack(">4sIQIIQIIQQIIQQQQIIB7x", storage.content[:112])
    return dict(zip(Builder().header, packed[1:], strict=True))


def test_editing_clears_unknown_autoclear_bits_and_keeps_all_else() -> None:
    """Fails if a stale autoclear feature survives, or an unknown extension is lost."""
    builder = build(
        autoclear=1 << 40 | 2,
        compatible=1 << 20,
        extensions=[(0x12345678, b"of a newer program")],
    )
    storage = MemoryStorage(builder.pack())
    with FORMAT.edit(storage, DictOpener()) as image:
        assert header_of(storage)["autoclear"] == 1 << 40 | 2  # not before the first write
        image.write(memoryview(b"x"), 0)
        image.flush()
    assert header_of(storage)["autoclear"] == 2
    assert header_of(storage)["compatible"] == 1 << 20
    assert b"of a newer program" in storage.content[:CLUSTER]


def test_newer_header_fields_survive_an_edit() -> None:
    """Fails if bytes of a header that is longer than ours are lost or taken for extensions."""
    builder = build(header_length=120)
    builder.extensions = []
    content = bytearray(builder.pack())
    content[112:120] = b"newfield"
    content[120:128] = bytes(8)
    storage = MemoryStorage(content)
    with FORMAT.edit(storage, DictOpener()) as image:
        image.resize(SIZE * 9000)  # a longer L1 table makes the header change
    assert storage.content[112:120] == b"newfield"
    assert header_of(storage)["size"] == SIZE * 9000


@pytest.mark.parametrize(
    ("bit", "advice"), [(1, "rebuilds"), (2, "may restore")], ids=["dirty", "corrupt"]
)
def test_a_dirty_or_corrupt_image_is_read_but_not_changed(bit: int, advice: str) -> None:
    """Fails if writing goes on with refcounts that are known to be wrong."""
    builder = build(incompatible=bit)
    assert read(builder)[:1] == b"A"
    with pytest.raises(RefusedError) as caught:
        FORMAT.edit(MemoryStorage(builder.pack()), DictOpener())
    assert advice in (caught.value.advice or "")
    assert builder.open().info().notes


BROKEN: dict[str, tuple[Callable[[], Builder], type[ImagingError]]] = {
    "version 4": (lambda: build(version=4), UnsupportedFeatureError),
    "clusters of 256 bytes": (lambda: build(cluster_bits=8), CorruptImageError),
    "clusters of 4 MiB": (lambda: build(cluster_bits=22), CorruptImageError),
    "cluster bits that overflow": (lambda: build(cluster_bits=0xFFFFFFFF), CorruptImageError),
    "a header of 100 bytes": (lambda: build(header_length=100), CorruptImageError),
    "an unaligned header length": (lambda: build(header_length=105), CorruptImageError),
    "a header beyond its cluster": (lambda: build(header_length=1 << 20), CorruptImageError),
    "refcounts of 128 bits": (lambda: build(refcount_order=7), CorruptImageError),
    "unknown encryption": (lambda: build(crypt_method=3), UnsupportedFeatureError),
    "a disk of 8 EiB": (lambda: build(size=1 << 63), CorruptImageError),
    "an L1 table that is too small": (lambda: build(l1_size=0), CorruptImageError),
    "an L1 table of 32 GiB": (lambda: build(l1_size=0xFFFFFFFF), CorruptImageError),
    "an L1 table behind the end": (lambda: build(l1_offset=1 << 40), TruncatedImageError),
    "an L1 table over the end": (lambda: build(l1_size=4 << 20), TruncatedImageError),
    "an unaligned L1 table": (lambda: build(l1_offset=L1 + 8), CorruptImageError),
    "an L1 table at 0": (lambda: build(l1_offset=0), CorruptImageError),
    "no refcount table": (lambda: build(refcount_table_clusters=0), CorruptImageError),
    "a huge refcount table": (lambda: build(refcount_table_clusters=1 << 20), CorruptImageError),
    "an unaligned refcount table": (lambda: build(refcount_table_offset=7), CorruptImageError),
    "too many snapshots": (lambda: build(nb_snapshots=65537), CorruptImageError),
    "snapshots behind the end": (
        lambda: build(nb_snapshots=1, snapshots_offset=1 << 50),
        TruncatedImageError,
    ),
    "a type without its bit": (lambda: build(compression_type=1), CorruptImageError),
    "a bit without its type": (lambda: build(incompatible=8), CorruptImageError),
    "an unknown compression": (
        lambda: build(incompatible=8, compression_type=9),
        UnsupportedFeatureError,
    ),
    "subclusters of 256 bytes": (
        lambda: build(incompatible=16, cluster_bits=13),
        CorruptImageError,
    ),
    "a data file without a name": (lambda: build(incompatible=4), CorruptImageError),
    "a backing file beside a raw data file": (
        lambda: build(
            incompatible=4,
            autoclear=2,
            backing_offset=256,
            backing_size=4,
            extensions=[(0x44415441, b"x")],
        ),
        CorruptImageError,
    ),
    "a backing name of 1024 bytes": (
        lambda: build(backing_offset=2048, backing_size=1024),
        CorruptImageError,
    ),
    "a backing name behind the cluster": (
        lambda: build(backing_offset=CLUSTER - 2, backing_size=4, data=b""),
        CorruptImageError,
    ),
    "a backing name inside the header": (
        lambda: build(backing_offset=8, backing_size=4),
        CorruptImageError,
    ),
    "an extension that never ends": (
        lambda: build(extensions=[(0x999, b"")], tail=struct.pack(">II", 7, 1 << 30)),
        CorruptImageError,
    ),
    "reserved bits in L1": (lambda: build(l1=[L2 | 1]), CorruptImageError),
    "reserved high bits in L1": (lambda: build(l1=[L2 | 1 << 60]), CorruptImageError),
    "an unaligned L2 table": (lambda: build(l1=[L2 + 512]), CorruptImageError),
    "an L2 table behind the end": (lambda: build(l1=[1 << 40]), TruncatedImageError),
    "an L2 table over the end": (
        lambda: build(l1=[DATA], data=b"A" * 512),
        TruncatedImageError,
    ),
    "reserved bits in L2": (lambda: build(l2=[DATA | 2]), CorruptImageError),
    "reserved high bits in L2": (lambda: build(l2=[DATA | 1 << 58]), CorruptImageError),
    "an unaligned cluster": (lambda: build(l2=[DATA + 512]), CorruptImageError),
    "a cluster behind the end": (lambda: build(l2=[1 << 40]), TruncatedImageError),
    "a cluster on the header": (lambda: build(l2=[COPIED]), CorruptImageError),
    "a zero flag in version 2": (lambda: build(version=2, l2=[1]), CorruptImageError),
    "a zero flag with subclusters": (
        lambda: build(incompatible=16, l2=[DATA | 1, 1]),
        CorruptImageError,
    ),
    "a subcluster that is both": (
        lambda: build(incompatible=16, l2=[DATA, 1 << 32 | 1]),
        CorruptImageError,
    ),
    "a subcluster without a cluster": (
        lambda: build(incompatible=16, l2=[0, 1]),
        CorruptImageError,
    ),
    "a compressed cluster behind the end": (
        lambda: build(l2=[compressed_entry(1 << 40, 100)]),
        TruncatedImageError,
    ),
    "a compressed cluster of garbage": (
        lambda: build(l2=[compressed_entry(DATA, 1000)], data=b"\xff" * CLUSTER),
        CorruptImageError,
    ),
    "a compressed cluster that is too short": (
        lambda: build(
            l2=[compressed_entry(DATA, 100)], data=raw_deflate(b"x" * 1000).ljust(CLUSTER)
        ),
        CorruptImageError,
    ),
    "garbage in place of Zstandard": (
        lambda: build(incompatible=8, compression_type=1, l2=[compressed_entry(DATA, 1000)]),
        CorruptImageError,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_refused(name: str) -> None:
    """Fails if damage is read as data, or raises anything that is no imaging error."""
    builder, error = BROKEN[name]
    with pytest.raises(error) as caught:
        read(builder())
    assert "disk" in str(caught.value)


def test_a_file_without_a_header_is_truncated() -> None:
    """Fails if a file of a few bytes raises a low-level error."""
    content = build().pack()
    for length in (8, 71, 72, 103, 104, 111):
        with pytest.raises(ImagingError):
            FORMAT.open(MemoryStorage(content[:length]), DictOpener())


def test_a_cluster_on_a_table_is_not_overwritten() -> None:
    """Fails if a damaged or hostile image makes us write data over its own tables."""
    for place in (L1, L2, REFCOUNT_TABLE, REFCOUNT_BLOCK):
        storage = MemoryStorage(build(l2=[place | COPIED]).pack())
        image = FORMAT.edit(storage, DictOpener())
        before = bytes(storage.content)
        with pytest.raises(RefusedError, match="belongs to a table"):
            image.write(memoryview(b"x" * CLUSTER), 0)
        assert storage.content == before


def test_a_sparse_disk_of_64_tib_is_mapped_by_its_l1_table_alone() -> None:
    """Fails if holes are mapped cluster by cluster: 2^30 of them would take minutes."""
    builder = build(size=64 << 40, l1_size=131072, l1=[], data=b"")
    builder.header["l1_offset"] = MORE
    content = bytearray(builder.pack())
    content.extend(bytes(MORE + 131072 * 8 - len(content)))
    struct.pack_into(">Q", content, MORE + 8 * 100_000, L2)
    struct.pack_into(">4Q", content, L2, 1, 1, 0, 0)
    image = FORMAT.open(MemoryStorage(content), DictOpener())
    table = 8192 * CLUSTER
    assert [tuple(extent)[:3] for extent in image.extents(0, image.size)] == [
        (0, 100_000 * table, Kind.HOLE),
        (100_000 * table, 2 * CLUSTER, Kind.ZERO),
        (100_000 * table + 2 * CLUSTER, image.size - 100_000 * table - 2 * CLUSTER, Kind.HOLE),
    ]
