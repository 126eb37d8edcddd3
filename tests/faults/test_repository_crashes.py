"""Captures and prunes that are killed at every point, full disks and failing ones."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import TargetError
from imprint.objects.local import LocalStore
from imprint.repository.forgetting import forget
from imprint.repository.format import read_format
from imprint.repository.live import Survey
from imprint.repository.protection import Plain
from imprint.repository.prune import prune
from imprint.repository.repository import Repository
from imprint.testing.small_repositories import disk_content, put_disk, read_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.repository.snapshots import Snapshot

FIRST = disk_content(40, seed=1)
SECOND = disk_content(60, seed=2)
HALF = FIRST[: len(FIRST) // 2]

KILLED = """
import os, signal, sys
from pathlib import Path
from imprint.objects import local
from imprint.repository.prune import prune
from imprint.repository.repository import Repository
from imprint.testing.small_repositories import disk_content, put_disk

folder, what, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
CALLS = "open write fsync replace link unlink rename mkdir".split()
count = 0

def counted(call):
    def run(*arguments, **options):
        global count
        name = arguments[0] if arguments else ""
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return run

repository = Repository.open(local.LocalStore(folder), None)
class Counted:
    def __getattr__(self, name):
        return counted(getattr(os, name)) if name in CALLS else getattr(os, name)
# Everything that the store asks of the system comes by here.
local.os = Counted()
local.Path.unlink = counted(local.Path.unlink)
if what == "capture":
    put_disk(repository, disk_content(60, seed=2), minute=9)
else:
    prune(repository)
print(count)
"""


def killed_at(folder: Path, what: str, at: int) -> int | None:
    """Run it in a process that dies before a call of the system; how many calls, if it lived."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), what, str(at)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def made(folder: Path) -> Repository:
    repository = Repository.create(LocalStore(folder))
    put_disk(repository, HALF, image="half", minute=1)
    return repository


def opened(store: LocalStore) -> Repository:
    """An open repository that is not encrypted."""
    return Repository(store, read_format(store), Plain())


def contents(folder: Path) -> list[bytes]:
    """What all snapshots read as, for somebody who comes new."""
    with opened(LocalStore(folder)) as repository:
        return [read_disk(repository, snapshot) for snapshot in repository.snapshots()]


def check_tidy(folder: Path) -> None:
    """Prune, and make sure that nothing is left of what was not finished."""
    with opened(LocalStore(folder)) as repository:
        prune(repository)
        for prefix in ("sessions/", "condemned/"):
            assert not list(repository.store.list(prefix))
        survey = Survey(repository)
        assert all(survey.used_of(pack) for pack in survey.existing)
        assert not survey.missing


def some(count: int, number: int) -> Iterator[int]:
    """The first and last calls, and some of those between: another choice in each part."""
    points = set(range(1, count + 1))
    if os.environ.get("IMPRINT_EVERY_CRASH") != "1":
        points = set(random.Random(count).sample(sorted(points), min(count, number)))
    yield from sorted(points)


def test_a_capture_that_is_killed_anywhere_costs_nothing_committed(tmp_path: Path) -> None:
    """Fails if what was there is lost, half a snapshot appears, or garbage stays."""
    made(tmp_path / "whole")
    count = killed_at(tmp_path / "whole", "capture", 1 << 30)
    assert count is not None
    assert count > 30
    for at in some(count, 10):
        folder = tmp_path / str(at)
        made(folder)
        assert killed_at(folder, "capture", at) is None
        found = contents(folder)
        assert found in ([HALF], [HALF, SECOND])
        check_tidy(folder)
        assert contents(folder) == found
        assert killed_at(folder, "capture", 1 << 30) is not None
        assert contents(folder)[-1] == SECOND


