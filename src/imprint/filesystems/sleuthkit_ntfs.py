"""Of NTFS, what The Sleuth Kit does not tell: read through it, by the number of the record."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imprint.core.errors import FormatError
from imprint.core.units import KIB, MIB
from imprint.filesystems.isolated_worker import Refusal
from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.layout import FileName, IndexBlock, IndexEntry, IndexRoot, ListEntry
from imprint.filesystems.ntfs.records import unprotected
from imprint.filesystems.ntfs.reparse import (
    INTERIX_BYTES,
    POINT_BYTES_MAX,
    Special,
    of_interix,
    of_point,
)
from imprint.filesystems.sleuthkit_attributes import parts, whole

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE_FOLDER_BYTES: Final = MIB
"""Of a folder's tree. The library compares each name with all others: 10,000 take it 0.2 s,
100,000 half a minute."""

_NTFS: Final = 1
_LIST_BYTES_MAX: Final = 256 * KIB
_RECORD_BYTES_MAX: Final = 64 * KIB
_NODE_BYTES_MAX: Final = 64 * KIB
_NODES_AT_ONCE: Final = 16
_HEAD: Final = struct.Struct("<IIBBH")
"""Of an attribute: type, length, whether it is in clusters, length and offset of its name."""

_ATTRIBUTES_AT: Final = struct.Struct("<H")
_SIZE_IN_RECORD: Final = struct.Struct("<I")
_INITIALIZED: Final = struct.Struct("<Q")
_DATA: Final = 0x80
_LIST: Final = 0x20
_INDEX_ROOT: Final = 0x90
_INDEX_NODES: Final = 0xA0
_INDEX_NAME: Final = b"$I30"
_DOS_NAME: Final = 2
_NAMESPACE_AT: Final = 65
_NAME_BYTES_MAX: Final = FileName.SIZE + 2 * 255
_EPOCH: Final = 116_444_736_000_000_000
"""1970, in 100 ns since 1601."""

_NAME_TIMES: Final = struct.Struct("<4Q")
_STANDARD: Final = 0x10
_CONTENT_AT: Final = struct.Struct("<H")
_DOS_FLAGS: Final = struct.Struct("<I")
_SYSTEM_FILE: Final = 0x04
_REPARSE: Final = 0xC0
_TAG_BYTES: Final = 4
_CLOUD_KINDS: Final = 0xF000
_ELSEWHERE: Final = {
    0x8000_0017: "it is compressed by Windows in a way that is not understood (WOF)",
    0x8000_0013: "its content is in Windows' store of deduplicated data, which is not understood",
    0x9000_001A: "its content is in a cloud, and not on the disk",
}
"""By the tag of a reparse point: where the content is of a file that seems to be a hole."""


class _Record(NamedTuple):
    """What is kept of a record.

    Attributes:
        standard: its attribute of that name, ``None`` if it has none.
        contents: the attribute of each content that begins in it, by name.
    """

    standard: memoryview | None
    contents: dict[bytes, memoryview]


class Records:
    """The records of the MFT, read through the library."""

    def __init__(self, system: Any) -> None:  # noqa: ANN401 - without types
        self._system = system
        self._mft = system.open_meta(inode=0)
        head: bytes = self._mft.read_random(0, 48)
        size = _SIZE_IN_RECORD.unpack_from(head, 28)[0] if len(head) == 48 else 0
        is_size = layout.STRIDE <= size <= _RECORD_BYTES_MAX and size % layout.STRIDE == 0
        self._size = size if is_size else KIB
        self._last = (-1, _Record(None, {}))

    def initialized(self, inode: int, info: Any) -> int | None:  # noqa: ANN401 - without types
        """How many bytes of a content were ever written: zeros follow; ``None``: not known.

        Source: Linux NTFS project, "NTFS Documentation", attribute header: initialized size.
        """
        name: bytes = info.name or b""
        try:
            found = self._record(inode).contents.get(name)
            if found is None:
                number = self._elsewhere(inode, name)
                found = None if number is None else self._record(number).contents.get(name)
            if found is None:
                return None
            return int(_INITIALIZED.unpack_from(found, 56)[0]) if found[8] else info.size
        except (FormatError, OSError, RuntimeError, struct.error):
            return None

    def is_system(self, inode: int) -> bool:
        """Whether DOS would call it a file of the system; not if its record cannot be read."""
        try:
            standard = self._record(inode).standard
            if standard is None or standard[8]:
                return False
            (start,) = _CONTENT_AT.unpack_from(standard, 20)
            return bool(_DOS_FLAGS.unpack_from(standard, start + 32)[0] & _SYSTEM_FILE)
        except (FormatError, OSError, RuntimeError, struct.error):
            return False

    def _record(self, inode: int) -> _Record:
        if self._last[0] != inode:
            self._last = (inode, self._read(inode))
        return self._last[1]

    def _read(self, inode: int) -> _Record:
        data = bytearray(self._mft.read_random(inode * self._size, self._size))
        view = unprotected(data, layout.FILE_MARK, "MFT record", "volume")
        (position,) = _ATTRIBUTES_AT.unpack_from(view, 20)
        last = len(view) - _HEAD.size
        standard = None
        contents: dict[bytes, memoryview] = {}
        while position <= last:
            kind, length, _, name_length, name_offset = _HEAD.unpack_from(view, position)
            if kind == layout.ATTRIBUTES_END or length < _HEAD.size:
                break
            if kind == _DATA:
                part = view[position : position + length]
                text = bytes(part[name_offset : name_offset + 2 * name_length])
                name = text.decode("utf-16-le", "replace").encode("utf-8", "replace")
                contents.setdefault(name, part)
            elif kind == _STANDARD:
                standard = view[position : position + length]
            position += length
        return _Record(standard, contents)

    def _elsewhere(self, inode: int, name: bytes) -> int | None:
        """The other record that begins to describe a content of a file that needs several."""
        file = self._system.open_meta(inode=inode)
        for attribute in file:
            info = attribute.info
            if info.type == _LIST and 0 < info.size <= _LIST_BYTES_MAX:
                data = memoryview(whole(file, 0, info.size, _LIST, info.id))
                return _record_of(data, name)
        return None

    def own_names(self, inode: int) -> tuple[Iterator[tuple[str, int]], bool, list[str]] | None:
        """Name and number of all that is in a large folder, and ``True``; ``None``: it is small.

        Then what is damaged in it, which is not known before the names have ended.

        Raises:
            OSError: of the library.
        """
        folder = self._system.open_meta(inode=inode)
        root = nodes = None
        for attribute in folder:
            info = attribute.info
            if info.name == _INDEX_NAME and info.type == _INDEX_ROOT:
                root = info
            elif info.name == _INDEX_NAME and info.type == _INDEX_NODES:
                nodes = info
        if root is None or nodes is None or nodes.size < LARGE_FOLDER_BYTES:
            return None
        problems: list[str] = []
        return self._in_folder(folder, root, nodes, problems), True, problems

    def _in_folder(
        self,
        folder: Any,  # noqa: ANN401
        root: Any,  # noqa: ANN401
        nodes: Any,  # noqa: ANN401
        problems: list[str],
    ) -> Iterator[tuple[str, int]]:
        """Names in the root of the tree, then in all its nodes, in the order of their places."""
        length = min(root.size, _NODE_BYTES_MAX)
        head = memoryview(whole(folder, 0, length, _INDEX_ROOT, root.id))
        if len(head) < IndexRoot.SIZE:
            raise OSError("expected the root of a folder's tree")
        found = IndexRoot.unpack(head)
        yield from _names(head, 16 + found.entries_offset, 16 + found.entries_end)
        size = found.block_size
        if not layout.STRIDE <= size <= _NODE_BYTES_MAX or size.bit_count() != 1:
            raise OSError("expected a size of the nodes of a folder's tree")
        step = size * _NODES_AT_ONCE
        for data in parts(folder, nodes.size, step, size, _INDEX_NODES, nodes.id):
            for at in range(0, len(data) - size + 1, size):
                if data[at : at + 4] != layout.INDEX_MARK:
                    continue  # a node that is not used
                try:
                    view = unprotected(
                        bytearray(data[at : at + size]), layout.INDEX_MARK, "node", "volume"
                    )
                except FormatError as failure:
                    problems[:] = problems[:1] or [str(failure.args[0])]
                    continue
                node = IndexBlock.unpack(view)
                yield from _names(view, 24 + node.entries_offset, 24 + node.entries_end)


def name_times(file: Any, text: str) -> list[int] | None:  # noqa: ANN401 - without types
    """When a name of a file was modified, accessed, changed and created, in 100 ns since 1601.

    Those of the name, if the file has it; else of its last one that is not made for DOS.
    """
    found: bytes = b""
    try:
        for attribute in file:
            info = attribute.info
            size = info.size
            if info.type != layout.FILE_NAME or not FileName.SIZE <= size <= _NAME_BYTES_MAX:
                continue
            data = whole(file, 0, size, layout.FILE_NAME, info.id)
            if data[FileName.SIZE :].decode("utf-16-le", "replace") == text:
                found = data
                break
            if data[_NAMESPACE_AT] != _DOS_NAME:
                found = data
    except (OSError, RuntimeError):  # what is told of the file stands without them
        return None
    if len(found) < FileName.SIZE:
        return None
    created, modified, changed, accessed = _NAME_TIMES.unpack_from(found, 8)
    return [modified, accessed, changed, created]


def time_of(told: int) -> int | None:
    """In ns since 1970, of 100 ns since 1601; ``None`` for none."""
    return (told - _EPOCH) * 100 if told else None


def times(file: Any) -> list[int] | None:  # noqa: ANN401 - without types
    """When a file was modified, accessed, changed and created, in ns since 1970; 0: not known.

    The library itself knows the times from 1970 to 2106 only.
    """
    try:
        for attribute in file:
            info = attribute.info
            if info.type == layout.STANDARD_INFORMATION and info.size >= _NAME_TIMES.size:
                data = whole(file, 0, _NAME_TIMES.size, layout.STANDARD_INFORMATION, info.id)
                created, modified, changed, accessed = _NAME_TIMES.unpack(data)
                return [time_of(told) or 0 for told in (modified, accessed, changed, created)]
    except (OSError, RuntimeError):  # what is told of the file stands without them
        pass
    return None


def special(file: Any, size: int, *, is_system: bool) -> Special | None:  # noqa: ANN401
    """What a file is that is no plain one, of a file with a content of ``size`` bytes.

    Raises:
        CorruptImageError: if it is a link that leads nowhere.
        OSError: of the library.
    """
    for attribute in file:
        info = attribute.info
        if info.type == _REPARSE and 0 < info.size <= POINT_BYTES_MAX:
            return of_point(whole(file, 0, info.size, _REPARSE, info.id))
    return of_interix(whole(file, 0, size)) if is_system and size in INTERIX_BYTES else None


def check_here(file: Any) -> None:  # noqa: ANN401 - without types
    """Refuse a file of which the content seems to be a hole, and is kept in another way.

    Source: Microsoft "[MS-FSCC]: File System Control Codes", 2.1.2.1, Reparse Tags.

    Raises:
        Refusal: if it is one.
    """
    for attribute in file:
        info = attribute.info
        if info.type == _REPARSE and info.size >= _TAG_BYTES:
            tag = file.read_random(0, _TAG_BYTES, _REPARSE, info.id)
            why = _ELSEWHERE.get(int.from_bytes(tag, "little") & ~_CLOUD_KINDS)
            if why is not None:
                raise Refusal("unsupported", why)


def records_of(system: Any) -> Records | None:  # noqa: ANN401 - without types
    """Those of a file system, if it is NTFS."""
    return Records(system) if system.info.ftype == _NTFS else None


def _record_of(data: memoryview, name: bytes) -> int | None:
    """Which record an attribute list names for the beginning of a content."""
    position = 0
    while position + ListEntry.SIZE <= len(data):
        entry = ListEntry.unpack(data[position:])
        at = position + entry.name_offset
        text = bytes(data[at : at + 2 * entry.name_length]).decode("utf-16-le", "replace")
        if entry.kind == _DATA and not entry.lowest and text.encode("utf-8", "replace") == name:
            return entry.reference & layout.REFERENCE_MASK
        position += max(entry.length, ListEntry.SIZE)
    return None


def _names(data: memoryview, position: int, end: int) -> Iterator[tuple[str, int]]:
    """Name and number of each entry of a node; those of DOS are second names."""
    end = min(end, len(data))
    while position + IndexEntry.SIZE <= end:
        reference, length, key_length, flags = struct.unpack_from("<QHHI", data, position)
        if flags & layout.INDEX_ENTRY_LAST:
            return
        key = data[position + IndexEntry.SIZE : position + IndexEntry.SIZE + key_length]
        if len(key) >= FileName.SIZE and key[FileName.SIZE - 1] != _DOS_NAME:
            text = bytes(key[FileName.SIZE : FileName.SIZE + 2 * key[FileName.SIZE - 2]])
            name = text.decode("utf-16-le", "replace")
            yield name, reference & layout.REFERENCE_MASK
        position += max(length, IndexEntry.SIZE)
