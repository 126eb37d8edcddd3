"""rm: remove files from a FAT image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.endpoints.fat_files import opened

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint rm floppy.img:/OLD.TXT
  imprint rm -r card.img#p1:/games
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/rm.md`` lists them too."""
    parser.add_argument("addresses", nargs="+", metavar="address", help="file, as IMAGE:/PATH")
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="remove folders, with all that is in them"
    )
    options.add_access(parser, snapshot=False)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Remove."""
    access = options.access(args, console)
    for address in args.addresses:
        with opened(address, access) as (editor, path):
            editor.remove(path, with_content=args.recursive)
    console.result(removed=args.addresses)
    return 0
