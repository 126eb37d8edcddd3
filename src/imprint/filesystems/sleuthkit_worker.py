"""The Sleuth Kit in a process of its own: whatever an image does to it ends there.

Started by :mod:`imprint.filesystems.sleuthkit`, which asks by standard input and is told by
standard output. Every message is four bytes of length and JSON; what is read of the volume
comes back as bytes, again with their length before them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import stat
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from imprint.core.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_MAX: Final = 2 * GIB
"""Of the process."""

CPU_MAX_S: Final = 900
"""Of the process: a file system of a hundred million names."""

EXTENTS_MAX: Final = 1 << 18
"""Of one file, and of all that are told at once."""

_TYPES: Final = {
    "TSK_FS_META_TYPE_REG": "file",
    "TSK_FS_META_TYPE_DIR": "directory",
    "TSK_FS_META_TYPE_LNK": "link",
    "TSK_FS_META_TYPE_VIRT": "system",
    "TSK_FS_META_TYPE_VIRT_DIR": "system",
}
_NAME_IN_USE: Final = 1
_RUN_WITHOUT_DATA: Final = 0x01 | 0x02
"""``TSK_FS_ATTR_RUN_FLAG_FILLER`` and ``SPARSE``: no place on the volume."""


class _Pipe:
    """Messages, both ways."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink

    def send(self, *message: object) -> None:
        data = json.dumps(message).encode()
        self._sink.write(len(data).to_bytes(4, "little") + data)
        self._sink.flush()

    def take(self) -> bytes | None:
        """The next message; ``None`` for a failure.

        Raises:
            EOFError: if there is nobody any more.
        """
        head = self._source.read(4)
        if len(head) < 4:
            raise EOFError
        length = int.from_bytes(head, "little")
        return None if length == 0xFFFFFFFF else self._source.read(length)


def _image(library: Any, pipe: _Pipe, volume_size: int) -> Any:  # noqa: ANN401 - without types
    """The library's own kind of disk; its base is known when that is loaded."""

    class Image(library.Img_Info):  # type: ignore[misc]
        """Reads from the volume."""

        def get_size(self) -> int:
            """Of the volume, in bytes."""
            return volume_size

        def read(self, offset: int, length: int) -> bytes:
            """Bytes of the volume, fewer at its end; nothing if they cannot be read.

            Less than was asked for is a failure to the library. It tries again without what it
            would have read ahead; an exception would be raised although that succeeds.
            """
            length = max(0, min(length, volume_size - offset))
            if not length:
                return b""
            pipe.send("read", offset, length)
            return pipe.take() or b""

        def close(self) -> None:
            """Leave the volume to its owner."""

    return Image(url="", type=library.TSK_IMG_TYPE_EXTERNAL)


class _Worker:
    """Answers questions of a file system."""

    def __init__(self, pipe: _Pipe, size: int, kind: str) -> None:
        library = importlib.import_module("pytsk3")
        self._types = {int(getattr(library, name)): told for name, told in _TYPES.items()}
        self._pipe = pipe
        self._size = size
        self._image = _image(library, pipe, size)
        self._system = library.FS_Info(self._image, offset=0, type=int(getattr(library, kind)))
        self._block = int(self._system.info.block_size)
        self.root = int(self._system.info.root_inum)

    def folder(self, inode: int) -> None:
        """Tell what is in a folder."""
        told: list[object] = []
        count = 0
        for file in self._system.open_dir(inode=inode):
            name = file.info.name
            if name is None or not int(name.flags) & _NAME_IN_USE or file.info.meta is None:
                continue
            facts, extents = self._facts(file)
            text = (name.name or b"").decode("utf-8", "backslashreplace")
            told.append([text, *facts, extents])
            count += 1 + len(extents)
            if count > EXTENTS_MAX:
                self._pipe.send("part", told)
                told, count = [], 0
        self._pipe.send("part", told)

    def itself(self) -> None:
        """Tell of the root."""
        facts, extents = self._facts(self._system.open_meta(inode=self.root))
        self._pipe.send("part", [["", *facts, extents]])

    def _facts(self, file: Any) -> tuple[list[object], list[tuple[int, int]]]:  # noqa: ANN401
        meta = file.info.meta
        extents: list[tuple[int, int]] = []
        try:
            for extent in self._extents(file):
                if len(extents) == EXTENTS_MAX:
                    self._pipe.send("note", "some of its places are left out: it has too many")
                    break
                extents.append(extent)
        except (OSError, RuntimeError) as failure:
            self._pipe.send("note", _said(failure))
        facts = [
            int(meta.addr),
            self._types.get(int(meta.type), "other"),
            int(meta.size),
            int(meta.mtime) * 1_000_000_000 + int(meta.mtime_nano),
            stat.S_IMODE(int(meta.mode)),
            int(meta.uid),
            int(meta.gid),
        ]
        return facts, extents

    def _extents(self, file: Any) -> Iterator[tuple[int, int]]:  # noqa: ANN401 - without types
        block, size = self._block, self._size
        for attribute in file:
            for run in attribute:
                start, length = int(run.addr) * block, int(run.len) * block
                if not int(run.flags) & _RUN_WITHOUT_DATA and 0 <= start < size and length > 0:
                    yield start, min(length, size - start)


def main(size: int, kind: str) -> None:
    """Serve until nobody asks any more."""
    pipe = _Pipe(sys.stdin.buffer, sys.stdout.buffer)
    _bound()
    try:
        worker = _Worker(pipe, size, kind)
        pipe.send("root", worker.root)
        while True:
            question = pipe.take()
            assert question is not None
            inode = json.loads(question)
            try:
                if inode is None:
                    worker.itself()
                else:
                    worker.folder(inode)
            except (OSError, RuntimeError, OverflowError) as failure:
                pipe.send("note", _said(failure))
            pipe.send("done")
    except EOFError:
        return
    except (OSError, RuntimeError) as failure:
        pipe.send("failed", _said(failure))


def _bound() -> None:
    """Take no more memory and time than any sound file system needs."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_MAX_S, CPU_MAX_S))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _said(failure: Exception) -> str:
    """What the library says, without its own function names."""
    return str(failure).rpartition("error: ")[2].strip()[:200] or "it is damaged"
