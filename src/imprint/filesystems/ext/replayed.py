"""A volume with the copies of blocks that its journal has: read where they lie in the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.filesystems.ext.layout import JOURNAL_MAGIC
from imprint.filters.replayed import Replayed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.core.contracts import Source
    from imprint.filesystems.ext.journal import Copy


def replayed(
    volume: Source,
    copies: Mapping[int, Copy],
    block_size: int,
    held: Mapping[int, bytes] | None = None,
) -> Replayed:
    """The volume as it is once these copies are written back.

    Args:
        volume: as it is on the disk.
        copies: of the log, by the block that they belong to.
        block_size: of the file system, in bytes.
        held: blocks that are something else again.
    """
    mark = JOURNAL_MAGIC.to_bytes(4, "big")
    return Replayed(
        volume,
        block_size,
        moved={block: copy.offset for block, copy in copies.items()},
        begun={block: mark for block, copy in copies.items() if copy.is_escaped},
        held=held,
    )
