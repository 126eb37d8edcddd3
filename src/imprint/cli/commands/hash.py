"""hash: hash the content of a disk."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from imprint.cli import options, pieces
from imprint.endpoints.hashing import hash_disk
from imprint.endpoints.open import open_source

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint hash disk.qcow2                       as a guest sees it: equal for every format
  imprint hash disk.qcow2#p2 --hash md5,sha1
  imprint hash disk.raw --piecewise 1G
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/hash.md`` lists them too."""
    parser.add_argument("image", help="image, device or URL, or - for standard input")
    options.add_hashes(parser)
    pieces.add_arguments(parser)
    options.add_access(parser)
    options.add_used(parser)
    options.add_workers(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Hash."""
    access = options.access(args, console)
    with console.stopping(), closing(open_source(args.image, access)) as source:
        report = hash_disk(
            source,
            args.hash,
            piece=pieces.wanted(args, args.hash),
            workers=args.workers,
            on_event=console.on_event,
            cancel=console.cancel,
        )
    pieces.show(console, report, args.image)
    console.result(
        size=report.size,
        hashes=report.hashes,
        **pieces.facts(args, report),
        bytes_read=report.bytes_read,
        duration_s=round(report.duration_s, 3),
    )
    return 0
