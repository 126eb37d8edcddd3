"""Laying out a new VHD, and predicting its size."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.extent import Kind
from imprint.core.formats import Measure, Option, OptionKind
from imprint.core.image import Image
from imprint.core.units import MIB, align_up, div_up
from imprint.formats.vhd import geometry
from imprint.formats.vhd.blocktable import BlockTable
from imprint.formats.vhd.layer import State
from imprint.formats.vhd.layout import (
    BLOCK_SIZE_MAX,
    EPOCH_S,
    FOOTER_COOKIE,
    HEADER_COOKIE,
    NOWHERE,
    SECTOR_BYTES,
    TYPE_DIFFERENCING,
    TYPE_DYNAMIC,
    TYPE_FIXED,
    Footer,
    Footers,
    Header,
)
from imprint.formats.vhd.locators import encode_names, parent_names
from imprint.formats.vhd.resize import CREATOR_CHS, CREATOR_CURRENT, check_size
from imprint.formats.vhd.writer import DATA_ALIGNMENT, WritableVhdLayer

if TYPE_CHECKING:
    from imprint.core.contracts import Reference, Source, Storage
    from imprint.core.formats import CreateSpec

SUBFORMAT: Final = Option(
    "subformat",
    "dynamic: a block is stored when it is written; fixed: the whole disk, then a footer",
    choices=("dynamic", "fixed"),
)
SIZE_POLICY: Final = Option(
    "size_policy",
    "current: the size is kept to the sector; chs: it is rounded up to what a geometry has",
    choices=("current", "chs"),
)
FORCE_SIZE: Final = Option("force_size", "on: the same as size_policy=current", OptionKind.SWITCH)
PRESET: Final = Option(
    "preset", "azure: fixed, size_policy=current, a whole number of MiB", choices=("azure",)
)
BLOCK_SIZE: Final = Option(
    "block_size",
    "what is allocated at a time, a power of two; other programs make 2M, or 512K",
    OptionKind.SIZE,
    default=2 * MIB,
)
UUID: Final = Option("uuid", "of the image; by default a random one")
TIMESTAMP: Final = Option(
    "timestamp", "of creation, in seconds since 1970; by default now", OptionKind.NUMBER
)
OPTIONS: Final = (SUBFORMAT, SIZE_POLICY, FORCE_SIZE, PRESET, BLOCK_SIZE, UUID, TIMESTAMP)

BLOCK_SIZE_MIN: Final = 4096  # a whole byte of the bitmap
_HEADER_OFFSET: Final = Footer.SIZE


@dataclass(frozen=True)
class Plan:
    """Everything of a new image but its disk.

    Attributes:
        footer: at both ends.
        header: ``None`` if it is fixed.
        names: of the parent, as they are written behind the header.
        size: of the disk.
    """

    footer: Footer
    header: Header | None
    names: bytes
    size: int

    @property
    def data_offset(self) -> int:
        """Where the first block may begin."""
        if self.header is None:
            return 0
        return align_up(self.header.table_offset + 4 * self.header.table_entries, SECTOR_BYTES)


@dataclass(frozen=True)
class ParentLink:
    """What a differencing image keeps of its parent besides its name."""

    uuid: bytes
    timestamp: int = 0


def plan(spec: CreateSpec) -> Plan:
    """The image that ``spec`` asks for.

    Raises:
        UsageError: if it makes no sense.
    """
    disk_type, is_chs, grain = _choices(spec)
    size = align_up(spec.size, grain)
    block_size = _block_size(spec)
    check_size(size, None if disk_type == TYPE_FIXED else block_size)
    if is_chs:
        found = geometry.above(size)
        if found != geometry.CHS_MAX and found.size >= size:
            size = found.size
    else:
        found = geometry.exact(size)
    footer = Footer(
        cookie=FOOTER_COOKIE,
        data_offset=NOWHERE if disk_type == TYPE_FIXED else _HEADER_OFFSET,
        timestamp=_timestamp(spec),
        creator_app=CREATOR_CHS if is_chs else CREATOR_CURRENT,
        creator_version=0x00010000,
        creator_os=b"Wi2k",
        original_size=size,
        current_size=size,
        cylinders=found.cylinders,
        heads=found.heads,
        sectors=found.sectors,
        disk_type=disk_type,
        uuid=_uuid(spec),
    ).sealed()
    if disk_type == TYPE_FIXED:
        return Plan(footer, None, b"", size)
    header, names = _header(spec, size, block_size)
    return Plan(footer, header, names, size)


def create_layer(storage: Storage, spec: CreateSpec) -> WritableVhdLayer:
    """Write what an empty disk needs. Durable at the layer's first flush.

    Raises:
        UsageError: if the options contradict each other, the size or the parent.
    """
    new = plan(spec)
    footer, header = new.footer, new.header
    if header is None:
        storage.resize(new.size)
        storage.write(memoryview(footer.pack()), new.size)
        footers = Footers(footer, None, footer, new.size)
        return WritableVhdLayer(storage, State(footers, None, BlockTable.absent(0), new.size))
    table = BlockTable.absent(header.table_entries)
    storage.write(memoryview(footer.pack() + header.pack() + new.names), 0)
    table.write_all(storage, header.table_offset)
    storage.write(memoryview(footer.pack()), new.data_offset)
    names = parent_names(storage, header) if footer.has_parent else ()
    footers = Footers(footer, footer, footer, new.data_offset)
    state = State(footers, header, table, new.size, names=names)
    return WritableVhdLayer(storage, state, parent_size=parent_size(spec.parent_source))


def measure(source: Source, spec: CreateSpec) -> Measure:
    """Blocks that have data, what lies before them, and the footer."""
    new = plan(spec)
    if new.header is None:
        full = new.size + Footer.SIZE
        return Measure(full, full)
    block_size, used, behind = new.header.block_size, 0, 0
    for extent in source.extents(0, source.size):
        if extent.kind in (Kind.DATA, Kind.ENCODED):
            first = max(behind, extent.offset // block_size)
            behind = max(behind, div_up(extent.end, block_size))
            used += behind - first
    count = div_up(new.size, block_size)
    room = align_up(new.header.stride, DATA_ALIGNMENT if block_size >= MIB else SECTOR_BYTES)
    fixed = new.data_offset + DATA_ALIGNMENT + Footer.SIZE
    return Measure(fixed + used * room, fixed + count * room)


def parent_link(reference: Reference, parent: Source | None) -> ParentLink:
    """The parent's UUID: from itself if it is open, else from the reference.

    Raises:
        UsageError: if it is neither a VHD nor raw, or its UUID is zero, which stands for a raw
            parent: there would be no way to name it.
    """
    if isinstance(parent, Image):
        info = parent.info()
        if info.format == "vhd" and info.uuid is not None:
            stamp = int(str(info.options["timestamp"])) - EPOCH_S
            return ParentLink(parsed(info.uuid, of="the parent's UUID").bytes, stamp)
        if info.format == "raw":
            return ParentLink(bytes(16))
        raise UsageError(
            f"vhd: expected a parent that is a vhd or raw, found {info.format}",
            advice="convert the parent first",
        )
    if reference.format == "raw":
        return ParentLink(bytes(16))
    if reference.uuid is None:
        raise UsageError("vhd: expected the UUID of the parent, found none")
    return ParentLink(parsed(reference.uuid).bytes)


def parent_size(parent: Source | None) -> int | None:
    """Of a parent's disk; ``None`` if it stands for one that could not be opened."""
    return parent.size if isinstance(parent, Image) else None


