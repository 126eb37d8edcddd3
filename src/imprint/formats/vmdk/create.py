"""Laying out a new VMDK, and predicting its size."""

from __future__ import annotations

import re
import uuid
from array import array
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Order, Reference
from imprint.core.errors import UsageError
from imprint.core.extent import Kind
from imprint.core.formats import Measure, Option, OptionKind
from imprint.core.image import Image
from imprint.core.units import KIB, MIB, align_up, div_up
from imprint.formats.vmdk import layout
from imprint.formats.vmdk.descriptor import NO_PARENT, ExtentLine, check_size, new_cid
from imprint.formats.vmdk.layout import ENTRIES_PER_TABLE, SECTOR, TABLE_SECTORS, SparseHeader
from imprint.formats.vmdk.slots import TABLES_MAX
from imprint.formats.vmdk.sparse_writer import to_disk

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Storage
    from imprint.core.formats import CreateSpec

SPARSE: Final = "monolithicSparse"
FLAT: Final = "monolithicFlat"
SPLIT_SPARSE: Final = "twoGbMaxExtentSparse"
SPLIT_FLAT: Final = "twoGbMaxExtentFlat"
STREAM: Final = "streamOptimized"

OPTIONS: Final = (
    Option(
        "subformat",
        f"{SPARSE} (default), {FLAT}; {SPLIT_SPARSE}, {SPLIT_FLAT}: in files of 2 GiB; "
        f"{STREAM}: compressed, for OVF (default when written to a pipe)",
        choices=(SPARSE, FLAT, SPLIT_SPARSE, SPLIT_FLAT, STREAM),
    ),
    Option(
        "adapter_type",
        "of the disk, for VMware: ide, buslogic, lsilogic, legacyESX",
        default="ide",
        choices=("ide", "buslogic", "lsilogic", "legacyESX"),
    ),
    Option("hwversion", "VMware's virtual hardware version; streamOptimized needs 7 or more"),
    Option(
        "grain_size",
        "unit of allocation, a power of two from 4K to 1M; VMware writes 64K only",
        kind=OptionKind.SIZE,
        default=64 * KIB,
    ),
    Option(
        "zeroed_grain",
        "mark grains as zero (header version 2); on by default with a parent",
        kind=OptionKind.SWITCH,
    ),
    Option(
        "level",
        "of streamOptimized's compression, 0 to 9 (default 4); up to 3 is much faster, and larger",
        kind=OptionKind.NUMBER,
    ),
    Option("uuid", "of the image; its content ID follows from it. By default both are random"),
)

SPLIT_SECTORS: Final = 4192256
"""2047 MiB, as VMware splits: with its tables, a sparse extent stays below 2 GiB."""

LEVEL_DEFAULT: Final = 4
"""Streams are made to be sent. Measured with 720 MiB of programs and text, two cores: levels 2, 3,
4 and 6 are 6.8, 5.6, 2.2 and 0.05 % larger than what qemu-img makes, in 6, 6, 24 and 38 % of its
time."""

DESCRIPTOR_SECTORS: Final = 20
_DESCRIPTOR_AT: Final = 1

_HEADS: Final = {"ide": 16}
_NEWLINES_FLAGS: Final = layout.FLAG_NEWLINES | layout.FLAG_REDUNDANT


@dataclass(frozen=True)
class Plan:
    """The options of a new image, checked.

    Attributes:
        size: of the disk, in whole sectors.
        subformat: one of ``OPTIONS``.
        grain: in bytes.
        has_zeroed: whether grains can be marked as zero.
        level: of the compression.
        adapter: for VMware.
        hwversion: for VMware.
        cid: of the content.
        uuid: of the image, if one was asked for.
        parent: its name, if there is one.
        parent_cid: of its content.
    """

    size: int
    subformat: str
    grain: int
    has_zeroed: bool
    level: int
    adapter: str
    hwversion: str
    cid: str
    uuid: str | None
    parent: str | None
    parent_cid: str

    @property
    def is_split(self) -> bool:
        """Whether it is several files of 2 GiB."""
        return self.subformat in (SPLIT_SPARSE, SPLIT_FLAT)

    @property
    def is_flat(self) -> bool:
        """Whether all of it is stored as it is."""
        return self.subformat in (FLAT, SPLIT_FLAT)


