"""Answers libfuse: what the kernel asks of a :class:`~imprint.exports.fuse.view.View`.

The library's Python half is made for dictionaries and strings of bytes. Where that would cost
more than the answer (``stat``, reading, writing), its methods are replaced by ones that fill
libfuse's own memory: a read of 128 KiB is not copied once more.
"""

# ruff: noqa: ANN401 - ctypes' pointers and structures have no types that could be named

from __future__ import annotations

import ctypes
import errno
import itertools
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

# Loads libfuse, so this module is imported when something is to be mounted, and not before.
import mfusepy  # type: ignore[import-untyped]

from imprint.core.errors import (
    FormatError,
    ImagingError,
    NotFoundError,
    PassphraseError,
    RefusedError,
    TargetTooSmallError,
    UnsupportedFeatureError,
)
from imprint.exports.fuse.contents import Raw, Text
from imprint.exports.fuse.names import BYTES_MAX, encoded
from imprint.exports.fuse.reading import Reading
from imprint.exports.fuse.trees import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.exports.fuse.contents import Content, Writing
    from imprint.exports.fuse.facts import Facts
    from imprint.exports.fuse.view import Node, View

READAHEAD_BYTES: Final = 1 << 20
"""What the kernel may ask for at once, if it is allowed to read so far ahead."""

_BLOCK: Final = 4096
_NS: Final = 10**9
_ID_MASK: Final = 0xFFFFFFFF
_PLUS: Final = 1  # FUSE_READDIR_PLUS
_FILL_PLUS: Final = 2  # FUSE_FILL_DIR_PLUS
_AUTO_INVAL_DATA: Final = 1 << 12  # FUSE_CAP_AUTO_INVAL_DATA
_READDIRPLUS: Final = 1 << 13  # FUSE_CAP_READDIRPLUS
_READDIRPLUS_AUTO: Final = 1 << 14  # FUSE_CAP_READDIRPLUS_AUTO
_DOTS: Final = 2  # the folder itself, and the one that it is in
_PUNCH_HOLE, _KEEP_SIZE, _ZERO_RANGE = 0x02, 0x01, 0x10  # fallocate(2)

# The first that fits, so what is special stands before what is general.
_ERRNOS: Final = (
    (NotFoundError, errno.ENOENT),
    (UnsupportedFeatureError, errno.EOPNOTSUPP),
    (FormatError, errno.EIO),
    (PassphraseError, errno.EACCES),
    (RefusedError, errno.EROFS),
    (TargetTooSmallError, errno.ENOSPC),
)


