"""In which state the files of NTFS were left: their records in the MFT, as they are.

A record is written whenever something of it changes, and each write of it counts the number of its
update sequence up. So records that are the same byte by byte were not written meanwhile. That
is more than its times say, which any program can set.

Windows writes into files of its own without touching their records: into its page file, shadow
copies, logs. They are marked as files of the system, or have names that begin with a dollar.

Source: Linux ``fs/ntfs3/ntfs.h`` (``ATTR_STD_INFO5``, ``ATTR_FILE_NAME``).
"""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import UnsupportedFeatureError
from imprint.filesystems.ntfs import layout
from imprint.filesystems.ntfs.contents import undo_fixups
from imprint.filesystems.ntfs.records import HOLE, runs_of
from imprint.filesystems.ntfs.walk import DAMAGED_MARK, records_in_use
from imprint.filesystems.probes.microsoft import MftAttribute
from imprint.filesystems.states import FILE_RUNS_MAX, FileState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.ntfs.files import Files

_HEAD: Final = struct.Struct("<IIB11xH2x")
"""Of an attribute: type, length, whether its value is in clusters, and where it is if it is not.

As numbers and not as a structure, like those below: a volume has millions of them.
"""

_EXTENTS: Final = struct.Struct("<16xQ8xH14xQ")
"""Of one in clusters: which cluster of the value the list of runs begins with, where the list is,
and the size of the value."""

_TIMES: Final = struct.Struct("<8xQQ8xI")
"""Of the standard information: when the content changed and when the record did, and flags."""

_IN_PIECES: Final = 1 << 48
"""Files that have several records come last. Numbers of records are less."""

_HELD_RUNS_MAX: Final = 1 << 20
"""Of files that have several records: these may be anywhere, so that all of them are kept."""

_EPOCH: Final = 116_444_736_000_000_000
"""1970, as NTFS has it: in units of 100 ns since 1601."""

_SYSTEM: Final = 0x4
_NAME_AT: Final = 66
_OWN_MARK: Final = "$".encode("utf-16-le")
_FIRST_RECORD: Final = 24
"""Of a user's file: those before are of the file system, or are kept for it."""


class _Part(NamedTuple):
    """What one record says of a file.

    Attributes:
        state: all of the record.
        changed_ns: as of the file; 0 where it is not told.
        size: the same.
        runs: the same.
        goes_on: in other records.
        is_own: it is a file of the system, or its name could not be told.
    """

    state: bytes
    changed_ns: int
    size: int
    runs: list[tuple[int, int]]
    goes_on: bool
    is_own: bool


def file_states(files: Files) -> Iterator[FileState]:
    """See :class:`~imprint.filesystems.states.States`. Damaged records are left out."""
    held: dict[int, _Part] = {}
    more: defaultdict[int, list[_Part]] = defaultdict(list)
    count = 0
    for number, record in records_in_use(files):
        if number < _FIRST_RECORD or record.startswith(DAMAGED_MARK):
            continue
        raw = bytes(record)
        start = undo_fixups(record, files.geometry)
        if start is None:
            continue
        base = int.from_bytes(record[32:40], "little") & layout.REFERENCE_MASK
        part = _read(raw, record, start, number, files)
        if base or part.goes_on:
            part = part._replace(state=hashlib.sha256(part.state).digest())
            count += 1 + len(part.runs)
            if count > _HELD_RUNS_MAX:
                raise UnsupportedFeatureError(
                    "NTFS: its files are in too many pieces", name=files.geometry.where
                )
            if base:
                more[base].append(part)
            else:
                held[number] = part
        elif not part.is_own and 0 < len(part.runs) <= FILE_RUNS_MAX:
            yield FileState(number, part.state, part.changed_ns, part.size, tuple(part.runs))
    yield from _in_pieces(held, more)


def _in_pieces(held: dict[int, _Part], more: dict[int, list[_Part]]) -> Iterator[FileState]:
    """Files whose attributes are in several records, each of which has to be the same."""
    for number, first in held.items():
        parts = [first, *more.get(number, ())]
        runs = tuple(run for part in parts for run in part.runs)
        if first.is_own or not 0 < len(runs) <= FILE_RUNS_MAX:
            continue
        state = tuple(part.state for part in parts)
        size = max(part.size for part in parts)
        yield FileState(number | _IN_PIECES, state, first.changed_ns, size, runs)


def _read(raw: bytes, record: bytearray, start: int, number: int, files: Files) -> _Part:
    """What a record says, from its first attribute on."""
    geometry, unit = files.geometry, files.geometry.cluster_size
    changed_ns = size = 0
    runs: list[tuple[int, int]] = []
    goes_on, is_own, is_named = False, True, False
    at, last = start, len(record) - _HEAD.size
    while at <= last:
        kind, length, is_elsewhere, place = _HEAD.unpack_from(record, at)
        if kind > layout.DATA or length < MftAttribute.SIZE or at + length > len(record):
            break  # they are in the order of their types
        attribute = bytes(record[at : at + length])
        value = attribute[place:]
        if kind == layout.ATTRIBUTE_LIST:
            goes_on = True
        elif is_elsewhere:
            if kind == layout.DATA and length >= _EXTENTS.size:
                lowest, runs_at, here = _EXTENTS.unpack_from(attribute)
                found = runs_of(attribute[runs_at:], f"MFT record {number}", geometry)
                runs += [(first * unit, held * unit) for first, held in found if first != HOLE]
                size = size if lowest else max(size, here)
        elif kind == layout.STANDARD_INFORMATION and len(value) >= _TIMES.size:
            content, changed, flags = _TIMES.unpack_from(value)
            changed_ns = (max(content, changed) - _EPOCH) * 100
            is_own = bool(flags & _SYSTEM)
        elif kind == layout.FILE_NAME and value[_NAME_AT : _NAME_AT + 2] != _OWN_MARK:
            is_named = True
        at += length
    # The name of a file with several records may be in another one: its flags have to do.
    is_own = is_own or not (is_named or goes_on)
    return _Part(raw, changed_ns, size, runs, goes_on, is_own)
