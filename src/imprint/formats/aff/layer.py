"""A disk in pages, or in the raw files beside its description."""

from __future__ import annotations

import lzma
import zlib
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.extent import Extent, Kind
from imprint.core.info import ImageInfo
from imprint.core.units import MIB
from imprint.formats.aff import segments

if TYPE_CHECKING:
    from imprint.core.info import Value
    from imprint.formats.aff.opening import Found
    from imprint.formats.aff.segments import Page

_LZMA_MEMORY_MAX: Final = 96 * MIB
_HASHES: Final = {"md5": 16, "sha1": 20, "sha256": 32}
_CASE: Final = {
    "case_num": "case_number",
    "acquisition_date": "acquisition_date",
    "acquisition_notes": "notes",
    "acquisition_tech": "examiner",
    "acquisition_device": "device",
    "acquisition_commandline": "command_line",
    "device_manufacturer": "make",
    "device_model": "model",
    "device_sn": "serial_number",
    "device_firmware": "firmware",
}


class AffLayer:
    """Pages; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, found: Found) -> None:
        """Takes over all files."""
        self._found = found
        self._pages = found.contents.pages
        self._numbers = sorted(self._pages)

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._found.size

    @property
    def traits(self) -> Traits:
        """The grain is a page."""
        return Traits(grain=self._found.page_size, logical_sector=self._found.sector)

    def map(self, offset: int, length: int) -> Extent:
        """One page, or what is missing; of raw files, one file."""
        found = self._found
        if found.raws:
            return self._map_raw(offset, length)
        number, within = divmod(offset, found.page_size)
        wanted, length = length, min(length, found.page_size - within)
        page = self._pages.get(number)
        if page is None:
            # Up to the next page that is there: nobody wants to hear of each one.
            index = bisect_right(self._numbers, number)
            if index < len(self._numbers):
                end = min(self.size, self._numbers[index] * found.page_size)
            else:
                end = self.size
            return Extent(offset, min(wanted, end - offset), Kind.BAD)
        if page.method == segments.METHOD_ZERO:
            return Extent(offset, length, Kind.ZERO)
        if page.method is not None:
            return Extent(offset, length, Kind.ENCODED, page.storage, page.offset)
        if within + length > page.length:
            raise self._error(number, f"expected {within + length} bytes, found {page.length}")
        return Extent(offset, length, Kind.DATA, page.storage, page.offset + within)

    def unit(self, offset: int) -> Extent:
        """The page around ``offset``."""
        number = offset // self._found.page_size
        page = self._pages[number]
        start = number * self._found.page_size
        length = min(self._found.page_size, self.size - start)
        return Extent(start, length, Kind.ENCODED, page.storage, page.offset)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Unpack the page."""
        number = unit.offset // self._found.page_size
        page = self._pages[number]
        if page.length > 2 * self._found.page_size + segments.Head.SIZE:
            raise self._error(number, f"expected a packed page, found {page.length} bytes")
        stored = bytearray(page.length)
        page.storage.readinto(memoryview(stored), page.offset)
        data = self._unpack(number, page, stored)
        if len(data) < len(buffer):
            raise self._error(number, f"expected {len(buffer)} bytes, found {len(data)}")
        buffer[:] = memoryview(data)[: len(buffer)]

    def info(self) -> ImageInfo:
        """What the segments say."""
        found, contents = self._found, self._found.contents
        hashes = {
            name: contents.values[name].hex()
            for name, size in _HASHES.items()
            if len(contents.values.get(name, b"")) == size
        }
        options: dict[str, Value] = {"kind": found.kind, "page_size": found.page_size}
        options["files"] = 1 + len(found.others)
        if contents.text("afflib_version"):
            options["afflib_version"] = contents.text("afflib_version")
        notes = []
        bad = contents.quad("badsectors")
        if bad:
            notes.append(f"{bad} sectors hold the mark of sectors that could not be read")
        return ImageInfo(
            "aff",
            self.size,
            options=options,
            hashes=hashes,
            case={key: contents.text(name) for name, key in _CASE.items() if contents.text(name)},
            uuid=contents.values.get("image_gid", b"").hex() or None,
            files=tuple(storage.name for storage in found.others),
            notes=tuple(notes),
            warnings=tuple(found.warnings + contents.faults[:10]),
        )

    def close(self) -> None:
        """Close all files."""
        self._found.storage.close()
        self._found.close_others()

    def _map_raw(self, offset: int, length: int) -> Extent:
        number, within = divmod(offset, self._found.raw_size)
        storage = self._found.raws[number]
        length = min(length, self._found.raw_size - within)
        if storage is None:
            return Extent(offset, length, Kind.BAD)
        if within >= storage.size:
            raise TruncatedImageError(
                f"expected {within + length} bytes, found {storage.size}", name=storage.name
            )
        length = min(length, storage.size - within)
        return Extent(offset, length, Kind.DATA, storage, within)

    def _unpack(self, number: int, page: Page, stored: bytearray) -> bytes:
        limit = self._found.page_size
        try:
            if page.method == segments.METHOD_ZLIB:
                return zlib.decompressobj().decompress(stored, limit)
            if page.method == segments.METHOD_LZMA:
                decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY_MAX)
                return decoder.decompress(stored, limit)
        except (zlib.error, lzma.LZMAError, EOFError) as failure:
            raise self._error(number, f"expected packed data: {failure}") from failure
        raise UnsupportedFeatureError(
            f"page {number}: expected zlib or LZMA, found method 0x{page.method or 0:02x}",
            name=page.storage.name,
        )

    def _error(self, number: int, message: str) -> CorruptImageError:
        return CorruptImageError(f"page {number}: {message}", name=self._found.storage.name)
