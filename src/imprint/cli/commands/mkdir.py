"""mkdir: make folders in a FAT image."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.endpoints.fat_files import opened

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint mkdir floppy.img:/GAMES
  imprint mkdir -p card.img#p1:/photos/2026
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/mkdir.md`` lists them too."""
    parser.add_argument("addresses", nargs="+", metavar="address", help="folder, as IMAGE:/PATH")
    parser.add_argument(
        "-p", "--parents", action="store_true", help="make those above too; it may exist already"
    )
    options.add_access(parser, snapshot=False)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Make them."""
    access = options.access(args, console)
    seconds = options.time_s()
    now = time.time() if seconds is None else float(seconds)
    for address in args.addresses:
        with opened(address, access) as (editor, path):
            names = [name for name in path.split("/") if name]
            first = 1 if args.parents else len(names)
            for count in range(first, len(names) + 1):
                part = "/" + "/".join(names[:count])
                if not (args.parents and editor.is_folder(part)):
                    editor.mkdir(part, now)
    console.result(made=args.addresses)
    return 0
