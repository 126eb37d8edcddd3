"""Names, facts and contents of the files of a volume: the contract of all that can list them.

Nothing is mounted and nothing is written. What is said of a damaged file system is taken as far
as it goes: what cannot be followed is a note, and the rest is told.
"""

from __future__ import annotations

import enum
import stat
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, runtime_checkable

from imprint.core.errors import CorruptImageError, FormatError, ReadError
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from imprint.core.contracts import Source

    Attribute = tuple[str, bytes | Callable[[], bytes]]
    """A name, and a value, or what reads it."""

NOTES_MAX: Final = 1 << 16
"""Of one file system: some 20 MiB."""

ATTRIBUTES_BYTES_MAX: Final = 4 * MIB
"""Of all extended attributes of one file. Linux lists no more than 64 KiB of names."""

VALUE_BYTES_MAX: Final = MIB
"""Of one of them: what is longer is not read. Linux takes 64 KiB, macOS 128 KiB and more."""

_NAME_BYTES_MAX: Final = 255
_ATTRIBUTE_BYTES: Final = 64
"""What one takes up besides its name and value."""

_UNREAD_BYTES: Final = 64 << 10
"""What one counts for that cannot be read: trying may have taken as much time."""

RESOURCE_FORK: Final = "rsrc"
"""The stream that files of Macs have; macOS calls it so, too."""

_SHOWN_CHARS: Final = 200
"""Of a path in a note: names of hostile file systems are long."""


