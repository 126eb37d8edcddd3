"""The sections in front of a new image's chunks and behind them, in each flavour."""

from __future__ import annotations

import platform
import time
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.version import VERSION
from imprint.formats.ewf import casedata
from imprint.formats.ewf.layout import (
    MEDIA_IS_IMAGE,
    MEDIA_IS_PHYSICAL,
    MEDIA_TYPES,
    SESSION_IS_AUDIO,
    Digest,
    ErrorHeader,
    Hash,
    SessionEntry,
    SessionHeader,
    Volume,
    sealed,
    section,
    with_checksum,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.core.formats import CreateSpec
    from imprint.formats.ewf.options import Plan

_MEDIA_CODES: Final = {name: code for code, name in MEDIA_TYPES.items()}

FIRST_TRACK: Final = 16
"""What is written for the first track, which begins at sector 0."""

_HEADER_TAGS: Final = ("c", "n", "a", "e", "t", "av", "ov", "m", "u", "p")
_HEADER2_TAGS_5: Final = ("a", "c", "n", "e", "t", "av", "ov", "m", "u", "p", "dc")
_HEADER2_TAGS: Final = ("a", "c", "n", "e", "t", "md", "sn", "av", "ov", "m", "u", "p", "dc")
"""Since EnCase 6. Later ones have further columns, which readers can do without."""

_SOURCE_TAGS: Final = ("p", "n", "id", "ev", "tb", "lo", "po", "ah", "gu", "aq")
_SUBJECT_TAGS: Final = ("p", "n", "id", "nu", "co", "gu")
_SOURCE_VALUES: Final = {"lo": "-1", "po": "-1"}
_SUBJECT_VALUES: Final = {"nu": "1"}


@dataclass(frozen=True)
class Marks:
    """What a new image says of itself.

    Attributes:
        case: all of its case data.
        set_id: GUID that all segments have.
    """

    case: Mapping[str, str]
    set_id: bytes


def marks(made: Plan, spec: CreateSpec) -> Marks:
    """Case data completed by dates and program; a GUID.

    Raises:
        UsageError: if the GUID that was given is none.
    """
    now = str(int(time.time()) if spec.time_s is None else spec.time_s)
    case = {
        **made.case,
        "acquisition_date": now,
        "system_date": now,
        "software_version": f"imprint {VERSION}"[: casedata.VERSION_CHARS_MAX],
        "operating_system": platform.system()[: casedata.PLATFORM_CHARS_MAX],
        "password_hash": "0",
    }
    given = spec.options.get("uuid")
    try:
        identity = uuid.uuid4() if given is None else uuid.UUID(str(given))
    except ValueError:
        raise UsageError(f"option uuid: expected a UUID, found {given!r}") from None
    return Marks(case, identity.bytes_le)


def head(made: Plan, marks: Marks, position: int) -> bytes:
    """The sections between file header and first chunk of the first segment."""
    texts: list[tuple[bytes, bytes]] = []
    if made.flavour == "ftk":
        text = casedata.build_header(marks.case, _HEADER_TAGS, "\n")
        texts = [(b"header", text)] * 2
    else:
        sources = "\n".join(
            (
                _category("srce", _SOURCE_TAGS, _SOURCE_VALUES),
                _category("sub", _SUBJECT_TAGS, _SUBJECT_VALUES),
            )
        )
        tags = _HEADER2_TAGS_5 if made.flavour == "encase5" else _HEADER2_TAGS
        second = casedata.build_header2(marks.case, tags, sources)
        first = casedata.build_header(marks.case, _HEADER_TAGS, "\r\n")
        texts = [(b"header2", second), (b"header2", second), (b"header", first)]
    parts = []
    for kind, text in texts:
        parts.append(section(kind, zlib.compress(text), position))
        position += len(parts[-1])
    parts.append(volume(b"volume", made, marks, position))
    return b"".join(parts)


def volume(kind: bytes, made: Plan, marks: Marks, position: int) -> bytes:
    """The section ``volume``, or ``data`` that repeats it."""
    flags = MEDIA_IS_IMAGE | (MEDIA_IS_PHYSICAL if made.is_physical else 0)
    is_bare = made.flavour == "ftk"
    structure = Volume(
        media_type=_MEDIA_CODES[made.media_type],
        chunks=made.chunks,
        sectors_per_chunk=made.sectors_per_chunk,
        sector_size=made.sector_size,
        sectors=made.sectors,
        media_flags=flags,
        compression=made.compression_code,
        granularity=0 if is_bare else made.granularity,
        set_id=bytes(16) if is_bare else marks.set_id,
    )
    return section(kind, sealed(structure), position)


def sessions(tracks: tuple[tuple[int, bool], ...], position: int) -> bytes:
    """The section ``session``."""
    entries = b"".join(
        SessionEntry(start=start or FIRST_TRACK, flags=SESSION_IS_AUDIO if is_audio else 0).pack()
        for start, is_audio in tracks
    )
    data = sealed(SessionHeader(entries=len(tracks))) + with_checksum(entries)
    return section(b"session", data, position)


def errors(runs: list[tuple[int, int]], position: int) -> bytes:
    """The section ``error2``; ``runs`` are sectors and their number, 32 bits each."""
    entries = b"".join(
        start.to_bytes(4, "little") + count.to_bytes(4, "little") for start, count in runs
    )
    data = sealed(ErrorHeader(entries=len(runs))) + with_checksum(entries)
    return section(b"error2", data, position)


def hashes(made: Plan, digests: Mapping[str, str], position: int) -> bytes:
    """The sections ``digest``, since EnCase 6, and ``hash``, as far as hashes are known."""
    md5 = bytes.fromhex(digests.get("md5", ""))
    sha1 = bytes.fromhex(digests.get("sha1", ""))
    found = b""
    if not made.is_old and (md5 or sha1):
        digest = Digest(md5=md5 or bytes(16), sha1=sha1 or bytes(20))
        found = section(b"digest", sealed(digest), position)
    if md5:
        found += section(b"hash", sealed(Hash(md5=md5)), position + len(found))
    return found


def _category(name: str, tags: tuple[str, ...], values: Mapping[str, str]) -> str:
    row = "\t".join(values.get(tag, "") for tag in tags)
    return "\n".join((name, "0\t1", "\t".join(tags), "0\t0", row, ""))
