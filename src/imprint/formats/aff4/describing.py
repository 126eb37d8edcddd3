"""``information.turtle`` of a new volume.

Source: *AFF4 Standard* 1.0, sections 3, 4.3 and 6 (Hashing), and its extended example.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.formats.aff4 import codec
from imprint.formats.aff4.plan import CHUNKS_PER_BEVY

if TYPE_CHECKING:
    from imprint.formats.aff4.plan import Plan

_PREFIXES: Final = (
    ("rdf", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"),
    ("xsd", "http://www.w3.org/2001/XMLSchema#"),
    ("aff4", "http://aff4.org/Schema#"),
)
_DATATYPES: Final = {
    "md5": "MD5",
    "sha1": "SHA1",
    "sha256": "SHA256",
    "sha512": "SHA512",
    "blake2b": "Blake2b",
}
_CASE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("CaseDetails", ("caseName", "caseDescription", "examiner")),
    ("CaseNotes", ("caseNumber", "evidenceNumber", "examiner", "notes")),
)
TREE_HASH: Final = "sha512"
"""What hashes of hashes are made with."""


@dataclass(frozen=True)
class Written:
    """What became of a volume's parts.

    Attributes:
        stream_size: bytes of all chunks.
        points: the member ``map``.
        idx: the member ``idx``.
        linear: digests of the whole disk, hexadecimal.
        block: digests of all block digests, by the hash of the blocks.
        is_whole: whether nothing of the disk was unreadable.
    """

    stream_size: int
    points: bytes
    idx: bytes
    linear: dict[str, str] = field(default_factory=dict)
    block: dict[str, bytes] = field(default_factory=dict)


def describe(made: Plan, written: Written) -> bytes:
    """The text, in UTF-8."""
    volume, image = made.urn("volume"), f"aff4://{made.uuid}"
    data, stream = made.urn("map"), made.urn("stream")
    points = hashlib.new(TREE_HASH, written.points).digest()
    idx = hashlib.new(TREE_HASH, written.idx).digest()
    whole = hashlib.new(TREE_HASH, written.points + written.idx).hexdigest()
    tree = hashlib.new(TREE_HASH, b"".join(written.block.values()) + points + idx).hexdigest()
    lines = [f"@prefix {name}: <{iri}> ." for name, iri in _PREFIXES]
    lines.append("")
    lines += _subject(
        volume,
        [
            "a aff4:ZipVolume",
            f'aff4:creationTime "{_time(made.time_s)}"^^xsd:dateTime',
            f"aff4:contains <{image}>, <{data}>, <{stream}>",
        ],
    )
    linear = _hashes(written.linear)
    lines += _subject(
        image,
        [
            "a aff4:DiskImage, aff4:ContiguousImage, aff4:Image",
            f"aff4:dataStream <{data}>",
            f'aff4:size "{made.size}"^^xsd:long',
            f'aff4:blockSize "{made.sector}"^^xsd:int',
            f'aff4:sectorCount "{made.size // made.sector}"^^xsd:long',
            # The hash over all others, and no more: pyaff4 compares whatever is here with it.
            *([f'aff4:hash "{tree}"^^aff4:blockMapHashSHA512'] if written.block else []),
            f"aff4:stored <{volume}>",
        ],
    )
    lines += _subject(
        data,
        [
            "a aff4:Map",
            f'aff4:size "{made.size}"^^xsd:long',
            f"aff4:dependentStream <{stream}>",
            "aff4:mapGapDefaultStream aff4:Zero",
            *([f"aff4:hash {', '.join(linear)}"] if linear else []),
            f'aff4:mapPointHash "{points.hex()}"^^aff4:SHA512',
            f'aff4:mapIdxHash "{idx.hex()}"^^aff4:SHA512',
            f'aff4:mapHash "{whole}"^^aff4:SHA512',
            *([f'aff4:blockMapHash "{tree}"^^aff4:SHA512'] if written.block else []),
            f"aff4:target <{image}>",
            f"aff4:stored <{volume}>",
        ],
    )
    lines += _stream(made, written, volume)
    lines += _case(made, volume, image)
    return "\n".join(lines).encode()


def _stream(made: Plan, written: Written, volume: str) -> list[str]:
    stream = made.urn("stream")
    lines = _subject(
        stream,
        [
            "a aff4:ImageStream",
            f'aff4:chunkSize "{made.chunk_size}"^^xsd:int',
            f'aff4:chunksInSegment "{CHUNKS_PER_BEVY}"^^xsd:int',
            f"aff4:compressionMethod <{codec.METHODS[made.method]}>",
            f'aff4:size "{written.stream_size}"^^xsd:long',
            f"aff4:target <{made.urn('map')}>",
            f"aff4:stored <{volume}>",
            'aff4:version "1"^^xsd:int',
        ],
    )
    for name, digest in written.block.items():
        lines += _subject(
            f"{stream}/blockhash.{name}",
            ["a aff4:BlockHashes", f'aff4:hash "{digest.hex()}"^^aff4:SHA512'],
        )
    return lines


def _case(made: Plan, volume: str, image: str) -> list[str]:
    lines: list[str] = []
    for kind, names in _CASE:
        said = [f"aff4:{name} {_text(made.case[name])}" for name in names if name in made.case]
        if said:
            lines += _subject(
                made.urn(kind),
                [f"a aff4:{kind}", *said, f"aff4:target <{image}>", f"aff4:stored <{volume}>"],
            )
    return lines


def _subject(urn: str, said: list[str]) -> list[str]:
    return [f"<{urn}>", "    " + " ;\n    ".join(said) + " .", ""]


def _hashes(digests: dict[str, str]) -> list[str]:
    return [f'"{digest}"^^aff4:{_DATATYPES[name]}' for name, digest in digests.items()]


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    for character, code in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        escaped = escaped.replace(character, code)
    plain = "".join(c if c.isprintable() or c == " " else f"\\U{ord(c):08X}" for c in escaped)
    return f'"{plain}"'


def _time(time_s: int) -> str:
    limit = 253402300799  # the last second of the year 9999
    moment = dt.datetime.fromtimestamp(max(0, min(time_s, limit)), dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
