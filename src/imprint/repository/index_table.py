"""Tables of chunks, sorted by name, that are searched at the speed of C.

A record is a chunk's name (32 bytes), then its group, where it begins in the group, and its length
(4 bytes each). Names are hashes, so their leading bits spread evenly: a table of where the records
of each prefix begin leads to some dozens of records, which ``bytes.find`` searches. Nothing is an
object of Python but what is found, so that a chunk costs 44 bytes, and less than one more.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import weakref
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import RepositoryError, TargetError
from imprint.core.units import KIB, MIB
from imprint.repository.protection import NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

RECORD_BYTES: Final = 44
"""A name of 32 bytes and three numbers."""

TABLE_BYTES_MAX: Final = 64 * MIB
"""Longer tables are kept in a temporary file: 1.5 million chunks, about 100 GiB of packs."""

_BUCKET_RECORDS: Final = 16
_BUCKET_RECORDS_MAX: Final = 4096
"""Of hashes, not even 100 billion would give so full a bucket by chance."""

_BLOCK_RECORDS: Final = 64 * KIB
"""Handled at once when tables are made."""

_NUMBERS: Final = struct.Struct("<III")
_RECORD: Final = struct.Struct(f"{RECORD_BYTES}s")


class Found(NamedTuple):
    """Where a chunk is.

    Attributes:
        group: its number, with whoever made the table.
        offset: where the chunk begins in the decoded group.
        length: of the chunk.
    """

    group: int
    offset: int
    length: int


class RecordTable(ABC):
    """Records sorted by name. Thread-safe: it never changes.

    Made by :func:`make_table` and :func:`merge_tables`, in memory or in a temporary file.

    Args:
        starts: where the records of each prefix of ``bits`` bits begin, and the end.
        bits: of names, that are distinguished so.
    """

    def __init__(self, starts: array[int], bits: int) -> None:
        self._starts = starts
        self._bits = bits
        self._shift = 32 - bits

    def __len__(self) -> int:
        """Number of records."""
        return self._starts[-1] // RECORD_BYTES

    @property
    @abstractmethod
    def is_in_file(self) -> bool:
        """Whether it takes no memory to speak of."""

    @property
    def memory_bytes(self) -> int:
        """What it takes, about."""
        table_bytes = len(self._starts) * self._starts.itemsize
        return table_bytes + (0 if self.is_in_file else self._starts[-1])

    @abstractmethod
    def read(self, start: int, end: int) -> bytes:
        """The bytes of some records."""

    @abstractmethod
    def find(self, name: bytes) -> tuple[int, int, int] | None:
        """Group, offset and length of the chunk ``name``, as of :class:`Found`."""

    def find_all(self, name: bytes) -> Iterator[Found]:
        """Every place of the chunk ``name``, which may be in several packs."""
        for _, found in self.numbered(name):
            yield Found(*found)

    def numbered(self, name: bytes) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """The number of each record of the chunk ``name``, and what it says, as :meth:`find`."""
        bucket = int.from_bytes(name[:4], "big") >> self._shift
        start = self._starts[bucket]
        records = self.read(start, self._starts[bucket + 1])
        at = records.find(name)
        while at >= 0:
            if at % RECORD_BYTES == 0:
                found = _NUMBERS.unpack_from(records, at + NAME_BYTES)
                yield (start + at) // RECORD_BYTES, found
            at = records.find(name, at + 1)  # parts of two records look like the name

    def start_of(self, prefix: int, bits: int) -> int:
        """Where records begin whose names begin with ``bits`` bits of ``prefix`` or more.

        Args:
            prefix: up to ``1 << bits``, which gives the end.
            bits: not more than the table distinguishes, unless the table is short.
        """
        if bits <= self._bits:
            return self._starts[prefix << (self._bits - bits)]
        if prefix >> bits:
            return self._starts[-1]
        bucket = prefix >> (bits - self._bits)
        start = self._starts[bucket]
        names = _prefixes(self.read(start, self._starts[bucket + 1]))
        return start + RECORD_BYTES * bisect_left(names, prefix << (32 - bits))


class _TableInMemory(RecordTable):
    def __init__(self, records: bytearray, starts: array[int], bits: int) -> None:
        super().__init__(starts, bits)
        self._records = records

    @property
    def is_in_file(self) -> bool:
        return False

    def read(self, start: int, end: int) -> bytes:
        return bytes(memoryview(self._records)[start:end])

    def find(self, name: bytes) -> tuple[int, int, int] | None:
        bucket = int.from_bytes(name[:4], "big") >> self._shift
        starts = self._starts
        end = starts[bucket + 1]
        records = self._records
        at = records.find(name, starts[bucket], end)
        while at >= 0:
            if at % RECORD_BYTES == 0:
                return _NUMBERS.unpack_from(records, at + NAME_BYTES)
            at = records.find(name, at + 1, end)  # parts of two records look like the name
        return None


class _TableInFile(RecordTable):
    def __init__(self, file: IO[bytes], starts: array[int], bits: int) -> None:
        super().__init__(starts, bits)
        self._fd = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._fd)  # the file has no name: now it is gone

    @property
    def is_in_file(self) -> bool:
        return True

    def read(self, start: int, end: int) -> bytes:
        return os.pread(self._fd, end - start, start)

    def find(self, name: bytes) -> tuple[int, int, int] | None:
        bucket = int.from_bytes(name[:4], "big") >> self._shift
        start = self._starts[bucket]
        records = os.pread(self._fd, self._starts[bucket + 1] - start, start)
        at = records.find(name)
        while at >= 0:
            if at % RECORD_BYTES == 0:
                return _NUMBERS.unpack_from(records, at + NAME_BYTES)
            at = records.find(name, at + 1)
        return None


def make_table(
    blocks: Iterable[bytes | bytearray], count: int, *, in_file: bool | None = None
) -> RecordTable:
    """A table of records that come in blocks, ascending.

    Args:
        blocks: the records.
        count: how many they are.
        in_file: keep it in a temporary file; usually only if it is longer than
            ``TABLE_BYTES_MAX``.

    Raises:
        RepositoryError: if they do not ascend, or are no hashes.
        TargetError: if there is no room for a temporary file.
    """
    maker = _Maker(count, in_file=in_file)
    try:
        for block in blocks:
            maker.add(block)
        return maker.finish()
    finally:
        maker.close()


def merge_tables(tables: Sequence[RecordTable]) -> RecordTable:
    """One table with the records of all of them.

    Raises:
        TargetError: if there is no room for a temporary file.
    """
    count = sum(map(len, tables))
    return make_table(_merged(tables, count), count)


def _merged(tables: Sequence[RecordTable], count: int) -> Iterator[bytes]:
    bits = max(0, (count // _BLOCK_RECORDS).bit_length())
    borders = ([table.start_of(prefix, bits) for table in tables] for prefix in range(2**bits + 1))
    for starts, ends in pairwise(borders):
        pieces = [
            table.read(start, end)
            for table, start, end in zip(tables, starts, ends, strict=True)
            if start < end
        ]
        # The pieces ascend already: sorting them merges runs.
        records = [record for (record,) in _RECORD.iter_unpack(b"".join(pieces))]
        records.sort()
        yield b"".join(records)


def sorted_records(records: bytearray) -> bytes:
    """Records in the order that tables have."""
    return b"".join(sorted(record for (record,) in _RECORD.iter_unpack(records)))


def join_columns(names: bytes | bytearray | memoryview, numbers: Sequence[array[int]]) -> bytearray:
    """Records, of the columns of names, groups, offsets and lengths."""
    records = bytearray(RECORD_BYTES // NAME_BYTES * len(names) + 12 * len(numbers[0]))
    words = memoryview(records).cast("I")
    name_words = memoryview(names).cast("I")
    for word in range(8):
        words[word::11] = name_words[word::8]
    for word, column in enumerate(numbers, 8):
        words[word::11] = memoryview(_little(column))
    return records


def split_columns(records: bytes | bytearray) -> tuple[bytearray, list[array[int]]]:
    """Names, and the columns of groups, offsets and lengths, of records."""
    words = memoryview(records).cast("I")
    names = bytearray(len(records) // RECORD_BYTES * NAME_BYTES)
    name_words = memoryview(names).cast("I")
    for word in range(8):
        name_words[word::8] = words[word::11]
    columns = [_little(array("I", words[word::11].tobytes())) for word in (8, 9, 10)]
    return names, columns


def _little(column: array[int]) -> array[int]:
    """Numbers of this machine as little-endian ones, and back."""
    if sys.byteorder != "little":
        column = column[:]
        column.byteswap()
    return column


def _prefixes(records: bytes | bytearray) -> list[int]:
    """The first 4 bytes of each record's name."""
    found = array("I", memoryview(records).cast("I")[::11].tobytes())
    if sys.byteorder == "little":
        found.byteswap()
    return found.tolist()


