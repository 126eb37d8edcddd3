"""What a copy has done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imprint.core.extent import Extent
    from imprint.transfer.hashing import Piece


@dataclass
class Report:
    """Counts of one copy; all in bytes.

    Attributes:
        size: of the disk.
        bytes_read: that were read from the source.
        bytes_written: that were handed to the target, before any compression.
        resumed_at: where an earlier attempt had come to; 0 if there was none.
        bad: what could not be read; empty if all went well.
        hashes: of the whole content, by name.
        pieces: hashes of each piece, if that was asked for.
        duration_s: of the copy, the final flush included.
    """

    size: int
    bytes_read: int = 0
    bytes_written: int = 0
    resumed_at: int = 0
    bad: list[Extent] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    duration_s: float = 0.0
