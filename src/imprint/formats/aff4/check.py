"""Reading all of a container, and comparing every hash that it keeps.

Source: *AFF4 Standard* 1.0, section 6.2 (Block Map Hashing).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, FormatError, UnsupportedFeatureError
from imprint.core.events import Finding, Severity
from imprint.core.extent import Kind
from imprint.core.units import GIB, MIB
from imprint.core.usage import FINDINGS_MAX, findings
from imprint.formats.aff4 import codec, facts, maps
from imprint.formats.aff4.layer import Aff4Layer
from imprint.formats.aff4.maps import MapStream, Symbol
from imprint.formats.aff4.opening import find
from imprint.formats.aff4.streams import SEGMENT_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.formats.aff4.opening import Found, Volume
    from imprint.formats.aff4.streams import ImageStream
    from imprint.formats.aff4.turtle import Graph, Term

_MAP_HASHES: Final[dict[str, tuple[str, ...]]] = {
    "mappointhash": ("map",),
    "mapidxhash": ("idx",),
    "mappathhash": ("mapPath",),
    "maphash": ("map", "idx", "mapPath"),
}
_HASHED_PER_STORED: Final = 1000
_PATH_BYTES_MAX: Final = 64 * MIB


def check(storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
    """Compare all hashes; a damaged chunk is named with the places that it has on the disk.

    Raises:
        UnsupportedFeatureError: for ``repair``: evidence is not changed.
        FormatError: if there is no disk to be found.
    """
    if repair:
        raise UnsupportedFeatureError("is evidence, which is never changed", name=storage.name)
    found = find(storage, opener)
    try:
        yield from findings(_problems(found))
        yield from _remarks(found)
    finally:
        found.close_others()


def _problems(found: Found) -> Iterator[tuple[str, str]]:
    for item in found.maps:
        yield from _map_problems(found, item)
    for stream in found.streams:
        volume = next(v for v in found.volumes if v.archive is stream.archive)
        yield from _table_problems(stream, volume.graph)
        yield from _ChunkCheck(found, stream, volume.graph).problems()
    yield from _tree_problems(found)
    yield from _linear_problems(found)


def _remarks(found: Found) -> Iterator[Finding]:
    hashed = any(stream.hashes for stream in found.streams)
    if found.streams and not hashed:
        yield Finding(Severity.INFO, "streams", "have no hashes of their chunks")
    if _wants_linear(found) and not _can_hash(found):
        yield Finding(Severity.INFO, "hash", "is not compared: the disk is too large for its data")


def _map_problems(found: Found, item: MapStream) -> Iterator[tuple[str, str]]:
    """The hashes of a map's members."""
    for volume in found.volumes:
        prefix = volume.prefix(item.urn)
        if prefix is None:
            continue
        for predicate, members in _MAP_HASHES.items():
            for name, digest in facts.digests(volume.graph.terms(item.urn, predicate)):
                taken = hashlib.new(name)
                for member in members:
                    if f"{prefix}/{member}" in volume.archive:
                        taken.update(volume.archive.read(f"{prefix}/{member}", _PATH_BYTES_MAX))
                if taken.hexdigest() != digest:
                    yield f"map {item.urn}", f"expected the {predicate} {digest}"


def _table_problems(stream: ImageStream, graph: Graph) -> Iterator[tuple[str, str]]:
    """Hashes of a stream's indices, and of its blocks' hashes."""
    urn = stream.shape.urn
    wanted = [
        (f"{name} of its chunks", stream.hash_member, name, terms)
        for name in stream.hashes
        for terms in (graph.terms(f"{urn}/blockhash.{name}", "hash"), _old_tree(graph, urn, name))
    ]
    problems: list[tuple[str, str]] = []
    for what, member, name, terms in wanted:
        for method, digest in facts.digests(terms):
            taken = hashlib.new(method)
            for bevy in _bevies(stream):
                taken.update(stream.archive.read(member(bevy, name), SEGMENT_BYTES_MAX))
            if taken.hexdigest() != digest:
                problems.append((f"stream {urn}", f"expected the hash {digest} of the {what}"))
    for method, digest in facts.digests(graph.terms(urn, "imagestreamindexhash")):
        taken = hashlib.new(method)
        for bevy in _bevies(stream):
            taken.update(stream.archive.read(stream.index_member(bevy), SEGMENT_BYTES_MAX))
        if taken.hexdigest() != digest:
            problems.append((f"stream {urn}", f"expected the hash {digest} of its indices"))
    yield from problems


