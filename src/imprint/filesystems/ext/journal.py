"""The log of the journal: which copies of blocks it holds that are to be written back.

A log is a ring of transactions: descriptor blocks that say where the copies behind them
belong, the copies, and a block that commits all of it. A revoke block names blocks whose
copies in this and in earlier transactions are not to be written any more. What no
commit block follows never happened.

Source: Linux ``include/linux/jbd2.h``, ``fs/jbd2/recovery.c``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.filesystems.ext import layout
from imprint.filesystems.ext.checksums import ALL, checksum, crc32
from imprint.filesystems.ext.layout import JournalHeader, Tag, TagV3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.ext.ring import Ring

ENTRY_COUNT_MAX: Final = 1 << 19
"""Blocks with a copy, or revoked: ``mke2fs`` makes journals of half as many; 100 MiB."""

_COMMIT_CHECKSUM_AT: Final = 16
_COMMIT_KIND_AT: Final = 12
_CRC32_KIND: Final = b"\x01\x04"
"""Which checksum of version 1 a commit block has, and how long: CRC-32, 4 bytes."""

_COMMIT_TIME: Final = slice(48, 56)

_TAIL_BYTES: Final = 4
_REVOKES_AT: Final = 16
_UUID_BYTES: Final = 16
_BLOCK_TYPES: Final = (layout.DESCRIPTOR_BLOCK, layout.COMMIT_BLOCK, layout.REVOKE_BLOCK)
_CHECKSUMS: Final = layout.JOURNAL_CSUM_V2 | layout.JOURNAL_CSUM_V3


class Copy(NamedTuple):
    """The newest copy of a block.

    Attributes:
        offset: in the volume, in bytes.
        is_escaped: its first bytes were those that begin a block of the log.
    """

    offset: int
    is_escaped: bool


@dataclass
class Log:
    """What is to be replayed.

    Attributes:
        copies: by the block that they belong to.
        transactions: how many there are.
        sequence: of the one that would come next.
        doubts: why Linux does not mount it: it may not be as it was written.
        remarks: what is strange, and yet for Linux just the end of the log.
    """

    copies: dict[int, Copy] = field(default_factory=dict)
    transactions: int = 0
    sequence: int = 0
    doubts: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class _Tagged(NamedTuple):
    """A copy as a descriptor block tells of it."""

    block: int
    is_escaped: bool
    checksum: int


@dataclass
class _Transaction:
    """What was read of a transaction that may not have been committed.

    Attributes:
        copies: by the block that they belong to.
        revoked: blocks whose copies are not to be written any more.
        is_damaged: a copy has a wrong checksum.
        is_suspect: a block of the log has one: it may be older than the log, or not all written.
    """

    copies: dict[int, Copy] = field(default_factory=dict)
    revoked: list[int] = field(default_factory=list)
    is_damaged: bool = False
    is_suspect: bool = False


def read_log(ring: Ring) -> Log:
    """Go over the log from its start to where it ends.

    Raises:
        CorruptImageError: if it leads out of itself, or goes round for ever.
        ReadError: if it cannot be read.
    """
    return _Reader(ring).read()


class _Reader:
    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._incompat = ring.superblock.incompat
        self._seed = checksum(ring.superblock.uuid)
        self._place = ring.superblock.start
        self._left = ring.end - ring.first
        self._log = Log(sequence=ring.superblock.sequence)
        self._last_of: dict[int, int] = {}
        self._revoked_at: dict[int, int] = {}
        self._damaged = 0
        self._has_sums = bool(ring.superblock.compat & layout.JOURNAL_COMPAT_CHECKSUM)
        self._sum = ALL
        self._time = 0

    def read(self) -> Log:
        log, current = self._log, _Transaction()
        while (found := self._next()) is not None:
            kind, block = found
            if kind == layout.COMMIT_BLOCK:
                if not self._commits(block, current):
                    break
                current = _Transaction()
            elif not self._is_valid(block, len(block) - _TAIL_BYTES):
                current.is_suspect = True
                if not self._skip(kind, block):
                    break
            elif kind == layout.DESCRIPTOR_BLOCK:
                self._descriptor(block, current)
            else:
                self._revoke(block, current)
            self._bound(len(current.copies) + len(current.revoked))
        if current.is_suspect and not log.doubts:
            log.remarks.append(self._wrong("which is not committed"))
        for block_number, revoked_at in self._revoked_at.items():
            if self._last_of.get(block_number, revoked_at + 1) <= revoked_at:
                log.copies.pop(block_number, None)
        if self._damaged:
            log.doubts.append(
                f"{self._damaged} transactions of the journal have blocks with wrong checksums"
            )
        return log

    def _next(self) -> tuple[int, memoryview] | None:
        """The next block of the log, and its type, if it is of the transaction that is expected."""
        if self._left == 0:
            return None
        block = self._ring.read(self._step(1), 1)
        header = JournalHeader.unpack(block)
        if (
            header.magic != layout.JOURNAL_MAGIC
            or header.sequence != self._log.sequence
            or header.block_type not in _BLOCK_TYPES
        ):
            return None
        return header.block_type, block

    def _wrong(self, more: str = "") -> str:
        what = f"transaction {self._log.sequence} of the journal has a wrong checksum"
        return f"{what}, {more}" if more else what

    def _commits(self, block: memoryview, current: _Transaction) -> bool:
        """Whether a commit block is right; otherwise the log ends before its transaction.

        Source: Linux ``do_one_pass``: what is older than the transaction before was left there by
        another log. Where commits do not wait for what they commit, the last one may be wrong.
        """
        is_right = self._is_valid(block, _COMMIT_CHECKSUM_AT) and self._is_whole(block)
        time = int.from_bytes(block[_COMMIT_TIME], "big")
        if is_right and not current.is_suspect:
            self._commit(current)
            self._time = time
            return True
        log = self._log
        if time < self._time:
            log.remarks.append(self._wrong("and is older than the one before"))
        elif current.is_suspect or not self._incompat & layout.JOURNAL_ASYNC_COMMIT:
            log.doubts.append(self._wrong())
        elif self._is_followed():
            # Linux mounts it without all that follows; but with checksums of version 1, not at all.
            told = log.doubts if self._has_sums else log.remarks
            told.append(self._wrong("and is not the last"))
        current.is_suspect = False
        return False

    def _is_followed(self) -> bool:
        """Whether there is another transaction behind the one that is expected."""
        expected = self._log.sequence
        self._log.sequence = expected + 1 & 0xFFFF_FFFF
        found = self._next()
        while found is not None and found[0] != layout.COMMIT_BLOCK and self._skip(*found):
            found = self._next()
        self._log.sequence = expected
        return found is not None and found[0] == layout.COMMIT_BLOCK

    def _skip(self, kind: int, block: memoryview) -> bool:
        """Pass over the copies that follow a block, which may be anything; whether there are."""
        count = sum(1 for _ in self._tags(block)) if kind == layout.DESCRIPTOR_BLOCK else 0
        if count > self._left:
            return False
        self._step(count)
        return True

    def _bound(self, count: int) -> None:
        count += len(self._log.copies) + len(self._revoked_at)
        if count > ENTRY_COUNT_MAX:
            raise UnsupportedFeatureError(
                f"journal: expected a log of at most {ENTRY_COUNT_MAX} blocks, found more",
                name=self._ring.where,
            )

    def _step(self, count: int) -> int:
        """Go on by some blocks; gives where they begin."""
        if count > self._left:
            raise CorruptImageError(
                "journal: expected a log that ends, found one that goes round",
                name=self._ring.where,
            )
        self._left -= count
        place = self._place
        self._place = self._ring.wrapped(place + count)
        return place

    def _descriptor(self, block: memoryview, current: _Transaction) -> None:
        """Note the copies that follow."""
        if self._has_sums:
            self._sum = crc32(block, self._sum)
        tags = list(self._tags(block))
        place = self._step(len(tags))
        number = self._log.sequence.to_bytes(4, "big")
        for index, tag in enumerate(tags):
            self._ring.check(tag.block)
            position = self._ring.wrapped(place + index)
            current.copies[tag.block] = Copy(self._ring.offset(position), tag.is_escaped)
            if self._has_sums:
                self._sum = crc32(self._ring.read(position, 1), self._sum)
            if self._incompat & _CHECKSUMS:
                data = self._ring.read(position, 1)
                expected = checksum(data, checksum(number, self._seed))
                if not self._incompat & layout.JOURNAL_CSUM_V3:
                    expected &= 0xFFFF
                if expected != tag.checksum:
                    current.is_damaged = True

    def _tags(self, block: memoryview) -> Iterator[_Tagged]:
        """Source: Linux ``journal_tag_bytes``, which explains the sizes."""
        is_wide = bool(self._incompat & layout.JOURNAL_64BIT)
        is_v3 = bool(self._incompat & layout.JOURNAL_CSUM_V3)
        size = TagV3.SIZE if is_v3 else Tag.SIZE if is_wide else Tag.SIZE - 4
        if self._incompat & layout.JOURNAL_CSUM_V2 and not is_v3:
            size += 2
        position = JournalHeader.SIZE
        end = len(block) - (_TAIL_BYTES if self._incompat & _CHECKSUMS else 0)
        while position + size <= end:
            raw = bytes(block[position : position + size]).ljust(TagV3.SIZE, b"\0")
            tag = TagV3.unpack(raw) if is_v3 else Tag.unpack(raw)
            high = tag.block_high if is_wide else 0
            number = tag.block_low | high << 32
            yield _Tagged(number, bool(tag.flags & layout.TAG_ESCAPED), tag.checksum)
            position += size
            if not tag.flags & layout.TAG_SAME_UUID:
                position += _UUID_BYTES
            if tag.flags & layout.TAG_LAST:
                return

    def _revoke(self, block: memoryview, current: _Transaction) -> None:
        is_wide = bool(self._incompat & layout.JOURNAL_64BIT)
        size, code = (8, "Q") if is_wide else (4, "I")
        end = int.from_bytes(block[JournalHeader.SIZE : _REVOKES_AT], "big")
        if end > len(block):
            raise CorruptImageError(
                f"revoke block: expected at most {len(block)} bytes, found {end}",
                name=self._ring.where,
            )
        count = max(0, end - _REVOKES_AT) // size
        current.revoked += struct.unpack_from(f">{count}{code}", block, _REVOKES_AT)

    def _commit(self, current: _Transaction) -> None:
        """Take up a transaction that was written whole."""
        log = self._log
        self._damaged += current.is_damaged
        log.copies.update(current.copies)
        self._last_of.update(dict.fromkeys(current.copies, log.transactions))
        self._revoked_at.update(dict.fromkeys(current.revoked, log.transactions))
        log.transactions += 1
        log.sequence = log.sequence + 1 & 0xFFFF_FFFF

    def _is_valid(self, block: memoryview, checksum_at: int) -> bool:
        """Whether a block has the right checksum, which is counted as zero, at that place."""
        if not self._incompat & _CHECKSUMS:
            return True
        found = int.from_bytes(block[checksum_at : checksum_at + 4], "big")
        head, tail = block[:checksum_at], block[checksum_at + 4 :]
        return found == checksum(bytes(head) + bytes(4) + bytes(tail), self._seed)

    def _is_whole(self, block: memoryview) -> bool:
        """Whether a transaction has the checksum, of version 1, that its commit block says.

        Source: Linux ``do_one_pass``, ``calc_chksums``.
        """
        expected, self._sum = self._sum, ALL
        kind, found = bytes(block[_COMMIT_KIND_AT:][:2]), block[_COMMIT_CHECKSUM_AT:][:4]
        if not self._has_sums or (kind == bytes(2) and not any(found)):
            return True
        return kind == _CRC32_KIND and int.from_bytes(found, "big") == expected