def parsed(text: str, *, of: str = "a UUID") -> uuid.UUID:
    """A UUID that is not zero, which stands for none. Errors call it ``of``.

    Raises:
        UsageError: if ``text`` is not one.
    """
    try:
        found = uuid.UUID(text)
    except ValueError:
        raise UsageError(f"expected a UUID, found {text!r}") from None
    if found.int == 0:
        raise UsageError(f"expected {of} not to be zero")
    return found


def _header(spec: CreateSpec, size: int, block_size: int) -> tuple[Header, bytes]:
    """The header, and the parent's names that stand behind it."""
    behind = _HEADER_OFFSET + Header.SIZE
    link, name, locators, names = ParentLink(bytes(16)), b"", b"", b""
    if spec.parent is not None:
        link = parent_link(spec.parent, spec.parent_source)
        if not spec.parent.name:
            raise UsageError("vhd: expected the name of the parent, found none")
        name, locators, names = encode_names(spec.parent.name, at=behind)
    header = Header(
        cookie=HEADER_COOKIE,
        table_offset=behind + len(names),
        table_entries=div_up(size, block_size),
        block_size=block_size,
        parent_uuid=link.uuid,
        parent_timestamp=link.timestamp,
        parent_name=name,
        locators=locators,
    )
    return header.sealed(), names


def _choices(spec: CreateSpec) -> tuple[int, bool, int]:
    """The disk's type, whether its size is by geometry, and what that is a multiple of."""
    subformat, policy = spec.options.get("subformat"), spec.options.get("size_policy")
    force, preset = spec.options.get("force_size"), spec.options.get("preset")
    if policy is not None and force is not None and force != (policy == "current"):
        raise UsageError(f"options contradict each other: size_policy={policy}, force_size={force}")
    is_chs = policy == "chs" or force is False
    if preset is not None and (is_chs or subformat == "dynamic"):
        raise UsageError("preset=azure is fixed, with size_policy=current")
    is_fixed = subformat == "fixed" or preset is not None
    grain = MIB if preset is not None else SECTOR_BYTES
    if spec.parent is None:
        return TYPE_FIXED if is_fixed else TYPE_DYNAMIC, is_chs, grain
    if is_fixed:
        raise UsageError("a fixed vhd cannot have a parent")
    return TYPE_DIFFERENCING, is_chs, grain


def _block_size(spec: CreateSpec) -> int:
    found = spec.options.get("block_size", BLOCK_SIZE.default)
    assert isinstance(found, int)
    if found.bit_count() != 1 or not BLOCK_SIZE_MIN <= found <= BLOCK_SIZE_MAX:
        raise UsageError(
            f"option block_size: expected a power of two from 4K to 256M, found {found}"
        )
    return found


def _uuid(spec: CreateSpec) -> bytes:
    given = spec.options.get("uuid")
    return (uuid.uuid4() if given is None else parsed(str(given))).bytes


def _timestamp(spec: CreateSpec) -> int:
    given = spec.options.get("timestamp", spec.time_s)
    seconds = int(time.time() if given is None else given) - EPOCH_S
    if not 0 <= seconds <= 0xFFFFFFFF:
        if given is None:
            return 0  # a clock that is wrong is no reason to fail
        raise UsageError(f"option timestamp: expected a time from 2000 to 2136, found {given}")
    return seconds
