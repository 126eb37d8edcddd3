"""Reading a CHD: lookups in the map, and its codecs."""

from __future__ import annotations

import binascii
import zlib
from typing import TYPE_CHECKING, Final

from imprint.core.buffers import fill_zero
from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, TruncatedImageError, UnsupportedFeatureError
from imprint.core.extent import Extent, Kind
from imprint.core.info import ImageInfo
from imprint.formats.chd import huffman, hunkmap

if TYPE_CHECKING:
    from imprint.core.contracts import Source, Storage
    from imprint.core.info import Value
    from imprint.formats.chd.hunkmap import HunkMap
    from imprint.formats.chd.layout import Header

CODECS: Final = (b"zlib", b"lzma", b"zstd", b"huff", b"flac")
RUN_MAX: Final = 1024
"""Hunks that a lookup looks at: 0.1 ms."""
CRC16_VERSION: Final = 5
SELF_DEPTH_MAX: Final = 8
"""chdman never lets a hunk be the same as one that is the same as another."""


class ChdLayer:
    """A CHD opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(
        self,
        storage: Storage,
        header: Header,
        hunks: HunkMap,
        *,
        geometry: str | None = None,
        parent: Source | None = None,
    ) -> None:
        """Take over a storage.

        Args:
            storage: the file.
            header: of it, checked.
            hunks: its map.
            geometry: the hard disk's metadata, for :meth:`info`.
            parent: what the image builds upon; somebody else closes it.

        Raises:
            UnsupportedFeatureError: if a hunk needs a codec that is not here.
        """
        self._storage = storage
        self._header = header
        self._hunks = hunks
        self._geometry = geometry
        self._parent = parent
        _check_codecs(storage.name, header, hunks)

    @property
    def size(self) -> int:
        """As the header says."""
        return self._header.disk_size

    @property
    def traits(self) -> Traits:
        """The grain is the hunk."""
        return Traits(grain=self._header.hunk_size)

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, for as many hunks as lie alike.

        Raises:
            CorruptImageError: if it is nowhere.
            TruncatedImageError: if it lies behind the end of the file.
        """
        size = self._header.hunk_size
        index, within = divmod(offset, size)
        real = self._resolved(index)
        kind, position = self._hunks.kinds[real], self._hunks.offsets[real]
        limit = min(RUN_MAX, len(self._hunks.kinds) - index, -(-(within + length) // size))
        run = 1
        if real == index:
            run = self._run(index, limit)
        length = min(length, run * size - within)
        if kind == hunkmap.HOLE or (kind == hunkmap.PARENT and self._is_here(index, real)):
            return Extent(offset, length, Kind.HOLE)
        if kind == hunkmap.MINI and position == 0:
            return Extent(offset, length, Kind.ZERO)
        if kind != hunkmap.PLAIN:
            return Extent(offset, length, Kind.ENCODED, self._storage, position)
        position += within
        if position >= self._storage.size:
            raise self._truncated(index, position, size)
        return Extent(offset, length, Kind.DATA, self._storage, position)

    def unit(self, offset: int) -> Extent:
        """The hunk around ``offset``."""
        size = self._header.hunk_size
        index = offset // size
        start = index * size
        position = self._hunks.offsets[self._resolved(index)]
        length = min(size, self.size - start)
        return Extent(start, length, Kind.ENCODED, self._storage, position)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Decompress a hunk and compare its checksum.

        Raises:
            CorruptImageError: if it is damaged.
            TruncatedImageError: if it lies behind the end of the file.
        """
        index = self._resolved(unit.offset // self._header.hunk_size)
        kind = self._hunks.kinds[index]
        if kind == hunkmap.PARENT:
            self._read_parent(index, buffer)
            return
        size = self._header.hunk_size
        if kind == hunkmap.MINI:
            pattern = self._hunks.offsets[index].to_bytes(8, "big")
            buffer[:] = (pattern * (-(-size // 8)))[: len(buffer)]
            return
        data = self._decompressed(index, kind)
        buffer[:] = data if len(buffer) == size else data[: len(buffer)]

    def info(self) -> ImageInfo:
        """What header and metadata say."""
        header = self._header
        named = dict.fromkeys(codec for codec in header.codecs if any(codec))
        codecs = [codec.decode("ascii", "replace") for codec in named]
        options: dict[str, Value] = {
            "version": header.version,
            "hunk_size": header.hunk_size,
            "compression": ",".join(codecs) or "none",
        }
        if header.ids:
            options["id"] = header.ids[0]
        if self._geometry:
            options["geometry"] = self._geometry
        return ImageInfo(
            "chd",
            header.disk_size,
            options=options,
            parent=next(iter(header.parent_ids), None),
            parent_format="chd" if header.parent_ids else None,
            hashes=header.hashes,
        )

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()

    def _decompressed(self, index: int, kind: int) -> bytes:
        """A whole hunk, its checksum compared."""
        hunks, size = self._hunks, self._header.hunk_size
        offset, length = hunks.offsets[index], hunks.lengths[index]
        if length > 2 * size + 1024:
            raise CorruptImageError(
                f"hunk {index}: expected at most {size} bytes, found {length}",
                name=self._storage.name,
                offset=offset,
            )
        if offset + length > self._storage.size:
            raise self._truncated(index, offset, length)
        packed = bytearray(length)
        self._storage.readinto(memoryview(packed), offset)
        try:
            data = decompress(self._header.codecs[kind], bytes(packed), size)
            self._check_crc(index, kind, data)
        except CorruptImageError as failure:
            raise CorruptImageError(
                f"hunk {index}: {failure}", name=self._storage.name, offset=offset, length=length
            ) from failure
        return data

    def _check_crc(self, index: int, kind: int, data: bytes) -> None:
        if self._header.version == CRC16_VERSION:
            name, crc = "CRC-16", binascii.crc_hqx(data, 0xFFFF)
        elif kind == hunkmap.UNCHECKED:
            return
        else:
            name, crc = "CRC-32", zlib.crc32(data)
        expected = self._hunks.crcs[index]
        if crc != expected:
            raise CorruptImageError(f"expected the {name} 0x{expected:x}, found 0x{crc:x}")

    def _is_here(self, index: int, real: int | None = None) -> bool:
        """Whether a hunk is what the parent has at the same place; ``real``: if it is stored."""
        place = self._hunks.offsets[index if real is None else real] * self._header.parent_unit
        return place == index * self._header.hunk_size

    def _read_parent(self, index: int, buffer: memoryview) -> None:
        """What the parent has at a place that may be anywhere; zeros behind its end."""
        assert self._parent is not None
        place = self._hunks.offsets[index] * self._header.parent_unit
        length = max(0, min(len(buffer), self._parent.size - place))
        if length:
            self._parent.readinto(buffer[:length], place)
        fill_zero(buffer[length:])

    def _resolved(self, index: int) -> int:
        """The hunk that is stored, where one is the same as another."""
        hunks = self._hunks
        for _ in range(SELF_DEPTH_MAX):
            if hunks.kinds[index] == hunkmap.UNKNOWN:
                break
            if hunks.kinds[index] != hunkmap.SELF:
                return index
            other = hunks.offsets[index]
            if other >= len(hunks.kinds):
                break
            index = other
        raise CorruptImageError(
            f"hunk {index}: expected a hunk that is stored, found 0x{hunks.offsets[index]:x}",
            name=self._storage.name,
        )

    def _run(self, index: int, limit: int) -> int:
        """How many hunks from ``index`` on, which is stored, lie alike."""
        kinds, offsets = self._hunks.kinds, self._hunks.offsets
        kind, run = kinds[index], 1
        if kind == hunkmap.HOLE:
            while run < limit and kinds[index + run] == kind:
                run += 1
        elif kind == hunkmap.MINI and offsets[index] == 0:
            while run < limit and kinds[index + run] == kind and offsets[index + run] == 0:
                run += 1
        elif kind == hunkmap.PARENT and self._is_here(index):
            while run < limit and kinds[index + run] == kind and self._is_here(index + run):
                run += 1
        elif kind == hunkmap.PLAIN:
            position, size = offsets[index], self._header.hunk_size
            while (
                run < limit
                and kinds[index + run] == kind
                and offsets[index + run] == position + run * size
            ):
                run += 1
        else:
            while run < limit and kinds[index + run] < hunkmap.CODEC_COUNT:
                run += 1
        return run

    def _truncated(self, index: int, offset: int, length: int) -> TruncatedImageError:
        return TruncatedImageError(
            f"hunk {index}: expected {length} bytes at 0x{offset:x}, "
            f"found a file of {self._storage.size} bytes",
            name=self._storage.name,
            offset=offset,
            length=length,
        )


def _check_codecs(name: str, header: Header, hunks: HunkMap) -> None:
    """Refuse what could only be read in part.

    Raises:
        CorruptImageError: for compressed hunks of an image without compression.
        UnsupportedFeatureError: for hunks in a codec that is not here.
    """
    if any(kind in hunks.kinds for kind in range(len(header.codecs), hunkmap.CODEC_COUNT)):
        raise CorruptImageError("map: expected no compressed hunks, found some", name=name)
    for kind, codec in enumerate(header.codecs):
        if kind not in hunks.kinds or codec in CODECS:
            continue
        known = ", ".join(known.decode("ascii") for known in CODECS)
        raise UnsupportedFeatureError(
            f"expected hunks in {known}, found some in {codec.decode('ascii', 'replace')!r}",
            name=name,
            advice="chdman copy -c zlib,lzma makes an image that can be read",
        )


def decompress(codec: bytes, packed: bytes, size: int) -> bytes:
    """A whole hunk, by one of ``CODECS``.

    Raises:
        CorruptImageError: if it is damaged, or not ``size`` bytes.
    """
    if codec == b"zlib":
        from imprint.codecs import deflate

        return deflate.decompress(packed, size)
    if codec == b"zstd":
        from imprint.codecs import zstd

        return zstd.decompress(packed, size)
    if codec == b"huff":
        return huffman.decompress(packed, size)
    if codec == b"flac":
        from imprint.formats.chd import flac

        return flac.decompress(packed, size)
    assert codec == b"lzma"
    return _decompress_lzma(packed, size)


def _decompress_lzma(packed: bytes, size: int) -> bytes:
    """LZMA without any header: the properties are the encoder's defaults."""
    import lzma

    dictionary = max(4096, 1 << (size - 1).bit_length())
    properties = {
        "id": lzma.FILTER_LZMA1,
        "dict_size": dictionary,
        "lc": 3,
        "lp": 0,
        "pb": 2,
    }
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[properties])
        found = decoder.decompress(packed, size)
    except (lzma.LZMAError, EOFError) as failure:
        raise CorruptImageError(f"expected an LZMA stream: {failure}") from failure
    if len(found) != size:
        raise CorruptImageError(f"expected an LZMA stream of {size} bytes, found {len(found)}")
    return found
