"""Checks find what is damaged, and say exactly what of which snapshots is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.cancel import CancelToken
from imprint.core.errors import Cancelled, PassphraseError, UsageError
from imprint.core.events import Finding, Severity
from imprint.core.runs import Runs
from imprint.repository.check import check
from imprint.repository.check_report import CheckOptions, CheckReport
from imprint.repository.envelope import What, unwrap, wrap
from imprint.repository.pack import PackKind, pack_object
from imprint.repository.signing import SigningKey, TrustedKey, sign
from imprint.repository.subsets import ALL, Subset
from imprint.testing.small_packs import encrypted, protections
from imprint.testing.small_repositories import (
    CHUNK_BYTES,
    disk_content,
    flip,
    objects,
    put_disk,
    reopened,
    small_repository,
)

if TYPE_CHECKING:
    from imprint.repository.index_content import Place
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot

ALL_DATA = CheckOptions(read_data=ALL, directories=1.0, workers=2)
STRUCTURE = CheckOptions(directories=1.0, workers=1)


def checked(repository: Repository, options: CheckOptions = STRUCTURE) -> CheckReport:
    """As another process would check it."""
    return check(reopened(repository), options)


def place_of(repository: Repository, content: bytes, chunk: int) -> Place:
    """Where a chunk of a disk is."""
    data = content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]
    place = repository.index.find(repository.protection.name_of(data))
    assert place is not None
    return place


def errors(report: CheckReport) -> list[str]:
    """Objects that something is wrong with."""
    return [item.where for item in report.findings if item.severity is Severity.ERROR]


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("options", [STRUCTURE, ALL_DATA])
def test_a_sound_repository_gives_no_findings(number: int, options: CheckOptions) -> None:
    """False alarms, whatever the encryption: chunks, packs and snapshots are counted rightly."""
    repository = small_repository(protections()[number])
    put_disk(repository, disk_content(20, zeros=(3, 4)))
    put_disk(repository, disk_content(20, zeros=(3, 4)), minute=1)
    report = checked(repository, options)
    assert report.findings == []
    assert report.is_sound
    assert (report.snapshots, report.packs) == (2, 2)
    assert report.packs_read == (0 if options is STRUCTURE else 2)
    # Chunks of the disk, three leaves and a branch; the leaves' chunks are looked for once.
    assert report.chunks == 18 + 4
    assert report.checked == 18


def test_a_bit_in_a_group_costs_only_the_chunks_of_that_group() -> None:
    """More, or less, than what cannot be read would be called lost."""
    repository = small_repository(encrypted())
    content = disk_content(40)
    first = put_disk(repository, content)
    # The second shares chunks 0 to 19 with the first.
    second = put_disk(repository, content[: 20 * CHUNK_BYTES] + disk_content(4, seed=1), minute=1)
    place = place_of(repository, content, 9)
    flip(repository.store, pack_object(place.pack), place.group_position + 5)
    assert checked(repository).is_sound, "structure alone cannot know"
    report = checked(repository, ALL_DATA)
    # Groups are of four chunks: the one of chunk 9 has 8 to 11.
    expected = Runs.of([(8 * CHUNK_BYTES, 4 * CHUNK_BYTES)])
    found = {item.snapshot.name: item.ranges for item in report.damage}
    assert found == {first.name: expected, second.name: expected}
    (broken,) = report.broken_packs.values()
    assert [group.number for group in broken.groups] == [place.group_number]
    assert len(list(broken.damaged)) == 4
    assert errors(report)[0] == pack_object(place.pack)


def test_a_bit_in_a_plain_group_costs_the_chunk_that_has_it() -> None:
    """Where nothing was compressed or encrypted, neighbours of a damaged chunk are whole."""
    import random

    repository = small_repository()
    content = random.Random(5).randbytes(8 * CHUNK_BYTES)  # which does not compress
    put_disk(repository, content)
    place = place_of(repository, content, 2)
    assert place.codec == 0
    flip(repository.store, pack_object(place.pack), place.group_position + place.offset)
    (damage,) = checked(repository, ALL_DATA).damage
    assert list(damage.ranges) == [(2 * CHUNK_BYTES, CHUNK_BYTES)]


def test_files_of_damaged_ranges_are_asked_for() -> None:
    """The user wants to know which files they are."""
    repository = small_repository()
    content = disk_content(8)
    snapshot = put_disk(repository, content)
    place = place_of(repository, content, 0)
    flip(repository.store, pack_object(place.pack), place.group_position)
    asked: list[tuple[Snapshot, Runs]] = []

    def files_of(which: Snapshot, ranges: Runs) -> list[str]:
        asked.append((which, ranges))
        return ["/etc/passwd"]

    report = checked(repository, CheckOptions(read_data=ALL, files_of=files_of))
    assert [item.files for item in report.damage] == [("/etc/passwd",)]
    assert asked == [(snapshot, Runs.of([(0, 4 * CHUNK_BYTES)]))]


def test_a_missing_pack_is_found_without_reading_data() -> None:
    """The most common loss, and the cheapest to find."""
    repository = small_repository()
    content = disk_content(8)
    put_disk(repository, content)
    pack = place_of(repository, content, 0).pack
    repository.store.delete(pack_object(pack))
    report = checked(repository)
    assert errors(report)[0] == pack_object(pack)
    assert [list(item.ranges) for item in report.damage] == [[(0, len(content))]]


def test_a_cut_pack_is_found_without_reading_data() -> None:
    """A copy that ended early: the chunks before the cut are there."""
    repository = small_repository()
    content = disk_content(8)
    put_disk(repository, content)
    place = place_of(repository, content, 5)
    name = pack_object(place.pack)
    repository.store.put(name, (repository.store.get(name)[: place.group_position],))
    report = checked(repository)
    assert [list(item.ranges) for item in report.damage] == [[(4 * CHUNK_BYTES, 4 * CHUNK_BYTES)]]


def test_a_pack_of_nodes_that_is_damaged_costs_what_is_below_them() -> None:
    """A lost leaf is a lost stretch of the disk; a lost root is all of it."""
    repository = small_repository()
    content = disk_content(24)
    snapshot = put_disk(repository, content)
    (pack,) = (pack for pack, kind in repository.index.packs().items() if kind is PackKind.NODES)
    repository.store.delete(pack_object(pack))
    (damage,) = checked(repository).damage
    assert damage.snapshot == snapshot
    assert list(damage.ranges) == [(0, len(content))]
    assert damage.reasons


def test_a_damaged_index_object_is_told_and_the_rest_of_the_index_is_used() -> None:
    """One bad index object must not end the check."""
    repository = small_repository()
    put_disk(repository, disk_content(8))
    first = set(objects(repository, "index/"))
    later = put_disk(repository, disk_content(8, seed=1), minute=1)
    (second,) = set(objects(repository, "index/")) - first
    flip(repository.store, second, 30)
    report = checked(repository, ALL_DATA)
    assert report.broken_index == [second]
    assert [item.snapshot for item in report.damage] == [later]
    assert not report.broken_packs


def test_an_index_that_lies_of_a_pack_is_found_by_its_directory() -> None:
    """An index object may be whole and wrong."""
    repository = small_repository()
    put_disk(repository, disk_content(8))
    other = small_repository()
    put_disk(other, disk_content(8, seed=1))
    for name in objects(repository, "index/"):
        repository.store.delete(name)
    for name in objects(other, "index/"):
        repository.store.put(name, (other.store.get(name),))
    report = checked(repository)
    assert not report.is_sound


def test_damaged_snapshots_signatures_and_tags_are_each_named() -> None:
    """What cannot be read would be as if it had never been."""
    repository = small_repository()
    snapshot = put_disk(repository, disk_content(8), sign=lambda _: b"{}")
    put_disk(repository, disk_content(8, seed=1), minute=1)
    name = f"snapshots/{snapshot.name}"
    flip(repository.store, name, 40)
    repository.store.put(f"tags/{snapshot.name}", (b"no envelope",))
    report = checked(repository)
    assert sorted(errors(report)) == sorted(
        [name, f"signatures/{snapshot.name}", f"tags/{snapshot.name}"]
    )
    assert report.snapshots == 1


def test_packs_in_no_index_are_no_error() -> None:
    """A capture that was killed leaves them."""
    repository = small_repository()
    put_disk(repository, disk_content(8))
    for name in objects(repository, "index/") + objects(repository, "snapshots/"):
        repository.store.delete(name)
    report = checked(repository)
    assert report.is_sound
    assert [item.severity for item in report.findings] == [Severity.INFO]


def test_events_tell_of_findings_and_progress() -> None:
    """A check of terabytes must not be silent."""
    repository = small_repository()
    content = disk_content(8)
    put_disk(repository, content)
    place = place_of(repository, content, 0)
    flip(repository.store, pack_object(place.pack), place.group_position)
    seen: list[object] = []
    report = checked(repository, CheckOptions(read_data=ALL, on_event=seen.append))
    assert [event for event in seen if isinstance(event, Finding)] == report.findings
    assert any(not isinstance(event, Finding) for event in seen)


def test_a_check_can_be_cancelled() -> None:
    """It takes hours."""
    repository = small_repository()
    put_disk(repository, disk_content(8))
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        checked(repository, CheckOptions(read_data=ALL, cancel=token))


def test_a_key_that_may_only_add_cannot_check() -> None:
    """It would find everything broken."""
    repository = small_repository(encrypted(can_read=False))
    with pytest.raises(PassphraseError):
        checked(repository)


def test_parts_of_ten_are_all_packs_once() -> None:
    """Ten nights of 1/10 to 10/10 have to read everything."""
    packs = {bytes([number]) * 32: 10 for number in range(100)}
    found = [Subset.parse(f"{part}/10").choose(packs) for part in range(1, 11)]
    assert sorted(pack for part in found for pack in part) == sorted(packs)


def test_shares_and_sizes_choose_by_chance_but_repeatably() -> None:
    """5 % of 100 packs are five; 45 bytes of packs of 10 bytes are five."""
    packs = {bytes([number]) * 32: 10 for number in range(100)}
    for text in ("5%", "45"):
        subset = Subset.parse(text)
        assert len(subset.choose(packs, seed=1)) == 5
        assert subset.choose(packs, seed=1) == subset.choose(packs, seed=1)
        assert subset.choose(packs, seed=1) != subset.choose(packs, seed=2)


@pytest.mark.parametrize("text", ["0%", "101%", "0/10", "11/10", "1/0", "x", ""])
def test_parts_that_cannot_be_are_refused(text: str) -> None:
    """A typing mistake must not check nothing."""
    with pytest.raises(UsageError):
        Subset.parse(text)


def test_snapshots_without_a_trusted_signature_are_told_of() -> None:
    """Whoever can write to the store can put snapshots there, and sign them with any key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    repository = small_repository(encrypted())
    keys = [SigningKey(Ed25519PrivateKey.generate()) for _ in range(2)]
    good = put_disk(repository, disk_content(8), sign=lambda name: sign(name, keys[0]))
    bad = put_disk(repository, disk_content(9), minute=1, sign=lambda name: sign(name, keys[1]))
    none = put_disk(repository, disk_content(10), minute=2)
    trusted = [TrustedKey(keys[0].public, "test")]
    report = checked(repository, CheckOptions(trusted=trusted))
    assert errors(report) == [f"snapshots/{bad.name}", f"snapshots/{none.name}"]
    assert checked(repository).is_sound
    data = repository.store.get(f"signatures/{bad.name}")
    content = unwrap(data, What.SIGNATURE, repository.protection, name=f"signatures/{bad.name}")
    forged = wrap(What.SIGNATURE, content, repository.protection, name=f"signatures/{good.name}")
    repository.store.put(f"signatures/{good.name}", (forged,))
    assert errors(checked(repository)) == [f"signatures/{good.name}"]
