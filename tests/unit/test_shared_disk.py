"""A disk that is read and written at once: who is told of what was written."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import TargetError
from imprint.filters.shared import SharedDisk
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from imprint.core.contracts import Traits


class Full(MemoryStorage):
    """One that has room for no more."""

    def write(self, data: memoryview, offset: int) -> None:
        super().write(data[: len(data) // 2], offset)
        raise TargetError("no space left", name=self.name)


class Large(MemoryStorage):
    """One of large sectors."""

    @property
    def traits(self) -> Traits:
        return replace(super().traits, logical_sector=4096, physical_sector=8192)


def test_every_change_is_told_when_it_can_be_read() -> None:
    """Fails if a write is missed, or told while its bytes cannot be read yet."""
    storage = MemoryStorage(bytes(100_000))
    with closing(SharedDisk(storage)) as disk:
        told: list[tuple[int, int, bytes]] = []

        def note(offset: int, length: int) -> None:
            found = bytearray(2)
            storage.readinto(memoryview(found), offset)
            told.append((offset, length, bytes(found)))

        disk.on_change = note
        disk.write(memoryview(b"abc"), 5000)
        disk.zero(5001, 300)
        disk.zero(0, 10, keeps_room=True)
    assert told == [(5000, 3, b"ab"), (5001, 300, bytes(2)), (0, 10, bytes(2))]


def test_a_write_that_fails_may_have_changed_something() -> None:
    """Fails if half a write goes unnoticed."""
    told: list[tuple[int, int]] = []
    with closing(SharedDisk(Full(bytes(10)))) as disk:
        disk.on_change = lambda offset, length: told.append((offset, length))
        with pytest.raises(TargetError):
            disk.write(memoryview(b"abcd"), 2)
    assert told == [(2, 4)]


def test_an_overlay_has_the_sectors_of_its_disk() -> None:
    """Fails if a table in sectors of 4096 bytes is read otherwise through an overlay."""
    disk = SharedDisk(MemoryStorage(bytes(10)), like=Large(bytes(10)))
    assert (disk.traits.logical_sector, disk.traits.physical_sector) == (4096, 8192)
    assert disk.traits.grain == MemoryStorage(b"").traits.grain
