"""What it takes to fit a partition table to another disk: bytes to replace, nothing written.

A disk that is restored gets its fitted table on the way, as if the image had had it. So there is
no moment at which a table is being changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Patch(NamedTuple):
    """Bytes that take the place of others.

    Attributes:
        offset: on the disk, in bytes.
        data: what stands there afterwards.
    """

    offset: int
    data: bytes


@dataclass(frozen=True)
class Change:
    """The disk that a table shall fit.

    Attributes:
        size: of the disk, in bytes.
        sector_size: that its numbers shall count in.
        index: of the partition that gets a new end; ``None``: none does.
        end: that new end: the first byte behind the partition.
    """

    size: int
    sector_size: int
    index: int | None = None
    end: int = 0
