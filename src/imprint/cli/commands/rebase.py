"""rebase: change the parent of an overlay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.core.errors import UsageError
from imprint.core.units import format_size
from imprint.endpoints.chains import rebase

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint rebase overlay.qcow2 --parent base-2.qcow2      reads as before
  imprint rebase overlay.qcow2 --no-parent                on its own from now on
  imprint rebase overlay.qcow2 --parent moved/base.qcow2 --unsafe
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/rebase.md`` lists them too."""
    parser.add_argument("image", help="overlay to change, in place")
    parser.add_argument("--parent", metavar="FILE", help="its new parent")
    parser.add_argument(
        "-F", "--parent-format", metavar="FORMAT", help="format of the new parent; it is recorded"
    )
    parser.add_argument(
        "--no-parent", action="store_true", help="take over all that the parents hold"
    )
    parser.add_argument(
        "--unsafe",
        action="store_true",
        help="only change the name: the new parent is the old one, moved or converted",
    )
    options.add_access(parser, snapshot=False)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Rebase."""
    if (args.parent is None) != args.no_parent:
        raise UsageError("expected either --parent or --no-parent")
    with console.stopping() as cancel:
        done = rebase(
            args.image,
            options.access(args, console),
            parent=args.parent,
            parent_format=args.parent_format,
            unsafe=args.unsafe,
            on_event=console.on_event,
            cancel=cancel,
        )
    name = done.parent.name if done.parent is not None else None
    parent_format = done.parent.format if done.parent is not None else None
    over = f"is over {name} ({parent_format}) now" if name else "has no parent now"
    console.print(f"{args.image}: {over}; {format_size(done.bytes_written)} were taken over")
    console.result(parent=name, parent_format=parent_format, bytes_written=done.bytes_written)
    return 0
