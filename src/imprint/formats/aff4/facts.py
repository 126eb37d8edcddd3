"""What a container says of its disk, its case and its medium."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError
from imprint.core.extent import Kind
from imprint.core.info import ImageInfo
from imprint.formats.aff4 import codec
from imprint.formats.aff4.maps import MapStream, Symbol
from imprint.formats.aff4.opening import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.info import Value
    from imprint.formats.aff4.opening import Found
    from imprint.formats.aff4.turtle import Graph, Term

CASE: Final = {
    "casenumber": "case_number",
    "casename": "case_name",
    "casedescription": "description",
    "evidencenumber": "evidence_number",
    "examiner": "examiner",
    "notes": "notes",
}
MEDIUM: Final = {
    "diskmake": "make",
    "make": "make",
    "diskmodel": "model",
    "model": "model",
    "diskserial": "serial_number",
    "serial": "serial_number",
    "diskfirmware": "firmware",
    "firmwarestring": "firmware",
    "diskinterfacetype": "interface",
    "diskdevicename": "device",
    "devicename": "device",
    "devicehpamaxsector": "hpa_max_sector",
    "devicedcomaxsector": "dco_max_sector",
    "acquisitioncompletionstate": "completion",
    "acquisitiontype": "acquisition",
}
TIMES: Final = {"starttime": "started", "endtime": "ended"}
_VERSION_BYTES_MAX: Final = 4096
_VALUE_CHARACTERS_MAX: Final = 3000
_HEXADECIMAL: Final = frozenset(string.hexdigits)
_NOTES_MAX: Final = 100


def image_info(found: Found) -> ImageInfo:
    """All that the description of the first volume says."""
    graph = found.volumes[0].graph
    linear = linear_hashes(graph, found)
    has_unread = any(symbol.kind in (Kind.BAD, Kind.UNUSED) for symbol in symbols(found))
    options = _options(found)
    notes = list(_notes(found, graph))
    if has_unread and linear:
        # The standard hashes a text in place of what was not read; a disk reads zeros there.
        notes.append("its hash counts a text where nothing was read; check compares it")
    hashes = {} if has_unread else dict(linear)
    for name, digest in block_map_hashes(graph, found.image):
        hashes[f"blockMapHash-{name}"] = digest
    return ImageInfo(
        "aff4",
        found.size,
        options=options,
        hashes=hashes,
        case=_case(graph, found.image),
        uuid=found.image.rpartition("/")[2] or None,
        files=tuple(volume.archive.storage.name for volume in found.volumes[1:]),
        notes=tuple(notes),
        warnings=tuple(f"the stream {name} is in a file that is missing" for name in found.missing),
    )


def symbols(found: Found) -> Iterator[Symbol]:
    """Symbolic streams that the disk uses."""
    for item in found.maps:
        used = set(item.numbers)
        for number, target in enumerate(item.targets):
            if isinstance(target, Symbol) and number in used:
                yield target
        if isinstance(item.gaps, Symbol):
            yield item.gaps


def linear_hashes(graph: Graph, found: Found) -> dict[str, str]:
    """Digests of the whole disk, by name."""
    hashes: dict[str, str] = {}
    subjects = [found.image]
    if isinstance(found.data, MapStream):
        subjects.append(found.data.urn)
    elif not isinstance(found.data, Symbol):
        subjects.append(found.data.shape.urn)
    for subject in subjects:
        for predicate in ("hash", "linearhash"):
            for name, digest in digests(graph.terms(subject, predicate)):
                hashes.setdefault(name, digest)
    return hashes


def digests(terms: list[Term]) -> Iterator[tuple[str, str]]:
    """Names and hexadecimal digests, as far as they can be taken here."""
    for term in terms:
        name = term.datatype or ""
        if name in codec.HASHES and is_digest(term.value, name):
            yield name, term.value.lower()


def is_digest(text: str, name: str) -> bool:
    """Whether it is a hexadecimal digest of that kind."""
    return len(text) == 2 * codec.DIGEST_BYTES[name] and _HEXADECIMAL.issuperset(text)


def block_map_hashes(graph: Graph, image: str) -> Iterator[tuple[str, str]]:
    """The hash that covers all others, by what it is made with."""
    for term in graph.terms(image, "hash"):
        name = (term.datatype or "").removeprefix("blockmaphash")
        if name in codec.HASHES and name != term.datatype and is_digest(term.value, name):
            yield name, term.value.lower()


def _options(found: Found) -> dict[str, Value]:
    options: dict[str, Value] = {"volumes": len(found.volumes)}
    if found.streams:
        shape = found.streams[0].shape
        options["compression"] = shape.method
        options["chunk_size"] = shape.chunk_size
        options["block_hashes"] = ",".join(found.streams[0].hashes) or "none"
    options["version"] = "pre-standard" if _is_old(found) else _version(found)
    options["sector_size"] = found.sector
    return options


def _version(found: Found) -> str:
    archive = found.volumes[0].archive
    lines: dict[str, str] = {}
    try:
        if VERSION in archive:
            text = archive.read(VERSION, _VERSION_BYTES_MAX).decode("utf-8", "replace")
            pairs = (line.partition("=") for line in text.splitlines())
            lines = {key.strip(): value.strip() for key, _, value in pairs}
    except FormatError:
        return "unknown"
    version = f"{lines.get('major', '1')}.{lines.get('minor', '0')}"
    tool = lines.get("tool")
    return f"{version}, {tool}"[:200] if tool else version


def _is_old(found: Found) -> bool:
    return any(stream.is_old for stream in found.streams)


def _case(graph: Graph, image: str) -> dict[str, str]:
    """What is said of the case, here or in nodes that speak of the image."""
    case: dict[str, str] = {}
    subjects = [image]
    subjects += [subject for subject in graph.subjects if image in graph.values(subject, "target")]
    for subject in subjects[:_NOTES_MAX]:
        for predicate, name in {**CASE, **MEDIUM, **TIMES}.items():
            if predicate in MEDIUM and subject != image:
                continue
            for text in graph.values(subject, predicate):
                value = text[:_VALUE_CHARACTERS_MAX]
                if name == "notes" and case.get(name, value) != value:
                    case[name] = f"{case[name]}\n{value}"[:_VALUE_CHARACTERS_MAX]
                else:
                    case.setdefault(name, value)
    return case


def _notes(found: Found, graph: Graph) -> Iterator[str]:
    kinds = {symbol.kind for symbol in symbols(found)}
    if Kind.BAD in kinds:
        yield "parts of the medium could not be read when it was imaged"
    if Kind.UNUSED in kinds:
        yield "parts of the medium were left out when it was imaged"
    if "discontiguousimage" in graph.kinds(found.image):
        yield "the image is said to be discontiguous"
