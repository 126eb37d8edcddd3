"""What the superblock of a Btrfs says: its shape, its features, and which of them we know."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import KIB
from imprint.filesystems.btrfs import layout
from imprint.filesystems.btrfs.layout import Superblock

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.filesystems.allocation import VolumeReader

    Checksum = Callable[[memoryview], bytes]

_CRC32C: Final = 0
_XXHASH64: Final = 1
_SHA256: Final = 2
_BLAKE2B: Final = 3
_SIZES: Final = (4 * KIB, 8 * KIB, 16 * KIB, 32 * KIB, 64 * KIB)


@dataclass(frozen=True)
class Geometry:
    """The shape of a file system.

    Attributes:
        superblock: the first, which is the one that is mounted.
        checksum: of a superblock, and of a node.
        uuid: that nodes have.
        newest_copy: the highest generation of the other superblocks that are sound.
    """

    superblock: Superblock
    checksum: Checksum
    uuid: bytes
    newest_copy: int

    @property
    def node_size(self) -> int:
        """In bytes."""
        return self.superblock.node_size

    @property
    def sector_size(self) -> int:
        """In bytes; of data."""
        return self.superblock.sector_size

    def has(self, compat_ro: int) -> bool:
        """Whether all of these features are there."""
        return not compat_ro & ~self.superblock.compat_ro


def is_sealed(checksum: Checksum, data: memoryview) -> bool:
    """Whether a superblock or node begins with the checksum of the rest of it."""
    value = checksum(data[layout.CHECKSUM_BYTES :])
    return data[: len(value)] == value


def read_geometry(reader: VolumeReader) -> Geometry:
    """Read the superblocks and refuse what the first must not be.

    Raises:
        CorruptImageError: if it contradicts itself or the volume.
        UnsupportedFeatureError: if there is a feature that is not known, or a second device.
        ReadError: if it cannot be read.
    """
    name, first = reader.name, layout.SUPERBLOCKS_AT[0]
    data = memoryview(reader.read(first, layout.SUPERBLOCK_BYTES, "superblock"))
    block = Superblock.unpack(data, where=name)
    block.require("magic", block.magic == layout.MAGIC, "_BHRfS_M", where=name, at=first)
    checksum = _checksum(block.checksum_type, name)
    if not is_sealed(checksum, data):
        raise CorruptImageError("superblock: the checksum does not match", name=name, offset=first)
    _check_features(block, name)
    _check_shape(block, reader)
    has_other = block.incompat & layout.INCOMPAT_METADATA_UUID
    uuid = block.metadata_uuid if has_other else block.uuid
    return Geometry(block, checksum, uuid, _newest_copy(reader, block, checksum))


def _checksum(kind: int, name: str) -> Checksum:
    if kind == _CRC32C:
        return lambda data: crc32c(data).to_bytes(4, "little")
    if kind == _SHA256:
        return lambda data: hashlib.sha256(data).digest()
    if kind == _BLAKE2B:
        return lambda data: hashlib.blake2b(data, digest_size=layout.CHECKSUM_BYTES).digest()
    found = "xxhash64" if kind == _XXHASH64 else str(kind)
    raise UnsupportedFeatureError(
        f"Btrfs: expected checksums by crc32c, sha256 or blake2b, found {found}", name=name
    )


def _newest_copy(reader: VolumeReader, first: Superblock, checksum: Checksum) -> int:
    """The highest generation of the sound copies; a commit of the log writes the first only."""
    newest = 0
    for offset in layout.SUPERBLOCKS_AT[1:]:
        if offset + layout.SUPERBLOCK_BYTES > min(reader.size, first.device_bytes):
            break
        data = memoryview(reader.read(offset, layout.SUPERBLOCK_BYTES, "copy of the superblock"))
        block = Superblock.unpack(data)
        identity = block.magic, block.own_offset, block.uuid
        if identity == (layout.MAGIC, offset, first.uuid) and is_sealed(checksum, data):
            newest = max(newest, block.generation)
    return newest


def _check_features(block: Superblock, name: str) -> None:
    unknown = block.incompat & ~layout.INCOMPAT_KNOWN
    if unknown:
        names = [text for bit, text in layout.INCOMPAT_NAMES.items() if unknown >> bit & 1]
        found = ", ".join(names) or f"0x{unknown:x}"
        raise UnsupportedFeatureError(f"Btrfs: expected known features, found {found}", name=name)
    if not block.incompat & layout.INCOMPAT_MIXED_BACKREF:
        raise UnsupportedFeatureError("Btrfs: expected mixed back references", name=name)
    unknown = block.compat_ro & ~layout.RO_KNOWN
    if unknown:
        raise UnsupportedFeatureError(
            f"Btrfs: expected known features for writing, found 0x{unknown:x}", name=name
        )
    if block.flags & layout.FLAG_SEEDING:
        raise UnsupportedFeatureError("Btrfs: is a seed of others", name=name)
    if block.flags & ~layout.FLAGS_KNOWN:
        raise UnsupportedFeatureError(
            f"Btrfs: expected known flags, found 0x{block.flags:x}: "
            "an incomplete conversion, or a dump of metadata",
            name=name,
        )
    if block.device_count > 1:
        raise UnsupportedFeatureError(
            f"Btrfs: expected one device, found {block.device_count}", name=name
        )


def _check_shape(block: Superblock, reader: VolumeReader) -> None:
    """Sizes fit each other and the volume."""
    first = layout.SUPERBLOCKS_AT[0]

    def require(field: str, holds: bool, expected: str) -> None:  # noqa: FBT001 - as its base
        block.require(field, holds, expected, where=reader.name, at=first)

    require("own_offset", block.own_offset == first, "its own place")
    require("device_count", block.device_count == 1, "one device")
    require("device", block.device > 0, "the number of a device")
    require("sector_size", block.sector_size in _SIZES, "4 to 64 KiB")
    require("node_size", block.node_size in _SIZES, "4 to 64 KiB")
    require("node_size", block.node_size >= block.sector_size, "a sector or more")
    require("root_level", block.root_level <= layout.LEVEL_MAX, "7 or less")
    require("chunk_root_level", block.chunk_root_level <= layout.LEVEL_MAX, "7 or less")
    require("log_root_level", block.log_root_level <= layout.LEVEL_MAX, "7 or less")
    room = Superblock.FIELDS["chunk_array"].size
    require("chunk_array_bytes", block.chunk_array_bytes <= room, "2048 or less")
    reader.check(0, block.device_bytes, "Btrfs")
