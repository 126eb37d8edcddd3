"""Whatever is damaged, and whenever a repair dies: nothing that is whole is lost or called lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.runs import Runs
from imprint.repository.check import check
from imprint.repository.check_report import CheckOptions
from imprint.repository.copying import CopyOptions, copy_snapshots
from imprint.repository.pack import pack_object
from imprint.repository.rebuild import rebuild_index
from imprint.repository.repair import RepairOptions, repair
from imprint.repository.subsets import ALL
from imprint.testing.small_packs import encrypted
from imprint.testing.small_repositories import (
    CHUNK_BYTES,
    MortalStore,
    disk_content,
    objects,
    put_disk,
    read_disk,
    reopened,
    small_repository,
)

if TYPE_CHECKING:
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot

ALL_DATA = CheckOptions(read_data=ALL, directories=1.0, workers=1)


class Death(Exception):  # noqa: N818 - it is not an error of anybody
    """The process is no more."""


def survivors(store: MortalStore) -> None:
    """A day later: the dead one's session has expired."""
    store.left = 1 << 30
    for item in list(store.list("sessions/")):
        store.delete(item.name)


def is_right_outside(
    repository: Repository, snapshot: Snapshot, content: bytes, lost: Runs
) -> bool:
    """Whether all of a disk reads as it was, but for what is lost."""
    with repository.source(snapshot) as source:
        for start, length in lost.complement(len(content)):
            buffer = bytearray(length)
            source.readinto(memoryview(buffer), start)
            if buffer != content[start : start + length]:
                return False
    return True


@settings(max_examples=80)
@given(
    is_encrypted=st.booleans(),
    parity=st.sampled_from([0, 0, 20]),
    damage=st.lists(
        st.tuples(
            st.integers(0, 50), st.sampled_from(["flip", "cut", "delete"]), st.integers(0, 9999)
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_any_damage_is_found_and_repaired_as_far_as_can_be(
    *, is_encrypted: bool, parity: int, damage: list[tuple[int, str, int]]
) -> None:
    """What a check does not call lost reads rightly; what a repair leaves is no worse."""
    repository = small_repository(encrypted() if is_encrypted else None, parity=parity)
    base = disk_content(12)
    contents = [base, base[: 8 * CHUNK_BYTES] + disk_content(4, seed=1)]
    disks = {
        put_disk(repository, content, minute=minute).name: content
        for minute, content in enumerate(contents)
    }
    names = [item.name for item in repository.store.list("") if "/" in item.name]
    for which, how, at in damage:
        name = names[which % len(names)]
        data = bytearray(repository.store.get(name) if repository.store.stat(name) else b"")
        if how == "flip" and data:
            data[at % len(data)] ^= 0x10
            repository.store.put(name, (bytes(data),))
        elif how == "cut":
            repository.store.put(name, (bytes(data[: at % (len(data) + 1)]),))
        else:
            repository.store.delete(name)
    found = reopened(repository)
    report = check(found, ALL_DATA)
    if report.is_sound:
        lost_before: dict[str, Runs] = {}
    else:
        lost_before = {item.snapshot.name: item.ranges for item in report.damage}
    repaired = repair(found, report, RepairOptions())
    again = reopened(repository)
    after = {item.snapshot.name: item.ranges for item in repaired.damage}
    readable = {finding.where for finding in repaired.unrepaired}
    for name, content in disks.items():
        where = f"snapshots/{name}"
        if where in readable or repository.store.stat(where) is None:
            continue
        lost = after.get(name, Runs.of([]))
        assert not (lost - lost_before.get(name, Runs.of([]))).total
        assert is_right_outside(again, again.snapshot(name), content, lost)
    second = check(reopened(repository), ALL_DATA)
    assert not second.broken_packs
    assert not second.broken_index
    assert {item.snapshot.name: item.ranges for item in second.damage} == after


@pytest.mark.parametrize("after", range(12))
def test_a_repair_that_dies_can_be_done_again(after: int) -> None:
    """At any change to the store: rescued chunks stay, and nothing more is lost."""
    store = MortalStore(Death())
    repository = small_repository(encrypted(), store=store)
    content = disk_content(12)
    snapshot = put_disk(repository, content)
    place = repository.index.find(repository.protection.name_of(content[:CHUNK_BYTES]))
    assert place is not None
    name = pack_object(place.pack)
    data = bytearray(store.get(name))
    data[place.group_position] ^= 1
    store.put(name, (bytes(data),))
    report = check(reopened(repository), ALL_DATA)
    store.left = after
    try:
        repair(reopened(repository), report, RepairOptions(write_repaired=True))
    except Death:
        survivors(store)
    store.left = 1 << 30
    again = reopened(repository)
    repair(again, check(again, ALL_DATA), RepairOptions(write_repaired=True))
    lost = Runs.of([(0, 4 * CHUNK_BYTES)])
    final = check(reopened(repository), ALL_DATA)
    assert [(item.snapshot, item.ranges) for item in final.damage] == [(snapshot, lost)]
    assert final.snapshots == 2
    for each in reopened(repository).snapshots():
        assert is_right_outside(reopened(repository), each, content, lost)


@pytest.mark.parametrize("after", range(8))
def test_a_rebuild_that_dies_leaves_an_index(after: int) -> None:
    """The old one stays until the new one is whole."""
    store = MortalStore(Death())
    repository = small_repository(store=store)
    contents = [disk_content(8, seed=seed) for seed in range(2)]
    snapshots = [put_disk(repository, content) for content in contents]
    store.left = after
    try:
        rebuild_index(reopened(repository), workers=1)
    except Death:
        survivors(store)
    for snapshot, content in zip(snapshots, contents, strict=True):
        assert read_disk(reopened(repository), snapshot) == content


@pytest.mark.parametrize("after", range(12))
def test_a_copy_that_dies_is_seen_whole_or_not_at_all(after: int) -> None:
    """A snapshot is there when all that it needs is."""
    source, store = small_repository(), MortalStore(Death())
    content = disk_content(12)
    put_disk(source, content)
    target = small_repository(encrypted(), store=store)
    store.left = after
    try:
        copy_snapshots(source, reopened(target), source.snapshots(), CopyOptions(workers=1))
    except Death:
        survivors(store)
    store.left = 1 << 30
    for snapshot in reopened(target).snapshots():
        assert read_disk(reopened(target), snapshot) == content
    copy_snapshots(source, reopened(target), source.snapshots(), CopyOptions(workers=1))
    (snapshot,) = reopened(target).snapshots()
    assert read_disk(reopened(target), snapshot) == content
    assert objects(target, "sessions/") == []
