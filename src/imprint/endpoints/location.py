"""Addresses: what the user writes to name a disk. Grammar: ``docs/reference/addresses.md``."""

from __future__ import annotations

import enum
import errno
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imprint.core.errors import UnsupportedFeatureError, UsageError

_NAME = r"[A-Za-z0-9+_.-]{1,127}"
# Of more digits than any number has, int() may refuse to make one.
_NUMBER = r"[1-9]\d{0,8}"
_VOLUME = rf"lvm/{_NAME}/{_NAME}|luks|bitlocker|md\d{{1,9}}|md/{_NAME}"
_FRAGMENT = re.compile(
    rf"(?=#)(?:#d({_NUMBER}))?(?:#p({_NUMBER}))?((?:#(?:{_VOLUME}|p{_NUMBER}))*)\Z", re.DOTALL
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_HTTP: Final = ("http", "https")
# What the grammar of addresses knows besides, and imprint cannot open yet.
_INSIDE = re.compile(rf"#(?:{_VOLUME}|p{_NUMBER}):/.*", re.DOTALL)
REPOSITORY_MARK: Final = "repo:"
_IN_REPOSITORY = "::"

FORMAT: Final = "repository"
"""What results call the format of a disk in a repository."""


class Where(enum.Enum):
    """What kind of place an address names."""

    FILE = "file"
    DEVICE = "device"
    HTTP = "http"
    STREAM = "stream"
    REPOSITORY = "repository"


@dataclass(frozen=True)
class Location:
    """A parsed address.

    Attributes:
        text: as the user wrote it.
        where: which storage it needs.
        base: the path or URL without the fragment; of a repository, its place.
        partition: number of a partition of the disk, or ``None`` for all of it.
        disk: number of a disk in a package of several, or ``None`` for the first.
        inner: names of volumes inside of that, each in the one before: ``luks``,
            ``lvm/group/root``, ``md0``, and ``p1`` for a partition in one of them.
        image: name of a disk in a repository.
        snapshot: which of its snapshots: the beginning of an id, or a time; ``None``: the newest.
    """

    text: str
    where: Where
    base: str
    partition: int | None = None
    disk: int | None = None
    inner: tuple[str, ...] = ()
    image: str = ""
    snapshot: str | None = None

    @property
    def is_part(self) -> bool:
        """Whether it names less than the whole file."""
        return self.disk is not None or self.partition is not None or bool(self.inner)

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
    if _exists(Path(text)):  # a name with '#' in it that is really there
        return Location(text, _kind_of(Path(text)), text)
    if text.startswith(REPOSITORY_MARK):
        return _parse_repository(text)
    base, disk, partition, inner = _split_fragment(text)
    scheme = _SCHEME.match(base)
    if scheme is not None:
        name = scheme.group(1).lower()
        if name in _HTTP:
            return Location(text, Where.HTTP, base, partition, disk, inner)
        raise UnsupportedFeatureError(f"addresses of {name}:// cannot be opened", name=text)
    return Location(text, _kind_of(Path(base)), base, partition, disk, inner)


def place_of(text: str) -> str:
    """The place of a repository, from an address of it, with or without ``repo:`` in front.

    Raises:
        UsageError: if it is none, or names an image too.
    """
    place = text.removeprefix(REPOSITORY_MARK)
    if not place:
        raise UsageError("expected the place of a repository, found nothing")
    if _IN_REPOSITORY in place and not _exists(Path(place)):
        raise UsageError("expected the place of a repository, found an image in one", name=text)
    return place


def _parse_repository(text: str) -> Location:
    # From the end: a place may be a URL with an address of IPv6 in it.
    place, mark, rest = text.removeprefix(REPOSITORY_MARK).rpartition(_IN_REPOSITORY)
    if not mark:
        raise UsageError(
            "expected repo:PLACE::IMAGE, found no image",
            name=text,
            advice="imprint repo list PLACE shows what is in a repository",
        )
    name, disk, partition, inner = _split_fragment(rest)
    image, mark, snapshot = name.partition("@")
    if not place or not image or (mark and not snapshot):
        raise UsageError("expected repo:PLACE::IMAGE[@SNAPSHOT]", name=text)
    if disk is not None:
        raise UsageError("expected #p and a number, found #d: it is one disk", name=text)
    chosen = snapshot or None
    where = Where.REPOSITORY
    return Location(text, where, place, partition, disk, inner, image, chosen)


def _split_fragment(text: str) -> tuple[str, int | None, int | None, tuple[str, ...]]:
    """The address without its fragment, and the numbers and names in it."""
    start = text.rfind("#")
    if start < 0:
        return text, None, None, ()
    match = _FRAGMENT.search(text)
    if match is None:
        fragment = text[start:]
        if _INSIDE.fullmatch(fragment):
            raise UnsupportedFeatureError("what is inside a partition cannot be opened", name=text)
        raise UsageError(
            f"expected #p and the number of a partition, #d and that of a disk, or the name of "
            f"a volume, found {fragment!r:.80}",
            advice="volumes are #luks, #bitlocker, #md0 or #lvm/GROUP/VOLUME",
        )
    disk, partition = (int(number) if number else None for number in match.groups()[:2])
    return text[: match.start()], disk, partition, tuple(match[3].split("#")[1:])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or with a zero byte in it
        return False


def _kind_of(path: Path) -> Where:
    try:
        return Where.DEVICE if stat.S_ISBLK(path.stat().st_mode) else Where.FILE
    except OSError as failure:
        if failure.errno == errno.ENAMETOOLONG:
            raise UsageError("expected an address, found a name that is too long") from failure
        return Where.FILE
    except ValueError as failure:
        raise UsageError("expected an address, found what no file can be called") from failure
