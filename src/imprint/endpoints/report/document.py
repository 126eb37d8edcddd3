"""The DFXML around the files: what made it, the disk, its partitions, its volumes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from imprint.core.version import VERSION
from imprint.endpoints.dfxml import add, add_creator, new_document, rendered
from imprint.endpoints.evidence import environment, without_secrets_of
from imprint.endpoints.report.on_disk import places_of
from imprint.endpoints.report.records import text_of
from imprint.filesystems.blocks import block_size
from imprint.filesystems.tree import shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree import ElementTree as ET

    from imprint.core.contracts import Source
    from imprint.endpoints.browsing import BrowsedVolume
    from imprint.endpoints.survey import Survey

OWN: Final = "urn:imprint:report:1"
_END: Final = "</dfxml>\n"


def opening(image: str, disk: Source, survey: Survey, command_line: Sequence[str]) -> str:
    """All before the first volume."""
    root = new_document(OWN)
    metadata = add(root, "metadata")
    add(metadata, "dc:type", "Disk Image")
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts: dict[str, Any] = {
        "program": {"name": "imprint", "version": VERSION},
        "environment": environment(),
        "command_line": [without_secrets_of(word) for word in command_line],
        "started": started,
    }
    add_creator(root, facts)
    add(add(root, "source"), "image_filename", without_secrets_of(shown(image)))
    whole = add(root, "diskimageobject")
    _run(whole, 0, disk.size)
    table = survey.table
    if table is not None:
        add(whole, "sector_size", table.sector_size)
        _partitions(add(root, "partitionsystemobject"), survey)
    return rendered(root).removesuffix(_END)


def _partitions(system: ET.Element, survey: Survey) -> None:
    table = survey.table
    assert table is not None
    add(system, "pstype_str", table.kind)
    for item in survey.volumes:
        part = item.partition
        element = add(system, "partitionobject")
        _run(element, part.start, part.length)
        add(element, "partition_index", part.index)
        add(element, "ptype_str", part.type)


def _run(parent: ET.Element, offset: int, length: int) -> None:
    run = add(add(parent, "byte_runs"), "byte_run")
    run.set("img_offset", str(offset))
    run.set("len", str(length))


def volume_start(volume: BrowsedVolume, disk: Source, *, deleted: bool) -> str:
    """The beginning of a volume, up to its files."""
    places = places_of(volume.source, disk)
    offset = places if isinstance(places, int) else None
    block = None if volume.kind is None else block_size(volume.kind, volume.source)
    size = volume.source.size
    facts = (
        ("partition_offset", offset),
        ("block_size", block),
        ("ftype_str", None if volume.kind is None else text_of(volume.kind)),
        ("block_count", block and size // block),
        ("first_block", block and 0),
        ("last_block", block and (size // block - 1 or None)),
        ("allocated_only", int(not deleted)),
    )
    start = "" if offset is None else f' offset="{offset}"'
    name = text_of(volume.name or "disk").replace('"', "&quot;")
    lines = "".join(f"<{tag}>{value}</{tag}>\n" for tag, value in facts if value is not None)
    return f'<volume{start} imprint:name="{name}">\n{lines}'


def volume_end(errors: Sequence[str]) -> str:
    """The end of a volume, and what could not be followed in it."""
    return f"{error_element(errors)}</volume>\n"


def error_element(errors: Sequence[str]) -> str:
    """What went wrong, if anything did."""
    return f"<error>{text_of('; '.join(errors))}</error>\n" if errors else ""


def closing_text() -> str:
    """The end of all."""
    return _END
