"""What all sources have that stand over one other source."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Traits


class OverSource:
    """Name, size and traits of the source below; the rest is up to the class over it."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def name(self) -> str:
        """Of the source."""
        return self._source.name

    @property
    def size(self) -> int:
        """Of the source."""
        return self._source.size

    @property
    def traits(self) -> Traits:
        """Of the source."""
        return self._source.traits
