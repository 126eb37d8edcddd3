"""Telling a target what came of a copy, if it keeps that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.contracts import Documenting
from imprint.transfer.hashing import HashSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Source, Target
    from imprint.core.extent import Extent


def hashes_for(target: Target, hashes: HashSet | None) -> HashSet | None:
    """The hashes that were asked for, and those that the target wants to keep."""
    if isinstance(target, Documenting):
        hashes = HashSet(()) if hashes is None else hashes
        hashes.add(target.wanted_hashes)
    return hashes


def document(target: Target, source: Source, hashes: HashSet | None, bad: Iterable[Extent]) -> None:
    """Tell it. Hashes are of the source: of a larger target they say nothing."""
    if isinstance(target, Documenting) and hashes is not None:
        digests = hashes.digests() if target.size == source.size else {}
        target.document(digests, bad)
