"""Addresses: what the user writes to name a disk. Grammar: ``docs/reference/addresses.md``."""

from __future__ import annotations

import enum
import errno
import re
import stat
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imprint.core.errors import UnsupportedFeatureError, UsageError
from imprint.core.system import exists

_NAME = r"[A-Za-z0-9+_.-]{1,127}"
# Of more digits than any number has, int() may refuse to make one.
_NUMBER = r"[1-9]\d{0,8}"
_VOLUME = rf"lvm/{_NAME}/{_NAME}|luks|bitlocker|md\d{{1,9}}|md/{_NAME}"
_FRAGMENT = re.compile(
    rf"(?=#)(?:#d({_NUMBER}))?(?:#p({_NUMBER}))?((?:#(?:{_VOLUME}|p{_NUMBER}))*)\Z", re.DOTALL
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_HTTP: Final = ("http", "https")
_NBD: Final = ("nbd", "nbds", "nbd+unix", "nbds+unix")
# Where a path inside begins; two slashes are those of a URL.
_INSIDE = re.compile(r":(?=/(?!/))")
_IN_SNAPSHOT = re.compile(r"repo:.*?::(?:(?!:/|::).)++(:/.*)?\Z", re.DOTALL)
REPOSITORY_MARK: Final = "repo:"
_IN_REPOSITORY = "::"
_MARKS_MAX: Final = 64

FORMAT: Final = "repository"
"""What results call the format of a disk in a repository."""


class Where(enum.Enum):
    """What kind of place an address names."""

    FILE = "file"
    DEVICE = "device"
    HTTP = "http"
    NBD = "nbd"
    STREAM = "stream"
    REPOSITORY = "repository"
    INSIDE = "inside"
    """In the file system of a disk, which has an address of its own."""


@dataclass(frozen=True)
class Location:
    """A parsed address.

    Attributes:
        text: as the user wrote it.
        where: which storage it needs.
        base: the path or URL without the fragment; of a repository, its place; of a file
            inside of a disk, the address of that file system.
        partition: number of a partition of the disk, or ``None`` for all of it.
        disk: number of a disk in a package of several, or ``None`` for the first.
        inner: names of volumes inside of that, each in the one before: ``luks``,
            ``lvm/group/root``, ``md0``, and ``p1`` for a partition in one of them.
        image: name of a disk in a repository.
        snapshot: which of its snapshots: the beginning of an id, or a time; ``None``: the newest.
        inside: path in the file system at ``base``, from its root, which is ``/``; ``None``: the
            address leads into none.
    """

    text: str
    where: Where
    base: str
    partition: int | None = None
    disk: int | None = None
    inner: tuple[str, ...] = ()
    image: str = ""
    snapshot: str | None = None
    inside: str | None = None

    @property
    def outermost(self) -> Location:
        """What has to be opened first: the disk, if this is a file inside of one."""
        return self if self.inside is None else parse(self.base)

    @property
    def is_part(self) -> bool:
        """Whether it names less than the whole file."""
        return self.disk is not None or self.partition is not None or bool(self.inner)

    @property
    def is_overwritten(self) -> bool:
        """Whether a target there is written over in place, and as large as it is."""
        return self.where in (Where.DEVICE, Where.NBD)

    @property
    def own_name(self) -> str:
        """What it is called where it is: of a file or device, its name; of an export, too."""
        if self.where is not Where.NBD:
            return self.path.name
        export = urllib.parse.urlsplit(self.base).path.rpartition("/")[2]
        return urllib.parse.unquote(export).replace("/", "_").replace("\0", "") or "nbd"

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
    if exists(Path(text)):  # a name with '#' in it that is really there
        return Location(text, _kind_of(Path(text)), text)
    start = _start_of_path(text)
    if start is not None:
        parse(text[:start])
        return Location(text, Where.INSIDE, text[:start], inside=text[start + 1 :])
    if text.startswith(REPOSITORY_MARK):
        return _parse_repository(text)
    scheme = _SCHEME.match(text)
    if scheme is None and _is_new_name(text):
        return Location(text, _kind_of(Path(text)), text)
    base, disk, partition, inner = _split_fragment(text)
    if scheme is not None:
        name = scheme.group(1).lower()
        if name in _HTTP:
            return Location(text, Where.HTTP, base, partition, disk, inner)
        if name in _NBD:
            return Location(text, Where.NBD, base, partition, disk, inner)
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
    if _IN_REPOSITORY in place and not exists(Path(place)):
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
        raise UsageError(
            f"expected #p and the number of a partition, #d and that of a disk, or the name of "
            f"a volume, found {fragment!r:.80}",
            advice="volumes are #luks, #bitlocker, #md0 or #lvm/GROUP/VOLUME",
        )
    disk, partition = (int(number) if number else None for number in match.groups()[:2])
    return text[: match.start()], disk, partition, tuple(match[3].split("#")[1:])


def _start_of_path(text: str) -> int | None:
    """Where the colon of a path inside is; ``None``: there is none in the address.

    Of a file, the first one behind a name that exists counts; of a URL, the first behind the
    host. So what is before it has none.
    """
    if text.startswith(REPOSITORY_MARK):
        found = _IN_SNAPSHOT.match(text)
        return None if found is None or found[1] is None else found.start(1)
    scheme = _SCHEME.match(text)
    if scheme is None:
        marks = [mark.start() for mark in _INSIDE.finditer(text)][:_MARKS_MAX]
        for mark in marks:
            if exists(Path(text[:mark])) or exists(Path(_without_fragment(text[:mark]))):
                return mark
        if marks and text[-1] != "/" and exists(Path(text).parent):  # a file that shall be made
            return None
    else:
        host_end = text.find("/", scheme.end())
        if host_end < 0:
            return None
        marks = [mark.start() for mark in _INSIDE.finditer(text, host_end)][:_MARKS_MAX]
    return marks[0] if marks else None


def _is_new_name(text: str) -> bool:
    """Whether ``#`` in it names no part of anything: a file that shall be made, or is missing."""
    before, mark, _ = text.partition("#")
    if not mark or _FRAGMENT.search(text) is not None:
        return False
    return not before or not exists(Path(before))


def _without_fragment(text: str) -> str:
    found = _FRAGMENT.search(text)
    return text if found is None else text[: found.start()]


def _kind_of(path: Path) -> Where:
    try:
        return Where.DEVICE if stat.S_ISBLK(path.stat().st_mode) else Where.FILE
    except OSError as failure:
        if failure.errno == errno.ENAMETOOLONG:
            raise UsageError("expected an address, found a name that is too long") from failure
        return Where.FILE
    except ValueError as failure:
        raise UsageError("expected an address, found what no file can be called") from failure
