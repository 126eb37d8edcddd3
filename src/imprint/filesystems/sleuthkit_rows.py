"""What is told of a file by The Sleuth Kit's process: a row of values that JSON has."""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.ntfs.reparse import INTERIX_BYTES
from imprint.filesystems.sleuthkit_attributes import EXTENTS_MAX, Attributes, Told, whole
from imprint.filesystems.sleuthkit_ext import folders_of
from imprint.filesystems.sleuthkit_ntfs import name_times, records_of, special, times
from imprint.filesystems.tree import Type, bytes_of

if TYPE_CHECKING:
    from imprint.filesystems.isolated_worker import Pipe
    from imprint.filesystems.sleuthkit_image import Losses

Row = list[Any]
"""Name, inode, number of the type, size, modified, accessed, changed, created, mode, owner, group,
links, flags, target, streams, times of the name, content, extents."""

HELD_BYTES_MAX: Final = 4096
"""Of a content that is told along with its name: as much as a record of NTFS may have."""

NAME_GIVEN_UP: Final = 2
"""``TSK_FS_NAME_FLAG_UNALLOC``."""

NO_NAMES: Final = (None, b"", b".", b"..")
"""What is no name of an entry."""

DELETED: Final = 1
IN_USE: Final = 2
PLAIN: Final = 4
LOST: Final = 8
"""Of what is told of an entry: its name was given up, its inode is in use, its content lies in its
extents and nowhere else, nothing is known but its name."""

_NS: Final = 1_000_000_000
_LINK_BYTES_MAX: Final = 4096
META_IN_USE: Final = 1
_FOLDER: Final = 2
_LINK: Final = 6
_SPECIAL: Final = {
    Type.LINK: _LINK,
    Type.FIFO: 3,
    Type.CHARACTER: 4,
    Type.BLOCK: 5,
    Type.SOCKET: 8,
}
_UNTOLD: Final = Told([], None, is_plain=False, resident=None, is_point=True)
"""Of attributes that cannot be read."""


def lost_row(text: str, inode: int, name_type: int) -> Row:
    """Of a deleted name of which nothing else is left."""
    nothing = [0] * 9
    return [text, inode, name_type, *nothing, DELETED | LOST, None, None, None, None, []]


class Rows:
    """Tells of the files of a file system.

    Attributes:
        attributes: where they lie.
        records: of NTFS.
        own: what finds names of folders that the library does not, or too slowly.
        notes: what could not be followed: a name or nothing, why, whether it could not be read.
        dates_names: whether times of names are told, if the file system has any.
        holds_contents: whether small contents are told that are not in blocks of their own.
    """

    def __init__(self, pipe: Pipe, system: Any, size: int, losses: Losses) -> None:  # noqa: ANN401
        """``system``, as the library knows it, is on a volume of ``size`` bytes."""
        self._pipe = pipe
        self._losses = losses
        self._system = system
        self.records = records_of(system)
        self.own = self.records or folders_of(system)
        self.attributes = Attributes(int(system.info.block_size), size, self.records)
        self.notes: list[list[object]] = []
        self.dates_names = False
        self.holds_contents = False

    def taken_notes(self) -> list[list[object]]:
        """The notes, which are forgotten."""
        notes, self.notes = self.notes, []
        return notes

    def row(self, text: str, file: Any, flags: int) -> Row:  # noqa: ANN401
        """What is told of an entry of a folder; ``text`` is its name, ``flags`` go along."""
        meta = file.info.meta
        size, kind = meta.size, meta.type
        told = self._told(text, file, size)
        if told.is_plain:
            flags |= PLAIN
        if meta.flags & META_IN_USE:
            flags |= IN_USE
        target = self._target(file, meta, size) if kind == _LINK else None
        held = None
        if self._is_odd(meta, size, told) and (found := self._special(text, file, size)):
            kind, target = found
            flags &= ~PLAIN
            size = 0 if target is None else len(bytes_of(target))
        elif self.holds_contents and told.resident and size <= HELD_BYTES_MAX:
            held = self._held(file, size, told.resident)
        when = [
            meta.mtime * _NS + meta.mtime_nano,
            meta.atime * _NS + meta.atime_nano,
            meta.ctime * _NS + meta.ctime_nano,
            meta.crtime * _NS + meta.crtime_nano,
        ]
        if self.records and not all(when):
            when = times(file) or when
        return [
            text,
            meta.addr,
            kind,
            size,
            *when,
            meta.mode,
            meta.uid,
            meta.gid,
            meta.nlink,
            flags,
            target,
            told.streams,
            name_times(file, text) if self.dates_names and self.records else None,
            held,
            told.places,
        ]

    def _told(self, text: str, file: Any, size: int) -> Told:  # noqa: ANN401
        try:
            told = self._losses.sure(self.attributes.told, file, size)
        except (OSError, RuntimeError) as failure:
            self.notes.append([text, *self._pipe.note(failure)])
            return _UNTOLD
        if len(told.places) >= 2 * EXTENTS_MAX:
            what = "some of its places are left out: it has too many"
            self.notes.append([text, what, False])
        if told.is_double:
            what = "another content, with no name that can be told, is left out"
            self.notes.append([text, what, False])
        return told

    def _held(self, file: Any, size: int, which: tuple[int, int]) -> str | None:  # noqa: ANN401
        """A content as text; ``None`` if it cannot be read: who asks for it is told why."""
        try:
            return b2a_base64(
                self._losses.sure(whole, file, 0, size, *which), newline=False
            ).decode()
        except (OSError, RuntimeError):
            return None

    def _is_odd(self, meta: Any, size: int, told: Told) -> bool:  # noqa: ANN401
        """Of NTFS: whether it may be no plain file or folder."""
        records = self.records
        return records is not None and (
            told.is_point or (size in INTERIX_BYTES and records.is_system(meta.addr))
        )

    def _special(self, text: str, file: Any, size: int) -> tuple[int, str | None] | None:  # noqa: ANN401
        """Of NTFS: the type of what is no plain file or folder, and where it leads.

        What holds something that would not be seen any more stays what it is besides.
        """
        assert self.records is not None
        try:
            meta = file.info.meta
            found = special(file, size, is_system=self.records.is_system(meta.addr))
            if found is None:
                return None
            is_folder = meta.type == _FOLDER
            if self._has_names(meta.addr) if is_folder else size and not found.has_content:
                where = "" if found.target is None else f" to {found.target}"
                what = f"it is a {found.type.value}{where} as well, and told by what it holds"
                self.notes.append([text, what, False])
                return None
        except CorruptImageError as failure:
            self.notes.append([text, str(failure.args[0]), False])
            return None
        except (OSError, RuntimeError) as failure:
            self.notes.append([text, *self._pipe.note(failure)])
            return None
        return _SPECIAL[found.type], found.target

    def _has_names(self, inode: int) -> bool:
        """Whether anything is in a folder."""
        if self.own is not None and self.own.own_names(inode) is not None:
            return True
        return any(
            name is not None and not name.flags & NAME_GIVEN_UP and name.name not in NO_NAMES
            for name in (file.info.name for file in self._system.open_dir(inode=inode))
        )

    def _target(self, file: Any, meta: Any, size: int) -> str | None:  # noqa: ANN401
        """Of a symbolic link."""
        target: bytes | None = meta.link
        if target is None and 0 < size <= _LINK_BYTES_MAX:
            try:
                target = self._losses.sure(whole, file, 0, size)
            except (OSError, RuntimeError):
                return None
        return None if target is None else target.decode("utf-8", "surrogateescape")
