"""Laying out a new VDI, and predicting its size."""

from __future__ import annotations

import uuid
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UsageError
from imprint.core.extent import Kind
from imprint.core.formats import Measure, Option, OptionKind
from imprint.core.image import Image
from imprint.core.units import MIB, align_up, div_up
from imprint.formats.vdi.blockmap import BlockMap
from imprint.formats.vdi.layout import (
    BLOCK_ABSENT,
    BLOCK_SIZE_MAX,
    BLOCK_SIZE_MIN,
    HEADER_SIZE_PLUS,
    SECTOR_BYTES,
    TYPE_DIFFERENCING,
    TYPE_DYNAMIC,
    TYPE_FIXED,
    Geometry,
    Header,
    uuid_bytes,
)
from imprint.formats.vdi.resize import check_size
from imprint.formats.vdi.writer import WritableVdiLayer

if TYPE_CHECKING:
    from imprint.core.contracts import Reference, Source, Storage
    from imprint.core.formats import CreateSpec

SUBFORMAT: Final = Option(
    "subformat",
    "dynamic: a block is stored when it is written; fixed: all are from the start",
    choices=("dynamic", "fixed"),
)
STATIC: Final = Option("static", "on: the same as subformat=fixed", OptionKind.SWITCH)
BLOCK_SIZE: Final = Option(
    "block_size",
    "what is allocated at a time, a power of two; QEMU reads 1M only",
    OptionKind.SIZE,
    default=1 * MIB,
)
UUID: Final = Option("uuid", "of the image; by default a random one")
OPTIONS: Final = (SUBFORMAT, STATIC, BLOCK_SIZE, UUID)

DATA_ALIGNMENT: Final = 1 * MIB
"""As VirtualBox does; it also leaves the map of a small disk room to grow to 255 GiB."""

_TEXT: Final = b"<<< imprint virtual disk image >>>\n"


@dataclass(frozen=True)
class ParentLink:
    """What a differencing image keeps of its parent, as stored."""

    image_uuid: bytes = bytes(16)
    modify_uuid: bytes = bytes(16)


def plan(spec: CreateSpec) -> Header:
    """The header of the image that ``spec`` asks for.

    Raises:
        UsageError: if it makes no sense.
    """
    block_size = spec.options.get("block_size", BLOCK_SIZE.default)
    assert isinstance(block_size, int)
    if block_size.bit_count() != 1 or not BLOCK_SIZE_MIN <= block_size <= BLOCK_SIZE_MAX:
        raise UsageError(
            f"option block_size: expected a power of two from 512 to 256M, found {block_size}"
        )
    size = align_up(spec.size, SECTOR_BYTES)  # VirtualBox would not see the rest
    check_size(size, block_size)
    image_type = _image_type(spec)
    link = ParentLink()
    if spec.parent is not None:
        link = parent_link(spec.parent, spec.parent_source)
    count = div_up(size, block_size)
    image, modify = _uuids(spec)
    return Header(
        text=_TEXT,
        header_size=HEADER_SIZE_PLUS,
        image_type=image_type,
        comment=b"",
        map_offset=SECTOR_BYTES,
        data_offset=align_up(SECTOR_BYTES + 4 * count, DATA_ALIGNMENT),
        disk_size=size,
        block_size=block_size,
        block_count=count,
        blocks_allocated=count if image_type == TYPE_FIXED else 0,
        image_uuid=image.bytes_le,
        modify_uuid=modify.bytes_le,
        parent_uuid=link.image_uuid,
        parent_modify_uuid=link.modify_uuid,
    )


def create_layer(storage: Storage, spec: CreateSpec) -> WritableVdiLayer:
    """Write header and map of an empty disk. Durable at the layer's first flush.

    Raises:
        UsageError: if the options contradict each other, the size or the parent.
    """
    header = plan(spec)
    if header.image_type == TYPE_FIXED:
        slots = array("I", range(header.block_count))
    else:
        slots = array("I", [BLOCK_ABSENT]) * header.block_count
    storage.write(memoryview((header.pack() + Geometry().pack()).ljust(SECTOR_BYTES, b"\0")), 0)
    blocks = BlockMap(slots)
    blocks.write_all(storage, header.map_offset)
    storage.resize(header.slot_offset(header.blocks_allocated))
    return WritableVdiLayer(storage, header, blocks, is_fresh=True)


def measure(source: Source, spec: CreateSpec) -> Measure:
    """Blocks that have data, and what lies before them."""
    header = plan(spec)
    full = header.slot_offset(header.block_count)
    if header.image_type == TYPE_FIXED:
        return Measure(full, full)
    used = behind = 0
    for extent in source.extents(0, source.size):
        if extent.kind in (Kind.DATA, Kind.ENCODED):
            first = max(behind, extent.offset // header.block_size)
            behind = max(behind, div_up(extent.end, header.block_size))
            used += behind - first
    return Measure(header.slot_offset(used), full)


def parent_link(reference: Reference, parent: Source | None) -> ParentLink:
    """The parent's UUIDs: from itself if it is open, else from the reference.

    Raises:
        UsageError: if it is no VDI, or its UUID is zero: there would be nothing to name it by.
    """
    if isinstance(parent, Image):
        info = parent.info()
        if info.format != "vdi" or info.uuid is None:
            raise UsageError(
                "vdi: expected a parent that is a vdi too, since it is named by its UUID; "
                f"found {info.format}",
                advice="convert the parent first",
            )
        image = _parsed(info.uuid, of="the parent's UUID").bytes_le
        return ParentLink(image, uuid_bytes(str(info.options["modify_uuid"])))
    if reference.uuid is None:
        raise UsageError("vdi: expected the UUID of the parent, found none")
    return ParentLink(_parsed(reference.uuid).bytes_le)


def _image_type(spec: CreateSpec) -> int:
    subformat, static = spec.options.get("subformat"), spec.options.get("static")
    if subformat is not None and static is not None and static != (subformat == "fixed"):
        raise UsageError(f"options contradict each other: subformat={subformat}, static={static}")
    is_fixed = subformat == "fixed" or static is True
    if spec.parent is None:
        return TYPE_FIXED if is_fixed else TYPE_DYNAMIC
    if is_fixed:
        raise UsageError("a fixed vdi cannot have a parent")
    return TYPE_DIFFERENCING


def _uuids(spec: CreateSpec) -> tuple[uuid.UUID, uuid.UUID]:
    """Of the image and of its modification: never zero, which VirtualBox refuses."""
    given = spec.options.get("uuid")
    if given is None:
        return uuid.uuid4(), uuid.uuid4()
    image = _parsed(str(given))
    # Derived, so that whoever gives the UUID gets the same file each time.
    return image, uuid.uuid5(image, "modification")


def _parsed(text: str, *, of: str = "a UUID") -> uuid.UUID:
    try:
        found = uuid.UUID(text)
    except ValueError:
        raise UsageError(f"expected a UUID, found {text!r}") from None
    if found.int == 0:
        raise UsageError(f"expected {of} not to be zero")
    return found
