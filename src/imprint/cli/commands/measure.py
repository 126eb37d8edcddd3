"""measure: predict what an image would take up in another format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint import formats
from imprint.cli import options
from imprint.cli.console import exact
from imprint.core.errors import UsageError
from imprint.endpoints.images import measure

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint measure disk.vdi -O qcow2
  imprint measure --size 100G -O qcow2 -o cluster_size=2M
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/measure.md`` lists them too."""
    parser.add_argument("source", nargs="?", help="disk that would be stored")
    parser.add_argument("--size", type=options.size, help="instead: an empty disk of that size")
    parser.add_argument(
        "-O",
        "--target-format",
        metavar="FORMAT",
        default="raw",
        help="format that it would be stored in (default: raw)",
    )
    options.add_target_options(parser)
    options.add_access(parser)
    options.add_used(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Measure: from the maps alone, without reading data."""
    if (args.source is None) == (args.size is None):
        raise UsageError("expected either a source or --size")
    size, found = measure(
        args.source,
        args.size or 0,
        args.target_format,
        dict(args.option),
        options.access(args, console),
    )
    console.facts(
        [
            ("required", exact(found.required)),
            ("fully allocated", exact(found.fully_allocated)),
        ]
    )
    console.result(
        required=found.required,
        fully_allocated=found.fully_allocated,
        size=size,
        format=formats.get(args.target_format).name,
    )
    return 0
