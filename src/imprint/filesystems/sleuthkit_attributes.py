"""What The Sleuth Kit calls attributes: contents, resident or in runs of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imprint.filesystems.isolated_worker import Refusal
from imprint.filesystems.tree import RESOURCE_FORK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.sleuthkit_ntfs import Records

EXTENTS_MAX: Final = 1 << 18
"""Of one file, and of all that are told at once."""

_LOST_MAX: Final = 256
"""Blocks of a folder that are tried in vain."""

PROPER: Final = ""
"""In place of a stream's name: the content proper."""

_NTFS_INSIDE: Final = frozenset({16, 48, 64})
"""Facts, names and identity of a file, which are in its record always."""

_NTFS_POINT: Final = 192
_NTFS_DATA: Final = 128
_HFS_DATA: Final = 4352
_HFS_RESOURCE: Final = 4353
_HFS_EXTENDED: Final = 4354
_DEFAULT: Final = 1

_NONRESIDENT: Final = 0x02
_ENCRYPTED: Final = 0x10
_COMPRESSED: Final = 0x20
_RUN_FILLER: Final = 0x01
_RUN_SPARSE: Final = 0x02
_WITHOUT_DATA: Final = _RUN_FILLER | _RUN_SPARSE
"""``TSK_FS_ATTR_RUN_FLAG_FILLER`` and ``SPARSE``: no place on the volume."""


def content_name(info: Any) -> str | None:  # noqa: ANN401 - without types
    """Which content an attribute is: :data:`PROPER`, or a stream's name; ``None``: it is none."""
    kind = info.type
    if kind == _NTFS_DATA:
        return PROPER if info.name is None else _text(info.name)
    if kind in (_DEFAULT, _HFS_DATA):
        return PROPER
    return RESOURCE_FORK if kind == _HFS_RESOURCE and info.size else None


def attribute_name(info: Any) -> str | None:  # noqa: ANN401 - without types
    """The name of an extended attribute of HFS+, if it is one."""
    if info.type != _HFS_EXTENDED or info.name is None:
        return None
    return _text(info.name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def is_stored(info: Any) -> bool:  # noqa: ANN401 - without types
    """Whether the volume has the bytes of an attribute in blocks, as they are.

    Raises:
        Refusal: if they are encrypted.
    """
    flags = info.flags
    if flags & _ENCRYPTED:
        raise Refusal("unsupported", "it is encrypted by the file system")
    return bool(flags & _NONRESIDENT) and not flags & _COMPRESSED


def whole(file: Any, offset: int, length: int, *which: int) -> bytes:  # noqa: ANN401
    """Bytes of an attribute, by its type and number, or of the content proper.

    The library may give fewer, without a word, where the volume cannot be read.

    Raises:
        OSError: if there are not so many.
    """
    found: bytes = file.read_random(offset, length, *which)
    if len(found) != length:
        raise OSError(f"expected {length} bytes from {offset}, found {len(found)}")
    return found


def parts(file: Any, size: int, step: int, least: int, *which: int) -> Iterator[bytes]:  # noqa: ANN401
    """An attribute, ``step`` bytes at once, but for what of it cannot be read.

    Args:
        file: that has it.
        size: of it, in bytes.
        step: a multiple of ``least``.
        least: what makes sense by itself; from that on, all is there again.
        which: as in :func:`whole`.

    Raises:
        OSError: in the end, if something was left out, or before that, if it is very much.
    """
    lost: list[int] = []
    for start in range(0, size, step):
        end = min(start + step, size)
        found = _tried(file, start, end - start, *which)
        if found is not None:
            yield found
            continue
        for at in range(start, end, least):
            found = _tried(file, at, min(least, end - at), *which)
            if found is not None:
                yield found
            elif len(lost) < _LOST_MAX:
                lost.append(at)
            else:
                raise OSError(f"it cannot be read from byte {lost[0]} on")
    if lost:
        raise OSError(f"{len(lost)} of its blocks cannot be read, the first at byte {lost[0]}")


def _tried(file: Any, offset: int, length: int, *which: int) -> bytes | None:  # noqa: ANN401
    try:
        return whole(file, offset, length, *which)
    except (OSError, RuntimeError):
        return None


class Told(NamedTuple):
    """What the attributes of a file say.

    Attributes:
        places: all extents, offset and length in bytes of the volume one behind the other, those
            of its content first.
        streams: names of further contents; ``None`` for none.
        is_plain: its content is just its extents.
        resident: type and number of the attribute that is its content, if that is not in blocks.
        is_point: it may lead elsewhere: it has a reparse point.
        is_double: it has more than one content proper, of which the first is told. To the library,
            a stream has no name if that begins with a zero.
    """

    places: list[int]
    streams: list[str] | None
    is_plain: bool
    resident: tuple[int, int] | None
    is_point: bool
    is_double: bool = False


class Attributes:
    """Where the attributes of files lie."""

    def __init__(self, block: int, size: int, records: Records | None) -> None:
        """``block`` and ``size``, of the volume, in bytes."""
        self._block = block
        self._size = size
        self._records = records

    def told(self, file: Any, size: int) -> Told:  # noqa: ANN401 - without types
        """Of a file of a size."""
        places: list[int] = []
        others: list[int] = []
        streams: list[str] | None = None
        is_plain, is_point = size == 0, False
        is_known = is_double = False
        resident: tuple[int, int] | None = None
        for attribute in file:
            info = attribute.info
            kind = info.type
            if kind in _NTFS_INSIDE:
                continue
            name = PROPER if kind == _DEFAULT else content_name(info)
            is_proper = name == PROPER and not is_known
            is_double = is_double or (name == PROPER and is_known and kind == _NTFS_DATA)
            is_known = is_known or is_proper
            if name:
                streams = [*(streams or ()), name]
            elif kind == _NTFS_POINT:
                is_point = True
            flags = info.flags
            if not flags & _NONRESIDENT:
                if is_proper and size and not flags & (_ENCRYPTED | _COMPRESSED):
                    resident = (kind, info.id)
                continue
            covered = self._place(attribute, places if is_proper else others)
            if is_proper and size:
                is_plain = (
                    covered >= size
                    and not flags & (_ENCRYPTED | _COMPRESSED)
                    and len(places) < 2 * EXTENTS_MAX
                    and self.valid(file.info.meta.addr, info) == info.size
                )
        return Told(places + others, streams, is_plain, resident, is_point, is_double)

    def _place(self, attribute: Any, places: list[int]) -> int:  # noqa: ANN401 - without types
        """Add extents of an attribute; how many bytes these hold of it, from its beginning on."""
        block, end = self._block, self._size
        covered = 0
        for run in attribute:
            start, length = run.addr * block, run.len * block
            if run.flags & _WITHOUT_DATA or not 0 <= start < end or length <= 0:
                continue
            if start + length > end:
                length = end - start
            elif run.offset * block == covered:
                covered += length
            places += (start, length)
            if len(places) >= 2 * EXTENTS_MAX:
                break
        return covered

    def valid(self, inode: int, info: Any) -> int | None:  # noqa: ANN401 - without types
        """How many bytes of a content were ever written; ``None`` if that is not known."""
        return info.size if self._records is None else self._records.initialized(inode, info)

    def runs(self, attribute: Any, size: int) -> Iterator[int]:  # noqa: ANN401 - without types
        """Position, offset and length of what is not a hole, one behind the other, in bytes."""
        block = self._block
        for run in attribute:
            position = run.offset * block
            if position >= size:
                return
            if not run.flags & _WITHOUT_DATA:
                yield position
                yield run.addr * block
                yield run.len * block
