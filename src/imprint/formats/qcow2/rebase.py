"""Naming another backing file.

Header, extensions and name all lie in cluster 0, which may be 2 MiB, while a disk writes 512
bytes at a time as a whole. So the new name goes to where the old header does not look, and one
write of the first sector makes it count. The feature name table gives its place up for that:
it only serves error messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.units import align_up
from imprint.formats.qcow2 import header, layout

if TYPE_CHECKING:
    from imprint.core.contracts import Reference, Storage

_SECTOR: Final = 512


def set_parent(storage: Storage, parent: Reference | None) -> None:
    """Let the image name ``parent``, or no backing file; durable when this returns.

    Raises:
        UsageError: if the name is too long.
        UnsupportedFeatureError: if the image cannot have a backing file.
    """
    old = header.read(storage)
    if parent is not None and old.is_data_file_raw:
        raise UnsupportedFeatureError(
            "an image with a raw external data file cannot have a backing file", name=storage.name
        )
    name = None
    if parent is not None and parent.name is not None:
        name = parent.name.encode("utf-8", "surrogateescape")
    area = old.with_backing(name, None if parent is None else parent.format)
    small = area.with_extension(layout.EXTENSION_FEATURE_NAMES, None)
    packed_area, packed = small.pack(storage.name)
    end = packed_area.header.backing_file_offset or len(packed)
    place = _free_place(old, end, len(name or b""))
    if end > _SECTOR or place is None:
        # Nowhere to put it aside: write it as one, as other programs do.
        _, packed = area.pack(storage.name)
        storage.write(memoryview(packed), 0)
    else:
        first = bytearray(_read(storage, _SECTOR))
        first[:end] = packed[:end]
        if name:
            storage.write(memoryview(name), place)
            storage.flush()
            moved = packed_area.with_header(backing_file_offset=place).pack_header()
            first[: len(moved)] = moved
        storage.write(memoryview(first), 0)
    storage.flush()


def _free_place(old: header.HeaderArea, end: int, length: int) -> int | None:
    """Where ``length`` bytes of cluster 0 are read by neither the old header nor the new one."""
    if length == 0:
        return end
    _, packed = old.pack("")
    start, size = old.header.backing_file_offset, old.header.backing_file_size
    taken = max(align_up(end, _SECTOR), len(packed), start + size)
    return taken if taken + length <= old.cluster_size else None


def _read(storage: Storage, length: int) -> bytes:
    buffer = bytearray(min(length, storage.size))
    storage.readinto(memoryview(buffer), 0)
    return bytes(buffer).ljust(length, b"\0")
