"""The options of a new E01 or Ex01, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.formats import Option, OptionKind
from imprint.core.units import MIB
from imprint.formats.ewf import codec
from imprint.formats.ewf.evidence import CHUNK_BYTES_MAX

if TYPE_CHECKING:
    from imprint.core.formats import CreateSpec

FLAVOURS: Final = ("encase5", "encase6", "encase7", "ftk")
CASE_FIELDS: Final = (
    ("case_number", "number of the case"),
    ("evidence_number", "number of the piece of evidence"),
    ("examiner", "who made the image"),
    ("description", "what it is an image of"),
    ("notes", "anything else"),
    ("model", "of the drive"),
    ("serial_number", "of the drive"),
)
MEDIA: Final = ("fixed", "removable", "optical", "memory")
COMPRESSIONS: Final = ("fast", "best", "none", "empty-block", "zlib")

SEGMENT_BYTES: Final = 1400 * MIB
SEGMENT_BYTES_MIN: Final = 1 * MIB
SEGMENT_BYTES_MAX_OLD: Final = 2000 * MIB
"""Before EnCase 6 offsets have 31 bits and count from the start of the file."""

SECTORS_MAX_OLD: Final = 0xFFFF_FFFF
CHUNKS_MAX: Final = 0xFFFF_FFFF
GRANULARITY_MAX: Final = 0xFFFF_FFFF
SECTOR_SIZES: Final = (512, 2048, 4096)
CHUNK_SECTORS: Final = tuple(1 << shift for shift in range(4, 16))
CHUNK_SECTORS_7: Final = tuple(1 << shift for shift in range(6, 11))
"""What EnCase 7 offers."""

_OPTIONS: Final = (
    Option(
        "compression",
        "of chunks; empty-block: of zeros only",
        default="fast",
        choices=COMPRESSIONS,
    ),
    Option("level", "0 to 9, for compression=zlib", OptionKind.NUMBER, choices=tuple(range(10))),
    Option("segment_size", "largest size of one file", OptionKind.SIZE, SEGMENT_BYTES),
    Option(
        "sector_size",
        "in bytes; by default as the source's",
        OptionKind.NUMBER,
        choices=SECTOR_SIZES,
    ),
    Option("media_type", "what the disk is", default="fixed", choices=MEDIA),
    Option(
        "media", "a whole disk or a volume", default="physical", choices=("physical", "logical")
    ),
    Option("granularity", "sectors given up together", OptionKind.NUMBER),
    Option("uuid", "of the set of segments; by default a random one"),
    Option("tracks", "of an optical disc: first sectors, audio with an a: 0,1200a"),
    *(Option(name, doc) for name, doc in CASE_FIELDS),
)

OPTIONS: Final = (
    Option("flavour", "whose dialect to write", default="encase6", choices=FLAVOURS),
    Option("chunk_sectors", "sectors in a chunk", OptionKind.NUMBER, 64, CHUNK_SECTORS),
    *_OPTIONS,
)
OPTIONS_EX01: Final = (
    Option("chunk_sectors", "sectors in a chunk", OptionKind.NUMBER, 64, CHUNK_SECTORS_7),
    *_OPTIONS,
)


@dataclass(frozen=True)
class Plan:
    """What a new image shall be.

    Attributes:
        size: of the disk, in bytes.
        flavour: whose dialect; empty: of version 2, which has one only.
        level: of the compression; ``None``: chunks are stored as they are.
        packs_zeros: chunks of zeros are packed all the same.
        segment_size: bytes that no file exceeds.
        sectors_per_chunk: of the disk.
        sector_size: in bytes.
        media_type: what the disk is, one of :data:`MEDIA`.
        is_physical: a whole disk.
        granularity: sectors that were given up together.
        tracks: first sectors, and whether they are audio.
        case: what the examiner noted, by field.
    """

    size: int
    flavour: str
    level: int | None
    packs_zeros: bool
    segment_size: int
    sectors_per_chunk: int
    sector_size: int
    media_type: str
    is_physical: bool
    granularity: int
    tracks: tuple[tuple[int, bool], ...]
    case: dict[str, str]

    @property
    def chunk_size(self) -> int:
        """In bytes."""
        return self.sectors_per_chunk * self.sector_size

    @property
    def chunks(self) -> int:
        """That the disk is cut into."""
        return -(-self.size // self.chunk_size)

    @property
    def sectors(self) -> int:
        """Of the disk."""
        return self.size // self.sector_size

    @property
    def is_old(self) -> bool:
        """Whether offsets count from the start of the file."""
        return self.flavour in ("encase5", "ftk")

    @property
    def compression_code(self) -> int:
        """What the volume section says of it."""
        if self.flavour == "ftk" or self.level is None:
            return 0
        return 2 if self.level == codec.BEST_LEVEL else 1


def plan(spec: CreateSpec) -> Plan:
    """What the options come to.

    Raises:
        UsageError: if they contradict each other or the size.
    """
    options = spec.options
    sector_size = int(options.get("sector_size", _usual_sector(spec)))
    if spec.size % sector_size:
        raise UsageError(
            f"expected a disk of whole sectors of {sector_size} bytes, found {spec.size}",
            advice="raw and aff4 keep disks of any size",
        )
    level, packs_zeros = _compression(spec)
    flavour = str(options.get("flavour", ""))
    segment_size = int(options["segment_size"])
    chunk_size = int(options["chunk_sectors"]) * sector_size
    least = max(SEGMENT_BYTES_MIN, 2 * chunk_size)
    if segment_size < least:
        raise UsageError(f"option segment_size: expected at least {least}, found {segment_size}")
    made = Plan(
        size=spec.size,
        flavour=flavour,
        level=level,
        packs_zeros=packs_zeros,
        segment_size=segment_size,
        sectors_per_chunk=int(options["chunk_sectors"]),
        sector_size=sector_size,
        media_type=str(options["media_type"]),
        is_physical=options["media"] == "physical",
        granularity=int(options.get("granularity", options["chunk_sectors"])),
        tracks=_tracks(str(options.get("tracks", ""))),
        case={name: str(options[name]) for name, _ in CASE_FIELDS if name in options},
    )
    _check_limits(made)
    return made


def _usual_sector(spec: CreateSpec) -> int:
    fits = spec.sector in SECTOR_SIZES and spec.size % spec.sector == 0
    return spec.sector if fits else SECTOR_SIZES[0]


def _check_limits(made: Plan) -> None:
    if made.is_old and made.segment_size > SEGMENT_BYTES_MAX_OLD:
        raise UsageError(
            f"option segment_size: flavour {made.flavour} has at most {SEGMENT_BYTES_MAX_OLD}"
        )
    if made.is_old and made.sectors > SECTORS_MAX_OLD:
        raise UsageError(f"flavour {made.flavour} has at most {SECTORS_MAX_OLD} sectors")
    if made.flavour and made.chunks > CHUNKS_MAX:
        raise UsageError(f"e01: expected at most {CHUNKS_MAX} chunks: give larger chunk_sectors")
    if made.flavour == "encase7" and made.sectors_per_chunk not in CHUNK_SECTORS_7:
        raise UsageError("option chunk_sectors: EnCase 7 has 64 to 1024")
    if made.chunk_size > CHUNK_BYTES_MAX:
        raise UsageError(
            f"option chunk_sectors: expected chunks of at most {CHUNK_BYTES_MAX} bytes, "
            f"found {made.chunk_size}"
        )
    if not 0 < made.granularity <= GRANULARITY_MAX:
        raise UsageError("option granularity: expected a number of sectors")


def _compression(spec: CreateSpec) -> tuple[int | None, bool]:
    kind = str(spec.options["compression"])
    given = spec.options.get("level")
    if given is not None and kind in ("none", "empty-block"):
        raise UsageError(f"option level: compression={kind} has none")
    levels = {"fast": codec.FAST_LEVEL, "best": codec.BEST_LEVEL, "zlib": codec.FAST_LEVEL}
    level = levels.get(kind) if given is None else int(given)
    return level, kind != "none"


def _tracks(text: str) -> tuple[tuple[int, bool], ...]:
    tracks = []
    for part in filter(None, text.split(",")):
        digits = part.removesuffix("a")
        if not digits.isdecimal() or int(digits) >= 1 << 32:
            raise UsageError(f"option tracks: expected sectors like 0,1200a, found {text!r}")
        tracks.append((int(digits), part.endswith("a")))
    if tracks and (tracks[0][0] or tracks != sorted(tracks)):
        raise UsageError("option tracks: expected ascending sectors that begin with 0")
    return tuple(tracks)
