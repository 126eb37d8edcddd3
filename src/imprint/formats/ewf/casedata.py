"""What an examiner notes in an image: the texts of ``header``, ``header2`` and ``xheader``.

Source: libewf's document, "Header section", "Header2 section", "Xheader".
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.units import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TEXT_BYTES_MAX: Final = 1 << 20
"""Of one header, expanded: EnCase itself fails on more."""

VALUE_CHARS_MAX: Final = 2999
VERSION_CHARS_MAX: Final = 11
PLATFORM_CHARS_MAX: Final = 23

TAGS: Final = {
    "c": "case_number",
    "n": "evidence_number",
    "a": "description",
    "e": "examiner",
    "t": "notes",
    "m": "acquisition_date",
    "u": "system_date",
    "av": "software_version",
    "ov": "operating_system",
    "md": "model",
    "sn": "serial_number",
    "l": "device_label",
    "pid": "process_id",
    "p": "password_hash",
    "ext": "extents",
}
"""Columns of the table in a header, and what they are called here."""

_X_TAGS: Final = {
    "case_number": "case_number",
    "evidence_number": "evidence_number",
    "description": "description",
    "examiner_name": "examiner",
    "notes": "notes",
    "acquiry_date": "acquisition_date",
    "acquiry_operating_system": "operating_system",
    "acquiry_software_version": "software_version",
    "model": "model",
    "serial_number": "serial_number",
}

_ESCAPED: Final = {ord("\n"): 1, ord("\r"): 2, ord("\t"): 3}
_UNESCAPED: Final = {stand_in: character for character, stand_in in _ESCAPED.items()}

_DATES: Final = ("acquisition_date", "system_date")
_DATE: Final = re.compile(r"(\d{4}) (\d{1,2}) (\d{1,2}) (\d{1,2}) (\d{1,2}) (\d{1,2})")
_TAG: Final = re.compile(r"<(\w+)>([^<]*)</\1>")
_ENTITIES: Final = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&"))


def inflated(stored: bytes, what: str) -> bytes:
    """The text of a header.

    Raises:
        CorruptImageError: if it is no zlib stream, or holds too much.
    """
    import zlib  # only here: ISA-L is for chunks

    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(stored, TEXT_BYTES_MAX)
    except zlib.error as failure:
        raise CorruptImageError(f"{what}: expected a zlib stream: {failure}") from failure
    if decoder.unconsumed_tail and not decoder.eof:
        raise CorruptImageError(f"{what}: expected at most {TEXT_BYTES_MAX} bytes of text")
    return text


def parse_header(text: bytes) -> dict[str, str]:
    """Case data of a header (one byte for each character) or header2 (UTF-16)."""
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        decoded = text.decode("utf-16", "replace")
    else:
        try:
            decoded = text.decode("utf-8")
        except UnicodeDecodeError:
            decoded = text.decode("cp1252", "replace")
    return parse_object(decoded, TAGS)


def parse_object(decoded: str, tags: Mapping[str, str]) -> dict[str, str]:
    """The values in the object ``main`` of a text, by the names that ``tags`` gives them."""
    lines = [line.rstrip("\r") for line in decoded.split("\n")]
    for number, line in enumerate(lines[:8]):
        if line == "main" and number + 2 < len(lines):
            columns = lines[number + 1].split("\t")
            values = lines[number + 2].split("\t")
            found = dict(zip(columns, values, strict=False))
            return _named(found, tags)
    return {}


def parse_xml(text: bytes) -> dict[str, str]:
    """Case data of an xheader, or hashes of an xhash: elements that hold text."""
    decoded = text.decode("utf-8-sig", "replace")
    found: dict[str, str] = {}
    for tag, value in _TAG.findall(decoded):
        for entity, character in _ENTITIES:
            value = value.replace(entity, character)  # noqa: PLW2901
        found[tag.lower()] = value
    return found


def parse_xheader(text: bytes) -> dict[str, str]:
    """Case data of an xheader."""
    found = parse_xml(text)
    return {_X_TAGS[tag]: value for tag, value in found.items() if tag in _X_TAGS and value}


def build_header2(case: Mapping[str, str], columns: Iterable[str], sources: str) -> bytes:
    """The text of a header2, as UTF-16; ``sources`` are the further categories."""
    names = list(columns)
    values = [clean(case.get(TAGS.get(name, ""), "")) for name in names]
    count = "3" if sources else "1"
    text = "\n".join((count, "main", "\t".join(names), "\t".join(values), "", sources))
    return b"\xff\xfe" + text.encode("utf-16-le", "replace")


def build_header(case: Mapping[str, str], columns: Iterable[str], newline: str) -> bytes:
    """The text of a header, in the code page of Windows."""
    names = list(columns)
    values = []
    for name in names:
        value = case.get(TAGS.get(name, ""), "")
        if TAGS.get(name) in _DATES and value.isdigit():
            moment = time.gmtime(int(value))
            value = " ".join(str(part) for part in moment[:6])
        values.append(clean(value))
    text = newline.join(("1", "main", "\t".join(names), "\t".join(values), "", ""))
    return text.encode("cp1252", "replace")


def clean(value: str) -> str:
    """A value without the characters that end it."""
    return re.sub(r"[\t\r\n]+", " ", value)[:VALUE_CHARS_MAX]


def escape(value: str) -> str:
    """A value as version 2 writes it: line ends and tabs have stand-ins.

    Source: libewf's document on EWF2, "Serialized (file) object data".
    """
    return value[:VALUE_CHARS_MAX].translate(_ESCAPED)


def unescape(value: str) -> str:
    """What :func:`escape` stands for."""
    return value.translate(_UNESCAPED)


def _named(found: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for tag, value in found.items():
        name = tags.get(tag)
        if name is None or not value or (name == "password_hash" and value == "0"):
            continue
        named[name] = _date(value) if name in _DATES else value
    return named


def _date(value: str) -> str:
    """A date as ISO 8601: of a header without a zone, of a header2 in UTC."""
    found = _DATE.fullmatch(value.strip())
    if found:
        year, *rest = (int(part) for part in found.groups())
        return "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(year, *rest)
    if value.isdigit() and len(value) <= len("9999999999"):
        return utc_text(int(value))
    return value
