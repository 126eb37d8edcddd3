"""What can be saved is saved; what cannot is told, and comes back with the next capture."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ReadError, RepositoryBusyError, RepositoryError
from imprint.core.extent import Kind
from imprint.core.runs import Runs
from imprint.objects.memory import MemoryStore
from imprint.repository.check import check
from imprint.repository.check_report import CheckOptions
from imprint.repository.envelope import What, unwrap
from imprint.repository.pack import PackKind, pack_object
from imprint.repository.pack_contents import groups_of
from imprint.repository.pack_reading import read_directory
from imprint.repository.parity import parity_object
from imprint.repository.repair import RepairOptions, RepairReport, repair
from imprint.repository.sessions import EXPIRY_S
from imprint.repository.subsets import ALL
from imprint.repository.writing import put_index
from imprint.testing.small_packs import encrypted, protections
from imprint.testing.small_repositories import (
    CHUNK_BYTES,
    disk_content,
    flip,
    objects,
    put_disk,
    read_disk,
    reopened,
    small_repository,
)

if TYPE_CHECKING:
    from imprint.repository.repository import Repository

ALL_DATA = CheckOptions(read_data=ALL, directories=1.0, workers=1)


def damage(repository: Repository, content: bytes, chunk: int) -> bytes:
    """Flip a bit of the group that has a chunk; the name of its pack."""
    data = content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]
    place = repository.index.find(repository.protection.name_of(data))
    assert place is not None
    flip(repository.store, pack_object(place.pack), place.group_position + 3)
    return place.pack


def repaired(repository: Repository, *, write_repaired: bool = False) -> RepairReport:
    """Check and repair, as another process."""
    other = reopened(repository)
    return repair(other, check(other, ALL_DATA), RepairOptions(write_repaired=write_repaired))


@pytest.mark.parametrize("number", range(3))
def test_parity_makes_a_damaged_pack_whole(number: int) -> None:
    """Nothing at all is lost then."""
    repository = small_repository(protections()[number], parity=10)
    content = disk_content(40)
    snapshot = put_disk(repository, content)
    pack = damage(repository, content, 9)
    report = repaired(repository)
    assert (report.mended, report.removed, report.damage) == ([pack], [], [])
    again = reopened(repository)
    assert check(again, ALL_DATA).findings == []
    assert read_disk(again, snapshot) == content


def test_a_missing_small_pack_comes_back_from_parity() -> None:
    """Two shards of parity are as long as a pack of two cells."""
    repository = small_repository(parity=10)
    content = disk_content(2)
    snapshot = put_disk(repository, content)
    for name in objects(repository, "packs/"):
        repository.store.delete(name)
    report = repaired(repository)
    assert len(report.mended) == 2
    assert read_disk(reopened(repository), snapshot) == content


@pytest.mark.parametrize("number", range(3))
def test_what_is_whole_of_a_damaged_pack_is_rescued(number: int) -> None:
    """One bad group must not cost the pack; the damaged pack is in no index afterwards."""
    repository = small_repository(protections()[number])
    content = disk_content(40)
    snapshot = put_disk(repository, content)
    pack = damage(repository, content, 9)
    report = repaired(repository)
    assert report.removed == [pack]
    assert (report.rescued, report.lost) == (36, 4)
    expected = Runs.of([(8 * CHUNK_BYTES, 4 * CHUNK_BYTES)])
    assert [(item.snapshot, item.ranges) for item in report.damage] == [(snapshot, expected)]
    again = reopened(repository)
    assert pack not in again.index.packs()
    assert pack_object(pack) not in objects(again, "packs/")
    with again.source(snapshot) as source:
        for start, end in ((0, 8), (12, 40)):
            buffer = bytearray((end - start) * CHUNK_BYTES)
            source.readinto(memoryview(buffer), start * CHUNK_BYTES)
            assert buffer == content[start * CHUNK_BYTES : end * CHUNK_BYTES]
        with pytest.raises(RepositoryError):
            source.readinto(memoryview(bytearray(1)), 8 * CHUNK_BYTES)


def test_the_next_capture_makes_old_snapshots_whole() -> None:
    """The machine still has what the repository has lost."""
    repository = small_repository()
    content = disk_content(40)
    first = put_disk(repository, content)
    damage(repository, content, 9)
    repaired(repository)
    again = reopened(repository)
    second = put_disk(again, content, minute=1)
    report = check(reopened(repository), ALL_DATA)
    assert report.is_sound
    assert report.snapshots == 2
    for snapshot in (first, second):
        assert read_disk(reopened(repository), snapshot) == content


def test_lost_nodes_leave_a_snapshot_that_says_what_is_gone() -> None:
    """The old snapshot stays: forgetting it is the user's decision."""
    repository = small_repository(encrypted())
    content = disk_content(24)
    old = put_disk(repository, content)
    (pack,) = (pack for pack, kind in repository.index.packs().items() if kind is PackKind.NODES)
    repository.store.delete(pack_object(pack))
    report = repaired(repository, write_repaired=True)
    assert report.removed == [pack]
    ((before, new),) = report.written
    assert before == old
    again = reopened(repository)
    assert again.snapshots() == [old, new]
    assert again.select("host", None) == new
    assert read_disk(again, new) == bytes(len(content))
    assert [item.kind for item in again.source(new).extents(0, len(content))] == [Kind.BAD]


