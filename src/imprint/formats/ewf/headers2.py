"""The sections of version 2, but for chunks and where they are. Their data, padded."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from imprint.formats.ewf import casedata
from imprint.formats.ewf.headers import FIRST_TRACK
from imprint.formats.ewf.layout import SESSION_IS_AUDIO, sealed, with_checksum
from imprint.formats.ewf.layout2 import (
    COMPRESSION_ZLIB,
    ErrorEntry2,
    ListHeader2,
    SessionEntry2,
    TableHeader2,
    padded,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.core.layout import Structure
    from imprint.formats.ewf.headers import Marks
    from imprint.formats.ewf.options import Plan

_DRIVES: Final = {"fixed": "f", "removable": "r", "optical": "c", "memory": "m"}
_RUN_MAX: Final = 0xFFFF_FFFF


def device(made: Plan, marks: Marks) -> bytes:
    """What the disk is."""
    case = marks.case
    return _text(
        {
            "sn": case.get("serial_number", ""),
            "md": case.get("model", ""),
            "lb": "",
            "ts": str(made.sectors),
            "hs": "",
            "dc": "",
            "dt": _DRIVES[made.media_type],
            "pid": "",
            "rs": "",
            "ls": "",
            "bp": str(made.sector_size),
            "ph": "1" if made.is_physical else "",
        }
    )


def case_data(made: Plan, marks: Marks) -> bytes:
    """What the examiner noted, and how the disk is cut up."""
    case = marks.case
    return _text(
        {
            "nm": case.get("description", ""),
            "cn": case.get("case_number", ""),
            "en": case.get("evidence_number", ""),
            "ex": case.get("examiner", ""),
            "nt": case.get("notes", ""),
            "av": case["software_version"],
            "os": case["operating_system"],
            "tt": case["acquisition_date"],
            "at": case["system_date"],
            "tb": str(made.chunks),
            "cp": "" if made.level is None else str(COMPRESSION_ZLIB),
            "sb": str(made.sectors_per_chunk),
            "gr": str(made.granularity),
            "wb": "",
        }
    )


def table(first_chunk: int, entries: bytes, count: int) -> bytes:
    """Where chunks are."""
    return _listed(TableHeader2(first_chunk=first_chunk, entries=count), entries)


def errors(runs: list[tuple[int, int]]) -> bytes:
    """What could not be read, as sectors and their number."""
    entries = [
        ErrorEntry2(start=at, count=min(_RUN_MAX, start + count - at)).pack()
        for start, count in runs
        for at in range(start, start + count, _RUN_MAX)
    ]
    return _listed(ListHeader2(entries=len(entries)), b"".join(entries))


def sessions(tracks: tuple[tuple[int, bool], ...]) -> bytes:
    """Tracks of an optical disc."""
    entries = b"".join(
        SessionEntry2(start=start or FIRST_TRACK, flags=SESSION_IS_AUDIO if is_audio else 0).pack()
        for start, is_audio in tracks
    )
    return _listed(ListHeader2(entries=len(tracks)), entries)


def digest(hexadecimal: str) -> bytes:
    """A hash of the disk."""
    return padded(with_checksum(bytes.fromhex(hexadecimal)))


def _listed(header: Structure, entries: bytes) -> bytes:
    return padded(sealed(header)) + padded(with_checksum(entries))


def _text(values: Mapping[str, str]) -> bytes:
    """One object, as UTF-16, packed. What would end a value is escaped."""
    row = "\t".join(casedata.escape(value) for value in values.values())
    lines = "\n".join(("1", "main", "\t".join(values), row, "", ""))
    return zlib.compress(b"\xff\xfe" + lines.encode("utf-16-le", "replace"))
