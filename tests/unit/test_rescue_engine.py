"""The rescue engine on media with known faults.

NIST CFTT, Digital Data Acquisition Tool Specification 4.0: AM-06 (all visible sectors are
acquired), AM-08 (accurately), AM-09 (the user is told where unresolved errors are), AM-10 (what
could not be read is filled benignly).
"""

from __future__ import annotations

import contextlib
import errno
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.cancel import CancelToken
from imprint.core.errors import Cancelled, ReadError
from imprint.core.events import Event, Progress
from imprint.core.runs import Runs
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import SECTOR, BadMedium, Faults
from imprint.transfer.rescue import mapfile
from imprint.transfer.rescue.engine import Engine, Settings
from imprint.transfer.rescue.on_demand import OnDemand
from imprint.transfer.rescue.sink import TargetSink
from imprint.transfer.rescue.states import Areas, State

MIB = 1 << 20
SIZE = 2 * MIB
CONTENT = random.Random(8).randbytes(SIZE)

PATTERNS = {
    "single": [(MIB + 512, 512)],
    "run": [(300_032, 200 * 512)],
    "first": [(0, 512)],
    "last": [(SIZE - 512, 512)],
    "alternating": [(MIB + index * 1024, 512) for index in range(100)],
    "every cluster": [(index * 65536 + 8192, 512) for index in range(32)],
    "last half": [(MIB, MIB)],
}


class _Kept:
    """Remembers the last map that was saved."""

    def __init__(self) -> None:
        self.text = ""

    def save(self, areas: Areas, progress: mapfile.Progress) -> None:
        self.text = mapfile.render(areas, progress)


