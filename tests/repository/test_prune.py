"""Pruning: what goes, what stays, and what waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from array import array
from typing import TYPE_CHECKING

import pytest

from imprint.core.cancel import CancelToken
from imprint.core.errors import (
    Cancelled,
    PassphraseError,
    RepositoryBusyError,
    RepositoryError,
    TargetError,
)
from imprint.core.events import Progress
from imprint.objects.local import LocalStore
from imprint.objects.memory import MemoryStore
from imprint.repository import sessions
from imprint.repository.condemning import list_condemned, put_condemned
from imprint.repository.envelope import What, unwrap
from imprint.repository.forgetting import forget
from imprint.repository.index_content import IndexContent
from imprint.repository.index_rewriting import replace_index
from imprint.repository.live import Survey
from imprint.repository.nodes import Leaf, Piece
from imprint.repository.pack import PackKind, encode_group, pack_object
from imprint.repository.pack_contents import list_packs
from imprint.repository.prune import Options, prune
from imprint.repository.repository import Repository
from imprint.repository.sessions import is_process_gone, list_sessions
from imprint.repository.snapshots import Manifest
from imprint.testing.small_packs import encrypted
from imprint.testing.small_repositories import (
    CHUNK_BYTES,
    GROUP_CHUNKS,
    disk_content,
    objects,
    put_disk,
    read_disk,
    reopened,
    small_repository,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imprint.core.events import Event
    from imprint.objects.contract import ObjectStore
    from imprint.repository.sessions import Session
    from imprint.repository.snapshots import Snapshot
    from imprint.repository.writing import ChunkWriter


@pytest.fixture(params=["plain", "encrypted"])
def repository(request: pytest.FixtureRequest) -> Repository:
    return small_repository(encrypted() if request.param == "encrypted" else None)


def read(repository: Repository, snapshot: Snapshot) -> bytes:
    fresh = reopened(repository)
    return read_disk(fresh, fresh.snapshot(snapshot.name))


def add_disk(repository: Repository, writer: ChunkWriter, content: bytes) -> bytes:
    """Add a disk of one leaf; gives the name of that."""
    pieces = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
    names = [repository.protection.name_of(piece) for piece in pieces]
    new = [
        (name, piece)
        for name, piece, is_new in zip(names, pieces, writer.claim(names), strict=True)
        if is_new
    ]
    for at in range(0, len(new), GROUP_CHUNKS):
        group = new[at : at + GROUP_CHUNKS]
        writer.add(encode_group([data for _, data in group], 3), [name for name, _ in group])
    kinds = bytes([Piece.DATA]) * len(pieces)
    root = writer.add_node(Leaf(0, kinds, array("Q", map(len, pieces)), b"".join(names)).encode())
    writer.finish()
    writer.close()
    return root


def commit_root(
    repository: Repository, session: Session, writer: ChunkWriter, root: bytes, size: int
) -> Snapshot:
    manifest = Manifest("late", "2026-11-23T11:00:00.000000Z", size, root.hex())
    return repository.commit(manifest, session, writer)


def commit_disk(
    repository: Repository, session: Session, writer: ChunkWriter, content: bytes
) -> Snapshot:
    """Add a disk of one leaf in a session that has begun, and commit it."""
    root = add_disk(repository, writer, content)
    return commit_root(repository, session, writer, root, len(content))


class Interrupted:
    """A store in which something else happens amid what somebody does."""

    latency_s = 0.0
    name = "memory"

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.get = store.get
        self.get_range = store.get_range
        self.delete = store.delete
        self.list = store.list
        self.stat = store.stat
        self.close = store.close

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        self.store.put(name, parts, only_new=only_new)


def count(repository: Repository, prefix: str) -> int:
    return len(objects(repository, prefix))


def size_of(repository: Repository) -> int:
    return sum(item.size for item in list_packs(repository.store).values())


def test_what_only_forgotten_snapshots_needed_goes_at_once(repository: Repository) -> None:
    """Fails if a prune without others leaves garbage, or takes what is needed."""
    content = disk_content(40, seed=1)
    kept = put_disk(repository, content, minute=1)
    before = size_of(repository)
    gone = put_disk(repository, disk_content(60, seed=2), minute=2)
    forget(repository, [gone])
    report = prune(reopened(repository))
    assert size_of(repository) == before
    assert report.removed_packs == 2  # one of chunks, one of nodes
    assert report.packs == 4
    assert report.freed_bytes == report.bytes - before > 0
    assert count(repository, "condemned/") == count(repository, "sessions/") == 0
    assert read(repository, kept) == content


def test_an_empty_repository_and_one_without_garbage_stay_as_they_are() -> None:
    """Fails if a prune changes objects without need."""
    repository = small_repository()
    assert prune(repository).removed_packs == 0
    put_disk(repository, disk_content(20))
    before = set(objects(repository, ""))
    prune(reopened(repository))
    assert set(objects(repository, "")) == before


def test_a_dry_run_tells_what_would_go_and_changes_nothing(repository: Repository) -> None:
    """Fails if looking removes, or tells other figures than those that come true."""
    put_disk(repository, disk_content(40, seed=1), minute=1)
    gone = put_disk(repository, disk_content(60, seed=2), minute=2)
    forget(repository, [gone])
    before = set(objects(repository, ""))
    told = prune(reopened(repository), Options(dry_run=True))
    assert set(objects(repository, "")) == before
    done = prune(reopened(repository))
    assert (told.packs, told.removed_packs, told.freed_bytes) == (
        done.packs,
        done.removed_packs,
        done.freed_bytes,
    )


def test_wasteful_packs_are_repacked(repository: Repository) -> None:
    """Fails if waste above the limit stays, or if what is needed is lost on the way."""
    first = disk_content(40, seed=1)
    gone = put_disk(repository, first, minute=1)
    content = first[: 20 * CHUNK_BYTES]  # half of the same pack
    kept = put_disk(repository, content, image="half", minute=2)
    forget(repository, [gone])
    full = size_of(repository)
    untouched = prune(reopened(repository), Options(waste_max=0.9))
    assert untouched.repacked_packs == 0
    report = prune(reopened(repository), Options(waste_max=0.3))
    assert report.repacked_packs >= 1
    assert size_of(repository) < 0.6 * full
    assert read(repository, kept) == content


def test_many_small_packs_become_few(repository: Repository) -> None:
    """Fails if each capture leaves packs and index objects for ever."""
    disks = {}
    for number in range(20):
        content = disk_content(2, seed=number)
        disks[put_disk(repository, content, minute=number).name] = content
    assert count(repository, "packs/") == 40
    report = prune(reopened(repository), Options(small_max=8))
    assert report.repacked_packs == 40
    assert count(repository, "packs/") == 2
    assert count(repository, "index/") < 3
    for snapshot in reopened(repository).snapshots():
        assert read(repository, snapshot) == disks.pop(snapshot.name)
    assert not disks


def test_packs_that_a_session_may_use_wait_for_its_end(repository: Repository) -> None:
    """Fails if a pack goes while a session that began before may have found its chunks."""
    content = disk_content(40, seed=1)
    gone = put_disk(repository, content, minute=1)
    forget(repository, [gone])
    writing = reopened(repository)
    with writing.session("capture") as session:
        writer = writing.writer(session)
        assert not any(writer.claim([writing.protection.name_of(content[:CHUNK_BYTES])]))
        report = prune(reopened(repository))
        assert report.removed_packs == 0
        assert report.waiting_packs == 2
        assert [item.name for item in report.waits_for] == [session.name]
        assert report.waits_for[0].verb == "capture"
        assert count(repository, "packs/") == 2
        with reopened(repository).session("capture") as later:
            # Who begins now takes them for absent, and is not waited for.
            writer = repository.writer(later)
            assert all(writer.claim([writing.protection.name_of(content[:CHUNK_BYTES])]))
            session.close()
            assert prune(reopened(repository)).removed_packs == 2
    assert count(repository, "condemned/") == 0


def test_a_condemned_pack_that_is_needed_again_stays(repository: Repository) -> None:
    """Fails if a snapshot that was made since is not looked at."""
    content = disk_content(8, seed=1)
    gone = put_disk(repository, content, minute=1)
    forget(repository, [gone])
    packs = set(list_packs(repository.store))
    writing = reopened(repository)
    session = writing.session("capture")
    writer = writing.writer(session)
    prune(reopened(repository))
    (condemned,) = list_condemned(repository.store, repository.protection)
    assert condemned.packs == packs
    assert condemned.waits == frozenset({session.name})
    again = commit_disk(writing, session, writer, content)
    session.close()
    report = prune(reopened(repository))
    assert report.removed_packs == 0
    assert set(list_packs(repository.store)) == packs
    assert count(repository, "condemned/") == 0
    assert read(repository, again) == content


class Fickle(MemoryStore):
    """Refuses to put what begins with a prefix."""

    refused: tuple[str, ...] = ()

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        if name.startswith(self.refused):
            raise TargetError("no space left on device", name=name)
        super().put(name, parts, only_new=only_new)


def wasteful_repository(store: Fickle) -> tuple[Repository, Snapshot, bytes]:
    """Of three disks two were forgotten: one shares half with what is kept, one nothing."""
    repository = small_repository(store=store)
    first = disk_content(40, seed=1)
    gone = [put_disk(repository, first, minute=1)]
    content = first[: 20 * CHUNK_BYTES]
    kept = put_disk(repository, content, image="half", minute=2)
    gone.append(put_disk(repository, disk_content(40, seed=2), minute=3))
    forget(repository, gone)
    return repository, kept, content


def test_on_a_full_disk_what_may_go_goes() -> None:
    """Fails if a prune needs room to make room, or loses what it could not copy."""
    store = Fickle()
    repository, kept, content = wasteful_repository(store)
    before = size_of(repository)
    store.refused = ("packs/",)
    report = prune(reopened(repository))
    assert report.is_full
    assert report.repacked_packs == 0
    assert before - size_of(repository) == report.removed_bytes > 0
    assert read(repository, kept) == content
    store.refused = ()
    assert prune(reopened(repository)).repacked_packs >= 1
    assert read(repository, kept) == content


def test_without_room_for_an_index_packs_go_and_stay_condemned() -> None:
    """Fails if somebody believes an index that names packs which are gone."""
    store = Fickle()
    repository = small_repository(store=store)
    disks = [put_disk(repository, disk_content(1, seed=n), minute=n) for n in range(20)]
    replace_index(store, repository.protection, ())  # now one object names all
    forget(repository, disks[5:6])
    store.refused = ("index/",)
    report = prune(reopened(repository))
    assert report.is_full
    assert report.removed_packs == 2
    assert count(repository, "condemned/") == 1
    writing = reopened(repository)
    with writing.session("capture") as session:
        writer = writing.writer(session)
        assert all(writer.claim([writing.protection.name_of(disk_content(1, seed=5))]))
        writer.close()
    store.refused = ()
    prune(reopened(repository))
    assert count(repository, "condemned/") == 0
    existing = set(list_packs(repository.store))
    for name in objects(repository, "index/"):
        content = unwrap(store.get(name), What.INDEX, repository.protection)
        assert set(IndexContent(content).packs) == existing
    assert read(repository, disks[6]) == disk_content(1, seed=6)


def test_a_pack_that_is_made_again_while_it_is_condemned_is_another_one() -> None:
    """Fails if the same chunks make the same pack, and a prune removes the new for the old."""
    repository = small_repository()
    content = disk_content(8, seed=1)
    gone = put_disk(repository, content, minute=1)
    forget(repository, [gone])
    earlier = reopened(repository).session("capture")
    prune(reopened(repository))
    writing = reopened(repository)
    with writing.session("capture") as session:
        writer = writing.writer(session)
        root = add_disk(writing, writer, content)
        earlier.close()
        assert prune(reopened(repository)).removed_packs == 2
        snapshot = commit_root(writing, session, writer, root, len(content))
    assert read(repository, snapshot) == content


def test_a_snapshot_that_is_committed_while_packs_are_condemned_is_seen() -> None:
    """Fails if what is needed is found out before packs are condemned, and not once more."""
    repository = small_repository()
    content = disk_content(8, seed=1)
    forget(repository, [put_disk(repository, content, minute=1)])
    writing = reopened(repository)
    session = writing.session("capture")
    writer = writing.writer(session)
    done: list[Snapshot] = []

    class Watching(Interrupted):
        def put(
            self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
        ) -> None:
            super().put(name, parts, only_new=only_new)
            if name.startswith("condemned/") and not done:
                done.append(commit_disk(writing, session, writer, content))
                session.close()

    store = Watching(repository.store)
    report = prune(Repository(store, repository.format, repository.protection))
    assert report.removed_packs == 0
    assert count(repository, "condemned/") == 0
    assert read(repository, done[0]) == content


def test_a_snapshot_of_a_session_that_is_ended_for_it_is_withdrawn() -> None:
    """Fails if a session that is taken for dead while it commits leaves a broken snapshot."""
    repository = small_repository()
    content = disk_content(8, seed=1)
    forget(repository, [put_disk(repository, content, minute=1)])

    class Late(Interrupted):
        def put(
            self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
        ) -> None:
            if name.startswith("snapshots/"):
                self.store.delete(session.name)
                assert prune(reopened(repository)).removed_packs == 2
            super().put(name, parts, only_new=only_new)

    writing = Repository(Late(repository.store), repository.format, repository.protection)
    session = writing.session("capture")
    writer = writing.writer(session)
    with pytest.raises(RepositoryError, match="taken for dead"):
        commit_disk(writing, session, writer, content)
    assert count(repository, "snapshots/") == 0
    session.close()


def test_nobody_believes_the_index_of_packs_that_were_pruned() -> None:
    """Fails if one who was taken for dead, and goes on, makes others lose what they add."""
    repository = small_repository()
    content = disk_content(8, seed=1)
    forget(repository, [put_disk(repository, content, minute=1)])
    (index,) = objects(repository, "index/")
    late = repository.store.get(index)
    prune(reopened(repository))
    repository.store.put(index, (late,))
    snapshot = put_disk(reopened(repository), content, minute=2)
    assert read(repository, snapshot) == content
    repository.store.put(index, (late,))
    prune(reopened(repository))
    assert repository.store.stat(index) is None
    assert read(repository, snapshot) == content


def test_a_chunk_is_read_from_whichever_pack_is_still_there(repository: Repository) -> None:
    """Fails if a reader gives up when the second pack that the index names is gone as well."""
    content = disk_content(8, seed=1)
    copies = []
    for _ in range(3):
        before = set(list_packs(repository.store))
        with repository.session("test") as session:
            writer = repository.writer(session, without=before)
            root = add_disk(repository, writer, content)
            snapshot = commit_root(repository, session, writer, root, len(content))
        copies.append(set(list_packs(repository.store)) - before)
    assert [len(packs) for packs in copies] == [2, 2, 2]
    for kept in range(3):
        only = small_repository(repository.protection)
        for item in repository.store.list(""):
            gone = copies[kept - 1] | copies[kept - 2]
            if item.name not in map(pack_object, gone):
                only.store.put(item.name, (repository.store.get(item.name),))
        assert read(only, snapshot) == content


def test_a_process_that_goes_on_adding_knows_what_was_pruned() -> None:
    """Fails if a process believes in packs that it has put itself, and somebody has removed."""
    repository = small_repository()
    content = disk_content(8, seed=1)
    forget(repository, [put_disk(repository, content, minute=1)])
    prune(reopened(repository))
    again = put_disk(repository, content, minute=2)
    assert read(repository, again) == content


def test_packs_without_an_index_go_and_those_of_a_session_stay() -> None:
    """Fails if what a killed capture left stays for ever, or what a living one has put goes."""
    repository = small_repository()
    put_disk(repository, disk_content(9), minute=1)
    store = repository.store
    for number in (1, 2):
        store.put(pack_object(bytes([number]) * 32), (b"left by somebody who was killed",))
        if number == 1:
            session = reopened(repository).session("capture")
    assert prune(reopened(repository)).waiting_packs == 1
    assert store.stat(pack_object(b"\x01" * 32)) is not None
    session.close()
    assert prune(reopened(repository)).removed_packs == 2
    assert count(repository, "packs/") == 2


def test_what_belongs_to_nothing_goes(repository: Repository) -> None:
    """Fails if signatures, tags and parity of what is gone stay."""
    kept = put_disk(repository, disk_content(9), sign=lambda _: b"[]")
    pack = next(iter(list_packs(repository.store)))
    own = [f"tags/{kept.name}", pack_object(pack).replace("packs/", "parity/")]
    strays = [f"tags/{'0' * 64}", f"signatures/{'0' * 64}", f"parity/00/{'0' * 64}"]
    for name in own + strays:
        repository.store.put(name, (b"x",))
    assert prune(reopened(repository)).strays == 3
    left = set(objects(repository, ""))
    assert left.issuperset(own)
    assert left.isdisjoint(strays)


def test_one_prune_at_a_time() -> None:
    """Fails if two who remove find different things needed at the same moment."""
    repository = small_repository()
    put_disk(repository, disk_content(9))
    with (
        sessions.remover(repository.store, repository.protection, "prune"),
        pytest.raises(RepositoryBusyError, match="`prune` on") as caught,
    ):
        prune(reopened(repository))
    assert caught.value.exit_code == 7  # of the command line's contract: locked or damaged
    assert count(repository, "sessions/") == 0
    prune(reopened(repository))


def test_nothing_goes_from_a_damaged_repository(repository: Repository) -> None:
    """Fails if a prune makes damage worse that could be repaired."""
    put_disk(repository, disk_content(40, seed=1), minute=1)
    gone = put_disk(repository, disk_content(40, seed=2), minute=2)
    forget(repository, [gone])
    (lost, *_) = (
        pack
        for pack in list_packs(repository.store)
        if Survey(reopened(repository)).uses[pack].kind == PackKind.DATA
        and Survey(reopened(repository)).used_of(pack)
    )
    repository.store.delete(pack_object(lost))
    before = set(objects(repository, ""))
    with pytest.raises(RepositoryError, match="40 chunks that snapshots need are missing"):
        prune(reopened(repository))
    assert set(objects(repository, "")) == before


def test_a_key_that_may_only_add_cannot_prune() -> None:
    """Fails if a host that may add can remove, or fails another way than being told."""
    repository = small_repository(encrypted(can_read=False))
    with pytest.raises(PassphraseError, match="may only add"):
        prune(repository)
    assert objects(repository, "") == ["format"]


def test_a_cancelled_prune_is_gone_on_with(repository: Repository) -> None:
    """Fails if a prune that was stopped leaves a lock, or what nobody removes later."""
    content = disk_content(9, seed=0)
    kept = put_disk(repository, content)
    gone = [put_disk(repository, disk_content(40, seed=n), minute=n) for n in range(1, 5)]
    forget(repository, gone)
    cancel = CancelToken()
    phases = set()

    def stop(event: Event) -> None:
        assert isinstance(event, Progress)
        assert event.done <= event.total
        phases.add(event.phase)
        if event.phase == "prune" and event.done > event.total // 2:
            cancel.cancel()

    with pytest.raises(Cancelled):
        prune(reopened(repository), Options(on_event=stop, cancel=cancel))
    assert phases == {"survey", "prune"}
    assert count(repository, "condemned/") == 1
    assert count(repository, "sessions/") == 0
    assert read(repository, kept) == content
    prune(reopened(repository))
    assert count(repository, "condemned/") == 0
    assert count(repository, "packs/") == 2


def test_the_session_of_a_killed_process_of_this_machine_ends_at_once(tmp_path: Path) -> None:
    """Fails if a killed capture holds up prunes for a day, or a living one is taken for dead."""
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from imprint.objects.local import LocalStore\n"
        "from imprint.repository.repository import Repository\n"
        "Repository.open(LocalStore(Path(sys.argv[1])), None).session('capture')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    store = LocalStore(tmp_path / "repository")
    repository = Repository.create(store)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path / "repository")]
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    with repository.session("capture") as own:
        found = {item.name: item for item in list_sessions(store, repository.protection)}
        assert len(found) == 2
        gone = {name for name, item in found.items() if is_process_gone(item)}
        assert gone == found.keys() - {own.name}
        prune(repository)
        left = [item.name for item in list_sessions(store, repository.protection)]
        assert left == [own.name]


def make_older(store: MemoryStore, prefix: str, hours: int) -> None:
    """As if some objects had been put before."""
    for name, (content, when) in store._objects.items():
        if name.startswith(prefix):
            store._objects[name] = content, when - hours * 3600


def test_a_session_that_was_not_renewed_for_a_day_ends() -> None:
    """Fails if the session of a dead machine is waited for for ever; the store's clock counts."""
    store = MemoryStore()
    repository = small_repository(store=store)
    gone = put_disk(repository, disk_content(9))
    forget(repository, [gone])
    session = repository.session("capture")
    make_older(store, "", 48)
    make_older(store, session.name, -25)
    assert prune(reopened(repository)).waits_for
    make_older(store, session.name, 2)
    assert prune(reopened(repository)).removed_packs == 2
    assert not session.is_alive
    session.renew()
    assert not session.is_alive
    assert count(repository, "sessions/") == 0
    session.close()