def test_a_repaired_snapshot_has_bad_extents_where_chunks_were_lost() -> None:
    """What reads as zeros because it was lost must not look like zeros of the disk."""
    repository = small_repository()
    content = disk_content(40, zeros=(20,))
    old = put_disk(repository, content)
    damage(repository, content, 9)
    ((_, new),) = repaired(repository, write_repaired=True).written
    again = reopened(repository)
    lost = slice(8 * CHUNK_BYTES, 12 * CHUNK_BYTES)
    expected = bytearray(content)
    expected[lost] = bytes(4 * CHUNK_BYTES)
    assert read_disk(again, new) == expected
    bad = [item for item in again.source(new).extents(0, len(content)) if item.kind is Kind.BAD]
    assert [(item.offset, item.length) for item in bad] == [(lost.start, 4 * CHUNK_BYTES)]
    assert new.manifest.notes
    assert new.manifest.taken > old.manifest.taken
    report = check(again, ALL_DATA)
    assert [item.snapshot for item in report.damage] == [old]


def test_a_repair_beside_somebody_else_is_refused() -> None:
    """Packs would vanish that the other has found."""
    repository = small_repository()
    content = disk_content(8)
    put_disk(repository, content)
    damage(repository, content, 0)
    with repository.session("capture"), pytest.raises(RepositoryBusyError):
        repaired(repository)


def test_a_repair_makes_a_damaged_index_again() -> None:
    """Without an index nothing else can be repaired."""
    repository = small_repository(encrypted())
    content = disk_content(40)
    snapshot = put_disk(repository, content)
    for name in objects(repository, "index/"):
        flip(repository.store, name, 50)
    report = repaired(repository)
    assert report.index_rebuilt
    assert report.damage == []
    assert read_disk(reopened(repository), snapshot) == content


def test_parity_goes_with_its_pack() -> None:
    """It would be of no use, and never be removed."""
    repository = small_repository(parity=5)
    content = disk_content(200)
    put_disk(repository, content)
    pack = damage(repository, content, 9)
    repository.store.put(parity_object(pack), (b"rotten",))
    repaired(repository)
    packs = {name.rpartition("/")[2] for name in objects(repository, "packs/")}
    assert {name.rpartition("/")[2] for name in objects(repository, "parity/")} == packs


def test_rotten_and_missing_parity_is_made_again() -> None:
    """The next damage would find none."""
    repository = small_repository(parity=10)
    put_disk(repository, disk_content(40))
    first, second = objects(repository, "parity/")
    whole = repository.store.get(first), repository.store.get(second)
    flip(repository.store, first, 70)
    repository.store.delete(second)
    assert len(repaired(repository).parity) == 2
    assert (repository.store.get(first), repository.store.get(second)) == whole


