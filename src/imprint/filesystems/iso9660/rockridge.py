"""Rock Ridge: what Unix wants to know of a file, behind its record.

Source: IEEE P1281 (System Use Sharing Protocol, 1.12) and P1282 (Rock Ridge, 1.12).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.filesystems.iso9660.records import long_time_of, time_of
from imprint.filesystems.tree import Times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.allocation import VolumeReader

_CONTINUATIONS_MAX: Final = 64
"""Of one record; a long name and a long link have four."""

_CONTINUATION_BYTES_MAX: Final = 64 << 10
_NAME_CURRENT: Final = 0x02
_NAME_PARENT: Final = 0x04
_LINK_GOES_ON: Final = 0x01
_LINK_ROOT: Final = 0x08
_LONG_TIMES: Final = 0x80
_SPECIAL: Final = {_NAME_CURRENT: b".", _NAME_PARENT: b".."}


@dataclass
class Facts:
    """What Rock Ridge tells of a file; ``None`` where it does not.

    Attributes:
        name: of it.
        mode: with its type.
        links: how many names it has.
        owner: its number.
        group: its number.
        target: of a symbolic link.
        times: of it.
        child: block of a folder that lies elsewhere, since folders may not be deeper.
        is_moved: it is such a folder, where it lies.
        zipped: size of the content, which is compressed.
    """

    name: bytes | None = None
    mode: int | None = None
    links: int = 0
    owner: int = 0
    group: int = 0
    target: bytes | None = None
    times: Times | None = None
    child: int | None = None
    is_moved: bool = False
    zipped: int | None = None
    _parts: list[bytes] = field(default_factory=list)
    _part: bytes | None = None

    def add(self, mark: bytes, data: bytes) -> None:
        """Take an entry, without its head of four bytes."""
        if mark == b"NM" and len(data) > 0:
            if not data[0] & (_NAME_CURRENT | _NAME_PARENT):
                self.name = (self.name or b"") + data[1:]
        elif mark == b"PX" and len(data) >= 32:
            self.mode, self.links, self.owner, self.group = struct.unpack_from(
                "<I4xI4xI4xI4x", data
            )
        elif mark == b"SL" and len(data) > 0:
            self._add_link(data[1:])
        elif mark == b"TF" and len(data) > 0:
            self._add_times(data[0], data[1:])
        elif mark == b"CL" and len(data) >= 4:
            self.child = int.from_bytes(data[:4], "little")
        elif mark == b"RE":
            self.is_moved = True
        elif mark == b"ZF" and len(data) >= 12 and data[:2] == b"pz":
            self.zipped = int.from_bytes(data[4:8], "little")

    def _add_link(self, data: bytes) -> None:
        """Components of a target, which may go on in the next entry."""
        at = 0
        while at + 2 <= len(data):
            flags, length = data[at], data[at + 1]
            text = _SPECIAL.get(flags & ~_LINK_GOES_ON, data[at + 2 : at + 2 + length])
            if flags & _LINK_ROOT:
                self._parts = [b""]
            elif self._part is not None:
                self._parts[-1] += text
            else:
                self._parts.append(text)
            self._part = text if flags & _LINK_GOES_ON else None
            at += 2 + length
        joined = b"/".join(self._parts)
        self.target = joined or (b"/" if self._parts else b"")

    def _add_times(self, flags: int, data: bytes) -> None:
        size, read = (17, long_time_of) if flags & _LONG_TIMES else (7, time_of)
        found: dict[int, int | None] = {}
        at = 0
        for bit in range(7):
            if flags >> bit & 1 and at + size <= len(data):
                found[bit] = read(data[at : at + size])
                at += size
        self.times = Times(found.get(1), found.get(2), found.get(3), found.get(0))


class RockRidge:
    """Reads what stands behind records."""

    def __init__(self, reader: VolumeReader, block: int, skip: int) -> None:
        """``block`` is the size of one; ``skip`` bytes are somebody else's in each record."""
        self._reader = reader
        self._block = block
        self._skip = skip

    def facts(self, system: bytes) -> Facts:
        """Of the file whose record has this behind its name.

        Raises:
            CorruptImageError: if it goes on outside of the volume, or without end.
            ReadError: if it cannot be read.
        """
        facts = Facts()
        for mark, data in self._entries(system[self._skip :]):
            facts.add(mark, data)
        return facts

    def _entries(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        for _ in range(_CONTINUATIONS_MAX):
            following: tuple[int, int, int] | None = None
            for mark, body in entries(data):
                if mark == b"CE" and len(body) >= 24:
                    following = struct.unpack_from("<I4xI4xI4x", body)
                elif mark == b"ST":
                    break
                else:
                    yield mark, body
            if following is None:
                return
            block, offset, length = following
            if length > _CONTINUATION_BYTES_MAX:
                break
            place = block * self._block + offset
            data = bytes(self._reader.read(place, length, "continuation of a record"))
        raise CorruptImageError("expected the end of a record", name=self._reader.name)


def entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Mark and content of each entry of an area."""
    at = 0
    while at + 4 <= len(data) and data[at + 2] >= 4:
        length = data[at + 2]
        yield data[at : at + 2], data[at + 4 : at + length]
        at += length


def rock_ridge(reader: VolumeReader, block: int, root: bytes) -> RockRidge | None:
    """What reads a disc's Rock Ridge; ``None`` if it has none.

    Args:
        reader: of the volume.
        block: size of one.
        root: what stands behind the first record of the root folder.
    """
    for mark, data in entries(root):
        if mark == b"SP" and len(data) >= 3 and data[:2] == b"\xbe\xef":
            found = RockRidge(reader, block, data[2])
            return found if found.facts(root).mode is not None else None
    return None