def test_a_session_taken_for_dead_commits_if_all_is_there(repository: Repository) -> None:
    """Fails if a laptop that slept for a day loses what it has read, without need."""
    content = disk_content(20)
    session = repository.session("capture")
    writer = repository.writer(session)
    repository.store.delete(session.name)
    snapshot = commit_disk(repository, session, writer, content)
    assert session.is_alive
    session.close()
    assert read(repository, snapshot) == content


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_session_taken_for_dead_fails_if_something_is_not_there(
    repository: Repository, *, is_gone: bool
) -> None:
    """Fails if a snapshot is made of packs that a prune has removed, or is about to."""
    gone = put_disk(repository, disk_content(20))
    forget(repository, [gone])
    session = repository.session("capture")
    writer = repository.writer(session)
    repository.store.delete(session.name)
    if is_gone:
        prune(reopened(repository))
    else:
        put_condemned(
            repository.store, repository.protection, list_packs(repository.store), waits=()
        )
    with pytest.raises(RepositoryError, match="taken for dead"):
        commit_disk(repository, session, writer, disk_content(20))
    assert count(repository, "snapshots/") == 0
    session.close()


def test_the_bytes_of_a_node_on_a_disk_are_not_taken_for_the_node() -> None:
    """Fails if a disk that holds a node's bytes keeps what is below that node from being found."""
    repository = small_repository()
    content = disk_content(16, seed=1)
    inner = put_disk(repository, content, minute=1)
    root = bytes(repository.chunks.read(bytes.fromhex(inner.manifest.root)))
    with repository.session("test") as session:
        writer = repository.writer(session)
        name = repository.protection.name_of(root)
        assert writer.has_all([name])
        leaf = Leaf(0, bytes([Piece.DATA]), array("Q", [len(root)]), name)
        top = writer.add_node(leaf.encode())
        writer.finish()
        writer.close()
        time = "2026-11-23T09:00:00.000000Z"  # before the other: it is looked at first
        repository.commit(Manifest("nested", time, len(root), top.hex()), session, writer)
    prune(reopened(repository), Options(waste_max=0.0, small_max=0))
    assert read(repository, inner) == content


def test_an_index_object_that_is_alone_is_not_replaced_by_nothing() -> None:
    """Fails if an index object is removed since the new one has the same bytes."""
    repository = small_repository()
    disks = [put_disk(repository, disk_content(1, seed=n), minute=n) for n in range(20)]
    before = count(repository, "index/")
    replace_index(repository.store, repository.protection, ())
    assert count(repository, "index/") == 1 < before
    replace_index(repository.store, repository.protection, ())
    for number, snapshot in enumerate(disks):
        assert read(repository, snapshot) == disk_content(1, seed=number)
