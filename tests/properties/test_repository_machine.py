"""Many who add, forget and prune at once, and die at any moment: nothing committed is ever lost.

A step is one action of one of several writers, a forget, a prune, a jump of the clock. Any of them
may be interrupted, before any request that it makes to the store, by actions of others, and by its
own death; then everything behind that point never happens.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from imprint.core.errors import RepositoryBusyError, RepositoryError, TargetError
from imprint.objects.memory import MemoryStore
from imprint.repository import repacking, writing
from imprint.repository.forgetting import forget
from imprint.repository.format import RepositoryFormat
from imprint.repository.live import Survey
from imprint.repository.nodes import Leaf, Piece, TreeBuilder
from imprint.repository.pack import encode_group
from imprint.repository.prune import Options, prune
from imprint.repository.repository import Repository
from imprint.repository.sessions import EXPIRY_MIN_S, EXPIRY_S, list_sessions
from imprint.repository.snapshots import Manifest
from imprint.testing.small_packs import encrypted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.objects.contract import ObjectInfo, ObjectStore
    from imprint.repository.protection import Protection
    from imprint.repository.sessions import Session
    from imprint.repository.writing import ChunkWriter

STEPS: Final = int(os.environ.get("IMPRINT_MACHINE_STEPS", "400"))
EXAMPLE_STEPS: Final = 50
WRITERS: Final = 3
CHUNKS: Final = 10
SALT_BYTES: Final = 32
LEAF_CHUNKS: Final = 3
HOUR: Final = 3600.0
NO_ENCRYPTION: Final = RepositoryFormat("00" * 16, "2026-11-22T20:15:00Z")


Arguments = tuple[int, tuple[int, ...]]
"""Of an action: a number that it uses as it likes, and a disk, as numbers of chunks."""


def chunk(number: int) -> bytes:
    """One of the few chunks of which all disks are made, so that they share most."""
    return random.Random(number).randbytes(300 + number)


class Death(Exception):  # noqa: N818 - it is not an error of anybody
    """The process is no more."""


class Clocked(MemoryStore):
    """A store whose clock stands still, but for when it is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_800_000_000.0
        self._times: dict[str, float] = {}

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        super().put(name, parts, only_new=only_new)
        self.now += 0.001
        self._times[name] = self.now

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for item in list(super().list(prefix)):
            yield item._replace(modified=self._times[item.name])

    def stat(self, name: str) -> ObjectInfo | None:
        found = super().stat(name)
        return None if found is None else found._replace(modified=self._times[name])


class View:
    """What one process sees of the store, for as long as it lives."""

    latency_s = 0.0

    def __init__(self, store: Clocked, machine: Machine) -> None:
        self._store = store
        self._machine = machine
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self.is_dead = False
        self.plan: Plan | None = None
        self.count = 0

    @property
    def name(self) -> str:
        return "memory"

    def get(self, name: str) -> bytes:
        self._live()
        return self._store.get(name)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self._live()
        return self._store.get_range(name, offset, length)

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        late = self._pass(changes=True)
        self._store.put(name, parts, only_new=only_new)
        if late:
            self._die()

    def delete(self, name: str) -> None:
        late = self._pass(changes=True)
        self._store.delete(name)
        if late:
            self._die()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._pass()
        return self._store.list(prefix)

    def stat(self, name: str) -> ObjectInfo | None:
        self._pass()
        return self._store.stat(name)

    def close(self) -> None:
        pass

    def _live(self) -> None:
        if self.is_dead:
            raise Death

    def _die(self) -> None:
        self.is_dead = True
        raise Death

    def _pass(self, *, changes: bool = False) -> bool:
        """Let others go first, and perhaps die; whether to die afterwards."""
        self._live()
        plan = self.plan
        if plan is None:
            return False
        with self._lock:
            at = self.count
            self.count += 1
        # What workers of a process do cannot be interrupted: it has no order of its own.
        if threading.get_ident() == self._thread:
            for when, action in plan.between:
                if when == at:
                    self._machine.act_between(*action)
        if plan.ends_at is None or not changes or at < plan.ends_at:
            return False
        if plan.ending == "fails":
            self.plan = plan._replace(ends_at=None)
            message = "no space left on device"
            raise TargetError(message, name="memory")
        if plan.ending == "dies before":
            self._die()
        return True


