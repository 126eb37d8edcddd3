"""unmount: take a mounted disk away again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.endpoints.unmounting import unmount

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint unmount /mnt
  imprint unmount /mnt --lazy      although files of it are open
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/unmount.md`` lists them too."""
    parser.add_argument("folder", type=Path, help="where it is mounted")
    parser.add_argument(
        "--lazy",
        action="store_true",
        help="take it away although it is in use; it ends when nobody uses it any more",
    )
    options.add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Unmount, and wait until what was written is durable and the disk closed."""
    done = unmount(args.folder, lazy=args.lazy)
    console.print(f"{args.folder}: unmounted")
    console.result(folder=str(args.folder), pid=done.pid, image=done.address)
    return 0