def plan(spec: CreateSpec, storage: Storage | None = None) -> Plan:
    """Options as they will be; a pipe can only take a stream.

    Raises:
        UsageError: if they contradict each other, the size or the parent.
    """
    options = spec.options
    is_pipe = storage is not None and storage.traits.order is Order.ASCENDING
    subformat = str(options.get("subformat", STREAM if is_pipe else SPARSE))
    if is_pipe and subformat != STREAM:
        raise UsageError(f"{subformat} cannot be written to a stream; {STREAM} can")
    size = max(SECTOR, align_up(spec.size, SECTOR))
    check_size(size)
    grain = int(options.get("grain_size", 64 * KIB))
    if grain.bit_count() != 1 or not 4 * KIB <= grain <= MIB:
        raise UsageError(f"option grain_size: expected a power of two from 4K to 1M, found {grain}")
    level = options.get("level")
    if level is not None and (subformat != STREAM or not 0 <= int(level) <= 9):
        raise UsageError(f"option level: expected 0 to 9, and subformat={STREAM}, found {level}")
    parent = spec.parent
    if parent is not None and subformat != SPARSE:
        raise UsageError(f"a {subformat} vmdk cannot have a parent")
    zeroed = options.get("zeroed_grain")
    if zeroed and subformat not in (SPARSE, SPLIT_SPARSE):
        raise UsageError(f"zeroed_grain is of no use in {subformat}")
    image_uuid, cid = _identity(spec)
    made = Plan(
        size=size,
        subformat=subformat,
        grain=grain,
        has_zeroed=parent is not None if zeroed is None else bool(zeroed),
        level=LEVEL_DEFAULT if level is None else int(level),
        adapter=str(options.get("adapter_type", "ide")),
        hwversion=_hwversion(options.get("hwversion"), subformat),
        cid=cid,
        uuid=image_uuid,
        parent=None if parent is None else parent_name(parent),
        parent_cid=NO_PARENT if parent is None else parent_cid(spec.parent_source),
    )
    if not made.is_flat:
        largest = size if not made.is_split else min(size, SPLIT_SECTORS * SECTOR)
        if div_up(largest, grain * ENTRIES_PER_TABLE) > TABLES_MAX:
            raise UsageError(
                f"vmdk: an extent with grains of {grain} bytes holds "
                f"{TABLES_MAX * ENTRIES_PER_TABLE * grain} bytes, the disk has {size}",
                advice=f"subformat={SPLIT_SPARSE} has no such limit",
            )
    return made


def parent_name(parent: Reference) -> str:
    """The hint for a parent's name.

    Raises:
        UsageError: if a descriptor cannot hold it.
    """
    name = parent.name or ""
    if not name or re.search(r'["\x00-\x1f]', name):
        raise UsageError(f"vmdk: expected a parent's name without quotes, found {name!r}")
    return name


def parent_cid(parent: Source | None) -> str:
    """The content ID of a parent.

    Raises:
        UsageError: if it is no VMDK, or a child that names its ID would have no parent.
    """
    info = parent.info() if isinstance(parent, Image) else None
    if info is None or info.format != "vmdk":
        raise UsageError(
            "vmdk: expected a parent that is a vmdk too, found "
            + ("another source" if info is None else info.format),
            advice="convert the parent first",
        )
    cid = str(info.options["cid"])
    if cid == NO_PARENT:  # of an extent without its descriptor, for one
        raise UsageError(
            f"vmdk: expected a parent with a content ID, found {cid} (none)",
            advice="convert the parent first",
        )
    return cid


def describe(made: Plan, lines: list[ExtentLine]) -> str:
    """The descriptor's text. What is needed to open it stands in the first sector."""
    heads = _HEADS.get(made.adapter, 255)
    cylinders = made.size // SECTOR // (heads * 63)
    if made.adapter == "ide":
        cylinders = min(cylinders, 16383)
    text = [
        "# Disk DescriptorFile",
        "version=1",
        f"CID={made.cid}",
        f"parentCID={made.parent_cid}",
        *([] if made.parent is None else [f'parentFileNameHint="{made.parent}"']),
        f'createType="{made.subformat}"',
        "",
        "# Extent description",
        *(line.text for line in lines),
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        f'ddb.virtualHWVersion = "{made.hwversion}"',
        f'ddb.geometry.cylinders = "{cylinders}"',
        f'ddb.geometry.heads = "{heads}"',
        'ddb.geometry.sectors = "63"',
        f'ddb.adapterType = "{made.adapter}"',
        *([] if made.uuid is None else [f'ddb.uuid.image="{made.uuid}"']),
    ]
    return "\n".join(text) + "\n"


def sparse_end(size: int, grain: int, *, with_descriptor: bool = True, grains: int = -1) -> int:
    """Bytes of a sparse extent with so many grains; by default with all."""
    header = sparse_header(size, grain, 1, 0, with_descriptor=with_descriptor)
    return header.overhead * SECTOR + (div_up(size, grain) if grains < 0 else grains) * grain


