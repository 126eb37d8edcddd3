"""What the verbs that look inside share: addresses of files, and how files are shown."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imprint.cli import options
from imprint.core.units import format_size
from imprint.endpoints.browsing import look_up, open_browser
from imprint.endpoints.location import parse
from imprint.filesystems.tree import Type, has_failures

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from imprint.cli.console import Console
    from imprint.endpoints.browsing import BrowsedVolume, Browser
    from imprint.filesystems.tree import Entry, FileTree

SORTED_MAX: Final = 1 << 16
"""Names in a folder that are sorted; of larger ones, the rest follows as it comes."""

NOTES_MAX: Final = 16
"""What is told of one damaged file system."""

NOTED_EXIT: Final = 6
"""What the program ends with if something could not be read."""

LETTERS: Final = {
    Type.FILE: "f",
    Type.DIRECTORY: "d",
    Type.LINK: "l",
    Type.CHARACTER: "c",
    Type.BLOCK: "b",
    Type.FIFO: "p",
    Type.SOCKET: "s",
    Type.OTHER: "o",
    Type.SYSTEM: "y",
}
"""As ``find --type`` has them, and what it has not."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS: Final = 1_000_000_000
_DASHED: Final = {Type.FILE: "-", Type.SYSTEM: "-", Type.OTHER: "?"}


class Place(NamedTuple):
    """A file or folder of an image.

    Attributes:
        browser: of its disk.
        volume: that it is in.
        tree: of the volume.
        entry: what is there.
    """

    browser: Browser
    volume: BrowsedVolume
    tree: FileTree
    entry: Entry


def add_arguments(parser: argparse.ArgumentParser, *, system: bool = False) -> None:
    """What all of these verbs have; with ``system``, those that list have one more."""
    if system:
        parser.add_argument(
            "-a", "--all", action="store_true", help="also what the file system keeps for itself"
        )
    parser.add_argument(
        "--deleted", action="store_true", help="also what was deleted, as far as it is known"
    )
    options.add_replay(parser)
    options.add_access(parser)


@contextlib.contextmanager
def browser_of(address: str, args: argparse.Namespace, console: Console) -> Iterator[Browser]:
    """The disk of an address.

    Whether somebody is asked for a passphrase depends on whether the address leads further.
    """
    location = parse(address)
    asks = location.inside is not None or bool(location.inner)
    access = options.access(args, console, asks=asks or location.image != "")
    with open_browser(location, access) as browser:
        yield browser


def place_in(browser: Browser, address: str, *, follow: bool, deleted: bool = False) -> Place:
    """What an address leads to on its disk.

    Raises:
        UsageError: if it leads to a disk with several volumes.
        ImagingError: of the kind that says what is wrong.
    """
    volume = browser.volume()
    tree = browser.tree(volume)
    path = parse(address).inside or "/"
    entry = look_up(tree, path, follow=follow, deleted=deleted)
    return Place(browser, browser.told(volume), tree, entry)


def in_order(entries: Iterable[Entry]) -> Iterator[Entry]:
    """By name, as long as that takes no memory that matters."""
    found = iter(entries)
    first = list(islice(found, SORTED_MAX))
    first.sort(key=lambda entry: entry.path)
    yield from first
    yield from found


def wanted(entry: Entry, *, system: bool) -> bool:
    """Whether it is told: what the file system keeps for itself is only on demand."""
    return system or entry.type is not Type.SYSTEM


def tell_notes(console: Console, address: str, notes: list[str]) -> int:
    """Say what could not be followed; the exit code that this makes."""
    for note in notes[:NOTES_MAX]:
        console.note(f"warning: {address}: {note}")
    if len(notes) > NOTES_MAX:
        console.note(f"warning: {address}: {len(notes) - NOTES_MAX} more of the kind")
    return NOTED_EXIT if has_failures(notes) else 0


def facts(entry: Entry) -> dict[str, Any]:
    """A line of JSON: the first six keys are fixed."""
    times = entry.times
    return {
        "path": entry.path,
        "type": entry.type.value,
        "size": entry.size,
        "mtime": time_text(times.modified),
        "inode": entry.inode,
        "deleted": entry.is_deleted,
        "allocated": entry.is_allocated,
        "mode": entry.mode,
        "uid": entry.owner,
        "gid": entry.group,
        "links": entry.links,
        "atime": time_text(times.accessed),
        "ctime": time_text(times.changed),
        "crtime": time_text(times.created),
        "target": entry.target,
        "streams": list(entry.streams),
    }


def json_line(entry: Entry) -> str:
    """The same, as text."""
    return f"{json.dumps(facts(entry))}\n"


def time_text(time_ns: int | None) -> str | None:
    """ISO 8601, UTC, with all digits that there are; ``None`` for a time that is none."""
    if time_ns is None:
        return None
    seconds, rest = divmod(time_ns, _SECOND_NS)
    try:
        when = EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None
    return f"{when:%Y-%m-%dT%H:%M:%S}.{rest:09}Z".rjust(len("2000-01-01T00:00:00.000000000Z"), "0")


def short_time(time_ns: int | None) -> str:
    """For a table."""
    text = time_text(time_ns)
    return "-" if text is None else f"{text[:10]} {text[11:19]}"


def mode_text(entry: Entry) -> str:
    """``drwxr-xr-x``."""
    letter = _DASHED.get(entry.type) or LETTERS[entry.type]
    if not entry.mode:
        return f"{letter}---------"
    bits = [
        flag if entry.mode & (0o400 >> index) else "-" for index, flag in enumerate("rwxrwxrwx")
    ]
    for bit, at, flags in ((0o4000, 2, "sS"), (0o2000, 5, "sS"), (0o1000, 8, "tT")):
        if entry.mode & bit:
            bits[at] = flags[0] if bits[at] == "x" else flags[1]
    return letter + "".join(bits)


def name_of(entry: Entry, name: str) -> str:
    """A name as lists show it: where a link leads, and whether it was deleted."""
    text = name
    if entry.target is not None:
        text = f"{text} -> {entry.target}"
    if entry.streams:
        text = f"{text} (streams: {', '.join(entry.streams)})"
    if entry.is_deleted:
        lost = ", its place is another file's" if entry.is_allocated else ""
        text = f"{text} (deleted{lost})"
    return text


def show_volumes(console: Console, address: str, browser: Browser) -> None:
    """The volumes of a disk, and how what is in them is addressed."""
    rows = [("address", "file system", "size", "label")]
    for volume in browser.volumes():
        shown = f"{volume.address(address)}:/"
        kind = volume.kind or "-"
        if volume.problem is not None:
            kind = f"{kind}: {volume.problem}"
        rows.append((shown, kind, format_size(volume.source.size), volume.label or "-"))
        line = {
            "path": shown,
            "type": "volume",
            "size": volume.source.size,
            "mtime": None,
            "inode": None,
            "deleted": False,
            "volume": volume.name,
            "filesystem": volume.kind,
            "label": volume.label,
            "problem": volume.problem,
        }
        console.json_lines([f"{json.dumps(line)}\n"])
    console.table(rows, right=(2,))
