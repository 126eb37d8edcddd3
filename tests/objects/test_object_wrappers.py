"""Retries, limits and caches over a place, each where it differs from the place itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import NetworkError, TargetError
from imprint.core.units import KIB, MIB
from imprint.objects.cached import CachedStore, CacheOptions
from imprint.objects.contract import MissingObjectError
from imprint.objects.limited import LimitedStore
from imprint.objects.local import LocalStore
from imprint.objects.memory import MemoryStore
from imprint.objects.retrying import Retries, RetryingStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from imprint.objects.contract import ObjectInfo

# Reads an object through a cache, and says how often the place behind it was asked.
READER = """
import sys
from pathlib import Path
from imprint.objects.cached import CachedStore, CacheOptions
from imprint.objects.local import LocalStore
store = CachedStore(LocalStore(Path(sys.argv[1])), CacheOptions(Path(sys.argv[2]), 1 << 20))
for index in range(int(sys.argv[3])):
    name = f"packs/00/{index:04}"
    found = store.get_range(name, 10, 30000)
    assert found == bytes([index % 256]) * 30000, name
"""


class Counting(MemoryStore):
    """Counts requests, and fails the next ones."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.failures = 0
        self.listed_before_failure: int | None = None

    def get(self, name: str) -> bytes:
        self.reads += 1
        self._fail()
        return super().get(name)

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        self._fail()
        super().put(name, parts, only_new=only_new)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for index, info in enumerate(super().list(prefix)):
            if index == self.listed_before_failure:
                self.listed_before_failure = None
                raise NetworkError("in the middle")
            yield info

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise NetworkError("no answer")


def test_pauses_grow_and_end() -> None:
    """Fails if a dead server is asked for ever, or is hammered."""
    pauses = list(Retries(6, 1.0, 5.0).pauses())
    assert len(pauses) == 5
    for pause, longest in zip(pauses, (1, 2, 4, 5, 5), strict=True):
        assert longest / 2 <= pause <= longest
    assert list(Retries(1).pauses()) == []


def test_as_many_attempts_as_were_asked_for() -> None:
    """Fails if it gives up too early, or too late."""
    place = Counting()
    place.put("a", [b"x"])
    store = RetryingStore(place, Retries(3, 0.0, 0.0))
    place.failures = 2
    assert store.get("a") == b"x"
    place.failures = 3
    with pytest.raises(NetworkError):
        store.get("a")
    assert place.reads == 6


def test_what_will_not_pass_is_not_tried_again() -> None:
    """Fails if a missing object costs a minute."""
    place = Counting()
    with pytest.raises(MissingObjectError):
        RetryingStore(place, Retries(3, 0.0, 0.0)).get("a")
    assert place.reads == 1


@pytest.mark.parametrize("where", [0, 1, 5, 9])
def test_a_listing_that_breaks_off_goes_on(where: int) -> None:
    """Fails if a name is listed twice, or left out."""
    place = Counting()
    names = [f"packs/{index}" for index in range(10)]
    for name in names:
        place.put(name, [b""])
    place.listed_before_failure = where
    store = RetryingStore(place, Retries(2, 0.0, 0.0))
    assert [info.name for info in store.list("packs/")] == names