def sparse_header(
    size: int, grain: int, version: int, flags: int, *, with_descriptor: bool
) -> SparseHeader:
    """Where everything of a new sparse extent is: both directories, each with its tables."""
    tables = div_up(size, grain * ENTRIES_PER_TABLE)
    first = _DESCRIPTOR_AT + (DESCRIPTOR_SECTORS if with_descriptor else 0)
    copy = div_up(4 * tables, SECTOR) + tables * TABLE_SECTORS
    return SparseHeader(
        version=version,
        flags=flags | _NEWLINES_FLAGS,
        capacity=size // SECTOR,
        grain_size=grain // SECTOR,
        descriptor_offset=_DESCRIPTOR_AT if with_descriptor else 0,
        descriptor_size=DESCRIPTOR_SECTORS if with_descriptor else 0,
        redundant_offset=first,
        directory_offset=first + copy,
        overhead=align_up(first + 2 * copy, grain // SECTOR),
        newlines=layout.NEWLINES,
    )


def write_sparse(
    storage: Storage, size: int, text: str | None, *, grain: int, has_zeroed: bool
) -> None:
    """Lay out an empty sparse extent; not flushed."""
    header = sparse_header(
        size,
        grain,
        layout.VERSION_ZEROED if has_zeroed else layout.VERSION_PLAIN,
        layout.FLAG_ZEROED if has_zeroed else 0,
        with_descriptor=text is not None,
    )
    storage.write(memoryview(header.pack()), 0)
    if text is not None:
        storage.write(memoryview(packed_text(text)), header.descriptor_offset * SECTOR)
    tables = div_up(size, grain * ENTRIES_PER_TABLE)
    sectors = div_up(4 * tables, SECTOR)
    for place in (header.redundant_offset, header.directory_offset):
        first = place + sectors
        directory = array("I", range(first, first + tables * TABLE_SECTORS, TABLE_SECTORS))
        storage.write(to_disk(directory), place * SECTOR)
    storage.resize(header.overhead * SECTOR)


def packed_text(text: str) -> bytes:
    """An embedded descriptor, filled up.

    Raises:
        UsageError: if it has no room.
    """
    data = text.encode("utf-8", "surrogateescape")
    room = DESCRIPTOR_SECTORS * SECTOR
    if len(data) > room:
        raise UsageError(f"vmdk: expected a descriptor of {room} bytes, found {len(data)}")
    return data.ljust(room, b"\0")


def measure(source: Source, spec: CreateSpec) -> Measure:
    """Whole grains for all data, and what lies before them; streams uncompressed."""
    made = plan(replace(spec, parent=None))
    files = div_up(made.size, SPLIT_SECTORS * SECTOR) if made.is_split else 1
    descriptor = align_up(1024 + 64 * files, 4096)  # which names the files
    if made.is_flat:
        return Measure(made.size + descriptor, made.size + descriptor)
    used = behind = 0
    for extent in source.extents(0, source.size):
        if extent.kind in (Kind.DATA, Kind.ENCODED):
            first = max(behind, extent.offset // made.grain)
            behind = max(behind, div_up(extent.end, made.grain))
            used += behind - first
    if made.subformat == STREAM:
        from imprint.formats.vmdk.stream import end_of

        return Measure(end_of(made, used), end_of(made, div_up(made.size, made.grain)))
    tables = sparse_end(made.size, made.grain, grains=0) + (files - 1) * (made.grain + 128 * KIB)
    tables += descriptor if made.is_split else 0
    full = div_up(made.size, made.grain)
    return Measure(tables + used * made.grain, tables + full * made.grain)


def _hwversion(given: object, subformat: str) -> str:
    if given is None:
        return "7" if subformat == STREAM else "4"
    if not re.fullmatch(r"\d{1,3}", str(given)):
        raise UsageError(f"option hwversion: expected a number, found {given!r}")
    return str(given)


def _identity(spec: CreateSpec) -> tuple[str | None, str]:
    given = spec.options.get("uuid")
    if given is None:
        return None, new_cid()
    try:
        image = uuid.UUID(str(given))
    except ValueError:
        raise UsageError(f"expected a UUID, found {given!r}") from None
    # Derived, so that whoever gives the UUID gets the same file each time.
    derived = uuid.uuid5(image, "content").hex[:8]
    return str(image), "fffffffd" if derived in (NO_PARENT, "fffffffe") else derived
