"""put: copy files into a FAT image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.cli.console import exact, printable
from imprint.endpoints.fat_files import put

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint put AUTOEXEC.BAT floppy.img:/
  imprint put -r game card.img#p1:/games
  imprint put new.cfg floppy.img:/SYSTEM.CFG --force      under another name
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/put.md`` lists them too."""
    parser.add_argument("files", nargs="+", type=Path, metavar="file", help="file to copy")
    parser.add_argument("address", help="folder, or new name, as IMAGE:/PATH or IMAGE#p1:/PATH")
    parser.add_argument("-r", "--recursive", action="store_true", help="copy folders")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    options.add_access(parser, snapshot=False)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Copy."""
    done = put(
        args.files,
        args.address,
        options.access(args, console),
        recursive=args.recursive,
        force=args.force,
    )
    for name in done.skipped:
        console.note(f"{printable(name)}: left out: it is no file")
    console.print(f"{args.address}: {done.files} files, {exact(done.size)}")
    console.result(
        files=done.files, folders=done.folders, size=done.size, skipped=list(done.skipped)
    )
    return 0
