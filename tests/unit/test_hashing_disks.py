"""Reading whole disks: hashes, and damage that does not stop the reading."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.cancel import CancelToken
from imprint.core.contracts import Traits
from imprint.core.errors import Cancelled, CorruptImageError, ReadError
from imprint.core.extent import Extent, Kind
from imprint.endpoints.hashing import hash_disk, verify_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1024
SIZE = 300 * KIB


class Failing:
    """A disk of sevens; blocks of 4 KiB in ``bad`` fail, its map ends at ``map_end``."""

    def __init__(self, bad: set[int], *, size: int = SIZE, map_end: int | None = None) -> None:
        self.name = "failing"
        self.size = size
        self.traits = Traits(grain=4096)
        self._bad = bad
        self._map_end = size if map_end is None else map_end

    def readinto(self, buffer: memoryview, offset: int) -> None:
        for block in range(offset // 4096, -(-(offset + len(buffer)) // 4096)):
            if block in self._bad:
                raise CorruptImageError(f"block {block} is broken", name=self.name)
        buffer[:] = b"\7" * len(buffer)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = min(offset + length, self._map_end)
        if end > offset:
            yield Extent(offset, end - offset, Kind.ENCODED)
        if end < offset + length:
            raise ReadError("the map ends here", name=self.name)

    def close(self) -> None:
        pass


@given(bad=st.sets(st.integers(0, SIZE // 4096 - 1), max_size=8), workers=st.integers(1, 3))
def test_exactly_what_is_broken_is_listed(bad: set[int], workers: int) -> None:
    """Fails if damage is missed, too large, or stops the search for more."""
    found = verify_disk(Failing(bad), ("md5",), {}, workers=workers)
    listed = {
        block
        for item in found.damage
        for block in range(item.offset // 4096, (item.offset + item.length) // 4096)
    }
    assert listed == bad
    for item in found.damage:
        assert item.what == f"block {item.offset // 4096} is broken"
        assert item.offset // 4096 - 1 not in bad
    assert found.ok is not bool(bad)
    assert found.hashes == ({} if bad else {"md5": hashlib.md5(b"\7" * SIZE).hexdigest()})


def test_a_map_that_ends_early_is_damage_to_the_end() -> None:
    """Fails if a broken table is an exception, or what it does not map counts as read."""
    found = verify_disk(Failing({1}, map_end=100 * KIB), ("md5",), {})
    assert [(item.offset, item.length) for item in found.damage] == [
        (4096, 4096),
        (100 * KIB, SIZE - 100 * KIB),
    ]
    assert found.damage[1].what == "the map ends here"


def test_nothing_is_as_expected_if_something_is_broken() -> None:
    """Fails if a hash of zeros instead of damage passes for the right one."""
    wrong = hashlib.md5(bytes(4096) + b"\7" * (SIZE - 4096)).hexdigest()
    found = verify_disk(Failing({0}), (), {"md5": wrong})
    assert not found.ok
    assert found.wrong == {"md5": wrong}


def test_expected_hashes_are_taken_even_if_nobody_asked_for_them() -> None:
    """Fails if an expectation is not looked at."""
    right = hashlib.sha1(b"\7" * SIZE).hexdigest()
    assert verify_disk(Failing(set()), (), {"sha1": right.upper()}).ok
    assert not verify_disk(Failing(set()), (), {"sha1": "0" * 40}).ok


def test_hashing_stops_at_what_cannot_be_read() -> None:
    """Fails if a hash is given of what was not read."""
    with pytest.raises(CorruptImageError):
        hash_disk(Failing({5}), ("md5",))


def test_hashing_a_huge_hole_can_be_stopped() -> None:
    """Fails if a hole is hashed in one go, for hours."""

    class Hole(Failing):
        def extents(self, offset: int, length: int) -> Iterator[Extent]:
            yield Extent(offset, length, Kind.HOLE)

    cancel = CancelToken()
    seen: list[object] = []

    def stop(event: object) -> None:
        seen.append(event)
        cancel.cancel()

    with pytest.raises(Cancelled):
        hash_disk(Hole(set(), size=1 << 50), ("md5",), on_event=stop, cancel=cancel)
    assert len(seen) == 1
