"""Objects in a tar file: a small repository as one file, which ``tar x`` makes a folder of.

Source: the format of tar is in :mod:`imprint.codecs.tar`.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, BinaryIO, Final

from imprint.codecs import tar
from imprint.core.errors import ReadError, RefusedError, TargetError, UsageError
from imprint.core.system import reason_of
from imprint.objects.contract import MissingObjectError, ObjectExistsError, ObjectInfo
from imprint.objects.names import check_name, check_prefix, is_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.codecs.tar import Member
    from imprint.core.contracts import Storage

OBJECTS_MAX: Final = 1 << 20
"""In a bundle: packs of 32 TiB. What has more is no bundle, or one made to fill memory."""

_SESSIONS: Final = "sessions/"


class BundleWriter:
    """Writes a tar file as objects are put; nothing that was put is read or changed again.

    Sessions are kept in memory: who opens the bundle later is not told of the one that made it.

    Args:
        file: to which the archive is written, from its start on. It need not be seekable; the
            caller closes it, and makes it durable.
        name: what errors call it.
        time_s: of all files in it, in seconds since 1970; ``None``: now.
    """

    def __init__(self, file: BinaryIO, name: str, *, time_s: int | None = None) -> None:
        self._file = file
        self._name = name
        self._time_s = int(time.time()) if time_s is None else time_s
        self._lock = threading.Lock()
        self._objects: dict[str, ObjectInfo] = {}
        self._position = 0
        self._is_finished = False

    @property
    def name(self) -> str:
        """What errors call it."""
        return self._name

    @property
    def latency_s(self) -> float:
        """Nothing is read."""
        return 0.0

    def get(self, name: str) -> bytes:
        """Always an error: what was written has gone its way."""
        return self.get_range(name, 0, 0)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Always an error."""
        del offset, length
        if check_name(name) not in self._objects:
            raise MissingObjectError("there is no such object", name=f"{self._name}/{name}")
        raise ReadError("cannot be read while it is written", name=f"{self._name}/{name}")

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Append an object.

        Raises:
            ObjectExistsError: if ``only_new`` and there is one already.
            TargetError: if it cannot be written, or would have to replace another.
        """
        check_name(name)
        size = sum(map(len, parts))
        with self._lock:
            if name.startswith(_SESSIONS):
                self._objects[name] = ObjectInfo(name, size, time.time())
                return
            if name in self._objects:
                if only_new:
                    raise ObjectExistsError("exists already", name=f"{self._name}/{name}")
                raise TargetError("cannot be replaced in a tar file", name=f"{self._name}/{name}")
            if len(name) > tar.NAME_BYTES_MAX:
                raise UsageError("expected a shorter name", name=f"{self._name}/{name}")
            self._write(tar.header(name, size, self._time_s), *parts, bytes(-size % tar.BLOCK))
            self._objects[name] = ObjectInfo(name, size, float(self._time_s))

    def delete(self, name: str) -> None:
        """Forget a session.

        Raises:
            TargetError: for anything else.
        """
        with self._lock:
            if check_name(name) in self._objects and not name.startswith(_SESSIONS):
                raise TargetError("cannot be removed from a tar file", name=f"{self._name}/{name}")
            self._objects.pop(name, None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """What was put so far."""
        check_prefix(prefix)
        with self._lock:
            found = sorted(item for item in self._objects.values() if item.name.startswith(prefix))
        yield from found

    def stat(self, name: str) -> ObjectInfo | None:
        """What is known of one object."""
        with self._lock:
            return self._objects.get(check_name(name))

    def finish(self) -> None:
        """Write the end of the archive.

        Raises:
            TargetError: if it cannot be written.
        """
        with self._lock:
            if not self._is_finished:
                self._write(bytes(tar.end_of(self._position) - self._position))
                self._is_finished = True

    def close(self) -> None:
        """Nothing to give back; without :meth:`finish`, the archive has no end."""

    def _write(self, *parts: bytes | memoryview) -> None:
        for part in parts:
            rest = memoryview(part)
            while rest:
                try:
                    count = self._file.write(rest)
                except OSError as failure:
                    raise TargetError(reason_of(failure), name=self._name) from failure
                self._position += count
                rest = rest[count:]


class BundleStore:
    """The objects in a tar file, for reading only.

    Args:
        storage: the file; the store owns it from now on.

    Raises:
        CorruptImageError: if it is no sound tar file.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._members: dict[str, Member] = {}
        for member in tar.members(storage, OBJECTS_MAX):
            name = member.name.removeprefix("./")
            if is_name(name):
                self._members[name] = member

    @property
    def name(self) -> str:
        """Of the file."""
        return self._storage.name

    @property
    def latency_s(self) -> float:
        """Of reading a file."""
        return 0.0

    def get(self, name: str) -> bytes:
        """All of an object.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if it cannot be read.
        """
        return self._read(self._member(name), 0, self._member(name).size)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Part of an object.

        Raises:
            MissingObjectError: if there is none.
            ReadError: if it cannot be read.
        """
        return self._read(self._member(name), offset, length)

    def put(
        self, name: str, parts: Sequence[bytes | memoryview], *, only_new: bool = False
    ) -> None:
        """Always an error."""
        del name, parts, only_new
        raise self._refusal()

    def delete(self, name: str) -> None:
        """Always an error."""
        del name
        raise self._refusal()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects below a prefix."""
        check_prefix(prefix)
        for name in sorted(name for name in self._members if name.startswith(prefix)):
            yield ObjectInfo(name, self._members[name].size, 0.0)

    def stat(self, name: str) -> ObjectInfo | None:
        """Size of one object."""
        member = self._members.get(check_name(name))
        return None if member is None else ObjectInfo(name, member.size, 0.0)

    def close(self) -> None:
        """Close the file."""
        self._storage.close()

    def _member(self, name: str) -> Member:
        member = self._members.get(check_name(name))
        if member is None:
            raise MissingObjectError("there is no such object", name=f"{self.name}/{name}")
        return member

    def _read(self, member: Member, offset: int, length: int) -> bytes:
        length = max(0, min(length, member.size - offset))
        buffer = bytearray(length)
        if length:
            self._storage.readinto(memoryview(buffer), member.offset + offset)
        return bytes(buffer)

    def _refusal(self) -> RefusedError:
        return RefusedError(
            "a bundle is only read",
            name=self.name,
            advice="import it into a repository, or unpack it with tar",
        )
