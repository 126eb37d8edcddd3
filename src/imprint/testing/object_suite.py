"""What every place for objects must obey.

Inherit, and say how one is made::

    class TestMemory(ObjectStoreContract):
        def make(self, tmp_path: Path) -> ObjectStore:
            del tmp_path
            return MemoryStore()
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import UsageError
from imprint.core.units import KIB, MIB
from imprint.objects.contract import MissingObjectError, ObjectExistsError

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.objects.contract import ObjectStore

BAD_NAMES = (
    *("", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/../b", "a.b", ".partial/x"),
    *("a\0b", "a b", "a\n", "ä", "a\\b", "C:", "a/b/c/d/e/f", "x" * 300, "%2e%2e/a"),
)
"""What is no name: it could lead out of the place, or is another name elsewhere."""


class ObjectStoreContract:
    """The tests; a subclass is collected, this class is not."""

    def make(self, tmp_path: Path) -> ObjectStore:
        """A place without objects."""
        raise NotImplementedError

    def another(self, store: ObjectStore, tmp_path: Path) -> ObjectStore:
        """The same place, as another process would open it."""
        del tmp_path
        return store

    def test_it_returns_what_was_put(self, tmp_path: Path) -> None:
        """Fails if a byte of any object is lost, or parts are joined in another order."""
        store = self.make(tmp_path)
        data = random.Random(1).randbytes(3 * MIB + 5)
        store.put("packs/3f/aa", [data[:7], memoryview(data)[7:MIB], data[MIB:]])
        store.put("format", [b"{}"])
        store.put("index/empty", [])
        other = self.another(store, tmp_path)
        assert other.get("packs/3f/aa") == data
        assert other.get("format") == b"{}"
        assert other.get("index/empty") == b""
        store.close()

    def test_it_does_not_keep_the_buffer(self, tmp_path: Path) -> None:
        """Fails if an object is only remembered: the caller reuses its buffer."""
        store = self.make(tmp_path)
        buffer = bytearray(b"\x55" * 5000)
        store.put("a", [memoryview(buffer)])
        buffer[:] = bytes(5000)
        assert store.get("a") == b"\x55" * 5000
        store.close()

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 1), (0, 5000), (17, 200), (4999, 1), (4990, 100), (5000, 1), (7000, 9), (10, 0)],
    )
    def test_a_range_is_that_part(self, tmp_path: Path, offset: int, length: int) -> None:
        """Fails if a range is shifted, too long, or an error where it reaches behind the end."""
        store = self.make(tmp_path)
        data = random.Random(2).randbytes(5000)
        store.put("packs/00/ab", [data])
        assert store.get_range("packs/00/ab", offset, length) == data[offset : offset + length]
        assert store.get_range("packs/00/ab", offset, length) == data[offset : offset + length]
        store.close()

    def test_an_object_that_is_not_there_is_missing(self, tmp_path: Path) -> None:
        """Fails if a missing object is empty, or some other error."""
        store = self.make(tmp_path)
        store.put("keys/there", [b"x"])
        for name in ("absent", "keys/absent", "packs/00/absent"):
            for length in (0, 10):
                with pytest.raises(MissingObjectError):
                    store.get_range(name, 0, length)
            with pytest.raises(MissingObjectError):
                store.get(name)
            assert store.stat(name) is None
            store.delete(name)
        store.close()

    def test_put_replaces(self, tmp_path: Path) -> None:
        """Fails if the old object stays, or anything of it."""
        store = self.make(tmp_path)
        store.put("sessions/a", [b"long and old"])
        store.put("sessions/a", [b"new"])
        assert self.another(store, tmp_path).get("sessions/a") == b"new"
        store.close()

    def test_only_new_never_replaces(self, tmp_path: Path) -> None:
        """Fails if a second object takes the place of the first."""
        store = self.make(tmp_path)
        for index in range(3):  # the first one may be where a place is tried out
            name = f"format{index}"
            store.put(name, [b"first"], only_new=True)
            with pytest.raises(ObjectExistsError):
                store.put(name, [b"second"], only_new=True)
            assert store.get(name) == b"first"
        store.close()

    def test_of_many_at_once_one_succeeds(self, tmp_path: Path) -> None:
        """Fails if two writers both believe that theirs is the object."""
        store = self.make(tmp_path)
        store.put("first", [b""], only_new=True)
        stores = [self.another(store, tmp_path) for _ in range(2)]
        for index, other in enumerate(stores):
            other.put(f"known-{index}", [b""], only_new=True)

        def attempt(index: int) -> bytes | None:
            content = b"writer %d" % index
            try:
                stores[index % 2].put("race", [content], only_new=True)
            except ObjectExistsError:
                return None
            return content

        with ThreadPoolExecutor(8) as pool:
            won = [content for content in pool.map(attempt, range(8)) if content is not None]
        assert won == [store.get("race")]
        store.close()

    def test_what_is_deleted_is_gone(self, tmp_path: Path) -> None:
        """Fails if a deleted object can still be read or is listed, or its neighbour goes too."""
        store = self.make(tmp_path)
        for name in ("packs/aa/1", "packs/aa/2", "index/1"):
            store.put(name, [name.encode()])
            assert store.get(name) == name.encode()
        store.delete("packs/aa/1")
        store.delete("index/1")
        for name in ("packs/aa/1", "index/1"):
            assert store.stat(name) is None
            with pytest.raises(MissingObjectError):
                store.get(name)
            with pytest.raises(MissingObjectError):
                store.get_range(name, 0, 3)
        assert [info.name for info in store.list("packs/")] == ["packs/aa/2"]
        store.close()

    def test_list_gives_what_is_there_ascending(self, tmp_path: Path) -> None:
        """Fails if an object is left out, listed twice, out of order, or of another prefix."""
        store = self.make(tmp_path)
        names = [f"packs/{index % 3:02x}/{index:04x}" for index in range(12)]
        names += ["pack", "packs-other/a", "packs/00-x/b", "packs/00_x", "packs/zz", "tags/a"]
        for name in random.Random(3).sample(names, len(names)):
            store.put(name, [name.encode()])
        other = self.another(store, tmp_path)
        found = list(other.list("packs/"))
        assert [info.name for info in found] == sorted(n for n in names if n.startswith("packs/"))
        assert all(info.size == len(info.name) for info in found)
        assert [info.name for info in other.list("packs/00/")] == [
            "packs/00/0000",
            "packs/00/0003",
            "packs/00/0006",
            "packs/00/0009",
        ]
        assert [info.name for info in other.list("")] == sorted(names)
        assert list(other.list("nothing/")) == []
        store.close()

    def test_times_are_those_of_the_put(self, tmp_path: Path) -> None:
        """Fails if the age of an object, by which sessions expire, is not known."""
        store = self.make(tmp_path)
        before = time.time()
        store.put("sessions/a", [b"12345"])
        after = time.time()
        info = store.stat("sessions/a")
        assert info is not None
        assert info == next(iter(store.list("sessions/")))
        assert (info.name, info.size) == ("sessions/a", 5)
        assert before - 2 < info.modified < after + 2  # some places count in whole seconds
        store.close()

    def test_what_is_no_name_is_refused(self, tmp_path: Path) -> None:
        """Fails if a name can lead out of the place."""
        store = self.make(tmp_path)
        for name in BAD_NAMES:
            with pytest.raises(UsageError):
                store.get(name)
            with pytest.raises(UsageError):
                store.get_range(name, 0, 1)
            with pytest.raises(UsageError):
                store.put(name, [b"x"])
            with pytest.raises(UsageError):
                store.delete(name)
            with pytest.raises(UsageError):
                store.stat(name)
        for prefix in ("a", "/", "../", "a/../", "a//", ".partial/"):
            with pytest.raises(UsageError):
                list(store.list(prefix))
        store.close()

    def test_many_threads_can_use_it(self, tmp_path: Path) -> None:
        """Fails if requests of several threads get each other's answers."""
        store = self.make(tmp_path)

        def work(index: int) -> bool:
            data = random.Random(index).randbytes(20 * KIB + index)
            name = f"packs/{index % 4:02x}/{index:04x}"
            store.put(name, [data])
            part = store.get_range(name, index, 1000)
            return store.get(name) == data and part == data[index : index + 1000]

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(work, range(24)))
        assert len(list(store.list("packs/"))) == 24
        store.close()

    def test_it_says_what_it_is(self, tmp_path: Path) -> None:
        """Fails if a property is missing or absurd, or closing twice is an error."""
        store = self.make(tmp_path)
        assert store.name
        assert 0 <= store.latency_s < 10
        with pytest.raises(MissingObjectError) as caught:
            store.get("keys/absent")
        assert caught.value.name == f"{store.name}/keys/absent"
        store.close()
        store.close()
