"""Addresses: what the user writes to name a disk. Grammar: ``docs/reference/addresses.md``."""

from __future__ import annotations

import enum
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imprint.core.errors import UnsupportedFeatureError, UsageError

_FRAGMENT = re.compile(r"(?:#d([1-9]\d*))?(?:#p([1-9]\d*))?")
_FRAGMENT_START = re.compile(r"#(?:d[1-9]\d*(?:#p[1-9]\d*)?|[^#]*)\Z", re.DOTALL)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_HTTP: Final = ("http", "https")
# What the grammar of addresses knows besides, and imprint cannot open yet.
_INSIDE = re.compile(r"(?:p[1-9]\d*:/|lvm/|luks\b).*", re.DOTALL)
_REPOSITORY = re.compile(r"repo:.+::", re.DOTALL)


class Where(enum.Enum):
    """What kind of place an address names."""

    FILE = "file"
    DEVICE = "device"
    HTTP = "http"
    STREAM = "stream"


@dataclass(frozen=True)
class Location:
    """A parsed address.

    Attributes:
        text: as the user wrote it.
        where: which storage it needs.
        base: the path or URL without the fragment.
        partition: number of a partition of the disk, or ``None`` for all of it.
        disk: number of a disk in a package of several, or ``None`` for the first.
    """

    text: str
    where: Where
    base: str
    partition: int | None = None
    disk: int | None = None

    @property
    def path(self) -> Path:
        """Of a file or device."""
        return Path(self.base)


def parse(text: str) -> Location:
    """Parse an address. Looks at the file system only to tell devices and odd names.

    Raises:
        UsageError: if it is no address.
        UnsupportedFeatureError: if it is one that imprint cannot open yet.
    """
    if not text:
        raise UsageError("expected an address, found nothing")
    if text == "-":
        return Location(text, Where.STREAM, text)
    if Path(text).exists():  # a name with '#' in it that is really there
        return Location(text, _kind_of(Path(text)), text)
    if _REPOSITORY.match(text):
        raise UnsupportedFeatureError("repositories cannot be opened", name=text)
    base, disk, partition = _split_fragment(text)
    scheme = _SCHEME.match(base)
    if scheme is not None:
        name = scheme.group(1).lower()
        if name in _HTTP:
            return Location(text, Where.HTTP, base, partition, disk)
        raise UnsupportedFeatureError(f"addresses of {name}:// cannot be opened", name=text)
    return Location(text, _kind_of(Path(base)), base, partition, disk)


def _split_fragment(text: str) -> tuple[str, int | None, int | None]:
    """The address without its fragment, and the numbers of a disk and a partition in it."""
    found = _FRAGMENT_START.search(text)
    if found is None:
        return text, None, None
    fragment = found.group()
    match = _FRAGMENT.fullmatch(fragment)
    if match is None and _INSIDE.fullmatch(fragment[1:]):
        raise UnsupportedFeatureError("what is inside a partition cannot be opened", name=text)
    if match is None or match.groups() == (None, None):
        raise UsageError(
            f"expected #p and the number of a partition, or #d and that of a disk, "
            f"found {fragment!r}"
        )
    disk, partition = (int(number) if number else None for number in match.groups())
    return text[: found.start()], disk, partition


def _kind_of(path: Path) -> Where:
    try:
        return Where.DEVICE if stat.S_ISBLK(path.stat().st_mode) else Where.FILE
    except OSError:
        return Where.FILE
