"""Tables as large as a hostile file can have: what grows with them has to stay in bounds."""

from __future__ import annotations

import random

import pytest

from imprint import formats
from imprint.core.formats import Checkable
from imprint.core.units import GIB, KIB, MIB
from imprint.formats.vhd import layout
from imprint.storage.memory import MemoryStorage
from imprint.testing.format_faults import bounded_memory
from imprint.testing.fuzzing.images import made, small_disk
from imprint.testing.opener import DictOpener

ENTRIES = 1 << 20


@pytest.mark.parametrize("entry", [None, b"\0\0\0\3"], ids=["garbage", "all-the-same"])
def test_a_table_of_a_million_blocks_takes_little_memory_to_check(entry: bytes | None) -> None:
    """Fails if each entry of a VHD's table costs more than a number: four million are allowed."""
    sound = made("vhd", small_disk(), block_size="4K")
    table = random.Random(1).randbytes(4 * ENTRIES) if entry is None else entry * ENTRIES
    footer = layout.Footer.unpack(sound).replace(
        current_size=512 * GIB, original_size=512 * GIB, creator_app=b"win "
    )
    header = layout.Header.unpack(sound[512:]).replace(
        table_offset=1536, table_entries=ENTRIES, block_size=512 * KIB
    )
    ends = footer.sealed().pack()
    storage = MemoryStorage(ends + header.sealed().pack() + table + ends)
    vhd = formats.get("vhd")
    assert isinstance(vhd, Checkable)
    with bounded_memory(80 * MIB):
        found = list(vhd.check(storage, DictOpener(), repair=False))
    assert len(found) > 1000
