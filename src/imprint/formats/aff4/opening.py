"""Finding the disk in a container, in all volumes that it is spread over."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    ReferenceRefusedError,
    UnsupportedFeatureError,
)
from imprint.formats.aff4 import codec, maps, turtle
from imprint.formats.aff4.archive import Archive
from imprint.formats.aff4.maps import MapStream, Symbol, symbol_named
from imprint.formats.aff4.streams import ImageStream, StreamShape

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Storage
    from imprint.formats.aff4.turtle import Graph

DESCRIPTION: Final = "container.description"
INFORMATION: Final = "information.turtle"
VERSION: Final = "version.txt"

SUFFIXES: Final = (".aff4", ".af4")
_SCHEME: Final = "aff4://"
_ESCAPED_SCHEME: Final = "aff4%3A%2F%2F"
_SMALL_BYTES_MAX: Final = 4096
_CHUNKS_PER_BEVY: Final = 2048
_CHUNK_SIZE: Final = 32768
_VOLUMES_MAX: Final = 64


@dataclass
class Volume:
    """One file of a container."""

    archive: Archive
    graph: Graph
    urn: str

    def prefix(self, urn: str) -> str | None:
        """How members of a stream begin here, if there are any."""
        candidates = [urn.replace(_SCHEME, _ESCAPED_SCHEME, 1)]
        if self.urn and urn.startswith(self.urn + "/"):
            candidates.insert(0, urn[len(self.urn) + 1 :])
        for prefix in candidates:
            for member in ("map", "00000000", "00000000.index", "00000000/index"):
                if f"{prefix}/{member}" in self.archive:
                    return prefix
        return None


@dataclass
class Found:
    """A disk and what it is made of.

    Attributes:
        storage: the file that was named.
        volumes: that it is in, that file's first.
        image: name of the disk.
        data: its bytes.
        size: in bytes.
        sector: in bytes.
        streams: stored ones that it uses.
        maps: that it uses; the disk's own first.
        missing: names of streams that are in no file.
    """

    storage: Storage
    volumes: list[Volume]
    image: str
    data: MapStream | ImageStream | Symbol
    size: int
    sector: int
    streams: list[ImageStream] = field(default_factory=list)
    maps: list[MapStream] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Close all files."""
        for volume in self.volumes:
            volume.archive.storage.close()

    def close_others(self) -> None:
        """Close those that the caller did not open."""
        for volume in self.volumes[1:]:
            volume.archive.storage.close()


def open_volume(storage: Storage) -> Volume:
    """Read the directory and the description of one file.

    Raises:
        FormatError: if it is not a volume.
    """
    archive = Archive(storage)
    urn = archive.comment
    if DESCRIPTION in archive:
        urn = archive.read(DESCRIPTION, _SMALL_BYTES_MAX)
    if INFORMATION not in archive:
        raise CorruptImageError(f"expected a member {INFORMATION}, found none", name=storage.name)
    graph = turtle.parse(archive.read(INFORMATION, turtle.BYTES_MAX), where=storage.name)
    return Volume(archive, graph, urn.decode("utf-8", "replace").strip("\0\r\n "))


def find(storage: Storage, opener: Opener, *, incomplete: bool = False) -> Found:
    """The disk in ``storage``. On an error nothing but that stays open.

    Args:
        storage: one file of the container.
        opener: for the others.
        incomplete: what is in a file that is not there is ``BAD``.

    Raises:
        FormatError: if there is none, or it is not sound.
        ReferenceRefusedError: if part of it is in a file that is not there.
    """
    finder = _Finder(storage, opener, incomplete=incomplete)
    try:
        return finder.run()
    except BaseException:
        for volume in finder.volumes[1:]:
            volume.archive.storage.close()
        raise


