"""resize: change the size of an image's disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.cli.console import exact
from imprint.endpoints.images import resize

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint resize disk.qcow2 40G
  imprint resize disk.qcow2 +10G
  imprint resize disk.raw -1G -f raw --shrink      partitions do not move by themselves
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/resize.md`` lists them too."""
    parser.add_argument("image", help="image file; raw only with -f raw")
    parser.add_argument("size", type=_change, help="the new size: 10G; or by how much: +1G, -1G")
    parser.add_argument(
        "--shrink", action="store_true", help="allow a smaller size; what is behind it is lost"
    )
    options.add_access(parser, snapshot=False)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Resize."""
    is_relative, size = args.size
    done = resize(
        args.image, size, options.access(args, console), relative=is_relative, shrink=args.shrink
    )
    loss = f"; {exact(done.cut)} of data were cut off" if done.cut else ""
    console.print(f"{args.image}: {exact(done.old_size)} -> {exact(done.size)}{loss}")
    console.result(size=done.size, old_size=done.old_size, cut=done.cut)
    return 0


def _change(text: str) -> tuple[bool, int]:
    """Whether a size is relative, and how many bytes, as an argument."""
    sign = -1 if text.startswith("-") else 1
    if text.startswith(("+", "-")):
        return True, sign * options.size(text[1:])
    return False, options.size(text)
