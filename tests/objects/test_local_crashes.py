"""A folder of objects whose writer is killed, whose disk is full, or may not be written."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ReadError, TargetError
from imprint.core.units import KIB, MIB
from imprint.objects.contract import MissingObjectError, ObjectExistsError
from imprint.objects.local import STALE_S, LocalStore
from imprint.testing.volumes import attached, small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Makes one object in the folder "whole", and prints which system calls that takes. Then once more
# in a folder for each of them: by a process that dies by SIGKILL before the call of that number.
WRITER = """
import os, signal, sys
from pathlib import Path
from imprint.objects.local import LocalStore

CALLS = ("open write fsync fstat fstatvfs replace rename link unlink mkdir close").split()
base, mode = Path(sys.argv[1]), sys.argv[2]
steps = []

def counted(name, call, kill_at):
    def wrapper(*arguments, **options):
        if len(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps.append(name)
        return call(*arguments, **options)
    return wrapper

def put(folder, kill_at):
    store = LocalStore(folder)
    if mode == "replace":
        LocalStore(folder).put("packs/3f/aa", [b"old" * 1000])
    real = {name: getattr(os, name) for name in CALLS}
    for name, call in real.items():
        setattr(os, name, counted(name, call, kill_at))
    store.put("packs/3f/aa", [b"new" * 1000, b"er" * 1000], only_new=mode == "new")
    for name, call in real.items():
        setattr(os, name, call)

put(base / "whole", -1)
print(" ".join(steps), flush=True)
for number in range(len(steps)):
    child = os.fork()
    if child == 0:
        steps.clear()
        put(base / f"killed-{number}", number)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, number
"""
NEW = b"new" * 1000 + b"er" * 1000
OLD = b"old" * 1000


def _steps(base: Path, mode: str) -> list[str]:
    """Which calls a put makes; ``base / "killed-N"`` is what a kill before the Nth leaves."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, base, mode],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("mode", ["replace", "new"])
def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new(tmp_path: Path, mode: str) -> None:
    """Fails if a kill at any system call leaves part of an object, or something that is listed."""
    steps = _steps(tmp_path, mode)
    assert {"open", "write", "fsync", "replace" if mode == "replace" else "link"} <= set(steps)
    seen = set()
    for index in range(len(steps)):
        folder = tmp_path / f"killed-{index}"
        store = LocalStore(folder)
        names = [info.name for info in store.list("")]
        try:
            content = store.get("packs/3f/aa")
        except MissingObjectError:
            content = b""
        assert content in ((OLD, NEW) if mode == "replace" else (b"", NEW)), index
        assert names == (["packs/3f/aa"] if content else []), index
        seen.add(content)
        # Whoever comes next is not hindered.
        store.put("packs/3f/aa", [b"next"])
        store.put("packs/3f/bb", [b"next"], only_new=True)
        assert store.get("packs/3f/aa") == store.get("packs/3f/bb") == b"next"
    assert len(seen) == 2


@pytest.mark.parametrize("mode", ["replace", "new"])
def test_what_gets_its_name_is_durable_and_so_is_the_name(tmp_path: Path, mode: str) -> None:
    """Fails if a power cut could leave an empty file under a name, or put returns too early."""
    steps = _steps(tmp_path, mode)
    named = steps.index("replace" if mode == "replace" else "link")
    written = max(index for index, step in enumerate(steps) if step == "write")
    assert "fsync" in steps[written:named]
    assert "fsync" in steps[named:]
    if mode == "new":  # folders were made: each is named in its parent for good
        made = [index for index, step in enumerate(steps) if step == "mkdir"]
        assert made
        assert all("fsync" in steps[index : index + 3] for index in made)


def test_what_a_killed_writer_left_is_removed_later(tmp_path: Path) -> None:
    """Fails if garbage stays for ever, or a slow writer's file is taken for garbage."""
    folder = tmp_path / f"killed-{_steps(tmp_path, 'new').index('link')}"
    partial = folder / ".partial"
    (left,) = partial.iterdir()
    young = partial / "young"
    held = partial / "held"
    for path in (young, held):
        path.write_bytes(b"")
    past = time.time() - STALE_S - 10
    for path in (left, held):
        os.utime(path, (past, past))
    holder = subprocess.Popen(["flock", held, "sleep", "60"])
    try:
        while subprocess.run(["flock", "-n", held, "true"], check=False).returncode == 0:
            time.sleep(0.01)
        LocalStore(folder).put("format", [b"{}"])
        assert sorted(partial.iterdir()) == [held, young]
    finally:
        holder.kill()
        holder.wait()


@pytest.fixture(params=["tmpfs", "ext4"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system with room for some megabytes."""
    with small_disk(request.param, tmp_path, 10 * MIB) as point:
        yield point


def _fill(store: LocalStore, prefix: str, names: list[str]) -> None:
    """Put more than there is room for; ``names`` gets those that fitted."""
    for index in range(40):
        name = f"{prefix}{index:04}"
        store.put(name, [os.urandom(512 * KIB)])
        names.append(name)


@pytest.mark.root
@pytest.mark.oracle("mkfs.ext4")
class TestFullDisk:
    def test_packs_leave_room_for_what_removes_them(self, tiny: Path) -> None:
        """Fails if the last room goes to a pack: then nothing could ever be removed."""
        store = LocalStore(tiny / "repository", reserve_bytes=MIB)
        names: list[str] = []
        with pytest.raises(TargetError, match="reserve") as caught:
            _fill(store, "packs/00/", names)
        assert len(names) >= 4
        assert caught.value.advice is not None
        assert [info.name for info in store.list("packs/")] == names
        store.put("index/new", [os.urandom(400 * KIB)])
        store.put("condemned/1", [b"packs"])
        store.delete("packs/00/0000")
        store.delete("packs/00/0001")
        store.delete("packs/00/0002")
        store.put("packs/00/again", [os.urandom(512 * KIB)])

    def test_a_full_disk_keeps_the_old_and_can_be_emptied(self, tiny: Path) -> None:
        """Fails if what does not fit harms what is there, stays in part, or blocks deleting."""
        store = LocalStore(tiny / "repository", reserve_bytes=0)
        store.put("tags/a", [b"old"])
        names: list[str] = []
        with pytest.raises(TargetError, match="no space left"):
            _fill(store, "index/", names)
        with pytest.raises(TargetError, match="no space left") as caught:
            store.put("tags/a", [os.urandom(2 * MIB)])
        assert caught.value.exit_code == 5
        assert store.get("tags/a") == b"old"
        assert [info.name for info in store.list("index/")] == names
        assert list((tiny / "repository" / ".partial").iterdir()) == []
        for name in names:
            store.delete(name)
        store.put("tags/a", [b"new"])
        assert store.get("tags/a") == b"new"

    def test_a_file_system_that_cannot_be_written_is_a_refusal(self, tiny: Path) -> None:
        """Fails if it is another error, or reading stops, too."""
        store = LocalStore(tiny / "repository")
        store.put("format", [b"{}"])
        subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
        with pytest.raises(TargetError, match="read-only"):
            store.put("format", [b"x"])
        with pytest.raises(TargetError, match="read-only"):
            store.put("keys/a", [b"x"], only_new=True)
        with pytest.raises(TargetError, match="read-only"):
            store.delete("format")
        assert store.get("format") == b"{}"
        subprocess.run(["mount", "-o", "remount,rw", tiny], check=True)

    @pytest.mark.oracle("mkfs.exfat", "mount.exfat-fuse")
    def test_a_file_system_without_links_makes_new_objects_all_the_same(
        self, tmp_path: Path
    ) -> None:
        """Fails if a repository cannot be on a memory stick, or ``only_new`` replaces there."""
        image, point = tmp_path / "exfat.img", tmp_path / "exfat"
        point.mkdir()
        image.touch()
        os.truncate(image, 8 * MIB)
        subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
        with attached(image) as device:
            subprocess.run(["mount.exfat-fuse", device, point], check=True, capture_output=True)
            try:
                store = LocalStore(point / "repository")
                store.put("format", [b"first"], only_new=True)
                with pytest.raises(ObjectExistsError):
                    store.put("format", [b"second"], only_new=True)
                assert [info.name for info in store.list("")] == ["format"]
                assert store.get("format") == b"first"
                assert _race(store, "keys/race") == [store.get("keys/race")]
            finally:
                subprocess.run(["umount", point], check=True)


def _race(store: LocalStore, name: str) -> list[bytes]:
    """What those put who believe that they were the first, of several at once."""
    won = []

    def attempt(content: bytes) -> None:
        with contextlib.suppress(ObjectExistsError):
            store.put(name, [content], only_new=True)
            won.append(content)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, [b"one", b"two", b"three", b"four"]))
    return won


def test_a_folder_that_may_not_be_read_is_an_error_and_not_empty(tmp_path: Path) -> None:
    """Fails if a file in the place of a folder looks like a repository without objects."""
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "packs").write_text("no folder")
    store = LocalStore(tmp_path / "r")
    with pytest.raises(ReadError, match="not a directory"):
        list(store.list("packs/"))
    with pytest.raises(ReadError, match="not a directory"):
        store.get("packs/aa/1")
    with pytest.raises(TargetError):
        store.put("packs/aa/1", [b"x"])


def test_nothing_is_followed_out_of_the_folder(tmp_path: Path) -> None:
    """Fails if a link that somebody put there makes us read a file elsewhere."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "r" / "packs").mkdir(parents=True)
    (tmp_path / "r" / "packs" / "aa").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "r" / "packs" / "pipe")
    store = LocalStore(tmp_path / "r")
    with pytest.raises(ReadError):
        store.get("packs/aa")
    with pytest.raises(MissingObjectError):
        store.get("packs/pipe")
    assert list(store.list("packs/")) == []
    store.put("packs/aa", [b"ours"])
    assert (tmp_path / "secret").read_text() == "secret"
    assert store.get("packs/aa") == b"ours"


def test_files_of_others_are_not_taken_for_objects(tmp_path: Path) -> None:
    """Fails if what a file manager or an editor leaves in the folder is listed."""
    store = LocalStore(tmp_path)
    store.put("packs/aa", [b"x"])
    for name in (".DS_Store", "packs/aa.tmp", "lost+found"):
        (tmp_path / name).write_text("")
    assert [info.name for info in store.list("")] == ["packs/aa"]