class _Finder:
    """One search."""

    def __init__(self, storage: Storage, opener: Opener, *, incomplete: bool) -> None:
        self._storage = storage
        self._opener = opener
        self._incomplete = incomplete
        self._missing: list[str] = []
        self.volumes = [open_volume(storage)]
        self._has_looked = False
        self._open: dict[str, MapStream | ImageStream] = {}
        self._streams: list[ImageStream] = []
        self._maps: list[MapStream] = []

    def run(self) -> Found:
        """Find the image, and open what it is made of."""
        graph = self.volumes[0].graph
        image = self._image(graph)
        name = graph.first(image, "datastream") or image
        data = self._target(name, ())
        own = data.size if isinstance(data, MapStream) else 0
        if isinstance(data, ImageStream):
            own = data.shape.size
        size = _number(graph.first(image, "size"), own)
        if not 0 <= size <= maps.SIZE_MAX:
            raise self._error(f"expected a disk of at most {maps.SIZE_MAX} bytes, found {size}")
        if not isinstance(data, Symbol) and own != size:
            raise self._error(f"expected {size} bytes of data, found a stream of {own}")
        sector = _number(graph.first(image, "blocksize"), 512)
        if sector.bit_count() != 1 or not 512 <= sector <= 1 << 16:
            sector = 512
        return Found(
            self._storage,
            self.volumes,
            image,
            data,
            size,
            sector,
            streams=self._streams,
            maps=sorted(self._maps, key=lambda found: found is not data),
            missing=self._missing,
        )

    def _image(self, graph: Graph) -> str:
        """The name of the disk; of a memory image, its map."""
        kinds = ("diskimage", "contiguousimage", "discontiguousimage", "image", "map")
        for kind in kinds:
            found = [
                subject
                for subject in graph.of_kind(kind)
                if "fileimage" not in graph.kinds(subject)
            ]
            if len(found) > 1:
                raise UnsupportedFeatureError(
                    f"expected one disk image, found {len(found)}", name=self._storage.name
                )
            if found:
                return found[0]
        if graph.of_kind("fileimage"):
            raise UnsupportedFeatureError(
                "holds files (AFF4-L), not a disk", name=self._storage.name
            )
        found = graph.of_kind("imagestream", "stream")
        if len(found) != 1:
            raise self._error(f"expected a disk image, found none and {len(found)} streams")
        return found[0]

    def _target(self, name: str, path: tuple[str, ...]) -> MapStream | ImageStream | Symbol:
        """What a name stands for: a symbol, or a stream in one of the volumes."""
        symbol = symbol_named(name)
        if symbol is not None:
            return symbol
        if name in path or len(path) >= maps.DEPTH_MAX:
            raise self._error(f"expected maps without a loop, found {name!r} in one")
        if name in self._open:
            return self._open[name]
        place = self._volume_of(name)
        if place is None:
            self._missing.append(name)
            return maps.UNREADABLE
        volume, prefix = place
        found: MapStream | ImageStream
        if f"{prefix}/map" in volume.archive:
            found = self._map(volume, prefix, name, (*path, name))
            self._maps.append(found)
        else:
            found = ImageStream(volume.archive, self._shape(volume, prefix, name))
            self._streams.append(found)
        self._open[name] = found
        return found

    def _map(self, volume: Volume, prefix: str, name: str, path: tuple[str, ...]) -> MapStream:
        archive, graph = volume.archive, volume.graph
        where = archive.storage.name
        listed = maps.target_names(
            archive.read(f"{prefix}/idx", maps.TARGETS_BYTES_MAX), where=where
        )
        targets = [self._target(target, path) for target in listed]
        gaps = self._target(graph.first(name, "mapgapdefaultstream") or "x#Zero", path)
        if not isinstance(gaps, Symbol):
            raise UnsupportedFeatureError(
                f"expected gaps of a symbolic stream, found {gaps!r}", name=where
            )
        points = archive.read(f"{prefix}/map", maps.ENTRIES_BYTES_MAX)
        size = _number(graph.first(name, "size"), -1)
        found = MapStream(name, max(size, 0), points, targets, gaps, where=where)
        if size < 0:
            found.size = max(found.ends, default=0)
        return found

    def _shape(self, volume: Volume, prefix: str, name: str) -> StreamShape:
        graph = volume.graph
        return StreamShape(
            name,
            prefix,
            size=_number(graph.first(name, "size"), -1),
            chunk_size=_number(graph.first(name, "chunksize"), _CHUNK_SIZE),
            chunks_per_bevy=_number(
                graph.first(name, "chunksinsegment", "chunkspersegment"), _CHUNKS_PER_BEVY
            ),
            method=codec.method_named(
                graph.first(name, "compressionmethod", "compression"),
                where=volume.archive.storage.name,
            ),
        )

    def _volume_of(self, name: str) -> tuple[Volume, str] | None:
        """Where the members of a stream are: here, or in a file beside this one; or nowhere."""
        for volume in self.volumes:
            prefix = volume.prefix(name)
            if prefix is None and volume.graph.first(name, "size") == "0":
                prefix = name.replace(_SCHEME, _ESCAPED_SCHEME, 1)  # empty, so there is no member
            if prefix is not None:
                return volume, prefix
        if not self._has_looked:
            self._has_looked = True
            self._look_around()
            return self._volume_of(name)
        if self._incomplete:
            return None
        raise ReferenceRefusedError(
            f"expected the stream {name!r} here or in a file beside it, found neither",
            name=self._storage.name,
            advice="put all files of the set into one folder",
        )

    def _look_around(self) -> None:
        """Open the other volumes of the set: those that speak of the same image."""
        image = self._image(self.volumes[0].graph)
        own = PurePosixPath(self._storage.name).suffix
        for suffix in dict.fromkeys((own, *SUFFIXES) if own else SUFFIXES):
            for sibling in self._opener.siblings(self._storage, suffix):
                if not self._takes(sibling, image):
                    sibling.close()

    def _takes(self, sibling: Storage, image: str) -> bool:
        if any(volume.archive.storage.name == sibling.name for volume in self.volumes):
            return False
        try:
            volume = open_volume(sibling)
        except ImagingError:
            return False  # a neighbour that cannot be read is not the one that is looked for
        if image not in volume.graph.subjects or len(self.volumes) >= _VOLUMES_MAX:
            return False
        self.volumes.append(volume)
        return True

    def _error(self, message: str) -> CorruptImageError:
        return CorruptImageError(message, name=self._storage.name)


def _number(text: str | None, default: int) -> int:
    """A whole number; what is none counts as an impossible one."""
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else -1
