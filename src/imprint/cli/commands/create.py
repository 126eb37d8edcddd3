"""create: make an empty image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.cli.console import exact
from imprint.core.units import format_size
from imprint.endpoints.images import create
from imprint.endpoints.target import TargetRequest

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint create disk.qcow2 20G
  imprint create disk.vdi 20G -o subformat=fixed
  imprint create overlay.qcow2 --parent base.qcow2
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/create.md`` lists them too."""
    parser.add_argument("image", help="file to make")
    parser.add_argument(
        "size",
        nargs="?",
        type=options.size,
        help="of the disk: 512, 64K, 10M, 2G, 1T; that of the parent by default",
    )
    parser.add_argument(
        "-O", "-f", "--target-format", metavar="FORMAT", help="instead of by suffix"
    )
    options.add_target_options(parser)
    options.add_uuid(parser)
    parser.add_argument(
        "--parent", metavar="FILE", help="image to build upon: only what differs is stored"
    )
    parser.add_argument(
        "-F",
        "--parent-format",
        metavar="FORMAT",
        help="format of the parent; it is recorded in the image",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that exists")
    options.add_trust(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Create."""
    request = TargetRequest(
        args.image,
        args.target_format,
        dict(args.option),
        force=args.force,
        uuid=args.uuid,
        time_s=options.time_s(),
    )
    made = create(
        request,
        args.size,
        options.access(args, console),
        parent=args.parent,
        parent_format=args.parent_format,
    )
    parent, parent_format = None, None
    if made.parent is not None:
        parent, parent_format = made.parent.name, made.parent.format
    console.print(
        f"{args.image}: {made.format}, {exact(made.size)}, {format_size(made.stored_size)} stored"
        + (f", over {parent} ({parent_format})" if parent else "")
    )
    console.result(
        format=made.format,
        size=made.size,
        stored_size=made.stored_size,
        parent=parent,
        parent_format=parent_format,
    )
    return 0