class Plan(NamedTuple):
    """What happens while an action is under way.

    Attributes:
        between: before which of its requests, what others do.
        ends_at: the request from which on the next change of the store is the last.
        ending: how it is the last.
    """

    between: tuple[tuple[int, tuple[str, int, Arguments]], ...] = ()
    ends_at: int | None = None
    ending: str = "dies before"


class Writer:
    """Somebody who captures a disk."""

    def __init__(self, repository: Repository, view: View, disk: tuple[int, ...]) -> None:
        self.repository = repository
        self.view = view
        self.disk = disk
        self.todo = list(dict.fromkeys(disk))
        self.session: Session = repository.session("capture")
        self.writer: ChunkWriter = repository.writer(self.session)
        self.root: bytes | None = None

    def add(self, count: int) -> None:
        """Add some chunks."""
        for number in self.todo[:count]:
            data = chunk(number)
            name = self.repository.protection.name_of(data)
            if self.writer.claim((name,))[0]:
                self.writer.add(encode_group((data,), 3), (name,))
        del self.todo[:count]

    def finish(self) -> None:
        """Add the rest and the tree."""
        self.add(len(self.todo))
        tree = TreeBuilder(self.writer.add_node)
        at = 0
        for first in range(0, len(self.disk), LEAF_CHUNKS):
            leaf = self._leaf(at, self.disk[first : first + LEAF_CHUNKS])
            content = leaf.encode()
            name = self.repository.protection.name_of(content)
            chunks = [leaf.name_of(entry) for entry in range(len(leaf.kinds))]
            if not self.writer.has_all([name, *chunks]):
                name = self.writer.add_node(content)
            tree.add(at, leaf.end, name)
            at = leaf.end
        root = tree.finish()
        self.writer.finish()
        self.root = root

    def _leaf(self, start: int, numbers: Sequence[int]) -> Leaf:
        chunks = [chunk(number) for number in numbers]
        names = b"".join(map(self.repository.protection.name_of, chunks))
        kinds = bytes([Piece.DATA]) * len(chunks)
        return Leaf(start, kinds, array("Q", map(len, chunks)), names)

    def end(self, *, quietly: bool) -> None:
        """Stop threads; ``quietly``: nothing reaches the store."""
        self.view.is_dead |= quietly
        self.writer.close()
        with contextlib.suppress(Death):
            self.session.close()


OFTEN: Final = ["begin", "add", "finish", "commit"]
RARELY: Final = ["abandon", "kill", "renew", "capture", "prune", "advance"]
ACTIONS = st.sampled_from([*OFTEN, *OFTEN, *RARELY, "forget", "forget", "forget"])
DISKS = st.lists(st.integers(0, CHUNKS - 1), min_size=1, max_size=8).map(tuple)
ARGUMENTS = st.tuples(st.integers(0, 5), DISKS)
BETWEEN = st.lists(
    st.tuples(st.integers(0, 25), st.tuples(ACTIONS, st.integers(0, WRITERS - 1), ARGUMENTS)),
    max_size=4,
)
SCENE_ACTIONS = st.sampled_from(
    ["begin", "begin", "finish", "commit", "commit", "prune", "prune", "abandon", "advance"]
)
PLANS = st.builds(
    Plan,
    BETWEEN.map(tuple),
    st.none() | st.integers(0, 40),
    st.sampled_from(["dies before", "dies after", "fails"]),
)

