"""Which MiB of the file are in use: blocks and regions lie at multiples of 1 MiB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import MIB, div_up
from imprint.formats.vhdx.bat import place_of
from imprint.formats.vhdx.header import Region
from imprint.formats.vhdx.layout import FILE_BYTES_MAX, HEADER_SECTION_BYTES

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.vhdx.bat import Bat
    from imprint.formats.vhdx.layer import Tables


class Space:
    """A byte for each MiB of the file: 1 if something is there.

    Attributes:
        end: MiB that the file has to have.
    """

    def __init__(self, name: str, file_bytes: int) -> None:
        """Raises UnsupportedFeatureError if the file is too long to tell."""
        if file_bytes > FILE_BYTES_MAX:
            raise UnsupportedFeatureError(
                f"expected a file of at most {FILE_BYTES_MAX} bytes, found {file_bytes}", name=name
            )
        self._name = name
        self._used = bytearray(div_up(file_bytes, MIB))
        self._hint = 0
        self.end = 0

    def is_free(self, offset: int, length: int) -> bool:
        """Whether a range of bytes is inside the file, and nothing is there."""
        first, count = offset // MIB, div_up(length, MIB)
        return first + count <= len(self._used) and not any(self._used[first : first + count])

    def claim(self, offset: int, length: int) -> None:
        """Mark a range as used, for the first time.

        Raises:
            CorruptImageError: if something is there, or it is not in the file.
        """
        if not self.is_free(offset, length):
            raise CorruptImageError(
                f"expected {length} bytes at 0x{offset:x} of the file that nothing else uses",
                name=self._name,
                offset=offset,
                advice="it can be read, and copied into a new image",
            )
        self._mark(offset // MIB, div_up(length, MIB), 1)

    def take(self, length: int) -> int:
        """The offset of a range that was free and is used from now on; may lie behind the end."""
        count = div_up(length, MIB)
        first = self._used.find(bytes(count), self._hint)
        if first < 0:
            first = self.end
            if count == 1:
                self._hint = first
        missing = first + count - len(self._used)
        if missing > 0:
            self._used.extend(bytes(missing))
        self._mark(first, count, 1)
        return first * MIB

    def give_back(self, offset: int, length: int) -> None:
        """Mark a range as free."""
        first = offset // MIB
        self._mark(first, div_up(length, MIB), 0)
        self._hint = min(self._hint, first)
        if self.end == first + div_up(length, MIB):
            self.end = len(self._used.rstrip(b"\0"))

    def unused(self) -> int:
        """How many MiB of the file nothing refers to."""
        return self._used.count(0)

    def _mark(self, first: int, count: int, value: int) -> None:
        self._used[first : first + count] = bytes([value]) * count
        if value:
            self.end = max(self.end, first + count)


def fixed_parts(tables: Tables) -> list[Region]:
    """What is no block: headers, log, regions."""
    header = tables.headers.header
    log = Region(header.log_offset, header.log_length)
    return [Region(0, HEADER_SECTION_BYTES), log, *tables.regions.used()]


def occupied(storage: Storage, tables: Tables, bat: Bat) -> Space:
    """The space of an image, everything claimed.

    Raises:
        CorruptImageError: if two things lie in the same place, or one is not in the file.
    """
    space = Space(storage.name, storage.size)
    for region in fixed_parts(tables):
        if region.length:
            space.claim(region.offset, region.length)
    count = tables.metadata.block_count
    for _, entry in bat.stored(count):
        space.claim(place_of(entry), tables.metadata.block_size)
    for _, entry in bat.bitmaps(count):
        space.claim(place_of(entry), MIB)
    return space
