"""Snapshots go from one repository to another: only what is missing, whatever the encryption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import RepositoryError
from imprint.core.events import Progress
from imprint.objects.memory import MemoryStore
from imprint.repository.check import check
from imprint.repository.check_report import CheckOptions
from imprint.repository.copying import CopyOptions, CopyReport, copy_snapshots
from imprint.repository.envelope import What, unwrap, wrap
from imprint.repository.keys import new_secrets
from imprint.repository.pack import pack_object
from imprint.repository.protection import Plain
from imprint.repository.signing import SigningKey, TrustedKey, sign, verify
from imprint.repository.subsets import ALL
from imprint.testing.small_packs import encrypted
from imprint.testing.small_repositories import (
    CHUNK_BYTES,
    GROUP_CHUNKS,
    disk_content,
    flip,
    objects,
    put_disk,
    read_disk,
    reopened,
    small_repository,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.repository.protection import Protection
    from imprint.repository.repository import Repository

ALL_DATA = CheckOptions(read_data=ALL, directories=1.0, workers=1)
OPTIONS = CopyOptions(workers=2)


def other_encryption() -> Protection:
    """Other keys than those of ``encrypted``."""
    return new_secrets().protection()


PAIRS: dict[str, tuple[Callable[[], Protection], Callable[[], Protection], bool]] = {
    "plain to plain": (Plain, Plain, True),
    "the same keys": (encrypted, encrypted, True),
    "plain to encrypted": (Plain, encrypted, False),
    "encrypted to plain": (encrypted, Plain, False),
    "other keys": (encrypted, other_encryption, False),
}


def copied(source: Repository, target: Repository) -> CopyReport:
    """Copy all, as another process."""
    return copy_snapshots(reopened(source), reopened(target), source.snapshots(), OPTIONS)


def new_signing_key() -> SigningKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return SigningKey(Ed25519PrivateKey.generate())


@pytest.mark.parametrize("pair", PAIRS)
def test_disks_and_manifests_arrive_as_they_were(pair: str) -> None:
    """A copy is a backup of the backup: it must be sound, and hold the same bytes."""
    one, other, is_same = PAIRS[pair]
    source, target = small_repository(one()), small_repository(other())
    contents = [disk_content(40, zeros=(7,)), disk_content(40, seed=1)]
    originals = [put_disk(source, content, minute=at) for at, content in enumerate(contents)]
    report = copied(source, target)
    assert [old for old, _ in report.copied] == originals
    again = reopened(target)
    assert check(again, ALL_DATA).findings == []
    assert again.snapshots() == [new for _, new in report.copied]
    for (old, new), content in zip(report.copied, contents, strict=True):
        assert read_disk(again, new) == content
        assert (new.name == old.name) == is_same
        for key in ("image", "time", "size", "stored", "notes"):
            assert getattr(new.manifest, key) == getattr(old.manifest, key)
    assert report.chunks == 39 + 40
    # All chunks of each group were needed: nothing is compressed again.
    assert (report.passed, report.packed) == (20, 0)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_second_copy_takes_only_what_is_new(pair: str) -> None:
    """Copies are made every night."""
    one, other, _ = PAIRS[pair]
    source, target = small_repository(one()), small_repository(other())
    base = disk_content(40)
    put_disk(source, base)
    copied(source, target)
    changed = base[: 36 * CHUNK_BYTES] + disk_content(4, seed=1)
    put_disk(source, changed, minute=1)
    report = copied(source, target)
    assert len(report.present) == 1
    ((_, new),) = report.copied
    assert report.chunks == 4
    # Of the five leaves one changed; with other names, its eight chunks have to be read.
    assert report.read <= 8 * CHUNK_BYTES
    assert read_disk(reopened(target), new) == changed
    assert copied(source, target).copied == []


def test_of_a_group_only_what_is_needed_is_copied() -> None:
    """What was forgotten must not come along."""
    source, target = small_repository(), small_repository(encrypted())
    base = disk_content(8)
    put_disk(source, base)
    # Two of the four chunks of the first group, and none of the second.
    part = put_disk(source, base[CHUNK_BYTES : 3 * CHUNK_BYTES], minute=1)
    report = copy_snapshots(source, target, [part], OPTIONS)
    assert (report.chunks, report.passed, report.packed) == (2, 0, 1)
    assert report.read == GROUP_CHUNKS * CHUNK_BYTES
    assert read_disk(reopened(target), report.copied[0][1]) == base[CHUNK_BYTES : 3 * CHUNK_BYTES]


@pytest.mark.parametrize("pair", ["plain to plain", "other keys"])
def test_damage_is_found_while_copying_and_nothing_becomes_visible(pair: str) -> None:
    """A damaged chunk under a good name would look sound for ever."""
    one, other, _ = PAIRS[pair]
    source, target = small_repository(one()), small_repository(other())
    content = disk_content(40)
    put_disk(source, content)
    place = source.index.find(source.protection.name_of(content[:CHUNK_BYTES]))
    assert place is not None
    flip(source.store, pack_object(place.pack), place.group_position + 30)
    with pytest.raises(RepositoryError):
        copied(source, target)
    assert objects(target, "snapshots/") == []
    assert objects(target, "sessions/") == []


def test_signatures_hold_where_names_stay_the_same() -> None:
    """A signature is of the name; where names are others it is told, and not copied."""
    source = small_repository()
    key = new_signing_key()
    snapshot = put_disk(source, disk_content(8), sign=lambda name: sign(name, key))
    same, other = small_repository(), small_repository(encrypted())
    assert copied(source, same).unsigned == []
    name = f"signatures/{snapshot.name}"
    content = unwrap(same.store.get(name), What.SIGNATURE, same.protection, name=name)
    trusted = [TrustedKey(key.public, "test")]
    assert verify(content, bytes.fromhex(snapshot.name), trusted).is_trusted
    assert copied(source, other).unsigned == [snapshot.name]
    assert objects(other, "signatures/") == []


def test_tags_come_along_under_the_new_name() -> None:
    """They belong to the name of the snapshot, which is another one there."""
    source, target = small_repository(), small_repository(encrypted())
    snapshot = put_disk(source, disk_content(8))
    name = f"tags/{snapshot.name}"
    source.store.put(name, (wrap(What.TAGS, b'["gold"]', source.protection, name=name),))
    ((_, new),) = copied(source, target).copied
    name = f"tags/{new.name}"
    assert unwrap(target.store.get(name), What.TAGS, target.protection, name=name) == b'["gold"]'


def test_a_host_that_may_only_add_can_copy() -> None:
    """It cannot see what is there already, but nothing keeps it from sending."""
    source, target = small_repository(), small_repository(encrypted(can_read=False))
    content = disk_content(8)
    put_disk(source, content)
    report = copied(source, target)
    readable = reopened(small_repository(encrypted(), store=target.store))
    assert read_disk(readable, report.copied[0][1]) == content


def test_an_empty_disk_is_copied() -> None:
    """Its tree is one leaf without entries."""
    from array import array

    from imprint.repository.nodes import Leaf
    from imprint.repository.snapshots import Manifest

    source, target = small_repository(), small_repository(encrypted())
    with source.session("test") as session:
        writer = source.writer(session)
        root = writer.add_node(Leaf(0, b"", array("Q"), b"").encode())
        writer.finish()
        manifest = Manifest("empty", "2026-11-23T10:00:00.000000Z", 0, root.hex())
        source.commit(manifest, session, writer)
    ((_, new),) = copied(source, target).copied
    assert read_disk(reopened(target), new) == b""


def test_progress_reaches_its_end() -> None:
    """Gigabytes over a slow line take hours."""
    source, target = small_repository(), small_repository()
    put_disk(source, disk_content(40))
    seen: list[object] = []
    options = CopyOptions(workers=1, on_event=seen.append)
    copy_snapshots(source, target, source.snapshots(), options)
    last = seen[-1]
    assert isinstance(last, Progress)
    assert last.done == last.total == 40 * CHUNK_BYTES


def test_a_slow_store_is_read_as_well() -> None:
    """Where requests take long, more of them are made at once."""

    class Slow(MemoryStore):
        latency_s = 0.05

    source, target = small_repository(store=Slow()), small_repository()
    content = disk_content(40)
    put_disk(source, content)
    report = copy_snapshots(source, target, source.snapshots(), CopyOptions())
    assert read_disk(reopened(target), report.copied[0][1]) == content