def _temporary_file() -> IO[bytes]:
    """A file without a name."""
    try:
        return tempfile.TemporaryFile(prefix="imprint-", buffering=0)
    except OSError as failure:
        raise _no_file(failure) from failure


def _no_file(failure: OSError) -> TargetError:
    return TargetError(
        f"cannot keep the index in a temporary file: {failure.strerror}",
        name=tempfile.gettempdir(),
    )


class _Maker:
    """Takes the records of a table in order, and finds out where prefixes begin."""

    def __init__(self, count: int, *, in_file: bool | None) -> None:
        size = RECORD_BYTES * count
        self._file: IO[bytes] | None = None
        self._records: bytearray | None = None
        if size > TABLE_BYTES_MAX if in_file is None else in_file:
            self._file = _temporary_file()
        else:
            self._records = bytearray()
        bits = (count // _BUCKET_RECORDS).bit_length()
        self._bits = bits
        self._starts = array("Q", [0]) * ((1 << bits) + 1)
        self._next = 0  # the first prefix whose beginning is not known
        self._last = 0
        self._size = 0

    def add(self, block: bytes | bytearray) -> None:
        """Take some records."""
        if not block:
            return
        prefixes = _prefixes(block)
        if prefixes[0] < self._last or prefixes != sorted(prefixes):
            raise RepositoryError("index: expected names in ascending order")
        self._last = prefixes[-1]
        shift = 32 - self._bits
        cut = 0
        for bucket in range(self._next, (prefixes[-1] >> shift) + 1):
            cut = bisect_left(prefixes, bucket << shift, cut)
            self._starts[bucket] = self._size + RECORD_BYTES * cut
        self._next = (prefixes[-1] >> shift) + 1
        self._size += len(block)
        if self._records is not None:
            self._records += block
        else:
            self._write(block)

    def _write(self, block: bytes | bytearray) -> None:
        assert self._file is not None
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as failure:
            raise _no_file(failure) from failure

    def finish(self) -> RecordTable:
        """The table."""
        starts = self._starts
        for bucket in range(self._next, len(starts)):
            starts[bucket] = self._size
        limit = RECORD_BYTES * _BUCKET_RECORDS_MAX
        if self._size > limit and any(end - start > limit for start, end in pairwise(starts)):
            raise RepositoryError("index: expected names that are hashes")
        if self._file is not None:
            return _TableInFile(self._file, starts, self._bits)
        assert self._records is not None
        return _TableInMemory(self._records, starts, self._bits)

    def close(self) -> None:
        """Close the file; a table has its own handle of it."""
        if self._file is not None:
            self._file.close()
