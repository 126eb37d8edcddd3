"""Options of a new volume, checked, and how large it can get."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.extent import Kind
from imprint.core.formats import Measure, Option, OptionKind
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import KIB, MIB, div_up

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.core.formats import CreateSpec

OPTIONS: Final = (
    Option(
        "compression",
        "of chunks: snappy (default), lz4, deflate, zlib or none",
        default="snappy",
        choices=("snappy", "lz4", "deflate", "zlib", "none"),
    ),
    Option(
        "level",
        "of deflate and zlib, 0 to 9 (default 1)",
        kind=OptionKind.NUMBER,
    ),
    Option(
        "chunk_size",
        "what is compressed at once, a power of two from 4K to 1M",
        kind=OptionKind.SIZE,
        default=32 * KIB,
    ),
    Option(
        "hash",
        "of the whole disk, kept in the image: md5, sha1, sha256, sha512 or none",
        default="sha1,sha256",
    ),
    Option(
        "block_hash",
        "of each chunk, kept in the image: likewise, and blake2b",
        default="sha256",
    ),
    Option("case_number", "of the case"),
    Option("case_name", "of the case"),
    Option("description", "of the case"),
    Option("evidence_number", "of the medium"),
    Option("examiner", "who made the image"),
    Option("notes", "of the examiner"),
    Option("uuid", "of the image; those of its parts follow from it. By default random"),
)

CASE_OPTIONS: Final = {
    "case_number": "caseNumber",
    "case_name": "caseName",
    "description": "caseDescription",
    "evidence_number": "evidenceNumber",
    "examiner": "examiner",
    "notes": "notes",
}

CHUNKS_PER_BEVY: Final = 2048
_FAST_LEVEL: Final = 1
_TEXT_MAX: Final = 3000
_NAMES: Final = ("md5", "sha1", "sha256", "sha512", "blake2b")
LINEAR_HASHES: Final = _NAMES[:4]
"""Those that are taken while a disk is copied."""

_DIGEST_BYTES: Final = dict(zip(_NAMES, (16, 20, 32, 64, 64), strict=True))
_OVERHEAD_BYTES: Final = 64 * KIB
"""Description, version, directory and ends of an archive, all texts included."""
_MEMBER_BYTES: Final = 400
_MAP_ENTRY_BYTES: Final = 28


@dataclass(frozen=True)
class Plan:
    """What a new volume shall be.

    Attributes:
        size: of the disk, in bytes.
        sector: of the disk, in bytes.
        method: of compression.
        level: of it.
        chunk_size: in bytes.
        linear: hashes of the whole disk.
        block: hashes of each chunk.
        case: what the examiner says, by the standard's names.
        uuid: of the image.
        time_s: when it was made, in seconds since 1970.
    """

    size: int
    sector: int
    method: str
    level: int
    chunk_size: int
    linear: tuple[str, ...]
    block: tuple[str, ...]
    case: dict[str, str]
    uuid: uuid.UUID
    time_s: int

    def urn(self, part: str) -> str:
        """The name of a part of the image."""
        return f"aff4://{uuid.uuid5(self.uuid, part)}"

    @property
    def digest_bytes(self) -> int:
        """Of all digests of one chunk."""
        return sum(_DIGEST_BYTES[name] for name in self.block)


def plan(spec: CreateSpec) -> Plan:
    """Options as they will be.

    Raises:
        UsageError: if they contradict each other, or the format.
    """
    options = spec.options
    if spec.parent is not None:
        raise UsageError("an aff4 image cannot have a parent")
    if spec.size > DISK_SIZE_MAX:
        raise UsageError(f"expected a disk of at most {DISK_SIZE_MAX} bytes, found {spec.size}")
    chunk = int(options.get("chunk_size", 32 * KIB))
    if chunk.bit_count() != 1 or not 4 * KIB <= chunk <= MIB:
        raise UsageError(f"option chunk_size: expected a power of two from 4K to 1M, found {chunk}")
    method = str(options.get("compression", "snappy"))
    level = options.get("level")
    if level is not None and (method not in ("deflate", "zlib") or not 0 <= int(level) <= 9):
        raise UsageError(f"option level: expected 0 to 9, and deflate or zlib, found {level}")
    given = options.get("uuid")
    try:
        image = uuid.uuid4() if given is None else uuid.UUID(str(given))
    except ValueError:
        raise UsageError(f"expected a UUID, found {given!r}") from None
    case = {}
    for option, name in CASE_OPTIONS.items():
        text = options.get(option)
        if text is not None:
            if len(str(text)) > _TEXT_MAX:
                raise UsageError(f"option {option}: expected at most {_TEXT_MAX} characters")
            case[name] = str(text)
    return Plan(
        size=spec.size,
        sector=spec.sector,
        method=method,
        level=_FAST_LEVEL if level is None else int(level),
        chunk_size=chunk,
        linear=_hashes("hash", str(options.get("hash", "sha1,sha256")), LINEAR_HASHES),
        block=_hashes("block_hash", str(options.get("block_hash", "sha256")), _NAMES),
        case=case,
        uuid=image,
        time_s=int(time.time()) if spec.time_s is None else spec.time_s,
    )


def measure(source: Source, spec: CreateSpec) -> Measure:
    """All chunks as they are, with their hashes, and the map."""
    made = plan(spec)
    used = runs = behind = 0
    for extent in source.extents(0, source.size):
        if extent.kind in (Kind.DATA, Kind.ENCODED):
            first = max(behind, extent.offset // made.chunk_size)
            behind = max(behind, div_up(extent.end, made.chunk_size))
            used += behind - first
            runs += 1
    full = div_up(made.size, made.chunk_size)
    return Measure(_bytes(made, used, min(runs, used)), _bytes(made, full, full))


def _bytes(made: Plan, chunks: int, runs: int) -> int:
    bevies = div_up(chunks, CHUNKS_PER_BEVY)
    members = bevies * (2 + len(made.block)) + 8
    stored = chunks * (made.chunk_size + 12 + made.digest_bytes)
    texts = 6 * sum(len(text) for text in made.case.values())
    map_bytes = 2 * _MAP_ENTRY_BYTES * (runs + 1)
    return stored + members * _MEMBER_BYTES + map_bytes + _OVERHEAD_BYTES + texts


def _hashes(option: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Names in the order of the standard."""
    if text == "none":
        return ()
    given = {name.strip().lower() for name in text.split(",")}
    unknown = given.difference(known)
    if unknown:
        listed = ", ".join(known)
        raise UsageError(f"option {option}: expected some of {listed}, found {text!r}")
    return tuple(name for name in _NAMES if name in given)
