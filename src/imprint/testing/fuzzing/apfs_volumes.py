"""Target: APFS. Real containers have some MiB, so the seeds are put together by hand."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.filesystems.apfs import FILE_SYSTEM, layout
from imprint.storage.memory import MemoryStorage
from imprint.testing import apfs_volume
from imprint.testing.apfs_volume import BLOCK, BLOCKS, container, seal
from imprint.testing.fuzzing.target import Place, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

_REACHED_MAX: Final = 20_000

_SEALED: Final = (
    *range(13),
    *range(apfs_volume.ADDRESSES, apfs_volume.INFO + 2),
    *range(apfs_volume.JUMPSTART, 54),
)
"""Blocks that hold objects: all but bitmaps and files."""


def targets() -> Iterator[Target]:
    """The only one."""
    entry = layout.CheckpointMap.SIZE
    yield Target(
        "apfs",
        lambda: [container(), container(is_listed=True), container(is_encrypted=True)],
        (map_apfs, walk_apfs),
        places=(
            Place(layout.ContainerSuperblock),
            *(Place(layout.ContainerSuperblock, block * BLOCK) for block in (2, 4)),
            *(Place(layout.CheckpointMap, block * BLOCK) for block in (1, 3)),
            *(Place(layout.CheckpointEntry, 3 * BLOCK + entry + 40 * index) for index in range(2)),
            *(Place(layout.SpaceManager, block * BLOCK) for block in (9, 11)),
            *(Place(layout.ChunkBlock, block * BLOCK) for block in (19, 20, 21)),
            Place(layout.Jumpstart, apfs_volume.JUMPSTART * BLOCK),
            *(Place(layout.ObjectMap, block * BLOCK) for block in (40, 45)),
            Place(layout.VolumeSuperblock, apfs_volume.VOLUME * BLOCK),
            *(Place(layout.Node, block * BLOCK) for block in (10, 41, 46, 47, *range(48, 53))),
        ),
        words=tuple(number.to_bytes(8, "little") for number in (1, 40, 48, 52, BLOCKS, BLOCK)),
        seal=_seal,
    )


def map_apfs(content: bytes) -> None:
    """What it uses lies inside of it."""
    found = FILE_SYSTEM.allocation(MemoryStorage(content, name="volume"))
    assert found.used.end <= len(content)


def walk_apfs(content: bytes) -> None:
    """So does what can be reached."""
    runs = FILE_SYSTEM.reached(MemoryStorage(content, name="volume"))
    deque(islice(runs, _REACHED_MAX), maxlen=0)


def _seal(content: bytearray) -> None:
    """Make all checksums right."""
    for block in _SEALED:
        seal(content, block)
