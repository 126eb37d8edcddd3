"""Inodes of SquashFS, and what folders hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB
from imprint.filesystems.squashfs import layout
from imprint.filesystems.squashfs.metadata import Cursor
from imprint.filesystems.tree import Type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.squashfs.metadata import Metadata

_TARGET_BYTES_MAX: Final = 64 * KIB
_TYPES: Final = {
    layout.BASIC_FOLDER: Type.DIRECTORY,
    layout.BASIC_FILE: Type.FILE,
    layout.BASIC_LINK: Type.LINK,
    layout.BASIC_BLOCK: Type.BLOCK,
    layout.BASIC_CHARACTER: Type.CHARACTER,
    layout.BASIC_FIFO: Type.FIFO,
    layout.BASIC_SOCKET: Type.SOCKET,
}


class Inode(NamedTuple):
    """An inode.

    Attributes:
        number: of it.
        type: what it is.
        mode: its permissions.
        owner: index in the table of owners and groups.
        group: the same.
        modified_s: since 1970.
        links: how many names it has.
        size: of its content; of a folder, of what it holds, and 3.
        start: where the data blocks of a file begin, in bytes of the volume; of a folder: which
            block of the folder table, from the table's start.
        offset: of a folder in that block; of a file's end in its fragment block.
        fragment: which block holds the end of a file, or ``NO_FRAGMENT``.
        blocks_at: where the lengths of a file's blocks stand: a place of a metadata block, and an
            offset in it.
        target: of a symbolic link.
        attributes: which entry of their table its extended attributes are, or ``NO_ATTRIBUTES``.
    """

    number: int
    type: Type
    mode: int
    owner: int
    group: int
    modified_s: int
    links: int
    size: int = 0
    start: int = 0
    offset: int = 0
    fragment: int = layout.NO_FRAGMENT
    blocks_at: tuple[int, int] = (0, 0)
    target: bytes = b""
    attributes: int = layout.NO_ATTRIBUTES


class FolderItem(NamedTuple):
    """What a folder says of something in it.

    Attributes:
        name: of it.
        reference: where its inode is: block of the inode table << 16 | offset.
    """

    name: bytes
    reference: int


def inode_at(metadata: Metadata, table: int, reference: int) -> Inode:
    """The inode at a place of the inode table, which begins at ``table``.

    Raises:
        CorruptImageError: if there is none.
        UnsupportedFeatureError: if a library is missing.
        ReadError: if it cannot be read.
    """
    cursor = Cursor(metadata, table + (reference >> 16), reference & 0xFFFF)
    kind, mode, owner, group, modified, number = layout.INODE.unpack(cursor.read(layout.INODE.size))
    is_extended = kind > layout.EXTENDED
    basic = kind - layout.EXTENDED if is_extended else kind
    type_ = _TYPES.get(basic)
    if type_ is None:
        raise CorruptImageError(
            f"inode at 0x{reference:x}: expected a type from 1 to 14, found {kind}",
            name=metadata.name,
        )
    start = offset = size = 0
    fragment = layout.NO_FRAGMENT
    attributes = layout.NO_ATTRIBUTES
    links = 1
    target = b""
    if type_ is Type.DIRECTORY and is_extended:
        links, size, start, _, _, offset, attributes = layout.EXTENDED_FOLDER.unpack(
            cursor.read(layout.EXTENDED_FOLDER.size)
        )
    elif type_ is Type.DIRECTORY:
        start, links, size, offset, _ = layout.FOLDER.unpack(cursor.read(layout.FOLDER.size))
    elif type_ is Type.FILE and is_extended:
        start, size, _, links, fragment, offset, attributes = layout.EXTENDED_FILE.unpack(
            cursor.read(layout.EXTENDED_FILE.size)
        )
    elif type_ is Type.FILE:
        start, fragment, offset, size = layout.FILE.unpack(cursor.read(layout.FILE.size))
    elif type_ is Type.LINK:
        links, size = layout.LINK.unpack(cursor.read(layout.LINK.size))
        if size > _TARGET_BYTES_MAX:
            raise CorruptImageError(
                f"inode {number}: expected a target of at most 64 KiB, found {size} bytes",
                name=metadata.name,
            )
        target = cursor.read(size)
    else:
        (links,) = layout.OTHER.unpack(cursor.read(layout.OTHER.size))
        if type_ in (Type.BLOCK, Type.CHARACTER):
            cursor.read(layout.OTHER.size)
    blocks_at = cursor.here
    if is_extended and type_ not in (Type.DIRECTORY, Type.FILE):
        (attributes,) = layout.ATTRIBUTES.unpack(cursor.read(layout.ATTRIBUTES.size))
    return Inode(
        number,
        type_,
        mode & 0o7777,
        owner,
        group,
        modified,
        links,
        size,
        start,
        offset,
        fragment,
        blocks_at,
        target,
        attributes,
    )


def folder_items(metadata: Metadata, table: int, folder: Inode) -> Iterator[FolderItem]:
    """What is in a folder; the folder table begins at ``table``.

    Raises:
        CorruptImageError: if it makes no sense.
        UnsupportedFeatureError: if a library is missing.
        ReadError: if it cannot be read.
    """
    left = folder.size - layout.FOLDER_SIZE_EXTRA
    cursor = Cursor(metadata, table + folder.start, folder.offset)
    head, entry = layout.FOLDER_HEAD, layout.FOLDER_ENTRY
    while left > 0:
        count, block, _ = head.unpack(cursor.read(head.size))
        left -= head.size
        if count >= layout.ENTRIES_MAX:
            raise CorruptImageError(
                f"expected at most {layout.ENTRIES_MAX} names in a row, found {count + 1}",
                name=metadata.name,
            )
        for _ in range(count + 1):
            offset, _, _, length = entry.unpack(cursor.read(entry.size))
            if length >= layout.NAME_BYTES_MAX:
                raise CorruptImageError(
                    f"expected a name of at most {layout.NAME_BYTES_MAX} bytes, found {length + 1}",
                    name=metadata.name,
                )
            name = cursor.read(length + 1)
            left -= entry.size + length + 1
            if left < 0:
                raise CorruptImageError("expected names that end", name=metadata.name)
            yield FolderItem(name, block << 16 | offset)
