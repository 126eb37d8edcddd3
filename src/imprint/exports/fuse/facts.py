"""What ``stat`` says of an entry of an image."""

from __future__ import annotations

import stat
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.exports.fuse.names import encoded
from imprint.filesystems.tree import Type

if TYPE_CHECKING:
    from imprint.filesystems.tree import Entry

BLOCK_BYTES: Final = 512
"""What ``st_blocks`` counts, whatever the file system's own blocks are."""

_KINDS: Final = {
    Type.FILE: stat.S_IFREG,
    Type.SYSTEM: stat.S_IFREG,
    Type.OTHER: stat.S_IFREG,
    Type.DIRECTORY: stat.S_IFDIR,
    Type.LINK: stat.S_IFLNK,
    Type.CHARACTER: stat.S_IFCHR,
    Type.BLOCK: stat.S_IFBLK,
    Type.FIFO: stat.S_IFIFO,
    Type.SOCKET: stat.S_IFSOCK,
}
_INODE_BITS: Final = 48
_SUBVOLUME_BITS: Final = 8


class Facts(NamedTuple):
    """What ``stat`` says. Times are ns since 1970, sizes bytes.

    Attributes:
        mode: type and permissions.
        inode: different for all that is shown, but for names of the same file.
        links: how many names the file has.
        owner: of it.
        group: of it.
        size: of its content.
        blocks: of 512 bytes, that it takes up.
        modified: when.
        accessed: when.
        changed: when.
    """

    mode: int
    inode: int
    links: int
    owner: int
    group: int
    size: int = 0
    blocks: int = 0
    modified: int = 0
    accessed: int = 0
    changed: int = 0

    @property
    def is_folder(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True)
class Showing:
    """How what an image holds is shown.

    Attributes:
        owner: whose everything is; ``None``: as the image says.
        group: the same.
        links_as_text: symbolic links are files with their target as content, so that none leads
            out of the image.
        deleted: folders have a folder with the names that were deleted from them.
        system: what is the file system's own is shown too: its tables, its journal.
    """

    owner: int | None = None
    group: int | None = None
    links_as_text: bool = False
    deleted: bool = False
    system: bool = False


def facts_of(entry: Entry, number: int, showing: Showing, *, has_modes: bool = False) -> Facts:
    """The facts of an entry of the tree with that number, which counts from 1.

    With ``has_modes``, one without permissions is one that nobody may read.
    """
    kind = kind_of(entry, showing)
    mode = entry.mode & 0o7777
    if entry.type is Type.LINK:
        mode = 0o777 if kind == stat.S_IFLNK else 0o444
    elif not mode and (entry.is_deleted or not has_modes):  # FAT has none, and much that is deleted
        mode = 0o555 if kind == stat.S_IFDIR else 0o444
    size = _size_of(entry, kind)
    times = entry.times
    known = next((time for time in times if time is not None), 0)
    modified = known if times.modified is None else times.modified
    return Facts(
        kind | mode,
        inode_of(entry, number),
        entry.links or 1,
        entry.owner if showing.owner is None else showing.owner,
        entry.group if showing.group is None else showing.group,
        size,
        _blocks(entry, size),
        modified,
        modified if times.accessed is None else times.accessed,
        modified if times.changed is None else times.changed,
    )


def inode_of(entry: Entry, number: int) -> int:
    """Its number in all that is mounted: the same as long as the image is."""
    inode = entry.inode
    if inode <= 0:  # the name is all that is left of it
        inode = 1 << (_INODE_BITS - _SUBVOLUME_BITS - 1) | zlib.crc32(encoded(entry.path))
    subvolume = entry.subvolume << (_INODE_BITS - _SUBVOLUME_BITS)
    return number << _INODE_BITS | (subvolume ^ inode) & (1 << _INODE_BITS) - 1


def kind_of(entry: Entry, showing: Showing) -> int:
    """Its type alone, as ``st_mode`` has it."""
    if showing.links_as_text and entry.type is Type.LINK:
        return stat.S_IFREG
    return _KINDS[entry.type]


def _size_of(entry: Entry, kind: int) -> int:
    if entry.type is Type.LINK:
        return len(encoded(entry.target or ""))
    return entry.size if kind in (stat.S_IFREG, stat.S_IFDIR) else 0


def _blocks(entry: Entry, size: int) -> int:
    """What it takes up; never 0 of what has bytes, which tar would take for one hole."""
    length = sum(length for _, length in entry.extents) if entry.extents else size
    return -(-length // BLOCK_BYTES)
