"""In what state an NTFS volume was left: why its bitmap may be behind the times.

NTFS logs changes of its own structures. What Windows has not unmounted, and what it hibernates
with ("fast start" does this at every shutdown), is to be completed from the log, or from memory
that was written to a file. Neither can be done here, so there is a doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import KIB
from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.folders import find_file
from imprint.filesystems.ntfs.layout import RestartArea, RestartPage, VolumeInformation
from imprint.filesystems.ntfs.records import HOLE, unprotected
from imprint.filesystems.probes.microsoft import MftRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.ntfs.files import Files, Value

_VERSIONS: Final = ((1, 1), (1, 2), (3, 0), (3, 1))
_EMPTY: Final = 0xFF
_LOG_BYTES_MIN: Final = 2 * layout.LOG_PAGE_BYTES
_RESTART_MARKS: Final = (layout.RESTART_MARK, layout.RESTART_MARK_OF_CHKDSK)
_LOG_PAGE_BYTES_MAX: Final = 64 * KIB
_LOG_HEADS_BYTES: Final = 2 * _LOG_PAGE_BYTES_MAX
_MIRRORED: Final = 4
"""Records that every volume has twice; with large clusters there are more."""

_HIBERNATED: Final = {
    b"hibr": "Windows is hibernated, or was shut down for a fast start",
    b"wake": "Windows was hibernated, and was waking up or has not been shut down in full since",
    b"rstr": "Windows is being restored from hibernation",
}


def doubts_of(files: Files) -> Iterator[str]:
    """Why the volume may be different once it is mounted.

    Raises:
        CorruptImageError: if what tells it makes no sense.
        UnsupportedFeatureError: if it is of a version that is not known.
    """
    yield from _flags(files)
    yield from doubts_of_log(files)
    yield from _mirror(files)
    yield from _hibernation(files)


def _flags(files: Files) -> Iterator[str]:
    value = _need(files, layout.RECORD_VOLUME, layout.VOLUME_INFORMATION)
    data = value.read(files.reader, files.geometry, 0, VolumeInformation.SIZE)
    head = VolumeInformation.unpack(data)
    if (head.major, head.minor) not in _VERSIONS:
        raise UnsupportedFeatureError(
            f"NTFS: expected version 1.1 to 3.1, found {head.major}.{head.minor}",
            name=files.geometry.where,
        )
    for flag, meaning in layout.VOLUME_FLAGS.items():
        if head.flags & flag:
            yield f"the volume {meaning}"


def doubts_of_log(files: Files) -> Iterator[str]:
    """Whether the log has to be replayed: the newer of its two restart pages says so.

    Raises:
        CorruptImageError: if it makes no sense.
    """
    value = _need(files, layout.RECORD_LOG, layout.DATA)
    size = min(value.size, _LOG_HEADS_BYTES)
    if size < _LOG_BYTES_MIN:
        yield "its log is too short to tell whether it was unmounted"
        return
    data = value.read(files.reader, files.geometry, 0, size)
    if data.count(_EMPTY) == size:
        return  # emptied by ntfs-3g or mkfs
    pages = [_restart_page(data, at) for at in _places(data)]
    known = [page for page in pages if page is not None]
    if not known:
        yield "its log cannot be read, so that there is no telling whether it was unmounted"
        return
    head, area = max(known, key=lambda page: page[1].current_lsn)
    if head.mark == layout.RESTART_MARK_OF_CHKDSK:
        return
    if head.major != 1:
        yield f"its log has version {head.major}.{head.minor}: Windows has not given it back"
    elif area.client_in_use != layout.LOG_NO_CLIENT and not area.flags & layout.LOG_IS_CLEAN:
        yield "it was not unmounted: its log has to be replayed"


def _places(data: bytearray) -> Iterator[int]:
    """Where a restart page begins: at 0, and behind the first, whatever its size is."""
    yield 0
    at = layout.LOG_PAGE_BYTES
    while at + RestartPage.SIZE <= len(data):
        if bytes(data[at : at + 4]) in _RESTART_MARKS:
            yield at
            return
        at *= 2


def _restart_page(data: bytearray, at: int) -> tuple[RestartPage, RestartArea] | None:
    head = RestartPage.unpack(data[at : at + RestartPage.SIZE])
    is_page = (
        head.mark in _RESTART_MARKS
        and head.page_size.bit_count() == 1
        and layout.STRIDE <= head.page_size <= _LOG_PAGE_BYTES_MAX
        and at + head.page_size <= len(data)
        and head.area_offset + RestartArea.SIZE <= head.page_size
    )
    if not is_page:
        return None
    try:
        page = unprotected(data[at : at + head.page_size], head.mark, "log", "")
    except CorruptImageError:
        return None
    return head, RestartArea.unpack(page[head.area_offset :])


def _mirror(files: Files) -> Iterator[str]:
    """Compare the first records with their copies, as the driver of Linux does, too."""
    place, geometry = files.geometry.mirror_cluster, files.geometry
    mirror = _need(files, layout.RECORD_MIRROR, layout.DATA)
    if not mirror.runs or mirror.runs[0][0] != place:
        yield "the copy of the first MFT records is not where the boot sector says"
        return
    for number in range(_MIRRORED):
        data = mirror.read(
            files.reader, geometry, number * geometry.record_size, geometry.record_size
        )
        try:
            copy = unprotected(data, layout.FILE_MARK, f"copy of MFT record {number}", "")
        except CorruptImageError as error:
            yield str(error.args[0])
            continue
        head, view = files.record(number)[1:]
        # The update sequence, which is behind the head, counts the writes of each on its own.
        parts = (
            (MftRecord.FIELDS["sequence"].at, head.fixup_offset),
            (head.attributes_offset, head.used),
        )
        if any(copy[start:end] != view[start:end] for start, end in parts):
            yield f"MFT record {number} differs from its copy"


def _hibernation(files: Files) -> Iterator[str]:
    number = find_file(files, layout.RECORD_ROOT, "HIBERFIL.SYS")
    if number is None:
        return
    value = files.value(number, layout.DATA, is_whole=False)
    if value is None or value.initialized < 4 or (value.runs and value.runs[0][0] == HOLE):
        return
    mark = bytes(value.read(files.reader, files.geometry, 0, 4))
    meaning = _HIBERNATED.get(mark.lower())
    if meaning is not None:
        yield meaning


def _need(files: Files, number: int, kind: int) -> Value:
    value = files.value(number, kind)
    if value is None:
        raise CorruptImageError(
            f"MFT record {number}: expected an attribute 0x{kind:x}, found none",
            name=files.geometry.where,
        )
    return value
