"""Reading past bad areas: every readable sector arrives, every other one is listed."""

from __future__ import annotations

import random

from imprint.core.extent import Extent, Kind
from imprint.filters.salvage import Salvaging
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import FaultyStorage
from imprint.transfer.copy import copy

MIB = 1 << 20


def test_everything_but_the_bad_sectors_arrives() -> None:
    """Fails if one bad sector costs its neighbours, or is not recorded."""
    content = random.Random(3).randbytes(2 * MIB)
    bad = [(5 * 512, 512), (MIB - 512, 1536)]
    source = Salvaging(FaultyStorage(MemoryStorage(content), bad=bad))
    target = MemoryStorage(bytes(2 * MIB))

    report = copy(source, target, workers=2)

    expected = bytearray(content)
    for offset, length in bad:
        expected[offset : offset + length] = bytes(length)
    assert bytes(target.content) == bytes(expected)
    assert report.bad == [
        Extent(5 * 512, 512, Kind.BAD),
        Extent(MIB - 512, 1536, Kind.BAD),
    ]