def _old_tree(graph: Graph, urn: str, name: str) -> list[Term]:
    """Before the standard, the hash of hashes was taken by the same method."""
    return [term for term in graph.terms(urn, "blockhasheshash") if term.datatype == name]


def _bevies(stream: ImageStream) -> Iterator[int]:
    """Numbers of those that are there, and of the first that is not."""
    for bevy in range(stream.bevies):
        yield bevy
        if stream.member(bevy) not in stream.archive:
            return


class _ChunkCheck:
    """Every chunk of a stream, read once."""

    def __init__(self, found: Found, stream: ImageStream, graph: Graph) -> None:
        self._found = found
        self._stream = stream
        urn = stream.shape.urn
        self._linear = [
            (name, digest, hashlib.new(name))
            for name, digest in facts.digests(graph.terms(urn, "hash"))
        ]
        self._damaged: list[tuple[int, str]] = []

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong, by disk offset where there is one."""
        stream, size = self._stream, self._stream.shape.chunk_size
        buffer = memoryview(bytearray(size))
        for bevy in _bevies(stream):
            first = bevy * stream.shape.chunks_per_bevy
            count = min(stream.shape.chunks_per_bevy, stream.chunks - first)
            problem = self._bevy_problem(bevy, first, count)
            if problem is not None:
                yield f"bevy {bevy} of {stream.shape.urn}", problem
                if stream.member(bevy) not in stream.archive:
                    break
                continue
            for number in range(first, first + count):
                self._check(number, buffer)
                if len(self._damaged) > FINDINGS_MAX:
                    break
        yield from self._placed()
        if not self._damaged:
            for name, digest, taken in self._linear:
                if taken.hexdigest() != digest:
                    yield f"stream {stream.shape.urn}", f"expected the {name} {digest}"

    def _bevy_problem(self, bevy: int, first: int, count: int) -> str | None:
        """Whether its index is that of this bevy; chunks that overlap would never end."""
        stream = self._stream
        try:
            member = stream.archive.member(stream.member(bevy))
            total = 0
            for number in range(first, first + count):
                total += stream.place(number)[1]
                if total > member.size:
                    return f"expected chunks of {member.size} bytes together, found more"
        except FormatError as failure:
            return str(failure.args[0])
        return None

    def _check(self, number: int, buffer: memoryview) -> None:
        stream = self._stream
        data = buffer[: stream.chunk_length(number)]
        try:
            stream.read_chunk(number, data)
            for name in stream.hashes:
                digests = {hashlib.new(name, data).digest()}
                if len(data) < len(buffer):
                    digests.add(hashlib.new(name, stream.chunk(number)).digest())
                if stream.digest(number, name) not in digests:
                    raise CorruptImageError(f"its {name} is not the one that is stored")
        except FormatError as failure:
            self._damaged.append((number, str(failure.args[0])))
            return
        for _, _, taken in self._linear:
            taken.update(data)

    def _placed(self) -> Iterator[tuple[str, str]]:
        """Where on the disk damaged chunks are used."""
        numbers = [number for number, _ in self._damaged]
        places: dict[int, list[int]] = {number: [] for number in numbers}
        size = self._stream.shape.chunk_size
        data = self._found.data
        if isinstance(data, MapStream) and numbers:
            for start, end, offset, target in zip(
                data.starts, data.ends, data.offsets, data.numbers, strict=True
            ):
                if data.targets[target] is not self._stream:
                    continue
                index = bisect_left(numbers, offset // size)
                while index < len(numbers) and numbers[index] * size < offset + end - start:
                    inside = max(numbers[index] * size, offset)
                    places[numbers[index]].append(start + inside - offset)
                    index += 1
        for number, what in self._damaged:
            listed = ", ".join(f"0x{place:x}" for place in places[number][:4])
            where = f"disk at {listed}" if listed else f"stream at 0x{number * size:x}"
            yield where, what


def _tree_problems(found: Found) -> Iterator[tuple[str, str]]:
    """The hash over all others; of a set, over those of its volumes by the names of their maps."""
    for method, digest in facts.block_map_hashes(found.volumes[0].graph, found.image):
        trees: dict[str, bytes] = {}
        for volume in found.volumes:
            for data in volume.graph.values(found.image, "datastream"):
                if volume.prefix(data) is not None:
                    trees[data] = _tree(volume, data, method)
        if not trees:
            continue
        if len(trees) == 1:
            taken = next(iter(trees.values()))
        else:
            taken = hashlib.new(method, b"".join(trees[data] for data in sorted(trees))).digest()
        if taken.hex() != digest:
            yield "image", f"expected the block map hash {digest}, found {taken.hex()}"
    graph = found.volumes[0].graph
    for method, digest in facts.digests(graph.terms(found.image, "blockhasheshash")):
        if isinstance(found.data, MapStream):
            taken = _tree(found.volumes[0], found.image, method)
            if taken.hex() != digest:
                yield "image", f"expected the hash {digest} of all hashes, found {taken.hex()}"


def _tree(volume: Volume, data: str, method: str) -> bytes:
    """The hash of the hashes that are stored for a map and its streams."""
    graph = volume.graph
    taken = hashlib.new(method)
    streams = [
        urn
        for urn in (*graph.values(data, "dependentstream"), *graph.values(data, "contains"))
        if volume.prefix(urn) is not None
    ]
    for urn in streams:
        for name in codec.HASHES:
            for terms in (
                graph.terms(f"{urn}/blockhash.{name}", "hash"),
                _old_tree(graph, urn, name),
            ):
                for _, digest in facts.digests(terms):
                    taken.update(bytes.fromhex(digest))
    for predicate in ("mappointhash", "mapidxhash", "mappathhash"):
        for _, digest in facts.digests(graph.terms(data, predicate)):
            taken.update(bytes.fromhex(digest))
    return taken.digest()


def _wants_linear(found: Found) -> bool:
    """Whether there is a hash of the disk that counts what was not read."""
    unread = any(symbol.kind in (Kind.BAD, Kind.UNUSED) for symbol in facts.symbols(found))
    return unread and bool(facts.linear_hashes(found.volumes[0].graph, found))


def _can_hash(found: Found) -> bool:
    return found.size <= GIB + _HASHED_PER_STORED * found.storage.size


def _linear_problems(found: Found) -> Iterator[tuple[str, str]]:
    """Hashes of the disk with the standard's text where nothing was read."""
    if not _wants_linear(found) or not _can_hash(found):
        return
    layer = Aff4Layer(found)
    expected = facts.linear_hashes(found.volumes[0].graph, found)
    taken = {name: hashlib.new(name) for name in expected}
    buffer = memoryview(bytearray(MIB))
    position = 0
    while position < found.size:
        extent = layer.map(position, min(MIB, found.size - position))
        if extent.kind is Kind.ENCODED:
            extent = layer.unit(position)
        data = memoryview(bytearray(extent.length)) if extent.length > MIB else buffer
        data = data[: extent.length]
        if extent.kind is Kind.ENCODED:
            try:
                layer.decode(extent, data)
            except FormatError:
                return  # which chunk that is has been said
        else:
            symbol = {Kind.BAD: maps.UNREADABLE, Kind.UNUSED: maps.UNKNOWN}.get(
                extent.kind, maps.ZERO
            )
            symbol.fill(data, _inside(found.data, position))
        for state in taken.values():
            state.update(data)
        position = extent.end
    for name, digest in expected.items():
        if taken[name].hexdigest() != digest:
            yield "disk", f"expected the {name} {digest}, found {taken[name].hexdigest()}"


def _inside(data: MapStream | ImageStream | Symbol, offset: int) -> int:
    """Where in a symbolic stream the disk is at ``offset``."""
    if not isinstance(data, MapStream):
        return offset
    piece = data.piece(offset)
    return piece.offset + offset - piece.start
