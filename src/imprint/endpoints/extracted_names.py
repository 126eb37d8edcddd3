"""Names of extracted files: what no folder should hold is escaped, so that it can be undone.

A byte that is not wanted becomes ``%XX``. A percent sign is escaped only where it would be taken
for an escape; so a name without such things is left as it is, and :func:`original` undoes it.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Final

BYTES_MAX: Final = 255
"""Of a name: what Linux and macOS allow."""

TEMPORARY: Final = ".imprint.partial"
"""What a file is called as long as it is not whole; no file of an image is."""

MARK: Final = "%~"
"""Only in names that are given here: no file of an image has it in its escaped name."""

DELETED: Final = f"{MARK}deleted"
"""The folder for what was deleted."""

_RESERVED: Final = frozenset({"", ".", "..", TEMPORARY})
# Controls, what separates lines, and what changes the direction of the text around it.
_UNWANTED: Final = re.compile(
    "[\\x00-\\x1f/\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udc7f\\udd00-\\udfff]"
    "|%(?=[0-9A-Fa-f]{2}|~)"
)
_ESCAPED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_DIGEST_CHARS: Final = 16


def safe(name: str) -> str:
    """A name that can be given to a file in any folder, and says no more than one name does.

    What is too long is cut off and marked; it is the only case that :func:`original` cannot undo.
    """
    found = "%00" if not name else _UNWANTED.sub(_escape, name)
    if found.casefold() in _RESERVED:  # some targets take upper and lower case for the same
        found = f"%{ord(found[0]):02X}{found[1:]}"
    raw = os.fsencode(found)
    if len(raw) <= BYTES_MAX:
        return found
    digest = hashlib.sha256(raw).hexdigest()[:_DIGEST_CHARS]
    return marked(found, digest)


def marked(name: str, what: str) -> str:
    """A further name for a file of a name that is taken; ``name`` is safe already."""
    tail = f"{MARK}{what}"
    raw = os.fsencode(name)[: BYTES_MAX - len(tail)]
    # Not within a character: what is cut off of one would be bytes of their own.
    text = raw.decode("utf-8", "ignore") if _is_text(name) else os.fsdecode(raw)
    return text + tail


def original(name: str) -> str:
    """The name that :func:`safe` was given, if it was not too long."""
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(name))
    return "" if name == "%00" else os.fsdecode(raw)


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
