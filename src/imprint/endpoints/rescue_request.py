"""How a medium that fails shall be rescued, as the user asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class RescueRequest:
    """What ``capture`` does when its source cannot be read.

    Attributes:
        retries: how often bad sectors are tried again in the end.
        reverse: begin at the medium's end, once there is an error.
        timeout_s: how long to wait for a read; ``None``: as long as the system does.
        metadata_first: read tables and the metadata of file systems first, then what they use.
        fill: what is repeated over bad areas; empty: zeros.
        merge: ``(address, map file)`` of other partial copies of the same medium.
        map_path: of the map; ``None``: beside the target.
        save_interval_s: between two times that the map is saved.
    """

    retries: int = 0
    reverse: bool = False
    timeout_s: float | None = None
    metadata_first: bool = False
    fill: bytes = b""
    merge: tuple[tuple[str, Path], ...] = ()
    map_path: Path | None = None
    save_interval_s: float = 10.0

    @property
    def is_at_once(self) -> bool:
        """Whether there is something to do in another order before anything has failed."""
        return self.metadata_first or bool(self.merge)
