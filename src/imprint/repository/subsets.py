"""Which packs of a repository are read, when reading all of them takes too long."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping

_PART: Final = re.compile(r"(\d{1,6})/(\d{1,6})\Z")
_PERCENT: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%\Z")
_PERCENT_ALL: Final = 100.0


@dataclass(frozen=True)
class Subset:
    """A part of the packs.

    Attributes:
        percent: so many of them, chosen by chance.
        part: of ``parts``, from 1 on: every pack is in one of them, and always in the same.
        parts: how many there are.
        size: so many bytes of them, chosen by chance; at least one.
    """

    percent: float | None = None
    part: int = 1
    parts: int = 1
    size: int | None = None

    @classmethod
    def parse(cls, text: str) -> Subset:
        """Of ``5%``, ``1/10`` or ``500M``.

        Raises:
            UsageError: if it is none of them.
        """
        percent, part = _PERCENT.match(text), _PART.match(text)
        if percent is not None and 0 < float(percent[1]) <= _PERCENT_ALL:
            return cls(percent=float(percent[1]))
        if part is not None and 1 <= int(part[1]) <= int(part[2]):
            return cls(part=int(part[1]), parts=int(part[2]))
        if percent is not None or part is not None:
            raise UsageError(f"expected a part such as 5%, 1/10 or 500M, found {text!r:.40}")
        return cls(size=parse_size(text))

    def choose(self, packs: Mapping[bytes, int], seed: int | None = None) -> list[bytes]:
        """The packs to read.

        Args:
            packs: names of all, with their sizes in bytes.
            seed: the same one chooses the same packs; ``None``: others each time.
        """
        names = sorted(packs)
        if self.percent is None and self.size is None:
            # By name, so that a part stays what it was when packs are added.
            return [
                name
                for name in names
                if int.from_bytes(name[:8], "big") % self.parts == self.part - 1
            ]
        random.Random(seed).shuffle(names)  # noqa: S311 - nobody has to be surprised
        if self.percent is not None:
            return sorted(names[: max(1, round(len(names) * self.percent / _PERCENT_ALL))])
        chosen, left = [], self.size or 0
        for name in names:
            chosen.append(name)
            left -= packs[name]
            if left <= 0:
                break
        return sorted(chosen)


ALL: Final = Subset()
"""All packs."""
