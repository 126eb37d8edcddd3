"""An XFS as its own mount would show it: with what its log has.

Changes of blocks and of inodes are applied in the order in which they were committed, as the kernel
does it. Changes of quotas are left out: no file is told by them. So are inodes that were only made
room for, since whatever comes to use one logs all of it. What the kernel finishes after that
are intents: freed blocks, owners and counts of blocks are none of a file's; others are told.

Source: Linux ``xfs_log_recover.c``, ``xfs_inode_item_recover.c``, ``xfs_buf_item_recover.c``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.filesystems.allocation import UNBOUNDED
from imprint.filesystems.journals import WITHOUT, Recovered
from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.geometry import Reader, read_geometry
from imprint.filesystems.xfs.layout import BASIC_BLOCK, BufferItem
from imprint.filesystems.xfs.log import Log, LogError
from imprint.filesystems.xfs.logged_inodes import apply_inode, inode_item, known_lsn
from imprint.filesystems.xfs.replay import Changes, apply_buffer, buffer_item, transactions
from imprint.filters.replayed import Replayed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.xfs.geometry import Geometry
    from imprint.filesystems.xfs.layout import InodeItem
    from imprint.filesystems.xfs.log import Record
    from imprint.filesystems.xfs.replay import Transaction

_INTENTS: Final = {
    layout.ITEM_MAP_INTENT: "changes of where files lie",
    layout.ITEM_ATTRIBUTE_INTENT: "changes of extended attributes",
    layout.ITEM_EXCHANGE_INTENT: "exchanges of contents",
}
_ANSWERS: Final = {kind + 1: kind for kind in _INTENTS}


class _Form(NamedTuple):
    """Where a block of version 5 has what says of it that it was written as a whole."""

    crc: int
    lsn: int
    uuid: int


_TREE: Final = _Form(layout.TREE_CRC_AT, 24, 32)
_FOLDER: Final = _Form(4, 16, 24)
_FORMS: Final = {
    b"XFSB": _Form(layout.SUPERBLOCK_CRC_AT, 240, 32),
    b"XAGF": _Form(layout.AGF_CRC_AT, 208, 64),
    b"XAGI": _Form(layout.AGI_CRC_AT, 320, 296),
    b"XAFL": _Form(layout.AGFL_CRC_AT, 24, 8),
    b"BMA3": _Form(layout.MAP_CRC_AT, 32, 40),
    **dict.fromkeys((b"AB3B", b"AB3C", b"RMB3", b"R3FC", b"IAB3", b"FIB3"), _TREE),
    **dict.fromkeys((b"XDB3", b"XDD3", b"XDF3"), _FOLDER),
    b"XSLM": _Form(12, 48, 16),
}
"""By how it begins."""

_NODE_MARKS: Final = (b"\x3b\xee", b"\x3e\xbe", b"\x3d\xf1", b"\x3d\xff")
_NODE_MARK_AT: Final = 8
_NODE: Final = _Form(12, 24, 32)
"""The same of blocks of trees of names and attributes."""

_NEWER: Final = "are newer than its log, as in a copy that was made while it was written to"
_GROUPS_MAX: Final = 1024
"""How many are asked for the age of their headers."""

_CANCELS_MAX: Final = 1 << 18
_INTENTS_MAX: Final = 1 << 16


def recovered(volume: Source) -> Recovered:
    """The volume after replaying; see :func:`imprint.filesystems.journals.replayed`.

    Raises:
        CorruptImageError: if the superblock contradicts itself, or the disk is newer than the log.
        UnsupportedFeatureError: if the log cannot be replayed, or is on another device.
        ReadError: if it cannot be read.
    """
    reader = Reader(volume, budget=UNBOUNDED)
    geometry = read_geometry(reader)
    log = Log(reader, geometry)
    try:
        last, head = log.find_last()
        if last is None or log.is_unmount(last):
            return Recovered(volume)
        recovery = _Recovery(reader, geometry, log)
        recovery.run(last, head)
        found = Replayed(volume, BASIC_BLOCK, held=recovery.changes.blocks)
        after = read_geometry(Reader(found)).superblock
        if after.blocks != geometry.superblock.blocks:
            raise LogError("it makes the file system grow")
        newest = _newest(reader, geometry)
    except LogError as error:
        raise UnsupportedFeatureError(
            f"its log cannot be replayed here: {error}", name=volume.name, advice=WITHOUT
        ) from error
    said = [f"its log was replayed in memory, transactions: {recovery.transactions}"]
    if not geometry.is_v5:
        said.append("nothing proves that its log is of what is on the disk: it has version 4")
    elif max(recovery.newest, newest) > last.header.lsn:
        # The kernel does not mount it either: it is no state that the file system was ever in.
        raise CorruptImageError(
            f"some blocks on the disk {_NEWER}", name=volume.name, advice=WITHOUT
        )
    elif recovery.changes.newest > last.header.lsn:
        said.append(f"some inodes on the disk {_NEWER}")
    return Recovered(found, (*said, *recovery.left_out()))


class _Recovery:
    """Goes over the log twice: what is cancelled has to be known before anything is applied."""

    def __init__(self, reader: Reader, geometry: Geometry, log: Log) -> None:
        self._geometry = geometry
        self._log = log
        self.changes = Changes(reader, geometry)
        self._cancelled: Counter[int] = Counter()
        self._buffers: dict[int, int] = {}
        self._inodes: set[int] = set()
        self._open: set[tuple[int, bytes]] = set()
        self.transactions = 0
        self.newest = 0

    def run(self, last: Record, head: int) -> None:
        """Apply all that was committed.

        Raises:
            LogError: if anything in there is not known, or too much.
            ReadError: if a part cannot be read.
        """
        for transaction in transactions(self._log, last, head, _is_cancel, are_kept=False):
            for regions in transaction.items:
                item = buffer_item(regions)
                self._cancelled[_key(item)] += 1
            if len(self._cancelled) > _CANCELS_MAX:
                raise LogError("it cancels too many changes")
        for transaction in transactions(self._log, last, head, _is_of_files, are_kept=False):
            self.transactions += 1
            self._apply(transaction)
        if self._geometry.is_v5:
            self._seal()

    def left_out(self) -> Iterator[str]:
        """What was begun, and would be finished by the kernel."""
        for kind, what in _INTENTS.items():
            count = sum(1 for found, _ in self._open if found == kind)
            if count:
                yield f"{what} that were begun are not finished, as mounting it would: {count}"

    def _apply(self, transaction: Transaction) -> None:
        """In the kernel's order: blocks, then inodes, and what is cancelled counts behind them."""
        inodes: list[list[bytearray]] = []
        cancels: list[BufferItem] = []
        for regions in transaction.items:
            kind = int.from_bytes(regions[0][:2], "little")
            if kind == layout.ITEM_INODE:
                inodes.append(regions)
            elif kind == layout.ITEM_BUFFER:
                item = buffer_item(regions)
                if item.flags & layout.BUFFER_CANCEL:
                    cancels.append(item)
                elif item.length and not self._cancelled[_key(item)]:
                    self._buffer(item, regions, transaction.lsn)
            else:
                self._intent(kind, regions[0])
        for regions in inodes:
            self._inode(inode_item(regions), regions, transaction.lsn)
        for item in cancels:
            self._cancelled[_key(item)] -= 1

    def _buffer(self, item: BufferItem, regions: list[bytearray], lsn: int) -> None:
        written = _written(self.changes.get(item.place, 1), self._geometry)
        if written > lsn:
            self.newest = max(self.newest, written)
            return
        apply_buffer(self.changes, item, regions)
        self._buffers[item.place] = item.length

    def _inode(self, item: InodeItem, regions: list[bytearray], lsn: int) -> None:
        if self._cancelled[_key(item)]:
            return
        if item.fields & layout.ILOG_OWNERS:
            raise LogError(f"inode {item.number} has taken over the blocks of another")
        place = apply_inode(self.changes, self._geometry, item, regions, lsn)
        self._inodes.add(place)

    def _intent(self, kind: int, region: bytearray) -> None:
        identity = bytes(region[layout.INTENT_ID_AT :][:8])
        if kind in _INTENTS:
            self._open.add((kind, identity))
            if len(self._open) > _INTENTS_MAX:
                raise LogError("it has too many changes that are not finished")
        else:
            self._open.discard((_ANSWERS[kind], identity))

    def _seal(self) -> None:
        """Give blocks and inodes the checksums that they get when they are written."""
        size = self._geometry.superblock.inode_size
        for place, length in self._buffers.items():
            data = self.changes.get(place, length)
            form = _form(data)
            if form is not None and len(data) >= form.crc + 4:
                _sign(data, form.crc)
                self.changes.put(place, data[:BASIC_BLOCK])
        for place in self._inodes:  # of version 5 they have whole basic blocks
            data = self.changes.get(place // BASIC_BLOCK, size // BASIC_BLOCK)
            _sign(data, layout.INODE_CRC_AT)
            self.changes.put(place // BASIC_BLOCK, data)


def _key(item: BufferItem | InodeItem) -> int:
    """A buffer as one number: there may be very many."""
    return item.place << 32 | item.length


def _form(data: bytes | bytearray) -> _Form | None:
    found = _FORMS.get(bytes(data[:4]))
    return _NODE if found is None and data[_NODE_MARK_AT:][:2] in _NODE_MARKS else found


def _written(data: bytes | bytearray, geometry: Geometry) -> int:
    """When a block of version 5 was written, as an LSN; 0 if that is not known.

    Source: Linux ``xlog_recover_get_buf_lsn``.
    """
    form = _form(data) if geometry.is_v5 else None
    if form is None:
        return 0
    is_own = data[form.uuid :][:16] in (geometry.uuid, geometry.superblock.uuid)
    return known_lsn(data, form.lsn) if is_own else 0


def _newest(reader: Reader, geometry: Geometry) -> int:
    """When the headers of groups were last written, as an LSN."""
    size = geometry.superblock.sector_size
    newest = 0
    for group in range(min(geometry.superblock.group_count, _GROUPS_MAX)):
        for at in (size, 2 * size):
            place = geometry.offset(group, 0) + at
            newest = max(newest, _written(reader.read(place, BASIC_BLOCK, "header"), geometry))
    return newest


def _sign(data: bytearray, at: int) -> None:
    data[at : at + 4] = bytes(4)
    data[at : at + 4] = crc32c(data).to_bytes(4, "little")


def _is_cancel(kind: int, region: bytearray) -> bool:
    if kind != layout.ITEM_BUFFER or len(region) < BufferItem.SIZE:
        return False
    return bool(BufferItem.unpack(region).flags & layout.BUFFER_CANCEL)


def _is_of_files(kind: int, region: bytearray) -> bool:
    """Inodes, intents that are of files and their answers, and all blocks but those of quotas.

    Of blocks with inodes only their list of unlinked ones is logged as blocks.
    """
    if kind != layout.ITEM_BUFFER:
        return kind == layout.ITEM_INODE or kind in _INTENTS or kind in _ANSWERS
    if len(region) < BufferItem.SIZE:
        return True
    flags = BufferItem.unpack(region).flags
    return bool(flags & layout.BUFFER_CANCEL) or not flags & layout.BUFFER_NOT_PLAIN
