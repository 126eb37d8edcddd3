"""What The Sleuth Kit calls attributes: contents, resident or in runs of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from imprint.filesystems.isolated_worker import Refusal
from imprint.filesystems.tree import RESOURCE_FORK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.sleuthkit_ntfs import Records

EXTENTS_MAX: Final = 1 << 18
"""Of one file, and of all that are told at once."""

_LOST_MAX: Final = 256
"""Blocks of a folder that are tried in vain."""

_NTFS_DATA: Final = 128
_HFS_DATA: Final = 4352
_HFS_RESOURCE: Final = 4353
_HFS_EXTENDED: Final = 4354
_DEFAULT: Final = 1
_UNNAMED: Final = frozenset({_DEFAULT, _NTFS_DATA, _HFS_DATA})

_NONRESIDENT: Final = 0x02
_ENCRYPTED: Final = 0x10
_COMPRESSED: Final = 0x20
_RUN_FILLER: Final = 0x01
_RUN_SPARSE: Final = 0x02
_WITHOUT_DATA: Final = _RUN_FILLER | _RUN_SPARSE
"""``TSK_FS_ATTR_RUN_FLAG_FILLER`` and ``SPARSE``: no place on the volume."""


def stream_of(info: Any) -> str | None:  # noqa: ANN401 - without types
    """The name of a further content that an attribute is."""
    kind = info.type
    if kind == _NTFS_DATA and info.name is not None:
        return _text(info.name)
    return RESOURCE_FORK if kind == _HFS_RESOURCE and info.size else None


def attribute_name(info: Any) -> str | None:  # noqa: ANN401 - without types
    """The name of an extended attribute of HFS+, if it is one."""
    if info.type != _HFS_EXTENDED or info.name is None:
        return None
    return _text(info.name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def is_content(info: Any, stream: str | None) -> bool:  # noqa: ANN401 - without types
    """Whether an attribute is the content proper, or a stream."""
    if stream is not None:
        return stream_of(info) == stream
    return info.type in _UNNAMED and (info.type != _NTFS_DATA or info.name is None)


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


class Attributes:
    """Where the attributes of files lie."""

    def __init__(self, block: int, size: int, records: Records | None) -> None:
        """``block`` and ``size``, of the volume, in bytes."""
        self._block = block
        self._size = size
        self._records = records

    def told(self, file: Any, size: int) -> tuple[list[int], list[str] | None, bool]:  # noqa: ANN401
        """Of a file of a size: all extents, its streams, and whether its content is just these.

        Extents are offset and length in bytes of the volume, one behind the other, those of its
        content first.
        """
        block, end = self._block, self._size
        places: list[int] = []
        others: list[int] = []
        streams: list[str] | None = None
        covered, is_plain = 0, size == 0
        for attribute in file:
            info = attribute.info
            is_proper = info.type == _DEFAULT or is_content(info, None)
            if not is_proper:
                name = stream_of(info)
                if name is not None:
                    streams = [*(streams or ()), name]
            flags = info.flags
            if not flags & _NONRESIDENT:
                continue
            chosen = places if is_proper else others
            for run in attribute:
                start, length = run.addr * block, run.len * block
                behind = start + length
                if run.flags & _WITHOUT_DATA or not 0 <= start < end or length <= 0:
                    continue
                if behind > end:
                    length = end - start
                elif is_proper and run.offset * block == covered:
                    covered += length
                chosen += (start, length)
                if len(chosen) >= 2 * EXTENTS_MAX:
                    break
            if is_proper and size:
                is_plain = (
                    covered >= size
                    and not flags & (_ENCRYPTED | _COMPRESSED)
                    and len(places) < 2 * EXTENTS_MAX
                    and self.valid(file.info.meta.addr, info) == info.size
                )
        return places + others, streams, is_plain

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
