"""Packs say what is in them: an index can always be made again."""

from __future__ import annotations

import pytest

from imprint.core.errors import RepositoryBusyError
from imprint.repository.check import check
from imprint.repository.check_report import CheckOptions
from imprint.repository.pack import pack_object
from imprint.repository.rebuild import rebuild_index
from imprint.repository.subsets import ALL
from imprint.testing.small_packs import encrypted, protections
from imprint.testing.small_repositories import (
    disk_content,
    flip,
    objects,
    put_disk,
    read_disk,
    reopened,
    small_repository,
)

ALL_DATA = CheckOptions(read_data=ALL, directories=1.0, workers=1)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("loss", ["all", "one", "damaged", "none"])
def test_the_index_is_made_again_of_packs_alone(number: int, loss: str) -> None:
    """Whatever of the index is lost, every disk reads as it was, from a new index."""
    repository = small_repository(protections()[number])
    contents = [disk_content(20, seed=seed) for seed in range(3)]
    snapshots = [
        put_disk(repository, content, minute=minute) for minute, content in enumerate(contents)
    ]
    old = objects(repository, "index/")
    for name in {"all": old, "one": old[:1], "damaged": [], "none": []}[loss]:
        repository.store.delete(name)
    if loss == "damaged":
        flip(repository.store, old[1], 60)
    report = rebuild_index(reopened(repository), workers=2)
    assert (report.packs, report.findings) == (6, [])
    assert report.chunks == 60 + 3 * 4
    assert objects(repository, "index/") == report.added
    again = reopened(repository)
    assert check(again, ALL_DATA).findings == []
    for snapshot, content in zip(snapshots, contents, strict=True):
        assert read_disk(again, snapshot) == content


def test_an_index_that_is_already_as_it_would_be_made_stays() -> None:
    """In a plain repository the new object has the old one's name: it must not be deleted."""
    repository = small_repository()
    content = disk_content(8)
    snapshot = put_disk(repository, content)
    rebuild_index(repository)
    before = objects(repository, "index/")
    rebuild_index(repository)
    assert objects(repository, "index/") == before
    assert read_disk(reopened(repository), snapshot) == content


def test_what_the_old_index_knows_of_a_pack_without_a_directory_is_kept() -> None:
    """A cut pack has lost its directory, and not the groups before the cut."""
    repository = small_repository(encrypted())
    content = disk_content(8)
    snapshot = put_disk(repository, content)
    place = repository.index.find(repository.protection.name_of(content[:4096]))
    assert place is not None
    name = pack_object(place.pack)
    repository.store.put(name, (repository.store.get(name)[:-20],))
    report = rebuild_index(reopened(repository))
    assert [finding.where for finding in report.findings] == [name]
    assert read_disk(reopened(repository), snapshot) == content


def test_a_rebuild_beside_a_capture_is_refused() -> None:
    """It might name packs that a prune removes at the same moment."""
    repository = small_repository()
    put_disk(repository, disk_content(8))
    with repository.session("capture"), pytest.raises(RepositoryBusyError):
        rebuild_index(repository)