def test_a_prune_that_is_killed_anywhere_costs_nothing_committed(tmp_path: Path) -> None:
    """Fails if what is needed is lost, or what is not is never removed."""

    def prepare(folder: Path) -> None:
        repository = Repository.create(LocalStore(folder))
        gone: list[Snapshot] = [put_disk(repository, FIRST, minute=1)]
        put_disk(repository, HALF, image="half", minute=2)
        gone.append(put_disk(repository, disk_content(30, seed=3), minute=3))
        forget(repository, gone)

    prepare(tmp_path / "whole")
    count = killed_at(tmp_path / "whole", "prune", 1 << 30)
    assert count is not None
    assert count > 30
    for at in some(count, 12):
        folder = tmp_path / str(at)
        prepare(folder)
        assert killed_at(folder, "prune", at) is None
        assert contents(folder) == [HALF]
        check_tidy(folder)
        assert contents(folder) == [HALF]


def test_many_deaths_one_after_the_other(tmp_path: Path) -> None:
    """Fails if what one death leaves behind makes the next one worse."""
    made(tmp_path)
    noise = random.Random(5)
    for number in range(8):
        killed_at(tmp_path, "prune" if number % 2 else "capture", noise.randint(1, 60))
        assert set(contents(tmp_path)) <= {HALF, SECOND}
        assert HALF in contents(tmp_path)
    check_tidy(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.root
def test_a_full_disk_costs_nothing_and_can_be_made_empty_again(small_disk: Path) -> None:
    """Fails if a disk that is full loses snapshots, or has no room to make room."""
    repository = Repository.create(LocalStore(small_disk / "repository"))
    put_disk(repository, HALF, image="half", minute=1)
    put_disk(repository, FIRST, minute=2)
    big = disk_content(800, seed=9)
    with pytest.raises(TargetError):
        put_disk(repository, big, minute=3)
    folder = small_disk / "repository"
    assert contents(folder) == [HALF, FIRST]
    with opened(LocalStore(folder)) as again:
        forget(again, [again.select("host", None)])
    # Somebody else takes what is left, even what the store keeps in reserve, but for a few pages.
    room = os.statvfs(small_disk)
    (small_disk / "other").write_bytes(bytes(max(0, (room.f_bavail - 8) * room.f_frsize)))
    check_tidy(folder)
    assert contents(folder) == [HALF]
    (small_disk / "other").unlink()
    with opened(LocalStore(folder)) as again:
        put_disk(again, SECOND, minute=4)
    assert contents(folder) == [HALF, SECOND]


class Failing(LocalStore):
    """Fails with EIO from a change on, once or for ever."""

    def __init__(self, folder: Path, fail_at: int, *, lasting: bool) -> None:
        super().__init__(folder)
        self._left = fail_at
        self._lasting = lasting

    def _pass(self, name: str) -> None:
        self._left -= 1
        if self._left == 0 or (self._lasting and self._left < 0):
            raise TargetError(os.strerror(errno.EIO).lower(), name=name)

    def put(self, name: str, parts: object, *, only_new: bool = False) -> None:
        self._pass(name)
        super().put(name, parts, only_new=only_new)  # type: ignore[arg-type]

    def delete(self, name: str) -> None:
        self._pass(name)
        super().delete(name)


@pytest.mark.parametrize("lasting", [False, True])
def test_a_store_that_fails_anywhere_loses_nothing(tmp_path: Path, *, lasting: bool) -> None:
    """Fails if an error of the disk, at any change, costs what was committed."""
    for at in range(1, 12):
        folder = tmp_path / str(at)
        repository = made(folder)
        forget(repository, [put_disk(repository, FIRST, minute=2)])
        failing = opened(Failing(folder, at, lasting=lasting))
        with contextlib.suppress(TargetError):
            put_disk(failing, SECOND, minute=3)
        with contextlib.suppress(TargetError):
            prune(failing)
        assert contents(folder) in ([HALF], [HALF, SECOND])
        for session in LocalStore(folder).list("sessions/"):
            LocalStore(folder).delete(session.name)  # of this process, which lives
        check_tidy(folder)
