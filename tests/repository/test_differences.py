"""The ranges in which two snapshots differ, found by walking both trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.runs import Runs
from imprint.objects.memory import MemoryStore
from imprint.repository.differences import changed_ranges
from imprint.testing.small_repositories import (
    CHUNK_BYTES,
    LEAF_CHUNKS,
    disk_content,
    put_disk,
    reopened,
    small_repository,
)

if TYPE_CHECKING:
    from imprint.repository.repository import Repository

C = CHUNK_BYTES


def differences(repository: Repository, one: bytes, other: bytes) -> list[tuple[int, int]]:
    older, newer = put_disk(repository, one), put_disk(repository, other, minute=1)
    found = list(changed_ranges(reopened(repository), older, newer))
    assert list(changed_ranges(reopened(repository), newer, older)) == found
    return found


def test_equal_disks_differ_nowhere() -> None:
    """An unchanged disk is the most common one."""
    content = disk_content(40)
    assert differences(small_repository(), content, content) == []


def test_changed_chunks_are_joined_over_the_borders_of_leaves() -> None:
    """Neighbours that changed are one range, wherever leaves end."""
    content = disk_content(40)
    start = LEAF_CHUNKS - 1
    changed = content[: start * C] + disk_content(2, seed=1) + content[(start + 2) * C :]
    assert differences(small_repository(), content, changed) == [(start * C, 2 * C)]


def test_a_disk_that_has_grown_differs_behind_its_old_end() -> None:
    """What only one of both has."""
    content = disk_content(24)
    assert differences(small_repository(), content[: 10 * C], content) == [(10 * C, 14 * C)]


def test_zeros_are_equal_whatever_their_length() -> None:
    """Chunks of zeros have no names to compare."""
    repository = small_repository()
    zeros = bytes(20 * C)
    changed = bytearray(zeros)
    changed[5 * C] = 1
    assert differences(repository, zeros, bytes(changed)) == [(5 * C, C)]


def test_equal_leaves_are_not_read() -> None:
    """A changed gigabyte of a terabyte must cost what a gigabyte costs."""

    class Counting(MemoryStore):
        count = 0

        def get_range(self, name: str, offset: int, length: int) -> bytes:
            self.count += 1
            return super().get_range(name, offset, length)

    store = Counting()
    repository = small_repository(store=store)
    content = disk_content(400)
    older = put_disk(repository, content)
    newer = put_disk(repository, content, minute=1)
    again = reopened(repository)
    store.count = 0
    assert list(changed_ranges(again, older, newer)) == []
    assert store.count == 0


@settings(max_examples=40)
@given(
    older=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    newer=st.lists(st.integers(0, 3), min_size=1, max_size=40),
)
def test_ranges_are_those_of_a_comparison_of_all_chunks(older: list[int], newer: list[int]) -> None:
    """Whatever changed, and wherever the trees differ in shape."""
    kinds = [bytes(C), *(disk_content(1, seed=seed) for seed in (1, 2, 3))]
    one, other = (b"".join(kinds[kind] for kind in disk) for disk in (older, newer))
    length = max(len(older), len(newer))
    expected = Runs.of(
        (at * C, C) for at in range(length) if older[at : at + 1] != newer[at : at + 1]
    )
    assert differences(small_repository(), one, other) == list(expected)