def test_bytes_flow_at_the_rate_that_was_asked_for() -> None:
    """Fails if a limit is ignored, or each thread has one of its own."""
    store = LimitedStore(MemoryStore(), upload=4 * MIB, download=8 * MIB)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        for index in range(4):  # 6 MiB, of which 4 may go at once
            pool.submit(store.put, f"packs/{index}", [bytes(MIB), bytes(MIB // 2)])
    assert time.monotonic() - began > 0.45
    began = time.monotonic()
    for index in (0, 1, 2, 3, 0, 1, 2, 3):  # 12 MiB, of which 8 may come at once
        assert len(store.get(f"packs/{index}")) == MIB + MIB // 2
    assert time.monotonic() - began > 0.45


def _cached(tmp_path: Path, place: Counting | None = None, size: int = MIB) -> CachedStore:
    return CachedStore(place or Counting(), CacheOptions(tmp_path / "cache", size))


def _entries(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_was_read_once_is_not_asked_for_again(tmp_path: Path) -> None:
    """Fails if the cache saves no request, or mixes up objects or ranges."""
    place = Counting()
    for name in ("index/a", "index/b", "packs/00/a", "packs/00/b"):
        place.put(name, [name.encode() * 100])
    for attempt in range(3):
        store = _cached(tmp_path, place)  # as another process
        for name in ("index/a", "index/b"):
            assert store.get(name) == name.encode() * 100
        for name in ("packs/00/a", "packs/00/b"):
            for offset in (0, 5):
                content = name.encode() * 100
                assert store.get_range(name, offset, 50) == content[offset : offset + 50]
        assert place.reads == 6, attempt


def test_what_may_change_is_not_cached(tmp_path: Path) -> None:
    """Fails if an old session, or an old list of tags, is taken for the present one."""
    place = Counting()
    store = _cached(tmp_path, place)
    for name in ("format", "sessions/a", "tags/a", "keys/a", "condemned/a"):
        place.put(name, [b"old"])
        assert store.get(name) == b"old"
        place.put(name, [b"new"])
        assert store.get(name) == b"new"
    assert _entries(tmp_path) == []


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "another"])
def test_a_damaged_entry_is_fetched_again(tmp_path: Path, how: str) -> None:
    """Fails if a bad sector of the cache becomes a bad restore."""
    place = Counting()
    place.put("packs/00/a", [bytes(range(250)) * 4])
    place.put("packs/00/b", [b"b" * 1000])
    store = _cached(tmp_path, place)
    store.get_range("packs/00/a", 0, 1000)
    (entry,) = _entries(tmp_path)
    content = bytearray(entry.read_bytes())
    if how == "flip":
        content[500] ^= 1
    elif how == "another":
        store.get_range("packs/00/b", 0, 1000)
        (other,) = (path for path in _entries(tmp_path) if path != entry)
        content[:] = other.read_bytes()
    else:
        del content[0 if how == "empty" else 900 :]
    entry.write_bytes(content)
    reads = place.reads
    for _ in range(2):
        assert store.get_range("packs/00/a", 0, 1000) == bytes(range(250)) * 4
    assert place.reads == reads + 1


def test_the_cache_stays_within_its_size_and_keeps_what_is_used(tmp_path: Path) -> None:
    """Fails if it fills the disk, or throws away what was used last."""
    place = Counting()
    for index in range(200):
        place.put(f"packs/00/{index:04}", [bytes([index]) * 20 * KIB])
    store = _cached(tmp_path, place, MIB)
    now = time.time()
    for index in range(200):
        store.get_range(f"packs/00/{index:04}", 0, 20 * KIB)
        store.get_range("packs/00/0000", 0, 20 * KIB)
        for path in _entries(tmp_path):  # of which the clock knows how long it was unused
            if path.stat().st_mtime > now - 1000:
                os.utime(path, (now - 2000 + index, now - 2000 + index))
    assert sum(path.stat().st_size for path in _entries(tmp_path)) <= MIB
    assert len(_entries(tmp_path)) > 30
    reads = place.reads
    for index in (0, 199, 198, 197):
        store.get_range(f"packs/00/{index:04}", 0, 20 * KIB)
    assert place.reads == reads
    store.get_range("packs/00/0005", 0, 20 * KIB)
    assert place.reads == reads + 1


def test_what_is_too_large_is_not_cached(tmp_path: Path) -> None:
    """Fails if one object pushes out everything else."""
    place = Counting()
    store = _cached(tmp_path, place, MIB)
    store.put("index/a", [bytes(300 * KIB)])
    assert store.get("index/a") == bytes(300 * KIB)
    assert _entries(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_only_slow(tmp_path: Path) -> None:
    """Fails if a full or forbidden cache folder stops a restore."""
    (tmp_path / "cache").write_text("no folder")
    store = _cached(tmp_path)
    store.put("index/a", [b"x"])
    assert store.get("index/a") == b"x"
    assert store.get("index/a") == b"x"
    store.delete("index/a")


def test_an_object_that_was_not_stored_is_not_remembered(tmp_path: Path) -> None:
    """Fails if a failed put can be read from the cache."""
    place = Counting()
    store = _cached(tmp_path, place)
    place.failures = 1
    with pytest.raises(NetworkError):
        store.put("index/a", [b"x"])
    with pytest.raises(MissingObjectError):
        store.get("index/a")
    (tmp_path / "file").write_text("")
    local = CachedStore(LocalStore(tmp_path / "file"), CacheOptions(tmp_path / "cache"))
    with pytest.raises(TargetError):
        local.put("index/b", [b"x"])
    assert _entries(tmp_path) == []


def test_several_processes_and_threads_share_a_cache(tmp_path: Path) -> None:
    """Fails if one reads what another is writing, or what it has just thrown away."""
    store = LocalStore(tmp_path / "r")
    for index in range(60):  # more than the cache has room for
        store.put(f"packs/00/{index:04}", [bytes([index]) * 31000])
    command = [sys.executable, "-c", READER, str(tmp_path / "r"), str(tmp_path / "cache"), "60"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    cached = CachedStore(store, CacheOptions(tmp_path / "cache", MIB))
    wrong: list[str] = []

    def read() -> None:
        for index in range(60):
            name = f"packs/00/{index:04}"
            if cached.get_range(name, 10, 30000) != bytes([index]) * 30000:
                wrong.append(name)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert wrong == []
    assert sum(path.stat().st_size for path in _entries(tmp_path)) <= MIB * 5 // 4
