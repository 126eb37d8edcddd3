"""Names and places of the files of a volume, told by The Sleuth Kit: nothing is mounted.

It is a library in C that was made for evidence. What it says of a damaged file system is taken as
far as it goes: what cannot be followed is a note, and the rest is told. It runs in a process of its
own: if an image makes it crash, or calculate without end, that process ends, which is a note too.
"""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import json
import os
import select
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imprint.core.errors import (
    CorruptImageError,
    ReadError,
    RepositoryError,
    UnsupportedFeatureError,
)
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

KINDS: Final = {
    "exfat": "TSK_FS_TYPE_EXFAT",
    "ext2": "TSK_FS_TYPE_EXT_DETECT",
    "ext3": "TSK_FS_TYPE_EXT_DETECT",
    "ext4": "TSK_FS_TYPE_EXT_DETECT",
    "hfsplus": "TSK_FS_TYPE_HFS_DETECT",
    "iso9660": "TSK_FS_TYPE_ISO9660",
    "ntfs": "TSK_FS_TYPE_NTFS",
    "ufs": "TSK_FS_TYPE_FFS_DETECT",
    "vfat": "TSK_FS_TYPE_FAT_DETECT",
}
"""What the library calls them, by the kind that ``identify`` tells; it knows no others of ours."""

ENTRIES_MAX: Final = 1 << 24
"""Names that are looked at; file systems with more have to be damaged to be walked in a minute."""

PATH_CHARS_MAX: Final = 4096
"""Of a path: Linux's own limit."""

PENDING_CHARS_MAX: Final = 64 * MIB
"""Of all paths of folders that are still to be looked into: some million."""

_SYSTEM_BELOW: Final = {"ntfs": 24, "hfsplus": 16}
"""First inode number that files of users have."""

_ROOT_TABLES: Final = frozenset(
    {"/$ALLOC_BITMAP", "/$UPCASE_TABLE", "/$VOLUME_GUID", "/$TEX_FAT", "/$ACT"}
)
"""What the library calls the entries of exFAT's root that are no files."""

SILENCE_MAX_S: Final = 60
"""Without a word of the library. A folder of NTFS with 100,000 names takes it half of that."""

_SHOWN_CHARS: Final = 200
_MESSAGE_MAX: Final = 256 * MIB
_READ_MAX: Final = 64 * MIB
_FAILURE: Final = b"\xff" * 4
_START: Final = """\
import sys
sys.path[:] = {path!r}
from imprint.filesystems.sleuthkit_worker import main
main({size}, {kind!r})
"""


