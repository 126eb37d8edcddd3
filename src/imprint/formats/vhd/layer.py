"""Reading a VHD: lookups in the block table, and in the bitmaps of differencing images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.errors import TruncatedImageError
from imprint.core.extent import Extent, Kind
from imprint.core.info import ImageInfo
from imprint.core.units import div_up
from imprint.formats.vhd import bitmaps
from imprint.formats.vhd.bitmaps import BitmapCache
from imprint.formats.vhd.blocktable import BlockTable
from imprint.formats.vhd.layout import (
    ASKED,
    EPOCH_S,
    SECTOR_BYTES,
    SUBFORMATS,
    Footer,
    Footers,
    Header,
    disk_size,
    read_footers,
    read_header,
)
from imprint.formats.vhd.locators import parent_names, uuid_text

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.core.formats import SizePolicy
    from imprint.core.info import Value

OWN_GRAIN: Final = 8 * SECTOR_BYTES
"""What a differencing image takes over from its parent at a time. Bytes of a bitmap that are
neither all set nor all clear are read rightly here, but not everywhere: libvhdi counts the
sectors behind the last one that is set as the image's own."""


MADE: Final = "its size was set here"
"""Why the size is what it is, of an image that was just made or resized."""


@dataclass
class State:
    """What was read of an image before any of its disk.

    Attributes:
        footers: all there are.
        header: ``None`` in a fixed image.
        table: empty in a fixed image.
        size: of the disk, in bytes.
        is_chs: whether that is the geometry's.
        reason: why it is that one.
        names: the parent's, best first.
        notes: for the user.
    """

    footers: Footers
    header: Header | None
    table: BlockTable
    size: int
    is_chs: bool = False
    reason: str = MADE
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)


def read_state(storage: Storage, *, policy: SizePolicy | None = None) -> State:
    """Read and check footers, header and block table.

    ``policy`` says which size counts, ``chs`` or ``current``, whoever made the image.

    Raises:
        CorruptImageError: if they contradict the format or the file's size.
        UnsupportedFeatureError: if they are of an unknown kind, or too large.
    """
    footers = read_footers(storage)
    footer, notes = footers.active, footers.notes()
    if footer.is_fixed:
        found = disk_size(footers, None, storage, policy=policy)
        return State(footers, None, BlockTable.absent(0), *found, notes=notes)
    header = read_header(storage, footer)
    if not header.is_sound:
        notes += ("The header's checksum is wrong.",)
    found = disk_size(footers, header, storage, policy=policy)
    names = parent_names(storage, header) if footer.has_parent else ()
    table = BlockTable.load(storage, header)
    return State(footers, header, table, *found, names, notes)


class VhdLayer:
    """A VHD opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, storage: Storage, state: State, *, notes: tuple[str, ...] = ()) -> None:
        """``notes`` are shown by :meth:`info`, with the state's own."""
        self._storage = storage
        self._state = state
        self._notes = notes
        if state.header is not None:
            self._bitmaps = BitmapCache(state.header.bitmap_bytes, self._load_bitmap)

    @property
    def size(self) -> int:
        """By geometry or by the footer's field: :meth:`info` says which."""
        return self._state.size

    @property
    def traits(self) -> Traits:
        """The grain is the block; where bitmaps count, what a byte of them stands for."""
        header = self._state.header
        if header is None:
            return self._storage.traits
        if self.footer.has_parent:
            return Traits(grain=min(OWN_GRAIN, header.block_size))
        return Traits(grain=header.block_size)

    @property
    def footer(self) -> Footer:
        """The one that counts."""
        return self._state.footers.active

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, for as far as its block, or a run of absent ones, goes.

        Raises:
            TruncatedImageError: if its block begins behind the end of the file.
        """
        header = self._state.header
        if header is None:
            return self._map_fixed(offset, length)
        index, within = divmod(offset, header.block_size)
        start = self._state.table.start(index)
        if start is None:
            limit = min(len(self._state.table) - index, div_up(within + length, header.block_size))
            run = self._state.table.run(index, limit) * header.block_size - within
            return Extent(offset, min(length, run), Kind.HOLE)
        length = min(length, header.block_size - within)
        if self.footer.has_parent:
            length, is_own = self._own_run(index, within, length)
            if not is_own:
                return Extent(offset, length, Kind.HOLE)
        position = start + header.bitmap_bytes + within
        if position >= self._storage.size:
            raise TruncatedImageError(
                f"block {index}: expected data at 0x{position:x}, "
                f"found a file of {self._storage.size} bytes",
                name=self._storage.name,
                offset=position,
            )
        return Extent(offset, length, Kind.DATA, self._storage, position)

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """What footer and header say."""
        state, footer, header = self._state, self.footer, self._state.header
        chs, current = footer.geometry.size, footer.current_size
        options: dict[str, Value] = {
            "subformat": SUBFORMATS[footer.disk_type],
            "size_policy": "chs" if state.is_chs else "current",
            "size_reason": state.reason,
            "size_chs": chs,
            "size_current": current,
            "creator": footer.creator,
            "timestamp": EPOCH_S + footer.timestamp,
        }
        notes, warnings = (*self._notes, *state.notes), tuple[str, ...]()
        # Images of Hyper-V have a smaller geometry, which nobody takes for their size.
        is_settled = footer.wants_current() and not state.is_chs
        if chs != current and footer.has_geometry() and not is_settled:
            taken, other = f"field for it, {current}", f"geometry, {chs}"
            if state.is_chs:
                taken, other = other, taken
            note = f"The size is that of the {taken} bytes ({state.reason}); not the {other}."
            notes = (*notes, note)
            if state.reason != ASKED:
                warnings = (f"{note} --size-policy chooses.",)
        parent = parent_format = None
        if header is not None:
            options["block_size"] = header.block_size
            if footer.has_parent:
                options["parent_uuid"] = uuid_text(header.parent_uuid)
                parent = state.names[0] if state.names else uuid_text(header.parent_uuid)
                parent_format = "vhd" if any(header.parent_uuid) else "raw"
        return ImageInfo(
            "vhd",
            state.size,
            options=options,
            parent=parent,
            parent_format=parent_format,
            uuid=uuid_text(footer.uuid),
            notes=notes,
            warnings=warnings,
        )

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def _map_fixed(self, offset: int, length: int) -> Extent:
        """What the file system says: a fixed image is mostly holes after a sparse copy."""
        found = next(iter(self._storage.extents(offset, length)))
        return found._replace(kind=Kind.ZERO) if found.kind is Kind.HOLE else found

    def _own_run(self, index: int, within: int, length: int) -> tuple[int, bool]:
        """How far the sectors of a block are alike, in bytes, and whether they are its own."""
        first = within // SECTOR_BYTES
        bitmap = self._bitmap(index)
        count = bitmaps.run(bitmap, first, div_up(within + length, SECTOR_BYTES) - first)
        run = (first + count) * SECTOR_BYTES - within
        return min(length, run), bitmaps.is_set(bitmap, first)

    def _bitmap(self, index: int) -> bytes | bytearray:
        """Of a block that is present."""
        return self._bitmaps.get(index)

    def _load_bitmap(self, index: int) -> bytes:
        header, start = self._state.header, self._state.table.start(index)
        assert header is not None
        assert start is not None
        found = bytearray(div_up(header.block_size // SECTOR_BYTES, 8))
        self._storage.readinto(memoryview(found), start)
        return bytes(found)
