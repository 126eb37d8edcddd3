"""cat: write the content of files in an image to standard output."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.cli import files
from imprint.core.errors import FormatError, ReadError, UsageError
from imprint.core.limits import SPAN_BYTES
from imprint.core.units import align_up
from imprint.endpoints.browsing import file_content

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.core.contracts import Source

_SECTOR: Final = 512
EXAMPLES = """\
  imprint cat disk.qcow2#p2:/etc/hostname
  imprint cat evidence.E01#p1:/photo.jpg --stream Zone.Identifier
  imprint cat evidence.E01#p1:/photo.jpg --slack | xxd
  imprint cat stick.img#p1:/_OTES.TXT --deleted
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/cat.md`` lists them too."""
    parser.add_argument("address", nargs="+", help="file: IMAGE#p1:/PATH")
    parser.add_argument(
        "--stream", metavar="NAME", help="of each file, the further content of that name"
    )
    parser.add_argument(
        "--slack",
        action="store_true",
        help="of each file, what lies behind its end in its last blocks",
    )
    files.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Write; the first file that cannot be read ends it."""
    if args.slack and args.stream is not None:
        raise UsageError("--slack and --stream exclude each other")
    for address in args.address:
        with files.browser_of(address, args, console) as browser:
            place = files.place_in(browser, address, follow=True, deleted=args.deleted)
            files.tell_notes(console, address, place.tree.notes)
            with console.stopping(), closing(_content(place, args)) as source:
                _write(source, console)
    return 0


def _content(place: files.Place, args: argparse.Namespace) -> Source:
    if args.slack:
        from imprint.endpoints.leftovers import slack  # only where it is asked for

        return slack(place.volume, place.entry)
    return file_content(place.tree, place.entry, args.stream)


def _write(source: Source, console: Console) -> None:
    """All of it, or what is in front of the first sector that cannot be read."""
    buffer = memoryview(bytearray(min(SPAN_BYTES, max(source.size, 1))))
    offset, length = 0, len(buffer)
    while offset < source.size:
        console.cancel.check()
        part = buffer[: min(length, source.size - offset)]
        try:
            source.readinto(part, offset)
        except (FormatError, ReadError):
            if len(part) <= _SECTOR:  # reading it again may take seconds
                raise
            length = align_up(len(part) // 2, _SECTOR)
            continue
        console.write(part)
        offset += len(part)
