"""Blocks of a container that are kept whatever its space manager says."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.apfs import layout
from imprint.filesystems.apfs.layout import Extent, Jumpstart
from imprint.filesystems.apfs.space import Space, pool_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.apfs.checkpoints import Container

_EXTENT: Final = struct.Struct("<QQ")


def reserved(container: Container, space: Space) -> Iterator[Extent]:
    """Superblocks, checkpoints, the space manager's own room, keys, and the driver for EFI.

    Raises:
        CorruptImageError: if some of it is outside of the container.
    """
    yield from fixed(container)
    yield from pool_of(space.manager)
    superblock = container.newest.superblock
    blocked = Extent(superblock.blocked_start, superblock.blocked_count)
    yield container.blocks.check(blocked, "blocks that are not to be allocated")


def fixed(container: Container) -> Iterator[Extent]:
    """The same without the space manager's room.

    Raises:
        CorruptImageError: if some of it is outside of the container.
    """
    yield Extent(0, 1)
    yield container.descriptors
    yield container.data
    block = container.newest.superblock
    for start, count in (
        (block.keybag_start, block.keybag_count),
        (block.media_keys_start, block.media_keys_count),
    ):
        yield container.blocks.check(Extent(start, count), "keys")
    if block.jumpstart:
        yield from _jumpstart(container, block.jumpstart)


def _jumpstart(container: Container, block: int) -> Iterator[Extent]:
    """The block that describes the driver, and the driver."""
    blocks = container.blocks
    content = blocks.physical(block, layout.JUMPSTART, "jumpstart")
    head = Jumpstart.unpack(content)
    room = (blocks.size - Jumpstart.SIZE) // _EXTENT.size
    if head.magic != layout.JUMPSTART_MAGIC or head.extent_count > room:
        raise CorruptImageError("jumpstart: expected its mark and extents", name=blocks.reader.name)
    yield Extent(block, 1)
    for start, count in _EXTENT.iter_unpack(
        content[Jumpstart.SIZE :][: head.extent_count * _EXTENT.size]
    ):
        yield blocks.check(Extent(start, count), "driver for EFI")
