"""libfsapfs in a process of its own: see :mod:`imprint.filesystems.isolated`.

Asked by :mod:`imprint.filesystems.apfs.tree`. Volumes are numbered from 0.
"""

from __future__ import annotations

import importlib
import io
import stat
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from imprint.filesystems.isolated_worker import Kept, Refusal, said
from imprint.filesystems.tree import RESOURCE_FORK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.isolated_worker import Answers, Pipe

VOLUMES_MAX: Final = 100
"""Of a container: Apple's own limit."""

PART_ENTRIES: Final = 2000
EXTENTS_MAX: Final = 1 << 18
_RESOURCE_ATTRIBUTE: Final = "com.apple.ResourceFork"
_ROOT_IDENTIFIER: Final = 2
_SPARSE: Final = 1
_SHOWN_OTHERWISE: Final = frozenset(
    {_RESOURCE_ATTRIBUTE, "com.apple.fs.symlink", "com.apple.decmpfs"}
)
"""A stream, the target of a link, what a compressed file is made of: macOS hides them as well."""

_ATTRIBUTES_MAX: Final = 4096


class _File:
    """The volume as the library wants it: a file."""

    def __init__(self, pipe: Pipe, size: int) -> None:
        self._kept = Kept(pipe, size)
        self._size = size
        self._position = 0

    def read(self, length: int) -> bytes:
        """Bytes from where it stands, fewer at its end."""
        found = self._kept.read(self._position, length)
        if not found and length and self._position < self._size:
            raise OSError("it cannot be read")
        self._position += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Stand elsewhere."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Where it stands."""
        return self._position

    def get_size(self) -> int:
        """In bytes."""
        return self._size


def opened(pipe: Pipe, size: int) -> Answers:
    """The questions that are answered of a container, by name."""
    library = importlib.import_module("pyfsapfs")
    file = _File(pipe, size)
    container = library.container()
    container.open_file_object(file)
    worker = _Worker(pipe, container)
    return {
        "volumes": worker.volumes,
        "folder": worker.folder,
        "content": worker.content,
        "read": worker.read,
        "attributes": worker.attributes,
        "attribute": worker.attribute,
        "file": file.get_size,
    }


