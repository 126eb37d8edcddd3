"""What volumes are made of that are not partitions: logical volumes, arrays, unlocked ones.

A *container* spreads over members (partitions, or whole disks) and holds volumes. What it does
not use of a member may be left out of an image; what a volume's file system does not use,
too: :attr:`Inner.pieces` says where in the members it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.filters.pieces import Piece

NOTES_MAX: Final = 16
"""Of one container: it may hold thousands of volumes that cannot be read."""


@dataclass(frozen=True)
class Inner:
    """A volume in a container.

    Attributes:
        name: as an address has it behind ``#``: ``lvm/group/root``, ``luks``.
        source: its content. It does not own the members.
        pieces: where its bytes are in the members. A mirrored volume has several for the same
            bytes. Encrypted ones are as long as their plain text. None at all if nothing of
            it may be left out: a snapshot may need what its file system has freed.
    """

    name: str
    source: Source
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Assembly:
    """A container that was put together.

    Attributes:
        name: of the container, for people: ``volume group vg0``.
        volumes: what is in it.
        free: for each member, in bytes of it: what neither the container nor a volume uses.
        notes: what a user should know, one sentence each.
    """

    name: str
    volumes: tuple[Inner, ...]
    free: tuple[Runs, ...]
    notes: tuple[str, ...] = ()


def few(notes: Sequence[str]) -> tuple[str, ...]:
    """The first of many notes, and how many more there are."""
    if len(notes) <= NOTES_MAX:
        return tuple(notes)
    return (*notes[:NOTES_MAX], f"and {len(notes) - NOTES_MAX} more of the kind")
