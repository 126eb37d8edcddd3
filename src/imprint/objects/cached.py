"""A place with a folder of this machine before it, for what has been read once.

Only objects that never change under their name may be cached. An entry is a file: what was read,
then BLAKE3 of its key and that. Each is checked when it is used, so a damaged one only costs
a request, and nothing has to be made durable. Its time of modification says when it was
last used; several processes share a folder without speaking to each other.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.units import GIB
from imprint.objects.names import check_name
from imprint.objects.over import OverStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imprint.objects.contract import ObjectStore

SIZE_MAX: Final = 4 * GIB
"""Of a cache of which nobody said how large it may be."""

_SUM_BYTES: Final = 32
_LARGEST_DIVISOR: Final = 8  # an entry takes at most so much of the room
_LOOK_DIVISOR: Final = 16  # after so much of the room was filled, others may have filled some too
_KEEP: Final = (7, 8)
_STALE_S: Final = 3600.0


@dataclass(frozen=True)
class CacheOptions:
    """What is cached, and where.

    Attributes:
        folder: that holds nothing else; it is made if it is not there.
        size_max: of all entries, in bytes; each process may exceed it by 1/16 for a while.
        whole: prefixes of objects that are cached when they are read as a whole, or put.
        parts: prefixes of objects of which the ranges that are read are cached.
    """

    folder: Path
    size_max: int = SIZE_MAX
    whole: tuple[str, ...] = ("index/", "snapshots/")
    parts: tuple[str, ...] = ("packs/",)


class CachedStore(OverStore):
    """A place that is asked once for what does not change.

    An object that another process deletes can be read until its entry makes room for others;
    :meth:`list` and :meth:`stat` always ask the place.
    """

    def __init__(self, inner: ObjectStore, options: CacheOptions) -> None:
        """Takes over ``inner``."""
        super().__init__(inner)
        self._options = options
        self._folder = _Folder(options.folder, options.size_max)

    @property
    def inner(self) -> ObjectStore:
        """The place itself: for who has to know what is really there."""
        return self._inner

    def get(self, name: str) -> bytes:
        """All of an object."""
        if not name.startswith(self._options.whole):
            return self._inner.get(name)
        return self._folder.get(self._key(name), "whole", lambda: self._inner.get(name))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Part of an object; exactly this range is remembered."""
        if not name.startswith(self._options.parts) or length <= 0:
            return self._inner.get_range(name, offset, length)
        part = f"{offset:x}+{length:x}"
        return self._folder.get(
            self._key(name), part, lambda: self._inner.get_range(name, offset, length)
        )

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Make an object, and remember it if it is cached as a whole."""
        self._inner.put(name, parts, only_new=only_new)
        if name.startswith(self._options.whole):
            self._folder.put(self._key(name), "whole", b"".join(parts))

    def delete(self, name: str) -> None:
        """Remove an object, and what is remembered of it."""
        if name.startswith((*self._options.whole, *self._options.parts)):
            self._folder.forget(self._key(name))
        self._inner.delete(name)

    def _key(self, name: str) -> str:
        return f"{self._inner.name}\0{check_name(name)}"


class _Folder:
    """Entries as files ``XX/KEY.PART``. One with which anything goes wrong is as if not there."""

    def __init__(self, folder: Path, size_max: int) -> None:
        self._folder = folder
        self._size_max = size_max
        self._lock = threading.Lock()
        self._size: int | None = None  # of all entries, as far as is known
        self._added = 0  # by us, since that was found out

    def get(self, key: str, part: str, fetch: Callable[[], bytes]) -> bytes:
        """An entry; if there is none, or a damaged one, it is fetched, and kept."""
        path = self._path(key, part)
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        found = content[:-_SUM_BYTES]
        if len(content) >= _SUM_BYTES and content[-_SUM_BYTES:] == _sum(key, part, found):
            with contextlib.suppress(OSError):
                os.utime(path)
            return found
        found = fetch()
        self.put(key, part, found)
        return found

    def put(self, key: str, part: str, content: bytes) -> None:
        """Keep an entry, if there is room for it."""
        size = len(content) + _SUM_BYTES
        if size > self._size_max // _LARGEST_DIVISOR:
            return
        path = self._path(key, part)
        temporary = path.with_name(f".{secrets.token_hex(16)}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(content)
                file.write(_sum(key, part, content))
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
        else:
            self._make_room(size)

    def forget(self, key: str) -> None:
        """Remove all entries of an object."""
        start = self._path(key, "")
        with contextlib.suppress(OSError):
            for path in start.parent.glob(f"{start.name}*"):
                path.unlink(missing_ok=True)

    def _path(self, key: str, part: str) -> Path:
        from blake3 import blake3

        digits = blake3(key.encode()).hexdigest()[:40]
        return self._folder / digits[:2] / f"{digits}.{part}"

    def _make_room(self, added: int) -> None:
        """Count, and remove what was not used for longest, once there is too much."""
        with self._lock:
            self._added += added
            size = self._size
            is_known = size is not None and self._added <= self._size_max // _LOOK_DIVISOR
            if size is not None and is_known and size + self._added <= self._size_max:
                return
            entries = sorted(self._entries())
            self._size = sum(size for _, size, _ in entries)
            self._added = 0
            if self._size <= self._size_max:
                return
            kept = self._size_max * _KEEP[0] // _KEEP[1]
            for _, entry_size, path in entries:
                if self._size <= kept:
                    return
                with contextlib.suppress(OSError):
                    path.unlink()
                self._size -= entry_size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When each was used, its size and path; what is long unfinished is removed."""
        horizon = time.time() - _STALE_S
        for folder in _scan(str(self._folder)):
            for entry in _scan(folder.path):
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if not entry.name.startswith("."):
                        yield found.st_mtime, found.st_size, Path(entry)
                    elif found.st_mtime < horizon:
                        Path(entry).unlink()


def _scan(folder: str) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return tuple(entries)
    except OSError:
        return ()


def _sum(key: str, part: str, content: bytes) -> bytes:
    from blake3 import blake3

    return blake3(f"{key}\0{part}\0".encode()).update(content).digest()