class _Worker:
    """Answers questions of a container."""

    def __init__(self, pipe: Pipe, container: Any) -> None:  # noqa: ANN401 - without types
        self._pipe = pipe
        self._container = container
        self._opened: dict[int, Any] = {}
        self._last: tuple[int, int, Any] | None = None
        self._notes: list[list[object]] = []

    def volumes(self) -> list[list[object]]:
        """Name of each volume, and its root folder, or why there is none."""
        told: list[list[object]] = []
        for index in range(min(int(self._container.number_of_volumes), VOLUMES_MAX)):
            name = f"volume {index}"
            try:
                volume = self._volume(index)
                name = str(volume.name or name)
                if volume.is_locked():
                    told.append([name, None, "it is encrypted"])
                    continue
                told.append([name, self._row("", volume.get_root_directory()), None])
            except (OSError, RuntimeError) as failure:
                told.append([name, None, said(failure)])
        return told

    def folder(self, volume: int, inode: int, skip: int) -> list[object]:
        """Tell a part of what is in a folder: rows, how many names they took, whether it is all."""
        folder = self._entry(volume, inode)
        count = int(folder.number_of_sub_file_entries)
        rows = [row for row in islice(self._rows(folder, skip, count), PART_ENTRIES) if row]
        end = min(skip + PART_ENTRIES, count)
        notes, self._notes = self._notes, []
        return [rows, end - skip, end >= count, notes]

    def _rows(self, folder: Any, skip: int, count: int) -> Iterator[list[object] | None]:  # noqa: ANN401
        for index in range(skip, count):
            name = ""
            try:
                entry = folder.get_sub_file_entry(index)
                name = str(entry.name)
                yield self._row(name, entry)
            except (OSError, RuntimeError) as failure:
                self._notes.append([name, *self._pipe.note(failure)])
                yield None

    def content(self, volume: int, inode: int, stream: str | None) -> list[object]:
        """Size of a content, and where it lies; nothing for the latter if it has to be read."""
        content = self._content(volume, inode, stream)
        size = int(content.size)
        runs: list[int] = []
        position = 0
        for offset, length, flags in self._extents(content):
            if not flags & _SPARSE:
                runs += (position, offset, length)
            position += length
        return [size, runs if position >= size and (runs or not size) else None]

    def read(self, volume: int, inode: int, stream: str | None, offset: int, length: int) -> bytes:
        """Bytes of a content."""
        found: bytes = self._content(volume, inode, stream).read_buffer_at_offset(length, offset)
        return found

    def attributes(self, volume: int, inode: int) -> list[list[object]]:
        """Extended attributes: for each its name, its length, and its number among them."""
        entry = self._entry(volume, inode)
        found = enumerate(self._attributes(entry))
        return [
            [str(item.name), int(item.size), number]
            for number, item in found
            if item.name not in _SHOWN_OTHERWISE
        ]

    def attribute(self, volume: int, inode: int, number: int, length: int) -> bytes:
        """The value of one, of a length."""
        item = self._entry(volume, inode).get_extended_attribute(number)
        found: bytes = item.read_buffer_at_offset(length, 0)
        return found

    def _attributes(self, entry: Any) -> Iterator[Any]:  # noqa: ANN401 - without types
        count = min(int(entry.number_of_extended_attributes), _ATTRIBUTES_MAX)
        return (entry.get_extended_attribute(index) for index in range(count))

    def _content(self, volume: int, inode: int, stream: str | None) -> Any:  # noqa: ANN401
        entry = self._entry(volume, inode)
        if stream is None:
            return entry
        if stream == RESOURCE_FORK:
            found = entry.get_extended_attribute_by_name(_RESOURCE_ATTRIBUTE)
            if found is not None:
                return found
        raise Refusal("corrupt", "expected a stream, found none")

    def _volume(self, index: int) -> Any:  # noqa: ANN401 - without types
        if index not in self._opened:
            self._opened[index] = self._container.get_volume(index)
        return self._opened[index]

    def _entry(self, volume: int, inode: int) -> Any:  # noqa: ANN401 - without types
        if self._last is None or self._last[:2] != (volume, inode):
            opened = self._volume(volume)
            if inode == _ROOT_IDENTIFIER:
                found = opened.get_root_directory()
            else:
                found = opened.get_file_entry_by_identifier(inode)
            if found is None:
                raise Refusal("corrupt", f"expected an inode {inode}, found none")
            self._last = (volume, inode, found)
        return self._last[2]

    def _extents(self, content: Any) -> list[tuple[int, int, int]]:  # noqa: ANN401 - without types
        count = min(int(content.number_of_extents), EXTENTS_MAX)
        return [content.get_extent(index) for index in range(count)]

    def _row(self, name: str, entry: Any) -> list[object]:  # noqa: ANN401 - without types
        mode, size = int(entry.file_mode), int(entry.size)
        places: list[int] = []
        covered, is_plain = 0, stat.S_ISREG(mode)
        if is_plain and size:
            for offset, length, flags in self._extents(entry):
                if flags & _SPARSE:
                    is_plain = False
                    continue
                places += (offset, length)
                covered += length
            is_plain = is_plain and covered >= size
        streams = [
            RESOURCE_FORK for item in self._attributes(entry) if item.name == _RESOURCE_ATTRIBUTE
        ]
        target = entry.symbolic_link_target if stat.S_ISLNK(mode) else None
        return [
            name,
            int(entry.identifier),
            mode,
            size,
            # The library takes the first two times of an inode for each other.
            int(entry.get_creation_time_as_integer()),
            int(entry.get_access_time_as_integer()),
            int(entry.get_inode_change_time_as_integer()),
            int(entry.get_modification_time_as_integer()),
            [int(entry.owner_identifier), int(entry.group_identifier), int(entry.number_of_links)],
            is_plain,
            target,
            streams,
            places,
        ]