def test_an_index_that_lies_is_made_again() -> None:
    """It is whole, but of another repository."""
    repository, other = small_repository(), small_repository()
    content = disk_content(8)
    snapshot = put_disk(repository, content)
    put_disk(other, disk_content(8, seed=1))
    # Both have the same packs, and the index says that they hold something else.
    for name in objects(repository, "index/"):
        data = repository.store.get(name)
        repository.store.delete(name)
        content_ = unwrap(data, What.INDEX, repository.protection)
        lying = bytearray(content_)
        lying[-1] ^= 1  # of the last chunk's name
        put_index(repository.store, repository.protection, bytes(lying))
    report = repaired(repository)
    assert report.index_rebuilt
    assert read_disk(reopened(repository), snapshot) == content


def test_a_damaged_object_that_condemns_is_removed() -> None:
    """Nobody could add anything before it is gone."""
    repository = small_repository()
    put_disk(repository, disk_content(8))
    repository.store.put("condemned/" + "0" * 32, (b"rotten",))
    with pytest.raises(RepositoryError) as caught:
        put_disk(repository, disk_content(8, seed=1))
    assert "check --repair" in str(caught.value.advice)
    repaired(repository)
    put_disk(repository, disk_content(8, seed=1))


def test_a_damaged_object_that_condemns_and_a_dead_session_do_not_block_each_other() -> None:
    """Fails if neither can be removed while the other is there: nobody could add ever again."""
    repository = small_repository()
    put_disk(repository, disk_content(8))
    store = repository.store
    assert isinstance(store, MemoryStore)
    for name, age_s in (("sessions/" + "1" * 32, EXPIRY_S + 1), ("condemned/" + "0" * 32, 0)):
        store.put(name, (b"rotten",))
        store._objects[name] = (b"rotten", time.time() - age_s)
    repaired(repository)
    assert objects(repository, "condemned/") == objects(repository, "sessions/") == []
    put_disk(repository, disk_content(8, seed=1))


def test_what_no_repair_can_bring_back_is_told() -> None:
    """A repair that says nothing of it would look complete."""
    repository = small_repository()
    snapshot = put_disk(repository, disk_content(8))
    name = f"snapshots/{snapshot.name}"
    flip(repository.store, name, 40)
    assert [finding.where for finding in repaired(repository).unrepaired] == [name]


class Rotten(MemoryStore):
    """A medium of which one sector cannot be read any more."""

    name_of_bad = ""
    sector = 0

    def get(self, name: str) -> bytes:
        return self.get_range(name, 0, 1 << 30)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        if (
            name == self.name_of_bad
            and offset < self.sector + 4096
            and self.sector < offset + length
        ):
            raise ReadError("input/output error", name=name)
        return super().get(name)[offset : offset + length]


@pytest.mark.parametrize("parity", [0, 10])
def test_a_sector_that_cannot_be_read_costs_what_is_in_it(parity: int) -> None:
    """The most honest damage: the disk says so itself."""
    store = Rotten()
    repository = small_repository(parity=parity, store=store)
    content = disk_content(600)
    snapshot = put_disk(repository, content)
    place = repository.index.find(repository.protection.name_of(content[:CHUNK_BYTES]))
    assert place is not None
    store.name_of_bad, store.sector = pack_object(place.pack), 40 * 4096
    groups = [
        group
        for group in groups_of(read_directory(store, place.pack, repository.protection))
        if group.position < 41 * 4096 and group.position + group.stored > 40 * 4096
    ]
    lost = sum(len(group.chunks) for group in groups)
    report = check(reopened(repository), ALL_DATA)
    assert sum(item.ranges.total for item in report.damage) == lost * CHUNK_BYTES
    repaired_ = repair(reopened(repository), report, RepairOptions())
    store.name_of_bad = ""  # the pack that cannot be read was written anew, or is gone
    assert len(repaired_.mended) == (1 if parity else 0)
    again = reopened(repository)
    if parity:
        assert read_disk(again, snapshot) == content
    else:
        assert repaired_.lost == lost
        assert [item.ranges.total for item in repaired_.damage] == [lost * CHUNK_BYTES]
