"""Images of several files: killed at every change of a name, made anew and in the place of others.

What counts is what the names say then: all of the old image, all of the new one, or nothing;
and that the next attempt cleans up after the one that was killed, whether it may replace or not.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import RefusedError, TargetBusyError, TargetError
from imprint.core.units import KIB, MIB
from imprint.endpoints import copying
from imprint.endpoints.open import open_image
from imprint.endpoints.target import TargetRequest
from imprint.storage.pending import PendingFile
from imprint.storage.sets import begin_set, commit_set

if TYPE_CHECKING:
    from pathlib import Path

OLD: Final = random.Random(1).randbytes(2 * MIB + 300 * KIB)
NEW: Final = random.Random(2).randbytes(MIB + 100 * KIB)

CASES: Final = {
    "e01": ("disk.E01", {"segment_size": "1M", "compression": "none"}),
    "ex01": ("disk.Ex01", {"segment_size": "1M", "compression": "none"}),
    "raw": ("disk.001", {"split": "900K"}),
}

SCRIPT: Final = """
import json, os, sys
from imprint.endpoints import copying
from imprint.endpoints.target import TargetRequest

folder, name, format_, options, force, kept, calls, links, limit = json.loads(sys.argv[1])
os.chdir(folder)

def mortal(call, counter):
    def attempt(*arguments, **options):
        counter[0] -= 1
        if counter[0] < 0:
            os._exit(9)
        return call(*arguments, **options)
    return attempt

def fail(*arguments, **options):
    raise PermissionError(1, "Operation not permitted")

if not links:
    make_link, os.link = os.link, fail
else:
    make_link = os.link

def work():
    target = TargetRequest(name, format_, options, force=force)
    copying.run(copying.CopyRequest("new", target, workers=1, resume=False))

deaths, code = 0, 9
while code == 9 and deaths < limit:
    os.makedirs(f"at{deaths}")
    for each in ["new", *kept]:
        make_link(each, f"at{deaths}/{each}")
    child = os.fork()
    if child == 0:
        os.chdir(f"at{deaths}")
        counter = [deaths]
        for call in calls:
            setattr(os, call, mortal(getattr(os, call), counter))
        work()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    deaths += 1
