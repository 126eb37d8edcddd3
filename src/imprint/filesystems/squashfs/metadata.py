"""Metadata of SquashFS: tables as rows of small compressed blocks, which are read by pieces."""

from __future__ import annotations

import struct
import sys
from array import array
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import MIB
from imprint.filesystems.squashfs.layout import METADATA_BYTES, METADATA_STORED

if TYPE_CHECKING:
    from imprint.filesystems.allocation import VolumeReader
    from imprint.filesystems.squashfs.compressors import Unpack

_KEPT_BYTES: Final = 4 * MIB
_LENGTH: Final = struct.Struct("<H")


class Metadata:
    """Unpacked metadata blocks by where they lie. For one thread."""

    def __init__(self, reader: VolumeReader, unpack: Unpack) -> None:
        self._reader = reader
        self._unpack = unpack
        self._blocks: dict[int, tuple[bytes, int]] = {}

    @property
    def name(self) -> str:
        """Of the volume."""
        return self._reader.name

    def block(self, place: int) -> tuple[bytes, int]:
        """The block at a place of the volume, and the place of the next one.

        Raises:
            CorruptImageError: if there is none.
            UnsupportedFeatureError: if a library is missing.
            ReadError: if it cannot be read.
        """
        found = self._blocks.pop(place, None)
        if found is None:
            found = self._read(place)
            if len(self._blocks) >= _KEPT_BYTES // METADATA_BYTES:
                del self._blocks[next(iter(self._blocks))]
        self._blocks[place] = found
        return found

    def table(self, places: int, count: int, size: int) -> array[int]:
        """The places of the blocks of a table of ``count`` entries of ``size`` bytes."""
        blocks = -(-count * size // METADATA_BYTES)
        found = array("Q")
        found.frombytes(self._reader.read(places, blocks * found.itemsize, "places of a table"))
        if sys.byteorder == "big":
            found.byteswap()
        return found

    def _read(self, place: int) -> tuple[bytes, int]:
        (head,) = _LENGTH.unpack(self._reader.read(place, _LENGTH.size, "metadata block"))
        length = head & ~METADATA_STORED
        if not 0 < length <= METADATA_BYTES:
            raise CorruptImageError(
                f"metadata block at 0x{place:x}: expected 1 to {METADATA_BYTES} bytes, "
                f"found {length}",
                name=self.name,
            )
        start = place + _LENGTH.size
        data = bytes(self._reader.read(start, length, "metadata block"))
        if not head & METADATA_STORED:
            try:
                data = self._unpack(data, METADATA_BYTES)
            except CorruptImageError as failure:
                raise CorruptImageError(
                    f"metadata block at 0x{place:x}: {failure.args[0]}", name=self.name
                ) from failure
        if not data:
            raise CorruptImageError(
                f"metadata block at 0x{place:x}: expected bytes, found none", name=self.name
            )
        return data, start + length


class Cursor:
    """Reads on in a row of metadata blocks."""

    def __init__(self, metadata: Metadata, place: int, offset: int) -> None:
        """From a byte of the block at a place of the volume."""
        self._metadata = metadata
        self._place = place
        self._offset = offset

    @property
    def here(self) -> tuple[int, int]:
        """Where it stands: for another one."""
        return self._place, self._offset

    def read(self, length: int) -> bytes:
        """Exactly as many bytes.

        Raises:
            CorruptImageError: if there are not as many.
            UnsupportedFeatureError: if a library is missing.
            ReadError: if they cannot be read.
        """
        block, following = self._metadata.block(self._place)
        end = self._offset + length
        if end <= len(block):
            found = block[self._offset : end]
            self._offset = end
            return found
        if self._offset > len(block):
            raise CorruptImageError(
                f"metadata block at 0x{self._place:x}: expected more than {len(block)} bytes",
                name=self._metadata.name,
            )
        parts = [block[self._offset :]]
        missing = length - len(parts[0])
        while missing:
            self._place = following
            block, following = self._metadata.block(self._place)
            parts.append(block[:missing])
            self._offset = len(parts[-1])
            missing -= self._offset
        return b"".join(parts)
