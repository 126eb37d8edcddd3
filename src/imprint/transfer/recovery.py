"""What a copy does when its source fails: the contract between it and a rescue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.core.errors import ReadError
    from imprint.core.extent import Extent


@dataclass(frozen=True)
class Recovered:
    """What a copy goes on with after its source has failed.

    Attributes:
        source: what the rest is read from; it has the size of the other.
        start: bytes below this are in the target already; they are only hashed.
        bad: what could not be read, ascending.
        bytes_read: that were read from the medium meanwhile.
    """

    source: Source
    start: int
    bad: list[Extent] = field(default_factory=list)
    bytes_read: int = 0


class Recovery(Protocol):
    """Knows what to do when a source cannot be read."""

    @property
    def is_in_place(self) -> bool:
        """Whether what it recovers goes into the target, which has to be kept then."""

    def recover(self, position: int, error: ReadError) -> Recovered:
        """Get what can be had of the source behind ``position``; all before was handed over.

        Raises:
            ReadError: if it cannot be helped.
        """
