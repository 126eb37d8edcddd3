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
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_dfxml(facts: Mapping[str, Any]) -> str:
    """The facts of an evidence log as a document."""
    root = ET.Element("dfxml", {"xmlns": DFXML, "xmlns:dc": DUBLIN_CORE, "xmlns:imprint": OWN})
    root.set("version", _VERSION)
    _metadata(root, facts)
    _creator(root, facts)
    source = _add(root, "source")
    _add(source, "image_filename", facts["source"]["address"])
    _disk(root, facts)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _metadata(root: ET.Element, facts: Mapping[str, Any]) -> None:
    metadata = _add(root, "metadata")
    _add(metadata, "dc:type", "Disk Image")
    for name, value in facts["case"].items():
        _add(metadata, "imprint:case", value, name=name)
    _add(metadata, "imprint:target", facts["target"]["address"])
    for name in ("started", "ended", "result", "exit_code"):
        if facts[name] is not None:
            _add(metadata, f"imprint:{name}", facts[name])


def _creator(root: ET.Element, facts: Mapping[str, Any]) -> None:
    creator = _add(root, "creator")
    _add(creator, "program", facts["program"]["name"])
    _add(creator, "version", facts["program"]["version"])
    where = facts["environment"]
    inner = _add(creator, "execution_environment")
    _add(inner, "os_sysname", where["system"])
    _add(inner, "os_release", where["release"])
    _add(inner, "os_version", where["version"])
    _add(inner, "host", where["host"])
    _add(inner, "arch", where["machine"])
    _add(inner, "command_line", shlex.join(facts["command_line"]))
    _add(inner, "uid", where["uid"])
    _add(inner, "username", where["user"])
    _add(inner, "start_time", facts["started"])


def _disk(root: ET.Element, facts: Mapping[str, Any]) -> None:
    disk = _add(root, "diskimageobject")
    for name, value in {**facts["source"].get("medium", {}), **_hidden(facts)}.items():
        if not isinstance(value, dict | list):
            _add(disk, "imprint:medium", value, name=name)
    if facts["size"] is not None:
        runs = _add(disk, "byte_runs")
        whole = {"offset": 0, "length": facts["size"], "hashes": facts["hashes"]["read"]}
        for piece in (whole, *facts["pieces"]):
            run = _run(runs, piece)
            for name, digest in piece["hashes"].items():
                _hash(run, name, digest)
        for area in facts["bad"]:
            _run(runs, area).set("type", "unreadable")
        _add(disk, "sector_size", facts["sector_size"])
    if facts["error"] is not None:
        _add(disk, "error", facts["error"])


def _hidden(facts: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = facts["hidden_areas"] or {}
    return found


def _run(runs: ET.Element, piece: Mapping[str, Any]) -> ET.Element:
    run = _add(runs, "byte_run")
    run.set("img_offset", str(piece["offset"]))
    run.set("len", str(piece["length"]))
    return run


def _hash(run: ET.Element, name: str, digest: str) -> None:
    if name in _HASHES:
        _add(run, "hashdigest", digest, type=name)
    else:
        _add(run, "hashdigest", digest, type="other").set("imprint:algorithm", name)


def _add(parent: ET.Element, tag: str, text: object = None, **attributes: str) -> ET.Element:
    safe = {name: _NO_XML.sub("\ufffd", value) for name, value in attributes.items()}
    element = ET.SubElement(parent, tag, safe)
    if text is not None:
        element.text = _NO_XML.sub("\ufffd", str(text))
    return element