class Type(enum.Enum):
    """What an entry of a folder is."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    """A symbolic one."""
    CHARACTER = "character"
    BLOCK = "block"
    FIFO = "fifo"
    SOCKET = "socket"
    OTHER = "other"
    """What has no facts any more, or none of the above."""
    SYSTEM = "system"
    """Of the file system itself: a table that it, or a library, calls a file."""


TYPES_BY_MODE: Final = {
    stat.S_IFREG: Type.FILE,
    stat.S_IFDIR: Type.DIRECTORY,
    stat.S_IFLNK: Type.LINK,
    stat.S_IFCHR: Type.CHARACTER,
    stat.S_IFBLK: Type.BLOCK,
    stat.S_IFIFO: Type.FIFO,
    stat.S_IFSOCK: Type.SOCKET,
}
"""By the upper bits of a mode, as Unix has it."""


class Times(NamedTuple):
    """When something happened to a file, in ns since 1970 (UTC); ``None``: not kept there."""

    modified: int | None = None
    """Its content."""
    accessed: int | None = None
    changed: int | None = None
    """Its facts: what Unix calls ctime."""
    created: int | None = None


class Entry(NamedTuple):
    """A name in a file system.

    Attributes:
        path: from its root, which is ``/``; bytes that are not UTF-8 are lone surrogates, as
            ``os.fsdecode`` makes them.
        inode: its number, of whatever the file system numbers.
        type: what it is.
        size: of its content, in bytes.
        times: of it.
        mode: its permissions, without its type; ``0`` where there are none.
        owner: its number.
        group: its number.
        links: how many names it has; ``0`` where that is not kept.
        extents: where its content lies, ``(offset, length)`` in bytes of the volume, whole blocks;
            those of a file that is stored within its inode are none.
        target: of a symbolic link, as it stands there.
        streams: names of further contents: NTFS's alternate data streams, HFS+'s resource fork,
            UDF's named streams.
        is_deleted: the name, or what it stood for, was given up; ``path`` is what is left of it.
        is_allocated: what it stands for is in use: by another file, if the name is deleted.
        is_plain: its content is its extents, one behind the other, as far as ``size`` reaches. If
            not, it may have holes, be compressed, or lie in its inode: ask for its content.
        subvolume: which of several sets of inodes its number is of; ``0`` where there is one.
        named: when something happened to its name, of a :class:`NameDating` tree.
        held: its content, of a :class:`Holding` tree, where it is small and not in extents.
    """

    path: str
    inode: int
    type: Type
    size: int
    times: Times = Times()
    mode: int = 0
    owner: int = 0
    group: int = 0
    links: int = 0
    extents: tuple[tuple[int, int], ...] = ()
    target: str | None = None
    streams: tuple[str, ...] = ()
    is_deleted: bool = False
    is_allocated: bool = True
    is_plain: bool = False
    subvolume: int = 0
    named: Times | None = None
    held: bytes | None = None

    @property
    def name(self) -> str:
        """The last part of the path; empty for the root."""
        return self.path.rpartition("/")[2]


class Notes(list[str]):
    """What could not be followed: no more of it than is worth being kept.

    Each name of a damaged folder may be a note, and there may be millions of them.
    """

    def append(self, note: str, /) -> None:
        """One more; of those that are too many only that there are more."""
        if len(self) < NOTES_MAX:
            super().append(note)
        elif len(self) == NOTES_MAX:
            super().append("/: there is more that could not be followed")


class Remark(str):
    """A note of the file system as a whole: all that is on the disk is told, and yet there is more.

    That of a system that was imaged while it ran, for instance. It is no failure.
    """

    __slots__ = ()


class FileTree(Protocol):
    """A file system, by folders. For one thread, but for what :meth:`content` gives.

    Attributes:
        notes: what could not be followed, one sentence each, without a full stop; bounded, as
            :class:`Notes` are.
    """

    notes: list[str]

    def root(self) -> Entry:
        """The folder that holds all others.

        Raises:
            CorruptImageError: if it cannot be read.
            ReadError: the same.
        """

    def children(self, folder: Entry, *, deleted: bool = False) -> Iterator[Entry]:
        """What is in a folder, without ``.`` and ``..``, in any order; may be asked again.

        Ends, whatever the folder says, and holds no more than a part of a very large one. What
        cannot be read becomes a note. Other questions may be asked before it has ended. Folders
        may hold folders that hold them: :func:`~imprint.filesystems.walking.walk` sees to it.

        Args:
            folder: an entry of this tree that is a directory.
            deleted: tell deleted names as well, where the file system keeps them.
        """

    def content(self, entry: Entry, stream: str | None = None) -> Source:
        """The bytes of a file, by threads as many as like; it may not outlive the volume.

        Holes of a sparse file are holes. Of a deleted file, what lies now where it lay.

        Args:
            entry: of this tree, of any type that has bytes.
            stream: one of :attr:`Entry.streams`; ``None``: the content proper.

        Raises:
            CorruptImageError: if what it is made of cannot be followed.
            UnsupportedFeatureError: if it is stored in a way that is not understood.
            ReadError: if that cannot be read.
        """

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        """Extended attributes: values by names, both as Linux tells them.

        So a name has a namespace, as ``user.comment`` has; it is ``user.`` for those of macOS,
        which knows none. Access control lists are ``system.posix_acl_access`` and
        ``system.posix_acl_default``. No more than :data:`ATTRIBUTES_BYTES_MAX`. What cannot be
        read becomes a note.

        Args:
            entry: of this tree, of any type.
        """

    def close(self) -> None:
        """Give back processes and tables, but not the volume. Calling again changes nothing."""


@runtime_checkable
class Expecting(Protocol):
    """A tree that does better if it knows what it will be asked for."""

    def expect(self, folders: Sequence[Entry]) -> None:
        """Hear of the folders that are asked for behind the next one, unless that has folders."""


@runtime_checkable
class Folding(Protocol):
    """A tree that may be of a file system to which upper and lower case are the same.

    Attributes:
        folds_case: whether it is.
    """

    folds_case: bool


@runtime_checkable
class NameDating(Protocol):
    """A tree that can tell times of names as well: NTFS's ``$FILE_NAME``."""

    def date_names(self) -> None:
        """Tell them from now on, where the file system has any.

        Raises:
            CorruptImageError: if the tree answers nothing any more.
        """


@runtime_checkable
class Holding(Protocol):
    """A tree that can tell small contents along with their files, rather than one by one."""

    def hold_contents(self) -> None:
        """Tell them from now on.

        Raises:
            CorruptImageError: if the tree answers nothing any more.
        """