class _Rescue:
    """An engine over a medium, with all that it needs."""

    def __init__(
        self,
        faults: Faults,
        how: Settings | None = None,
        *,
        areas: Areas | None = None,
        target: MemoryStorage | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        self.medium = BadMedium(MemoryStorage(CONTENT), faults)
        self.target = target or MemoryStorage(bytes(SIZE))
        self.sink = TargetSink(self.target, is_clear=True)
        self.areas = areas or Areas(SIZE)
        self.kept = _Kept()
        self.events: list[Event] = []
        self.engine = Engine(
            self.medium,
            self.sink,
            self.areas,
            Runs.whole(SIZE),
            keeper=self.kept,
            settings=how,
            on_event=self.events.append,
            cancel=cancel,
        )

    def assert_all_but(self, bad: list[tuple[int, int]]) -> None:
        assert self.areas.runs(State.BAD) == Runs.of(bad)
        assert self.areas.runs(State.GOOD) == Runs.of(bad).complement(SIZE)
        expected = bytearray(CONTENT)
        for start, length in bad:
            expected[start : start + length] = bytes(length)
        assert bytes(self.target.content) == bytes(expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
def test_every_sector_but_the_bad_ones_is_rescued(name: str, reverse: bool) -> None:
    """AM-06, AM-08, AM-09: fails if a readable byte is lost, or a bad sector not listed exactly."""
    rescue = _Rescue(Faults(bad=tuple(PATTERNS[name])), Settings(reverse=reverse))
    rescue.engine.run()
    rescue.assert_all_but(PATTERNS[name])
    assert mapfile.parse(rescue.kept.text, name="map")[1].status == "+"


@given(st.lists(st.tuples(st.integers(0, SIZE // SECTOR - 1), st.integers(1, 60)), max_size=12))
@settings(max_examples=15)
def test_any_bad_sectors_cost_only_themselves(found: list[tuple[int, int]]) -> None:
    """AM-06, AM-09: fails for some pattern that nobody thought of.

    Also if a bad sector is read on its own more than once without being asked to.
    """
    bad = list(Runs.of((at * SECTOR, length * SECTOR) for at, length in found).clip(0, SIZE))
    rescue = _Rescue(Faults(bad=tuple(bad)))
    rescue.engine.run()
    rescue.assert_all_but(bad)
    alone = [read.offset for read in rescue.medium.failing if read.length == SECTOR]
    assert len(alone) == len(set(alone)) == sum(length for _, length in bad) // SECTOR


@pytest.mark.parametrize(("good_at", "retries", "is_saved"), [(4, 1, False), (4, 2, True)])
def test_a_weak_sector_is_read_when_it_is_tried_often_enough(
    good_at: int, retries: int, is_saved: bool
) -> None:
    """Fails if retries are not made, or more than asked for.

    The read of its cluster fails first, then its own; retries come behind.
    """
    weak = (MIB, SECTOR)
    rescue = _Rescue(Faults(weak={weak: good_at}), Settings(retries=retries))
    rescue.engine.run()
    rescue.assert_all_but([] if is_saved else [weak])


def test_a_rescue_goes_on_with_its_map() -> None:
    """Fails if what was read is read again, or bad sectors are tried unasked."""
    bad = [(MIB, 5 * SECTOR)]
    first = _Rescue(Faults(bad=tuple(bad)))
    first.engine.run()
    areas, _ = mapfile.parse(first.kept.text, name="map", size=SIZE)
    again = _Rescue(Faults(bad=tuple(bad)), areas=areas, target=first.target)
    again.engine.run()
    again.assert_all_but(bad)
    assert again.medium.log == []


@pytest.mark.parametrize("after", [1, 7, 30, 50])
@pytest.mark.parametrize("code", [errno.ENXIO, errno.EIO])
def test_a_medium_that_vanishes_stops_the_rescue_which_can_go_on(after: int, code: int) -> None:
    """Fails if sectors are called bad because the cable was pulled: also if that looks like EIO."""
    bad = ((5 * 65536, 3 * SECTOR),)
    rescue = _Rescue(Faults(bad=bad, gone_after=after, code=code), Settings(probe_after=8))
    with pytest.raises(ReadError):
        rescue.engine.run()
    areas, _ = mapfile.parse(rescue.kept.text, name="map", size=SIZE)
    assert areas.total(State.BAD) <= 3 * SECTOR
    plugged = _Rescue(Faults(bad=bad), areas=areas, target=rescue.target)
    plugged.engine.run()
    plugged.assert_all_but(list(bad))


def test_a_medium_that_vanishes_just_before_the_end_is_noticed() -> None:
    """Fails if good sectors are called bad because there were few left when the cable was pulled.

    Whichever read is the first that meets nothing. Only if that is the very last one, of one
    sector, nobody can tell; to look at another one then would cost each medium with a bad end.
    """
    bad = Runs.of([(5 * 65536 + SECTOR, 3 * SECTOR), (SIZE - 20 * SECTOR, SECTOR)])
    whole = _Rescue(Faults(bad=tuple(bad)))
    whole.engine.run()
    count = len(whole.medium.log)
    for after in range(1, count):
        faults = Faults(bad=tuple(bad), gone_after=after, code=errno.EIO)
        rescue = _Rescue(faults)
        with contextlib.suppress(ReadError):
            rescue.engine.run()
        areas, _ = mapfile.parse(rescue.kept.text, name="map", size=SIZE)
        assert (areas.runs(State.BAD) - bad).total <= SECTOR * (after > count - 2)


def test_a_read_that_does_not_come_back_is_given_up() -> None:
    """Fails if one hanging sector hangs the program, or loses more than itself."""
    hanging = (MIB, SECTOR)
    faults = Faults(hanging=(hanging,))
    rescue = _Rescue(faults, Settings(timeout_s=0.2))
    try:
        rescue.engine.run()
    finally:
        faults.released.set()
    rescue.assert_all_but([hanging])


def test_a_stop_is_heard_while_a_read_hangs() -> None:
    """Fails if Ctrl-C waits for a medium that does not answer."""
    faults, cancel = Faults(hanging=((0, SECTOR),)), CancelToken()
    rescue = _Rescue(faults, cancel=cancel)
    cancel.cancel()
    try:
        with pytest.raises(Cancelled):
            rescue.engine.run()
    finally:
        faults.released.set()
    assert mapfile.parse(rescue.kept.text, name="map")[0].total(State.UNTRIED) == SIZE


def test_slow_areas_come_last() -> None:
    """Fails if a slow area holds up what can be read fast; nothing of it may be lost."""
    slow = (512 * 1024, 256 * 1024)
    rescue = _Rescue(Faults(slow=(slow,), slow_s=0.05), Settings(slow_s=0.04))
    rescue.engine.run()
    rescue.assert_all_but([])
    log = rescue.medium.log
    is_slow = [slow[0] <= read.offset < sum(slow) for read in log]
    last_fast = len(is_slow) - 1 - is_slow[::-1].index(False)
    assert sum(is_slow[:last_fast]) <= 2


def test_what_is_looked_at_is_read_first_and_once() -> None:
    """Fails if metadata are read from the dying medium twice."""
    rescue = _Rescue(Faults(bad=((MIB, SECTOR),)))
    view = OnDemand(rescue.medium, rescue.engine, rescue.sink)
    buffer = memoryview(bytearray(700))
    for _ in range(2):
        view.readinto(buffer, SIZE - 1000)
        assert bytes(buffer) == CONTENT[SIZE - 1000 : SIZE - 300]
        with pytest.raises(ReadError):
            view.readinto(buffer, MIB - 100)
    first = rescue.medium.log[0]
    assert (first.offset, first.length) == (SIZE - 1024, 1024)
    assert len(rescue.medium.log) == 2
    rescue.engine.run()
    rescue.assert_all_but([(MIB, SECTOR)])


def test_parts_that_matter_more_are_read_first() -> None:
    """Fails if the order that was asked for is not kept."""
    rescue = _Rescue(Faults())
    rescue.engine.run([Runs.of([(MIB, 65536)]), Runs.of([(0, 1000)])])
    starts = [read.offset for read in rescue.medium.log]
    assert starts[:3] == [MIB, 0, 1024]


def test_progress_tells_the_phase_and_the_bad_areas() -> None:
    """Fails if a user cannot see what is going on."""
    rescue = _Rescue(Faults(bad=((MIB, SECTOR), (MIB + 4096, SECTOR))))
    rescue.engine.run()
    last = rescue.events[-1]
    assert isinstance(last, Progress)
    assert (last.bad, last.bad_areas, last.done) == (1024, 2, SIZE)
