"""commit: merge an overlay into its parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.core.units import format_size
from imprint.endpoints.chains import commit

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint commit overlay.qcow2             other overlays of the same parent become wrong
  imprint commit overlay.qcow2 --keep
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/commit.md`` lists them too."""
    parser.add_argument("image", help="overlay whose data goes into its parent")
    parser.add_argument(
        "--keep", action="store_true", help="leave the overlay as it is, instead of emptying it"
    )
    options.add_access(parser, snapshot=False)
    options.add_workers(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Commit."""
    with console.stopping() as cancel:
        done = commit(
            args.image,
            options.access(args, console),
            keep=args.keep,
            workers=args.workers,
            on_event=console.on_event,
            cancel=cancel,
        )
    grown = f", which has grown to {format_size(done.grown_to)}" if done.grown_to else ""
    console.print(f"{format_size(done.bytes_written)} written to {done.parent}{grown}")
    console.print(f"{args.image}: {'emptied' if done.is_empty else 'left as it was'}")
    console.result(
        parent=done.parent,
        bytes_written=done.bytes_written,
        grown_to=done.grown_to,
        emptied=done.is_empty,
    )
    return 0