class OwnTree:
    """What readers of our own have in common: a volume, notes, and a root that is a folder.

    Attributes:
        notes: what could not be followed.
    """

    _root: Entry

    def __init__(self, volume: Source) -> None:
        """``volume`` stays its owner's, and has to outlive the tree."""
        self.notes: list[str] = Notes()
        self._volume = volume

    def root(self) -> Entry:
        """The folder that holds all others."""
        return self._root

    def attributes(self, entry: Entry) -> dict[str, bytes]:
        """Extended attributes; see :class:`FileTree`."""
        return collected(self._attributes(entry), entry.path, self.notes)

    def _attributes(self, entry: Entry) -> Iterable[Attribute]:
        """Those of an entry, by readers whose file systems have any."""
        del entry
        return ()

    def close(self) -> None:
        """There is nothing to give back."""

    def _begin_at(self, root: Entry) -> None:
        """Take an entry for the root.

        Raises:
            CorruptImageError: if it is no folder.
        """
        if root.type is not Type.DIRECTORY:
            raise CorruptImageError("expected a folder as its root", name=self._volume.name)
        self._root = root

    def _remark(self, what: str) -> None:
        """Note what is to be known of the file system as a whole, and is no failure."""
        self.notes.append(Remark(note_of("/", what)))

    def _each_entry(
        self, folder: Entry, names: Iterable[tuple[bytes, int]], entry: Callable[[str, int], Entry]
    ) -> Iterator[Entry]:
        """The entries of a folder, but for ``.`` and ``..``; what cannot be followed is a note.

        Args:
            folder: that they are in.
            names: and numbers, whatever ``entry`` takes these for; what raises ends the folder.
            entry: makes one, given its path; what it raises leaves out that one.
        """
        try:
            for name, number in names:
                if name in (b".", b".."):
                    continue
                path = path_in(folder, text_of(name))
                try:
                    made = entry(path, number)
                except (FormatError, ReadError) as failure:
                    self.notes.append(note_of(path, failure.args[0]))
                    continue
                yield made
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of(folder.path, failure.args[0]))


def text_of(raw: bytes) -> str:
    """A name, or where a link leads, as :class:`Entry` has it, whatever bytes it is of."""
    return raw.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """What :func:`text_of` was given."""
    return text.encode("utf-8", "surrogateescape")


def path_in(folder: Entry, name: str) -> str:
    """The path of a name in a folder. No name leads elsewhere, even if it has a ``/``."""
    prefix = folder.path if folder.path == "/" else f"{folder.path}/"
    return prefix + name.replace("/", "\\x2f")


def has_failures(notes: Iterable[str]) -> bool:
    """Whether there is one among notes that tells of what could not be followed."""
    return any(not isinstance(note, Remark) for note in notes)


def note_of(path: str, why: object) -> str:
    """What :attr:`FileTree.notes` say of what could not be followed, and why: the words for it."""
    return f"{shown(path)[:_SHOWN_CHARS]}: {why}"


def collected(found: Iterable[Attribute], path: str, notes: list[str]) -> dict[str, bytes]:
    """What :meth:`FileTree.attributes` gives of those that a reader finds, and notes why not."""
    values: dict[str, bytes] = {}
    left = ATTRIBUTES_BYTES_MAX
    try:
        for name, value in found:
            left -= _ATTRIBUTE_BYTES
            try:
                _check_name(name)
                data = value if isinstance(value, bytes) else value()
            except (FormatError, ReadError) as failure:
                left -= _UNREAD_BYTES
                notes.append(note_of(path, f"attribute {shown(name)}: {failure.args[0]}"))
            else:
                left -= len(name) + len(data)
                if left >= 0:
                    values.setdefault(name, data)  # of two, systems find the first
            if left < 0:
                raise CorruptImageError(f"expected at most {ATTRIBUTES_BYTES_MAX} bytes of them")
    except (FormatError, ReadError) as failure:
        notes.append(note_of(path, f"its extended attributes: {failure.args[0]}"))
    return values


def _check_name(name: str) -> None:
    if not name.partition(".")[2] or len(bytes_of(name)) > _NAME_BYTES_MAX or "\0" in name:
        raise CorruptImageError("expected a name in a namespace, of at most 255 bytes")


def no_stream(stream: str, name: str) -> CorruptImageError:
    """The error of a further content that a file does not have."""
    return CorruptImageError(f"expected no stream {shown(stream)}", name=name)


def shown(path: str) -> str:
    r"""A path, or a name, for people and for JSON: bytes that are no UTF-8 as ``\xff``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