def errno_of(error: BaseException) -> int:
    """What a program is told of an error: the system's own reason if there is one."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno:
        return cause.errno
    if isinstance(error, ImagingError):
        return next((number for kind, number in _ERRNOS if isinstance(error, kind)), errno.EIO)
    return errno.EIO


class Handle(NamedTuple):
    """Something that is open.

    Attributes:
        node: what.
        path: under which name.
        content: its bytes; ``None`` of a folder.
        writing: where changes go; ``None``: it cannot be changed.
        start: where in that it begins.
        reading: of a folder: what is in it.
    """

    node: Node
    path: str
    content: Content | None = None
    writing: Writing | None = None
    start: int = 0
    reading: Reading | None = None


class Operations:
    """The operations that there are, for the library to know which to offer to libfuse.

    Those that the driver has itself are here only by name.
    """

    use_ns = True
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(
        self, view: View, *, on_start: Callable[[], None], may_change: bool = False
    ) -> None:
        self._view = view
        self._on_start = on_start
        self.may_change = may_change
        self._numbers = itertools.count(1)
        self.handles: dict[int, Handle] = {}

    def init_with_config(self, connection: Any, config: Any) -> None:
        """The kernel is there."""
        del config
        if connection is not None:
            connection.max_readahead = READAHEAD_BYTES
            if self.may_change:
                # Facts are asked for whenever they are needed: those with names would be for
                # nothing. So would those with each read of a disk, whose size never changes.
                connection.want &= ~(_READDIRPLUS | _READDIRPLUS_AUTO | _AUTO_INVAL_DATA)
            else:
                # Facts with all names, not only where some were asked for before: who lists a
                # folder mostly wants them next, and they cost a sixth of being asked for singly.
                connection.want &= ~_READDIRPLUS_AUTO
        self._on_start()

    def getattr(self, path: str) -> NoReturn:
        """Answered by the driver."""
        raise NotImplementedError

    read = write = truncate = getattr  # noqa: A003 - the name is the library's

    def readlink(self, path: str) -> str:
        """Where a symbolic link leads, as the image says."""
        return self._view.target(path)

    def open(self, path: str, flags: int) -> int:
        """Open a file; its number."""
        node = self._view.find(path)
        writing, start = None, 0
        if flags & 0o3:  # O_ACCMODE: for writing
            if not isinstance(node, Raw) or node.writing is None:
                raise OSError(errno.EROFS, "is shown as it is in the image")
            if flags & os.O_TRUNC:
                raise OSError(errno.EPERM, "a disk keeps its size")
            writing, start = node.writing, node.start
        return self._add(Handle(node, path, self._view.content(node), writing, start))

    def opendir(self, path: str) -> int:
        """Open a folder; its number."""
        node = self._view.find(path)
        reading = Reading(lambda: self._view.entries(path), self._view.facts_of(node, path))
        return self._add(Handle(node, path, reading=reading))

    def readdir(self, path: str | None, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        """What is in a folder."""
        del path
        yield ".", {}, 0
        yield "..", {}, 0
        for name, facts in self._view.entries(self.handles[fh].path):
            yield name, {"st_mode": facts.mode, "st_ino": facts.inode}, 0

    def release(self, path: str | None, fh: int) -> int:
        """Nobody has it open any more."""
        del path
        handle = self.handles.pop(fh)
        if handle.content is not None and not isinstance(handle.node, Raw | Text | None):
            closing = getattr(handle.content, "close", None)
            if closing is not None:
                closing()
        return 0

    releasedir = release

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        """Make durable what was written."""
        del path, datasync
        writing = self.handles[fh].writing
        if writing is not None:
            writing.flush()
        return 0

    def fallocate(self, path: str | None, mode: int, offset: int, size: int, fh: int) -> int:
        """Make a range zero: what discarding on a loop device comes down to."""
        del path
        handle = self.handles[fh]
        if handle.writing is None or handle.content is None:
            raise OSError(errno.EBADF, "is not open for writing")
        if mode not in (_PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE, _ZERO_RANGE | _KEEP_SIZE):
            raise OSError(errno.EOPNOTSUPP, "only zeros can be allocated")
        length = min(size, handle.content.size - offset)
        if length > 0:
            handle.writing.zero(handle.start + offset, length)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """How large it is: nothing is free."""
        del path
        blocks = -(-self._view.size // _BLOCK)
        return {
            "f_bsize": _BLOCK,
            "f_frsize": _BLOCK,
            "f_blocks": blocks,
            "f_namemax": BYTES_MAX,
        }

    def create(self, *_: object) -> NoReturn:
        """Refused, as all that would change a file system is."""
        raise OSError(errno.EROFS, "is shown as it is in the image")

    mkdir = mknod = unlink = rmdir = symlink = rename = link = chmod = chown = utimens = create
    setxattr = removexattr = create

    def _add(self, handle: Handle) -> int:
        number = next(self._numbers)
        self.handles[number] = handle
        return number


class StreamOperations(Operations):
    """With attributes as well. Without them the kernel asks once, and never again."""

    def listxattr(self, path: str) -> list[str]:
        """Names of streams."""
        return self._view.attributes(path)

    def getxattr(self, path: str, name: str) -> bytes:
        """The content of a stream."""
        return self._view.attribute(path, name)


class Driver(mfusepy.FUSE):  # type: ignore[misc]
    """Serves a view until it is unmounted: making one is all that is done with it.

    Raises:
        RuntimeError: if libfuse ended with a failure; it has told standard error why.
    """

    def __init__(self, view: View, operations: Operations, point: str, **options: object) -> None:
        self._view = view
        self._handles = operations.handles
        self._may_change = operations.may_change
        super().__init__(operations, point, **options)

    def _wrapper(self, func: Callable[..., int | None], *args: object) -> int:
        """Whatever goes wrong is an error number: an exception would go through C."""
        try:
            return func(*args) or 0
        except BaseException as error:  # noqa: BLE001 - nobody above could do anything about it
            return -errno_of(error)

    def fgetattr(self, path: bytes | None, buf: Any, fip: Any) -> int:
        """Fill a ``struct stat``."""
        if path is None:
            handle = self._handles[fip.contents.fh]
            facts = self._view.facts_of(handle.node, handle.path)
        else:
            facts = self._view.facts(path.decode("utf-8", "surrogateescape"))
        _fill(buf.contents, facts)
        return 0

    def open(self, path: bytes, fip: Any) -> int:
        """Open a file.

        One that may be another one tomorrow is read past the kernel's cache: that keeps bytes by
        name, and two that have it open may have opened two files.
        """
        super().open(path, fip)
        if self._may_change and isinstance(self._handles[fip.contents.fh].node, Item):
            fip.contents.direct_io = 1
        return 0

    def readdir_fuse_3(  # noqa: PLR0917 - as libfuse has it
        self,
        path: object,
        buf: Any,
        filler: Any,
        offset: int,
        fip: Any,
        flags: int,
    ) -> int:
        """Tell what is in a folder, with all facts if the kernel wants them: it asks no more then.

        As much as it has room for. It goes on with the offset of what it has got last: libfuse
        forgets about the facts of entries without offsets.
        """
        del path
        fills = _FILL_PLUS if flags & _PLUS else 0
        stat = mfusepy.c_stat()
        pointer = ctypes.byref(stat)
        handle = self._handles[fip.contents.fh]
        assert handle.reading is not None
        for position, name, facts in handle.reading.after(offset):
            _fill(stat, facts)
            if filler(buf, encoded(name), pointer, position, 0 if position <= _DOTS else fills):
                break
            handle.reading.has_taken(position)
        return 0

    def read(self, path: object, buf: Any, size: int, offset: int, fip: Any) -> int:
        """Read into libfuse's memory."""
        del path
        content = self._handles[fip.contents.fh].content
        if content is None:
            raise OSError(errno.EISDIR, "is a folder")
        count = min(size, content.size - offset)
        if count <= 0:
            return 0
        content.readinto(_memory(buf, count), offset)
        return count

    def write(self, path: object, buf: Any, size: int, offset: int, fip: Any) -> int:
        """Write from libfuse's memory."""
        del path
        handle = self._handles[fip.contents.fh]
        if handle.writing is None or handle.content is None:
            raise OSError(errno.EBADF, "is not open for writing")
        count = min(size, handle.content.size - offset)
        if count <= 0 < size:
            raise OSError(errno.ENOSPC, "is behind the end of the disk")
        handle.writing.write(_memory(buf, count), handle.start + offset)
        return count

    def truncate_fuse_3(self, path: bytes | None, length: int, fip: Any) -> int:
        """Only to the size that it has: it is a disk."""
        if path is None:
            node = self._handles[fip.contents.fh].node
        else:
            node = self._view.find(path.decode("utf-8", "surrogateescape"))
        if not isinstance(node, Raw) or node.writing is None:
            raise OSError(errno.EROFS, "is shown as it is in the image")
        if length != node.source.size:
            raise OSError(errno.EPERM, "a disk keeps its size")
        return 0

    def truncate_fuse_2(self, path: bytes, length: int) -> int:
        """The same."""
        return self.truncate_fuse_3(path, length, None)


def _fill(stat: Any, facts: Facts) -> None:
    """Fill a ``struct stat``."""
    stat.st_mode, stat.st_ino, stat.st_nlink = facts.mode, facts.inode, facts.links
    stat.st_uid, stat.st_gid = facts.owner & _ID_MASK, facts.group & _ID_MASK
    stat.st_size, stat.st_blocks, stat.st_blksize = facts.size, facts.blocks, _BLOCK
    for field, time in (
        (stat.st_mtimespec, facts.modified),
        (stat.st_atimespec, facts.accessed),
        (stat.st_ctimespec, facts.changed),
    ):
        field.tv_sec, field.tv_nsec = divmod(time, _NS)


def library_version() -> tuple[int, int]:
    """Of the libfuse that was found."""
    return int(mfusepy.fuse_version_major), int(mfusepy.fuse_version_minor)


def _memory(buf: Any, size: int) -> memoryview:
    """``size`` bytes that a pointer leads to; for as long as the call lasts."""
    array = (ctypes.c_ubyte * size).from_address(ctypes.addressof(buf.contents))
    return memoryview(array).cast("B")