print(json.dumps([code, deaths]))
"""

NAMING: Final = ["rename", "replace", "link", "unlink", "fsync", "utime"]


def write(folder: Path, name: str, disk: bytes, case: str, *, force: bool = False) -> None:
    """Make an image of a disk."""
    (folder / "new").unlink(missing_ok=True)
    (folder / "new").write_bytes(disk)
    target = TargetRequest(str(folder / name), case, CASES[case][1], force=force)
    copying.run(copying.CopyRequest(str(folder / "new"), target, workers=1, resume=False))


def killed(
    folder: Path,
    case: str,
    *,
    force: bool,
    calls: list[str],
    links: bool = True,
    disk: bytes = NEW,
) -> list[Path]:
    """Folders, in each of which making an image of ``disk`` was killed one call later."""
    name, options = CASES[case]
    kept = sorted(path.name for path in folder.iterdir() if path.name != "new")
    (folder / "new").unlink(missing_ok=True)
    (folder / "new").write_bytes(disk)
    arguments = json.dumps([str(folder), name, case, options, force, kept, calls, links, 200])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    code, deaths = json.loads(done.stdout)
    assert code == 0, done.stderr
    return [folder / f"at{number}" for number in range(deaths)]


def content(path: Path) -> bytes | None:
    """The disk of an image, if there is one."""
    if not path.exists():
        return None
    with open_image(str(path)) as image:
        return image.read_at(0, image.size)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"new"}


WITH_LINKS: Final = pytest.mark.parametrize(
    ("case", "links"), [("e01", True), ("ex01", True), ("raw", True), ("raw", False)]
)


@WITH_LINKS
def test_a_new_set_shows_whole_or_not_at_all(tmp_path: Path, case: str, *, links: bool) -> None:
    """Fails if a first file is there before all others, or leftovers refuse the next attempt."""
    name = CASES[case][0]
    for each in ("whole", "work"):
        (tmp_path / each).mkdir()
    write(tmp_path / "whole", name, NEW, case)
    expected = names(tmp_path / "whole")
    assert len(expected) == 2
    seen_without_first = 0
    for folder in killed(tmp_path / "work", case, force=False, calls=NAMING, links=links):
        found = content(folder / name)
        assert found in (None, NEW)
        seen_without_first += bool(expected & names(folder)) and found is None
        write(folder, name, NEW, case, force=found is not None)
        assert content(folder / name) == NEW
        assert names(folder) == expected
    assert seen_without_first  # else nothing was killed between two names


@WITH_LINKS
@pytest.mark.parametrize("is_longer", [False, True])
def test_a_set_in_the_place_of_another_is_never_mixed_with_it(
    tmp_path: Path, case: str, *, links: bool, is_longer: bool
) -> None:
    """Fails if the first file opens with others than its own, or the old image gets lost."""
    name = CASES[case][0]
    old, new = (NEW, OLD) if is_longer else (OLD, NEW)
    write(tmp_path, name, old, case)
    before = names(tmp_path)
    assert len(before) == (2 if is_longer else 3)
    seen = set()
    folders = killed(tmp_path, case, force=True, calls=NAMING, links=links, disk=new)
    for number, folder in enumerate(folders):
        found = content(folder / name)
        seen.add(found)
        assert found in (None, old, new)
        if number % 2:
            with pytest.raises(RefusedError):
                write(folder, name, new, case)
            back = content(folder / name)
            assert back == (old if found is None else found)
            assert found is not None or names(folder) == before
            continue
        write(folder, name, new, case, force=True)
        assert content(folder / name) == new
        assert len(names(folder)) == (3 if is_longer else 2)
    assert seen == {None, old, new}


def test_a_set_that_is_killed_while_it_is_written_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """Fails if files under temporary names, more than the next attempt needs, stay for good."""
    for folder in killed(tmp_path, "e01", force=False, calls=["pwrite"])[::3]:
        (folder / "disk.E03.partial").write_bytes(b"of a longer set")
        if not (folder / "disk.E02.partial").exists():
            (folder / "disk.E02.partial").write_bytes(b"of the same")
        write(folder, "disk.E01", NEW, "e01", force=(folder / "disk.E01").exists())
        assert names(folder) == {"disk.E01", "disk.E02"}


@pytest.mark.parametrize("force", [False, True])
def test_a_file_of_somebody_else_is_not_taken_for_a_leftover(
    tmp_path: Path, *, force: bool
) -> None:
    """Fails if a file that only looks like a segment is removed without leave."""
    (tmp_path / "disk.E02").write_bytes(b"something else")
    (tmp_path / "disk.E02.partial").write_bytes(b"what a killed program left")
    if force:
        write(tmp_path, "disk.E01", NEW, "e01", force=True)
        assert names(tmp_path) == {"disk.E01", "disk.E02"}
        return
    with pytest.raises(RefusedError):
        write(tmp_path, "disk.E01", NEW, "e01")
    assert (tmp_path / "disk.E02").read_bytes() == b"something else"
    assert names(tmp_path) == {"disk.E02"}


def test_a_file_that_another_program_is_writing_is_not_removed(tmp_path: Path) -> None:
    """Fails if a running capture loses its file to one that begins."""
    busy = PendingFile.create(tmp_path / "disk.E02", may_replace=False)
    with pytest.raises(TargetBusyError):
        write(tmp_path, "disk.E01", NEW, "e01")
    assert (tmp_path / "disk.E02.partial").exists()
    busy.abort()


def begun(folder: Path, *names: str, may_replace: bool) -> list[PendingFile]:
    files = []
    for name in names:
        files.append(PendingFile.create(folder / name, may_replace=may_replace))
        files[-1].write(memoryview(b"new " + name.encode()), 0)
    return files


@pytest.mark.parametrize("failing", ["link", "rename", "fsync"])
def test_the_old_set_is_back_if_the_system_fails(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if an error in the midst of the names leaves neither image."""
    for after in range(20):
        folder = tmp_path / str(after)
        folder.mkdir()
        for name in ("a.1", "a.2", "a.3"):
            (folder / name).write_text("old")
        files = begun(folder, "a.1", may_replace=True)
        old = begin_set(folder / "a.1", [folder / "a.2", folder / "a.3"], at_least=1)
        files += begun(folder, "a.2", may_replace=True)
        with monkeypatch.context() as patch:
            count = _failing(patch, failing, after)
            try:
                commit_set(files, old)
            except TargetError:
                for file in files:
                    file.abort()
        if count[0] >= 0:  # it did not come to that: the last round
            assert (folder / "a.1").read_text() == "new a.1"
            assert names(folder) == {"a.1", "a.2"}
            return
        if failing != "link":  # where linking fails, files are renamed
            assert {name: (folder / name).read_text() for name in names(folder)} == dict.fromkeys(
                ("a.1", "a.2", "a.3"), "old"
            )
    pytest.fail("it never succeeded")


def _failing(patch: pytest.MonkeyPatch, call: str, after: int) -> list[int]:
    """Let one call fail: the one behind ``after`` others."""
    count = [after]
    real = getattr(os, call)

    def attempt(*arguments: object) -> object:
        count[0] -= 1
        if count[0] == -1:
            raise OSError(5, "Input/output error")
        return real(*arguments)

    patch.setattr(os, call, attempt)
    return count


def test_a_file_system_without_links_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a set cannot be made or replaced on FAT."""

    def none(*arguments: object) -> None:
        del arguments
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    write(tmp_path, "disk.E01", OLD, "e01")
    write(tmp_path, "disk.E01", NEW, "e01", force=True)
    assert content(tmp_path / "disk.E01") == NEW
    assert names(tmp_path) == {"disk.E01", "disk.E02"}


def test_a_name_that_is_taken_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """Fails if a file that appeared during the copy is overwritten, or the copy gets lost."""
    files = begun(tmp_path, "a.1", "a.2", may_replace=False)
    (tmp_path / "a.1").write_text("another one's")
    with pytest.raises(RefusedError, match="appeared"):
        commit_set(files, [])
    for file in files:
        file.abort()
    assert names(tmp_path) == {"a.1", "a.1.partial", "a.2.partial"}
    assert (tmp_path / "a.1").read_text() == "another one's"
    assert (tmp_path / "a.2.partial").read_text() == "new a.2"
