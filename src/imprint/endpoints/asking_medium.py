"""Asking a drive about itself, by ``smartctl`` and ``hdparm`` where they are installed.

All of these questions leave the drive as it is. A drive, or a USB bridge, that does not answer is
one of which nothing is known.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import ImagingError
from imprint.endpoints import tools
from imprint.storage.hidden import Hidden, parse_hidden

if TYPE_CHECKING:
    from pathlib import Path

# smartctl's exit code is a set of bits, of which each may come with an answer.
_ANY: Final = range(256)
_TIMEOUT_S: Final = 30.0
_ANSWER_MAX: Final = 4 << 20


def smart(path: Path) -> dict[str, Any] | None:
    """What ``smartctl -x -j`` says of the device; ``None``: it is missing or says nothing."""
    said = _ask("smartctl", "-x", "-j", str(path.absolute()), accept=_ANY)
    if not 0 < len(said) <= _ANSWER_MAX:
        return None
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and "device" in answer else None


def hidden(path: Path, answer: dict[str, Any] | None) -> Hidden:
    """Areas that the drive does not show; ``answer`` is that of :func:`smart`."""
    node = str(path.absolute())
    return parse_hidden(_ask("hdparm", "-N", node), _ask("hdparm", "--dco-identify", node), answer)


def _ask(program: str, *arguments: str, accept: range = range(1)) -> str:
    try:
        return tools.run(program, *arguments, timeout_s=_TIMEOUT_S, accept=accept)
    except ImagingError:
        return ""