Part = tuple[str, int, int, Plan]
QUIET = st.lists(
    st.tuples(st.integers(0, 20), st.tuples(SCENE_ACTIONS, st.integers(1, 2), st.just((2, ())))),
    max_size=2,
).map(lambda between: Plan(tuple(between)))
STORIES: Final = (
    "begin1 prune begin2 finish2 abandon1 prune commit2 prune",
    "begin1 prune<commit1 prune",
    "begin1 finish1 prune<commit1 prune<abandon2 prune",
    "begin1 finish1 advance prune commit1 prune",
    "begin1 finish1 commit1<advance<prune prune",
    "begin1 finish1 commit1<advance<prune<prune begin2 commit2",
    "begin1 finish1 abandon1 prune begin1 commit1 prune",
    "begin1 prune advance prune<commit1 prune",
    "begin1 prune<capture2 commit1 prune<prune",
    "begin1 prune begin2 commit2 advance prune<commit1 prune",
    "begin1 advance begin2 prune<renew1 finish2 commit1<prune commit2",
)
"""What is known to be delicate: actions, their writers, and after < what others do amid them."""


def parts(text: str) -> st.SearchStrategy[Part]:
    """A step of a story; when others act in between is not said."""
    what, *amid = text.split("<")

    def part(number: int, at: int, more: Plan) -> Part:
        between = tuple((at, (*split(other), (2, ()))) for other in amid)
        return *split(what), number, more._replace(between=(*between, *more.between))

    return st.builds(part, st.integers(2, 5), st.integers(0, 16), st.just(Plan()) | QUIET)


def split(text: str) -> tuple[str, int]:
    """An action, and whose it is."""
    return text.rstrip("12"), int(text[-1]) if text[-1].isdigit() else 1


SCENES = st.one_of(
    st.lists(
        st.tuples(SCENE_ACTIONS, st.integers(1, 2), st.integers(0, 5), QUIET),
        min_size=3,
        max_size=9,
    ),
    *(st.tuples(*map(parts, story.split())).map(list) for story in STORIES),
)


