"""Where the log of an XFS begins and ends, and whether anything in it is not yet on the disk.

The log is a ring of basic blocks. The first word of each says in which cycle it was written, so
the head is where the cycle drops; what stood in these words is kept in the record's headers.
The last record before the head names the tail, the oldest that is still needed. If it is
an unmount record, nothing is.

Source: "XFS Algorithms & Data Structures", chapter 14; what Linux ``xfs_log_recover.c`` accepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.codecs.crc32c import crc32c
from imprint.core.units import div_up
from imprint.filesystems.xfs import layout
from imprint.filesystems.xfs.geometry import numbers
from imprint.filesystems.xfs.layout import BASIC_BLOCK, RecordHeader

if TYPE_CHECKING:
    from imprint.filesystems.xfs.geometry import Geometry, Reader

_MAGIC: Final = layout.RECORD_MAGIC.to_bytes(4, "big")
_BUFFERS: Final = 8
"""Records that may be on their way to the disk at once, in any order."""

_WINDOW: Final = _BUFFERS * layout.RECORD_BYTES_MAX // BASIC_BLOCK
_RECORD_SPAN: Final = layout.RECORD_BYTES_MAX // BASIC_BLOCK + 8
_SHORT_HEADER: Final = 324
"""Of 32-bit x86, where the structure has no padding at its end."""


class LogError(Exception):
    """The log cannot be understood; the message says why, without a full stop."""


@dataclass(frozen=True)
class Record:
    """A record of the log.

    Attributes:
        header: the first of its headers.
        place: of it, in basic blocks of the log.
        header_blocks: how many basic blocks its headers take up.
    """

    header: RecordHeader
    place: int
    header_blocks: int

    @property
    def blocks(self) -> int:
        """How many basic blocks it takes up."""
        return self.header_blocks + div_up(self.header.length, BASIC_BLOCK)


class Log:
    """The log of a file system, as a ring.

    Attributes:
        size: in basic blocks.
        is_v5: records have to have checksums.
    """

    def __init__(self, reader: Reader, geometry: Geometry) -> None:
        """Nothing is read yet."""
        self._reader = reader
        self._geometry = geometry
        self.size = geometry.log_bytes // BASIC_BLOCK
        self.is_v5 = geometry.is_v5

    def read(self, place: int, count: int) -> bytes:
        """``count`` basic blocks from ``place`` on; behind the end it goes on at the start."""
        place %= self.size
        first = min(count, self.size - place)
        start = self._geometry.log_at
        data = self._reader.read(start + place * BASIC_BLOCK, first * BASIC_BLOCK, "log")
        if first < count:
            data += self._reader.read(start, (count - first) * BASIC_BLOCK, "log")
        return bytes(data)

    def record(self, place: int) -> Record:
        """The record whose header is at ``place``.

        Raises:
            LogError: if there is none that belongs to this log.
        """
        data = self.read(place, 1)
        header = RecordHeader.unpack(data)
        uuids = (self._geometry.superblock.uuid, self._geometry.uuid)
        if header.magic != layout.RECORD_MAGIC or header.version not in (1, 2):
            raise LogError(f"expected a record at block {place}, found none")
        if header.uuid not in uuids:
            raise LogError(f"the record at block {place} is of another file system")
        if header.form != layout.LITTLE_ENDIAN_FORM:
            raise LogError("it was written by a big-endian machine")
        if header.length > layout.RECORD_BYTES_MAX or header.size > layout.RECORD_BYTES_MAX:
            raise LogError(f"the record at block {place} is too long")
        blocks = 1
        if header.version == 2:
            blocks = max(1, div_up(header.size, layout.RECORD_CYCLES * BASIC_BLOCK))
        record = Record(header, place, blocks)
        if record.blocks > self.size:
            raise LogError(f"the record at block {place} is too long")
        return record

    def payload(self, record: Record) -> tuple[bytearray, bool]:
        """What a record holds, with its own first words, and whether its checksum is right."""
        data = memoryview(self.read(record.place, record.blocks))
        header, at = record.header, record.header_blocks * BASIC_BLOCK
        content = data[at : at + header.length]
        words = bytearray(header.words)
        extensions = []
        for index in range(1, record.header_blocks):
            start = index * BASIC_BLOCK
            words += data[start + 4 : start + layout.RECORD_EXTENSION_BYTES]
            extensions.append(data[start : start + layout.RECORD_EXTENSION_BYTES])
        used = div_up(header.length, layout.RECORD_CYCLES * BASIC_BLOCK)
        is_right = any(
            header.crc == _swapped(_checksum(data[:size], extensions[: max(0, used - 1)], content))
            for size in (RecordHeader.SIZE, _SHORT_HEADER)
        )
        own = bytearray(content)
        for index in range(div_up(header.length, BASIC_BLOCK)):
            own[index * BASIC_BLOCK : index * BASIC_BLOCK + 4] = words[4 * index : 4 * index + 4]
        return own[: header.length], is_right

    def cycle(self, place: int) -> int:
        """In which cycle a basic block was written; 0: never."""
        return _cycles(self.read(place, 1))[0]

    def find_last(self) -> tuple[Record | None, int]:
        """The last whole record, and the head: the basic block behind it.

        ``None`` if the log was never written.

        Raises:
            LogError: if there is no telling.
        """
        head = self._find_head()
        if head == 0 and self.cycle(0) == 0:
            return None, 0
        record = self._before(head)
        if record is None:
            raise LogError("expected a record before its head, found none")
        # Where the cycle drops inside of a record, that record was being written: it never was.
        if (record.place + record.blocks) % self.size != head % self.size:
            head = record.place
            record = self._before(head)
            if record is None or (record.place + record.blocks) % self.size != head:
                raise LogError("expected whole records before its head")
        return record, head % self.size

    def is_unmount(self, record: Record) -> bool:
        """Whether a record says that the file system was unmounted."""
        if record.header.operations != 1:
            return False
        data, is_right = self.payload(record)
        if record.header.crc and not is_right:
            raise LogError("the checksum of its last record does not match")
        operation = layout.Operation.unpack(data.ljust(layout.Operation.SIZE, b"\0"))
        return bool(operation.flags & layout.OP_UNMOUNT)

    def _find_head(self) -> int:
        """The first basic block that the next record may overwrite, or a bit before it."""
        first, last = self.cycle(0), self.cycle(self.size - 1)
        if first == 0:
            return 0
        if last == 0 and first != 1:
            raise LogError("its first cycle is not 1, but its end was never written")
        if first == last:
            head, sought = self.size, last - 1
        else:
            head, sought = self._first_of(last), last
        # Records are written eight at a time, in any order: there may be holes before the head.
        start = head - min(_WINDOW, self.size)
        if start < 0 and last:
            hole = self._hole(self.size + start, -start, sought - 1)
            if hole is not None:
                return hole
        start = max(0, start)
        hole = self._hole(start, head - start, sought)
        return head if hole is None else hole

    def _first_of(self, cycle: int) -> int:
        """The first block of ``cycle``, which the last block has, but the first has not."""
        low, high = 0, self.size - 1
        while high - low > 1:
            middle = (low + high) // 2
            if self.cycle(middle) == cycle:
                high = middle
            else:
                low = middle
        return high

    def _hole(self, start: int, count: int, cycle: int) -> int | None:
        """The first block of a range that was written in ``cycle``."""
        for index, found in enumerate(_cycles(self.read(start, count))):
            if found == cycle:
                return start + index
        return None

    def _before(self, head: int) -> Record | None:
        """The last record that begins before ``head``; it may be at the ring's other end."""
        count = min(_RECORD_SPAN, self.size)
        data = self.read((head - count) % self.size, count)
        for index in reversed(range(count)):
            if data.startswith(_MAGIC, index * BASIC_BLOCK):
                return self.record((head - count + index) % self.size)
        return None


def _cycles(data: bytes) -> list[int]:
    """The cycle of each basic block; a header has it in its second word."""
    words = numbers("I", data)
    step = BASIC_BLOCK // 4
    return [
        words[at + 1] if words[at] == layout.RECORD_MAGIC else words[at]
        for at in range(0, len(words), step)
    ]


def _checksum(header: memoryview, extensions: list[memoryview], content: memoryview) -> int:
    at = layout.RECORD_CRC_AT
    value = crc32c(header[at + 4 :], crc32c(bytes(4), crc32c(header[:at])))
    for extension in extensions:
        value = crc32c(extension, value)
    return crc32c(content, value)


def _swapped(value: int) -> int:
    """A little-endian number, read as a big-endian one."""
    return int.from_bytes(value.to_bytes(4, "little"), "big")