class Type(enum.Enum):
    """What an entry of a folder is."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"
    SYSTEM = "system"
    """Of the file system itself: a table that it, or the library, calls a file."""


class Entry(NamedTuple):
    """A name in a file system.

    Attributes:
        path: from its root, which is ``/``; bytes that are not UTF-8 are escapes.
        inode: its number, of whatever the file system numbers.
        type: what it is.
        size: of its content, in bytes.
        mtime_ns: when that was changed, in ns since 1970.
        mode: its permissions, with owner and group; ``0`` where there are none.
        owner: its number.
        group: its number.
        extents: where its content lies, ``(offset, length)`` in bytes of the volume, whole blocks;
            those of a file that is stored within its inode are none.
    """

    path: str
    inode: int
    type: Type
    size: int
    mtime_ns: int
    mode: int
    owner: int
    group: int
    extents: tuple[tuple[int, int], ...]


class SleuthKit:
    """A file system, by folders. For one thread; reads of the volume are in that thread.

    Attributes:
        notes: what could not be followed, one sentence each, without a full stop.
    """

    def __init__(self, volume: Source, kind: str) -> None:
        """The file system that is all of ``volume``.

        Raises:
            UnsupportedFeatureError: if the library is missing, or does not know the kind.
            CorruptImageError: if it makes nothing of the volume.
        """
        if kind not in KINDS:
            raise UnsupportedFeatureError(f"files of {kind} cannot be listed", name=volume.name)
        if importlib.util.find_spec("pytsk3") is None:
            raise UnsupportedFeatureError(
                "listing its files needs the Python module pytsk3",
                name=volume.name,
                advice="pip install 'imprint[browse]' brings it",
            )
        self.notes: list[str] = []
        self._kind = kind
        self._volume = volume
        self._seen: set[int] = set()
        self._left = ENTRIES_MAX
        self._failure = ""
        start = _START.format(path=sys.path, size=int(volume.size), kind=KINDS[kind])
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.close = weakref.finalize(self, _end, self._process)
        """Ends the process; it is called by itself when nobody needs this any more."""
        told = self._next()
        if told[0] != "root":
            self.close()
            why = told[1] if told[0] == "failed" else "the library has crashed"
            raise CorruptImageError(
                f"its files cannot be listed: {self._failure or why}", name=volume.name
            )
        self._root = int(told[1])

    def root(self) -> Entry:
        """The folder that holds all others."""
        rows = self._rows("/", None)
        if not rows:
            return Entry("/", self._root, Type.DIRECTORY, 0, 0, 0, 0, 0, ())
        return self._entry("/", rows[0])._replace(type=Type.DIRECTORY)

    def children(self, path: str, inode: int) -> list[Entry]:
        """What is in a folder, by name; what was deleted is left out. Once for each folder."""
        if inode in self._seen or len(path) > PATH_CHARS_MAX:
            self.notes.append(f"{path[:_SHOWN_CHARS]}: a folder in itself, or too deep")
            return []
        self._seen.add(inode)
        prefix = path if path == "/" else f"{path}/"
        found: dict[str, Entry] = {}
        for row in self._rows(path, inode):
            name = row[0].replace("/", "\\x2f")
            if name not in ("", ".", ".."):
                found[name] = self._entry(prefix + name, row)
        return [found[name] for name in sorted(found)]

    def walk(self) -> Iterator[Entry]:
        """All names, and the root."""
        root = self.root()
        yield root
        for _, entry in paired(None, self):
            assert entry is not None
            yield entry

    def _rows(self, path: str, inode: int | None) -> list[Any]:
        """What the library tells of a folder, or of the root itself."""
        rows: list[Any] = []
        if not self.close.alive:
            return rows
        self._failure = ""
        self._send(json.dumps(inode).encode())
        while True:
            told = self._next()
            if told[0] == "done":
                return rows
            if told[0] == "part":
                rows += told[1]
                self._left -= len(told[1])
            if told[0] == "note":
                self._note(path, self._failure or str(told[1]))
                continue
            if self._left < 0 or told[0] != "part":
                crowd = "expected an end, found too many files"
                self._note(path, crowd if self._left < 0 else str(told[1]))
                self.close()
                return rows

    def _entry(self, path: str, row: Any) -> Entry:  # noqa: ANN401 - parsed JSON
        _, inode, kind, size, mtime_ns, mode, owner, group, extents = row
        found = self._type(path, Type(kind), inode)
        places = tuple((start, length) for start, length in extents)
        return Entry(path, inode, found, size, mtime_ns, mode, owner, group, places)

    def _type(self, path: str, found: Type, inode: int) -> Type:
        if self._kind == "exfat" and path in _ROOT_TABLES:
            return Type.SYSTEM
        if found is not Type.DIRECTORY and inode < _SYSTEM_BELOW.get(self._kind, 0):
            return Type.SYSTEM
        if self._kind == "ntfs" and path.startswith("/$Extend/") and found is Type.FILE:
            return Type.SYSTEM
        return found

    def _note(self, path: str, why: str) -> None:
        self.notes.append(f"{path[:_SHOWN_CHARS]}: {why}")

    def _next(self) -> list[Any]:
        """The next message that is no question; these are answered."""
        while True:
            try:
                told: list[Any] = json.loads(self._take())
            except TimeoutError:
                return ["lost", f"the library did not come to an end in {SILENCE_MAX_S} s"]
            except (OSError, EOFError):
                return ["lost", "the library has crashed"]
            if told[0] != "read":
                return told
            self._answer(int(told[1]), int(told[2]))

    def _answer(self, offset: int, length: int) -> None:
        volume = self._volume
        buffer = bytearray(max(0, min(length, volume.size - offset, _READ_MAX)))
        try:
            volume.readinto(memoryview(buffer), offset)
        except (ReadError, RepositoryError) as failure:
            self._failure = str(failure.args[0])
            self._send(None)
            return
        self._failure = ""
        self._send(buffer)

    def _send(self, data: bytes | bytearray | None) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(_FAILURE if data is None else len(data).to_bytes(4, "little"))
            pipe.write(data or b"")
            pipe.flush()
        except BrokenPipeError:
            return  # the next message tells it

    def _take(self) -> bytes:
        length = int.from_bytes(self._exactly(4), "little")
        if length > _MESSAGE_MAX:
            raise EOFError
        return self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        parts = bytearray()
        while len(parts) < length:
            if not select.select([pipe], [], [], SILENCE_MAX_S)[0]:
                raise TimeoutError
            part = os.read(pipe.fileno(), min(MIB, length - len(parts)))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def paired(
    old: SleuthKit | None, new: SleuthKit | None
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """What two file systems have at each path but the root, ``None`` for nothing.

    Both are walked at once, so that only the folders on the way are kept.
    """
    sides = (old, new)
    roots = tuple(None if side is None else ("/", side.root().inode) for side in sides)
    pending: list[tuple[tuple[str, int] | None, ...]] = [roots]
    chars = 0
    while pending:
        folders = pending.pop()
        chars -= max(len(item[0]) for item in folders if item is not None)
        first, second = (
            {}
            if side is None or folder is None
            else {entry.path: entry for entry in side.children(*folder)}
            for side, folder in zip(sides, folders, strict=True)
        )
        below = []
        for path in sorted({*first, *second}):
            pair = (first.get(path), second.get(path))
            yield pair
            inside = tuple(
                (item.path, item.inode)
                if item is not None and item.type is Type.DIRECTORY
                else None
                for item in pair
            )
            if any(inside):
                chars += len(path)
                if chars > PENDING_CHARS_MAX:
                    for side in sides:
                        if side is not None:
                            side.notes.append(f"{path[:_SHOWN_CHARS]}: too many folders")
                    return
                below.append(inside)
        pending += reversed(below)
