"""An acquisition as DFXML: for tools that read what imagers document.

The first byte run is the disk, with its hashes; then come pieces, with theirs, and bad areas, of
type ``unreadable``. What the schema has no words for is in a namespace of our own.

Source: Digital Forensics XML, schema 2.0.0-beta.0 (dfxml-working-group/dfxml_schema).
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET  # only written here, never parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

DFXML: Final = "http://www.forensicswiki.org/wiki/Category:Digital_Forensics_XML"
DUBLIN_CORE: Final = "http://purl.org/dc/elements/1.1/"
OWN: Final = "urn:imprint:evidence:1"
_VERSION: Final = "2.0.0-beta.0"
_HASHES: Final = ("md5", "sha1", "sha256", "sha512")
# Characters that XML 1.0 cannot hold, in whatever form.
NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_dfxml(facts: Mapping[str, Any]) -> str:
    """The facts of an evidence log as a document."""
    root = new_document(OWN)
    _metadata(root, facts)
    add_creator(root, facts)
    source = add(root, "source")
    add(source, "image_filename", facts["source"]["address"])
    _disk(root, facts)
    return rendered(root)


def new_document(own: str) -> ET.Element:
    """An empty document; ``own`` is the namespace of what the schema has no words for."""
    root = ET.Element("dfxml", {"xmlns": DFXML, "xmlns:dc": DUBLIN_CORE, "xmlns:imprint": own})
    root.set("version", _VERSION)
    return root


def rendered(root: ET.Element) -> str:
    """A document as text."""
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _metadata(root: ET.Element, facts: Mapping[str, Any]) -> None:
    metadata = add(root, "metadata")
    add(metadata, "dc:type", "Disk Image")
    for name, value in facts["case"].items():
        add(metadata, "imprint:case", value, name=name)
    add(metadata, "imprint:target", facts["target"]["address"])
    for name in ("started", "ended", "result", "exit_code"):
        if facts[name] is not None:
            add(metadata, f"imprint:{name}", facts[name])


def add_creator(root: ET.Element, facts: Mapping[str, Any]) -> None:
    """What made it, from ``program``, ``environment``, ``command_line`` and ``started``."""
    creator = add(root, "creator")
    add(creator, "program", facts["program"]["name"])
    add(creator, "version", facts["program"]["version"])
    where = facts["environment"]
    inner = add(creator, "execution_environment")
    add(inner, "os_sysname", where["system"])
    add(inner, "os_release", where["release"])
    add(inner, "os_version", where["version"])
    add(inner, "host", where["host"])
    add(inner, "arch", where["machine"])
    add(inner, "command_line", shlex.join(facts["command_line"]))
    add(inner, "uid", where["uid"])
    add(inner, "username", where["user"])
    add(inner, "start_time", facts["started"])


def _disk(root: ET.Element, facts: Mapping[str, Any]) -> None:
    disk = add(root, "diskimageobject")
    for name, value in {**facts["source"].get("medium", {}), **_hidden(facts)}.items():
        if not isinstance(value, dict | list):
            add(disk, "imprint:medium", value, name=name)
    if facts["size"] is not None:
        runs = add(disk, "byte_runs")
        whole = {"offset": 0, "length": facts["size"], "hashes": facts["hashes"]["read"]}
        for piece in (whole, *facts["pieces"]):
            run = _run(runs, piece)
            for name, digest in piece["hashes"].items():
                _hash(run, name, digest)
        for area in facts["bad"]:
            _run(runs, area).set("type", "unreadable")
        add(disk, "sector_size", facts["sector_size"])
    if facts["error"] is not None:
        add(disk, "error", facts["error"])


def _hidden(facts: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = facts["hidden_areas"] or {}
    return found


def _run(runs: ET.Element, piece: Mapping[str, Any]) -> ET.Element:
    run = add(runs, "byte_run")
    run.set("img_offset", str(piece["offset"]))
    run.set("len", str(piece["length"]))
    return run


def _hash(run: ET.Element, name: str, digest: str) -> None:
    element = add(run, "hashdigest", digest, type=hash_type(name))
    if element.get("type") != name:
        element.set("imprint:algorithm", name)


def hash_type(name: str) -> str:
    """What the schema calls a hash."""
    return name if name in _HASHES else "other"


def add(parent: ET.Element, tag: str, text: object = None, **attributes: str) -> ET.Element:
    """An element below another one; what XML cannot hold becomes U+FFFD."""
    safe = {name: NO_XML.sub("\ufffd", value) for name, value in attributes.items()}
    element = ET.SubElement(parent, tag, safe)
    if text is not None:
        element.text = NO_XML.sub("\ufffd", str(text))
    return element
