"""Reading a VDI: lookups in the block map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.errors import TruncatedImageError
from imprint.core.extent import Extent, Kind, without_holes
from imprint.core.info import ImageInfo
from imprint.core.units import div_up
from imprint.formats.vdi.blockmap import BlockMap
from imprint.formats.vdi.layout import (
    BLOCK_ABSENT,
    BLOCK_ZERO,
    SECTOR_BYTES,
    TYPE_DIFFERENCING,
    TYPE_DYNAMIC,
    TYPE_FIXED,
    Header,
    read_header,
    uuid_text,
)

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.core.info import Value

SUBFORMATS: Final = {
    TYPE_DYNAMIC: "dynamic",
    TYPE_FIXED: "fixed",
    TYPE_DIFFERENCING: "differencing",
}


class VdiLayer:
    """A VDI opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(
        self, storage: Storage, header: Header, blocks: BlockMap, *, notes: tuple[str, ...] = ()
    ) -> None:
        """``notes`` are shown by :meth:`info`."""
        self._storage = storage
        self._header = header
        self._blocks = blocks
        self._notes = notes

    @property
    def size(self) -> int:
        """As the header says, to the byte."""
        return self._header.disk_size

    @property
    def traits(self) -> Traits:
        """The grain is the block."""
        return Traits(grain=self._header.block_size)

    @property
    def header(self) -> Header:
        """As it is in the file, or will be after the next flush."""
        return self._header

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, for as many blocks as lie alike.

        Raises:
            TruncatedImageError: if its block begins behind the end of the file.
        """
        index, within = divmod(offset, self._header.block_size)
        slot = self._blocks.entries[index]
        if slot >= BLOCK_ZERO:
            length = min(length, self._run_bytes(index, within, length))
            return Extent(offset, length, Kind.HOLE if slot == BLOCK_ABSENT else Kind.ZERO)
        position = self._position(slot) + within
        if position >= self._storage.size:
            raise TruncatedImageError(
                f"block {index}: expected data at 0x{position:x}, "
                f"found a file of {self._storage.size} bytes",
                name=self._storage.name,
                offset=position,
            )
        place = self._place(offset, length, index, within)
        if self._header.image_type == TYPE_FIXED:
            return without_holes(place)
        return place

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """What the header says."""
        header = self._header
        options: dict[str, Value] = {
            "subformat": SUBFORMATS[header.image_type],
            "block_size": header.block_size,
            "modify_uuid": uuid_text(header.modify_uuid),
        }
        if header.block_extra:
            options["block_extra"] = header.block_extra
        comment = header.comment.split(b"\0")[0].decode("utf-8", "replace")
        if comment:
            options["comment"] = comment
        parent = None
        if header.has_parent:
            parent = uuid_text(header.parent_uuid)
            options["parent_modify_uuid"] = uuid_text(header.parent_modify_uuid)
        notes = self._notes
        if header.disk_size % SECTOR_BYTES:
            notes += ("The disk ends inside a sector, which VirtualBox cuts off.",)
        return ImageInfo(
            "vdi",
            header.disk_size,
            options=options,
            parent=parent,
            parent_format="vdi" if parent else None,
            uuid=uuid_text(header.image_uuid),
            notes=notes,
        )

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def _position(self, slot: int) -> int:
        """Where a slot's data begins in the file."""
        return self._header.slot_offset(slot) + self._header.block_extra

    def _run_bytes(self, index: int, within: int, length: int) -> int:
        """Bytes from ``within`` block ``index`` on that lie alike, not much over ``length``."""
        size = self._header.block_size
        limit = min(len(self._blocks.entries) - index, div_up(within + length, size))
        return self._blocks.alike(index, limit) * size - within

    def _place(self, offset: int, length: int, index: int, within: int) -> Extent:
        """The ``DATA`` extent of a block that has a slot, and those that follow it in the file."""
        if self._header.block_extra:  # something lies between the data of two slots
            run = self._header.block_size - within
        else:
            run = self._run_bytes(index, within, length)
        position = self._position(self._blocks.entries[index]) + within
        return Extent(offset, min(length, run), Kind.DATA, self._storage, position)


def open_layer(storage: Storage, *, notes: tuple[str, ...] = ()) -> VdiLayer:
    """Read header and map.

    Raises:
        CorruptImageError: if they contradict the format or the file's size.
        UnsupportedFeatureError: as of :func:`~imprint.formats.vdi.layout.read_header`.
    """
    header = read_header(storage)
    return VdiLayer(storage, header, BlockMap.load(storage, header), notes=notes)
