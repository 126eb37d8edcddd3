"""Figures of a repository, compared with arithmetic on the disks that were put into it."""

from __future__ import annotations

import pytest

from imprint.repository.statistics import statistics
from imprint.testing.small_packs import protections
from imprint.testing.small_repositories import (
    CHUNK_BYTES,
    disk_content,
    put_disk,
    reopened,
    small_repository,
)

C = CHUNK_BYTES


@pytest.mark.parametrize("number", range(3))
def test_sizes_are_those_of_the_disks(number: int) -> None:
    """What is told to be unique is what forgetting would give back."""
    repository = small_repository(protections()[number])
    base = disk_content(40, zeros=(0, 1))
    # The second of host a has two chunks of its own; b shares chunks 16 to 31 with both.
    put_disk(repository, base, image="a")
    put_disk(repository, base[: 38 * C] + disk_content(2, seed=1), image="a", minute=1)
    put_disk(
        repository,
        disk_content(4, seed=2) + base[16 * C : 32 * C],
        image="b",
        minute=2,
    )
    found = statistics(reopened(repository))
    assert found.size == (40 + 40 + 20) * C
    assert found.data == (38 + 38 + 20) * C
    assert found.chunks == 38 + 2 + 4
    assert found.unique == found.chunks * C
    assert found.deduplication == pytest.approx(96 / 44)
    assert [item.unique for item in found.snapshots] == [2 * C, 2 * C, 4 * C]
    assert [item.data for item in found.snapshots] == [38 * C, 38 * C, 20 * C]
    assert [(item.image, item.snapshots, item.unique) for item in found.images] == [
        ("a", 2, (22 + 2) * C),
        ("b", 1, 4 * C),
    ]
    assert found.packs == {"data": 3, "nodes": 3}
    assert found.groups_raw == found.unique
    assert 1.5 < found.compression < 2.1, "half of each chunk is zeros"
    assert found.stored == sum(item.size for item in repository.store.list(""))
    assert found.index_per_tib == found.objects["index"] * 2**40 // found.unique


def test_an_empty_repository_has_nothing_to_divide_by() -> None:
    """The first thing that people look at."""
    found = statistics(small_repository())
    assert (found.size, found.chunks, found.deduplication, found.compression) == (0, 0, 1.0, 1.0)
    assert found.index_per_tib == 0
