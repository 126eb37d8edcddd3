"""Names of objects: at most five parts of letters, digits, ``-`` and ``_``; they fit anywhere.

A name that could mean anything else in a folder, a URL or a shell is none.
"""

from __future__ import annotations

import re
from typing import Final

from imprint.core.errors import UsageError

_PARTS_MAX: Final = 5
_PART = r"[A-Za-z0-9_-]{1,128}"
_NAME: Final = re.compile(rf"{_PART}(?:/{_PART}){{0,{_PARTS_MAX - 1}}}")
_FOLDER: Final = re.compile(rf"(?:{_PART}/){{0,{_PARTS_MAX - 1}}}")


def check_name(name: str) -> str:
    """The name itself, if it is one.

    Raises:
        UsageError: if not.
    """
    if not is_name(name):
        raise UsageError(f"expected the name of an object, found {name!r:.80}")
    return name


def is_name(text: str) -> bool:
    """Whether an object may be called that."""
    return _NAME.fullmatch(text) is not None


def check_prefix(prefix: str) -> str:
    """The prefix itself, if names can begin with it: it ends with a slash, or is empty for all.

    Raises:
        UsageError: if not.
    """
    if _FOLDER.fullmatch(prefix) is None:
        raise UsageError(f"expected a prefix that ends with a slash, found {prefix!r:.80}")
    return prefix
