"""The log of an XFS, replayed in memory: its items, and the changes of blocks among them.

A record is a run of operations, each with a region of a transaction. A transaction that was
committed is a list of items, each a region that says what it is and regions with its content.
Only changes of blocks (buffers) touch what free space is told by, which is what :func:`replay` is
about. The others are inodes (:mod:`imprint.filesystems.xfs.recovery`) and quotas, and intents:
things to be done that recovery will do after replaying. It frees what it has to free then, and
writes what it allocates, so that nothing that is free after replaying can be needed by it.

Items are applied in the order in which their transactions were committed. Those of a buffer
that a later item cancels are left out, since the buffer is another's by then. The kernel also
leaves out what the disk has already; applied in order, it comes to the same in the end, unless the
disk is newer than the log.

Source: "XFS Algorithms & Data Structures", chapter 14; what Linux ``xfs_log_recover.c`` and
``xfs_buf_item_recover.c`` do.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB, MIB, div_up
from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.layout import BASIC_BLOCK, BufferItem, Operation
from imprint.filesystems.xfs.log import LogError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.xfs.geometry import Geometry, Reader
    from imprint.filesystems.xfs.log import Log, Record

LIVE_BYTES_MAX: Final = 512 * MIB
"""Of the log between tail and head that is replayed."""

OPERATIONS_MAX: Final = 1 << 22
"""Of these in it: some ten seconds. A log as long as that is has half as many."""

KEPT_BYTES_MAX: Final = 64 * MIB
"""Of regions, and of changed blocks, held in memory."""

_REGION_COST: Final = 80
_ITEM_COST: Final = 100
_TRANSACTION_COST: Final = 500
"""Bytes of memory that each takes up beside its content."""

_BUFFER_BLOCKS_MAX: Final = 64 * KIB // BASIC_BLOCK
_OPERATION: Final = struct.Struct(">IIxB2x")
"""The same as ``Operation``: there are too many of them for an object each."""

_TRANSACTION_MAGIC: Final = 0x5452414E.to_bytes(4, "little")


@dataclass(frozen=True)
class Replayed:
    """What replaying would change.

    Attributes:
        blocks: ``BASIC_BLOCK`` bytes each, by their number in the volume.
        transactions: how many were committed.
    """

    blocks: dict[int, bytes]
    transactions: int


Wanted = Callable[[int, bytearray], bool]
"""Whether an item is of use, by its kind and its first region."""


@dataclass
class Transaction:
    """What was seen of a transaction.

    Attributes:
        lsn: of the record in which it begins.
        header: what it begins with.
        items: regions of each item that is of use, the first says what it is.
        missing: how many regions of the last item have yet to come.
        is_kept: whether the last item is of use.
        cost: bytes of memory that its items take up.
    """

    lsn: int
    header: bytearray = field(default_factory=bytearray)
    items: list[list[bytearray]] = field(default_factory=list)
    missing: int = 0
    is_kept: bool = False
    cost: int = _TRANSACTION_COST

    def begin_item(self, region: bytearray, wanted: Wanted) -> None:
        """Take the first region of an item."""
        kind, regions = (int.from_bytes(region[at : at + 2], "little") for at in (0, 2))
        if kind not in layout.ITEMS_KNOWN:
            raise LogError(f"it has an item of the unknown kind 0x{kind:x}")
        if regions == 0:
            raise LogError("it has an item without regions")
        self.missing = regions
        self.is_kept = wanted(kind, region)
        if self.is_kept:
            self.items.append([])
            self.cost += _ITEM_COST


class Changes:
    """Basic blocks of a volume that its log has otherwise than the disk.

    Attributes:
        blocks: ``BASIC_BLOCK`` bytes each, by their number in the volume.
        newest: when an inode was last written that was left alone since it is newer, as an LSN.
    """

    def __init__(self, reader: Reader, geometry: Geometry) -> None:
        """There are none yet."""
        self._reader = reader
        self._end = geometry.superblock.blocks * geometry.block_size // BASIC_BLOCK
        self.blocks: dict[int, bytes] = {}
        self.newest = 0

    def check(self, place: int, count: int) -> None:
        """Refuse basic blocks that are outside of the file system.

        Raises:
            LogError: if they are.
        """
        if place < 0 or count < 0 or place + count > self._end:
            raise LogError("it changes blocks outside of the file system")

    def get(self, place: int, count: int) -> bytearray:
        """Some basic blocks as they are by now.

        Raises:
            LogError: if they are outside of the file system.
            ReadError: if the disk has to be read for them, and cannot be.
        """
        self.check(place, count)
        found = [self.blocks.get(number) for number in range(place, place + count)]
        if all(found):
            return bytearray().join(block for block in found if block)
        size = count * BASIC_BLOCK
        data = self._reader.read(place * BASIC_BLOCK, size, "block that the log changes")
        for block, at in zip(found, range(0, size, BASIC_BLOCK), strict=True):
            if block:
                data[at : at + BASIC_BLOCK] = block
        return data

    def put(self, place: int, data: bytearray) -> None:
        """Make whole basic blocks be something else.

        Raises:
            LogError: if they become too many.
        """
        for index, at in enumerate(range(0, len(data), BASIC_BLOCK)):
            self.blocks[place + index] = bytes(data[at : at + BASIC_BLOCK])
        if len(self.blocks) * BASIC_BLOCK > KEPT_BYTES_MAX:
            raise LogError("it changes too many blocks")


def replay(reader: Reader, geometry: Geometry, log: Log, last: Record, head: int) -> Replayed:
    """Replay from the tail that the last record names up to the head, as far as free space goes.

    Raises:
        LogError: if anything in there is not known, or too much.
        CorruptImageError: if it changes what is outside of the volume.
        ReadError: if a part cannot be read.
    """
    committed = list(transactions(log, last, head, _is_of_space))
    buffers = [
        (buffer_item(regions), regions)
        for transaction in committed
        for regions in transaction.items
    ]
    cancelled = Counter(
        (item.place, item.length) for item, _ in buffers if item.flags & layout.BUFFER_CANCEL
    )
    changes = Changes(reader, geometry)
    for item, regions in buffers:
        key = item.place, item.length
        if cancelled[key]:
            cancelled[key] -= bool(item.flags & layout.BUFFER_CANCEL)
        elif _is_wanted(item):
            apply_buffer(changes, item, regions)
    return Replayed(changes.blocks, len(committed))


def transactions(
    log: Log, last: Record, head: int, wanted: Wanted, *, are_kept: bool = True
) -> Iterator[Transaction]:
    """Those that were committed, in that order, with their items that are ``wanted``.

    Args:
        log: of the file system.
        last: its last record, which names the tail.
        head: where it ends.
        wanted: which items are of use.
        are_kept: until the end; otherwise each goes when the next one is asked for.

    Raises:
        LogError: if anything in there is not known, or too much.
        ReadError: if a part cannot be read.
    """
    running: dict[int, Transaction] = {}
    room, left = KEPT_BYTES_MAX, OPERATIONS_MAX
    for record in _records(log, last, head):
        left -= record.header.operations
        if left < 0:
            raise LogError(f"it has more than {OPERATIONS_MAX} operations")
        for number, flags, region in _operations(log, record):
            if flags & layout.OP_UNMOUNT:
                continue
            found = running.get(number)
            before = found.cost if found else 0
            if flags & layout.OP_START:
                if found:
                    raise LogError("it begins a transaction that has begun")
                found = running[number] = Transaction(record.header.lsn)
            elif found is None:
                # Its start lies before the tail: all that it changed is on the disk.
                continue
            elif flags & layout.OP_COMMIT:
                yield running.pop(number)
                room += 0 if are_kept else found.cost
                continue
            elif region and _add(found, region, flags, wanted):
                found.cost += len(region) + _REGION_COST
            room -= found.cost - before
            if room < 0:
                raise LogError("its transactions are too long")


def _records(log: Log, last: Record, head: int) -> Iterator[Record]:
    """From the tail to the head, each where the one before it ends."""
    place = last.header.tail_lsn & 0xFFFFFFFF
    if place >= log.size:
        raise LogError("its tail is outside of it")
    left = (head - place) % log.size or log.size
    if left * BASIC_BLOCK > LIVE_BYTES_MAX:
        raise LogError(f"more than {LIVE_BYTES_MAX // MIB} MiB of it are in use")
    lsn = last.header.tail_lsn
    while left:
        record = log.record(place)
        if record.blocks > left:
            raise LogError(f"the record at block {place} goes beyond its head")
        if record.header.lsn != (lsn >> 32 << 32 | place):
            raise LogError(f"the record at block {place} is out of order")
        yield record
        left -= record.blocks
        place += record.blocks
        if place >= log.size:
            place -= log.size
            lsn += 1 << 32


def _operations(log: Log, record: Record) -> Iterator[tuple[int, int, bytearray]]:
    """Those of a record: of which transaction, with which flags, and their regions."""
    data, is_right = log.payload(record)
    if not is_right and (record.header.crc or log.is_v5):
        raise LogError(f"the checksum of the record at block {record.place} does not match")
    at = 0
    for _ in range(record.header.operations):
        if at + Operation.SIZE > len(data):
            raise LogError(f"the record at block {record.place} ends too early")
        number, length, flags = _OPERATION.unpack_from(data, at)
        at += Operation.SIZE
        region = data[at : at + length]
        at += length
        if len(region) < length:
            raise LogError(f"the record at block {record.place} ends too early")
        yield number, flags, region


def _add(transaction: Transaction, region: bytearray, flags: int, wanted: Wanted) -> bool:
    """Take another region of a transaction; whether it is kept."""
    if not transaction.header:
        if not region.startswith(_TRANSACTION_MAGIC):
            raise LogError("expected a transaction's header, found none")
        transaction.header = region
        return True
    if flags & layout.OP_WAS_CONTINUED:
        if transaction.is_kept:
            transaction.items[-1][-1] += region
        return transaction.is_kept
    if transaction.missing == 0:
        transaction.begin_item(region, wanted)
    transaction.missing -= 1
    if transaction.is_kept:
        transaction.items[-1].append(region)
    return transaction.is_kept


def buffer_item(regions: list[bytearray]) -> BufferItem:
    """What an item says of the blocks that it changes.

    Raises:
        LogError: if it is not whole.
    """
    first = regions[0]
    if len(first) < BufferItem.SIZE:
        raise LogError("it has an item that is not whole")
    item = BufferItem.unpack(first)
    if item.regions != len(regions) or len(first) < BufferItem.SIZE + 4 * item.map_words:
        raise LogError("it has an item that is not whole")
    if item.length > _BUFFER_BLOCKS_MAX:
        raise LogError("it has an item of more blocks than the kernel changes at once")
    return item


def _is_of_space(kind: int, region: bytearray) -> bool:
    if kind != layout.ITEM_BUFFER or len(region) < BufferItem.SIZE:
        return kind == layout.ITEM_BUFFER
    item = BufferItem.unpack(region)
    return _is_wanted(item) or bool(item.flags & layout.BUFFER_CANCEL)


def _is_wanted(item: BufferItem) -> bool:
    kind = item.flags >> layout.BUFFER_TYPE_SHIFT
    return kind in layout.BUFFER_TYPES and not item.flags & layout.BUFFER_NOT_PLAIN


def apply_buffer(changes: Changes, item: BufferItem, regions: list[bytearray]) -> None:
    """Lay the chunks of an item over the blocks that it is about.

    Raises:
        LogError: if it contradicts itself, or they are outside of the file system, or too many.
        ReadError: if the disk has to be read for them, and cannot be.
    """
    changes.check(item.place, item.length)
    size = item.length * BASIC_BLOCK
    bits = int.from_bytes(regions[0][BufferItem.SIZE :][: 4 * item.map_words], "little")
    position = 0
    for region in regions[1:]:
        while bits and not bits & 1:
            skipped = (bits & -bits).bit_length() - 1
            bits >>= skipped
            position += skipped
        chunks, rest = divmod(len(region), layout.BUFFER_CHUNK)
        mask = (1 << chunks) - 1
        if rest or not chunks or bits & mask != mask:
            raise LogError("it has an item whose regions do not fit its map")
        start = position * layout.BUFFER_CHUNK
        if start + len(region) > size:
            raise LogError("it has an item that is longer than its blocks")
        first, skipped = divmod(start, BASIC_BLOCK)
        blocks = changes.get(item.place + first, div_up(skipped + len(region), BASIC_BLOCK))
        blocks[skipped : skipped + len(region)] = region
        changes.put(item.place + first, blocks)
        bits >>= chunks
        position += chunks
    if bits:
        raise LogError("it has an item whose regions do not fit its map")