class Machine(RuleBasedStateMachine):
    """The repository, and what has to be in it."""

    protection: Protection = Repository.create(MemoryStore()).protection

    def __init__(self) -> None:
        super().__init__()
        self.store = Clocked()
        self.writers: list[Writer | None] = [None] * WRITERS
        self.busy: set[int] = set()
        self.stale: dict[int, tuple[Repository, View]] = {}
        self.committed: dict[str, bytes] = {}
        self.possible: dict[str, bytes] = {}
        self.number = 0
        self.disk: tuple[int, ...] = (0,)
        self.patches = [
            mock.patch.object(writing, "PACK_BYTES", 800),
            mock.patch.object(writing, "_INDEX_EVERY_BYTES", 2000),
            mock.patch.object(repacking, "SMALL_BYTES", 400),
            mock.patch("imprint.repository.prune._BATCH_PACKS", 2),
        ]
        for patch in self.patches:
            patch.start()
        self.reader = self.open(View(self.store, self))

    def teardown(self) -> None:
        for writer in self.writers:
            if writer is not None:
                writer.end(quietly=True)
        for patch in self.patches:
            patch.stop()

    def open(self, store: ObjectStore) -> Repository:
        return Repository(store, NO_ENCRYPTION, self.protection)

    # What somebody does

    def act_between(self, what: str, slot: int, arguments: Arguments) -> None:
        """An action amid another one; nothing interrupts it."""
        number, disk = arguments
        arguments = number, disk or self.disk
        if what != "prune" and slot in self.busy:
            return
        self.act(what, slot, arguments, Plan())

    def act(self, what: str, slot: int, arguments: Arguments, plan: Plan) -> None:
        number, disk = arguments
        self.disk = disk or self.disk
        if what == "advance":
            self.store.now += (0.1, 1, 6, 13, 25, 30)[number] * HOUR
        elif what == "forget":
            self.forget(number, disk, plan)
        elif what == "prune":
            self.prune(number, plan)
        elif what == "begin":
            self.begin(slot, number, disk, plan)
        elif what == "capture":
            for part in ("begin", "commit"):
                self.act(part, slot, arguments, Plan())
        elif (writer := self.writers[slot]) is not None:
            self.write(what, slot, writer, number, plan)

    def begin(self, slot: int, number: int, disk: tuple[int, ...], plan: Plan) -> None:
        if self.writers[slot] is not None:
            return
        repository, view = self.stale.get(slot) or (None, None)
        if repository is None or view is None or view.is_dead or number < 2:
            view = View(self.store, self)
            repository = self.open(view)
            if number % 2:
                repository.index.reload()  # it may be old when it is needed
        self.stale[slot] = repository, view
        self.busy.add(slot)
        view.plan, view.count = plan, 0
        try:
            self.writers[slot] = Writer(repository, view, disk)
        except (Death, TargetError):
            pass
        finally:
            view.plan = None
            self.busy.discard(slot)

    def write(self, what: str, slot: int, writer: Writer, number: int, plan: Plan) -> None:
        if what == "kill":
            writer.end(quietly=True)
            self.writers[slot] = None
            return
        self.busy.add(slot)
        writer.view.plan, writer.view.count = plan, 0
        is_over = what in ("commit", "abandon")
        try:
            if what == "renew":
                writer.session.renew()
            elif what == "add":
                writer.add(number)
            elif what == "finish" and writer.root is None:
                writer.finish()
            elif what == "commit":
                self.commit(writer)
        except (Death, TargetError):
            is_over = True
        finally:
            writer.view.plan = None
            self.busy.discard(slot)
        if is_over:
            writer.end(quietly=False)
            self.writers[slot] = None

    def commit(self, writer: Writer) -> None:
        if writer.root is None:
            writer.finish()
        assert writer.root is not None
        self.number += 1
        content = b"".join(map(chunk, writer.disk))
        root = writer.root.hex()
        time = f"2026-11-22T20:15:00.{self.number:06}Z"
        manifest = Manifest(f"disk{self.number % 3}", time, len(content), root)
        name = self.protection.name_of(manifest.encode()).hex()
        self.possible[name] = content
        was = writer.session.name
        try:
            snapshot = writer.repository.commit(manifest, writer.session, writer.writer)
        except RepositoryError as failure:
            # Permitted only to those whom somebody took for dead.
            if writer.session.name == was:
                raise AssertionError("it was alive") from failure
        except Death:
            if writer.session.name != was or self.store.stat(was) is None:
                # It died before it could find out whether what it needs is there.
                self.store.delete(f"snapshots/{name}")
            raise
        else:
            assert snapshot.name == name
            self.committed[name] = content

    def forget(self, number: int, disk: tuple[int, ...], plan: Plan) -> None:
        view = View(self.store, self)
        repository = self.open(view)
        snapshots = [item for item in repository.snapshots() if item.name in self.committed]
        content = b"".join(map(chunk, disk))
        same = [item for item in snapshots if self.committed[item.name] == content]
        chosen = same or snapshots[number % 2 :: 2]
        for item in chosen:
            self.committed.pop(item.name, None)  # it may be there still: then it has to be whole
        view.plan = plan._replace(between=())
        with contextlib.suppress(Death, TargetError):
            forget(repository, chosen)

    def prune(self, number: int, plan: Plan) -> None:
        view = View(self.store, self)
        repository = self.open(view)
        view.plan = plan
        others = list_sessions(self.store, self.protection)
        is_first = not list(self.store.list("condemned/"))
        options = Options(
            waste_max=(0.0, 0.3, 1.0)[number % 3],
            small_max=(4, 1000)[number % 2],
            expiry_s=(EXPIRY_S, EXPIRY_MIN_S)[number // 3],
        )
        try:
            report = prune(repository, options)
        except (Death, TargetError):
            pass
        except RepositoryBusyError:
            assert any(item.removes for item in others)
        except RepositoryError as failure:
            if not plan.between or "taken for dead" not in str(failure):
                raise
        else:
            if not plan.between and not list_sessions(self.store, self.protection):
                self.check_is_tidy(options, is_full=report.is_full, is_first=is_first)

    def check_is_tidy(self, options: Options, *, is_full: bool, is_first: bool) -> None:
        """With nobody else there, a prune leaves nothing that is not needed."""
        survey = Survey(self.open(self.store))
        if is_full:
            return
        assert not list(self.store.list("condemned/"))
        if options.waste_max > 0.0 or not is_first:
            # Of a chunk that is in two packs either may be the one that is needed; and packs that
            # were condemned and are needed stay as they are.
            return
        for pack in survey.existing:
            waste = survey.uses[pack].groups - survey.used_of(pack)
            # Estimated; and 32 bytes that keep a pack from being one that is to go.
            assert waste <= survey.uses[pack].groups // 4 + SALT_BYTES

    # Rules

    @initialize(disks=st.lists(DISKS, min_size=1, max_size=3))
    def some_are_there(self, disks: list[tuple[int, ...]]) -> None:
        for disk in disks:
            self.act("capture", 0, (0, disk), Plan())

    @rule(what=ACTIONS, slot=st.integers(0, WRITERS - 1), arguments=ARGUMENTS)
    def somebody_acts(self, what: str, slot: int, arguments: Arguments) -> None:
        self.act(what, slot, arguments, Plan())

    @rule(what=ACTIONS, slot=st.integers(0, WRITERS - 1), arguments=ARGUMENTS, plan=PLANS)
    def somebody_is_interrupted(
        self, what: str, slot: int, arguments: Arguments, plan: Plan
    ) -> None:
        self.act(what, slot, arguments, plan)

    @rule(number=st.integers(0, 5), plan=PLANS)
    def a_prune_is_interrupted(self, number: int, plan: Plan) -> None:
        self.act("prune", 0, (number, ()), plan)

    @rule(disk=DISKS, scene=SCENES)
    def a_scene_of_one_disk(self, disk: tuple[int, ...], scene: list[Part]) -> None:
        """All are at odds about the same packs, which nothing needs any more."""
        self.act("capture", 0, (0, disk), Plan())
        self.act("forget", 0, (0, disk), Plan())
        for what, slot, number, plan in scene:
            self.act(what, slot, (number, disk), plan)
            self.everything_committed_is_there()

    @invariant()
    def everything_committed_is_there(self) -> None:
        fresh = self.open(self.store)
        there = {snapshot.name: snapshot for snapshot in fresh.snapshots()}
        assert self.committed.keys() <= there.keys()
        for repository in (fresh, self.reader):
            for name, snapshot in there.items():
                content = self.possible[name]
                buffer = memoryview(bytearray(len(content)))
                repository.source(snapshot).readinto(buffer, 0)
                assert buffer == content


class EncryptedMachine(Machine):
    """The same, where no two packs are the same."""

    protection = encrypted()


def run_machine(machine: type[Machine], steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, steps // EXAMPLE_STEPS),
            stateful_step_count=EXAMPLE_STEPS,
            deadline=None,
            # What is found is long, and to shorten it would take minutes; ask for it.
            phases=tuple(Phase) if "IMPRINT_MACHINE_SHRINK" in os.environ else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(0 if "IMPRINT_MACHINE_STEPS" in os.environ else 120)
def test_nothing_committed_is_lost_whatever_happens_at_the_same_time() -> None:
    """Fails if any order of captures, forgets, prunes and deaths costs a committed snapshot."""
    run_machine(Machine, STEPS)


@pytest.mark.timeout(0 if "IMPRINT_MACHINE_STEPS" in os.environ else 120)
def test_nothing_committed_is_lost_in_an_encrypted_repository() -> None:
    """Fails if any order of captures, forgets, prunes and deaths costs a committed snapshot."""
    run_machine(EncryptedMachine, STEPS // 4)


assert EXPIRY_S == 24 * HOUR, "the jumps of the clock are chosen for it"
