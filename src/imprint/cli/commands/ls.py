"""ls: list files in an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import files, options
from imprint.endpoints.location import parse
from imprint.filesystems.tree import Type
from imprint.filesystems.walking import walk

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from imprint.cli.console import Console
    from imprint.endpoints.browsing import Browser
    from imprint.filesystems.tree import Entry

EXAMPLES = """\
  imprint ls disk.qcow2                         the volumes of a disk, and their addresses
  imprint ls -l disk.qcow2#p2:/etc
  imprint ls -R --json disk.iso:/               one line of JSON for each file
  imprint ls -l --deleted stick.E01#p1:/DCIM
  imprint ls repo:/srv/images::laptop#lvm/vg0/root:/home
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/ls.md`` lists them too."""
    parser.add_argument(
        "address", help="file or folder: IMAGE#p1:/PATH; of an image alone, its root or volumes"
    )
    parser.add_argument(
        "-l", "--long", action="store_true", help="mode, owner, size, time and place of each"
    )
    parser.add_argument(
        "-R", "--recursive", action="store_true", help="all that is below, by its path"
    )
    files.add_arguments(parser, system=True)
    options.add_json(parser, lines=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """List."""
    with files.browser_of(args.address, args, console) as browser:
        if parse(args.address).inside is None and _has_several(browser):
            files.show_volumes(console, args.address, browser)
            return 0
        place = files.place_in(browser, args.address, follow=not args.long, deleted=args.deleted)
        top = place.entry
        if top.type is not Type.DIRECTORY:
            found: Iterator[Entry] = iter((top,))
        elif args.recursive:
            found = walk(place.tree, top, deleted=args.deleted)
            next(found)
        else:
            found = files.in_order(place.tree.children(top, deleted=args.deleted))
        for entry in found:
            if entry is top or files.wanted(entry, system=args.all):
                _show(entry, args, console)
        return files.tell_notes(console, args.address, place.tree.notes)


def _has_several(browser: Browser) -> bool:
    """Whether the disk has volumes that have to be named, and is no file system itself."""
    volumes = browser.volumes()
    is_one = any(not volume.name and volume.kind is not None for volume in volumes)
    return not is_one and any(volume.name for volume in volumes)


def _show(entry: Entry, args: argparse.Namespace, console: Console) -> None:
    if console.is_json:
        console.json_lines([files.json_line(entry)])
        return
    name = entry.path if args.recursive else entry.name or "/"
    if not args.long:
        console.print(name)
        return
    console.print(
        f"{files.mode_text(entry)} {entry.links:>3} {entry.owner:>6} {entry.group:>6} "
        f"{entry.size:>12} {files.short_time(entry.times.modified):<19} {entry.inode:>9}  "
        f"{files.name_of(entry, name)}"
    )
