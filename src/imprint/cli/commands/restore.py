"""restore: put an image back on a device or into a file."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from imprint.cli import copying, options
from imprint.core.system import exists
from imprint.core.units import format_size

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint restore laptop.qcow2 /dev/sdb
  imprint restore laptop.qcow2 /dev/sdb --delta      write only what differs
  imprint restore laptop.qcow2 /dev/sdb --grow       fill the larger disk
  imprint restore laptop.qcow2 disk.raw
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/restore.md`` lists them too."""
    parser.add_argument("source", metavar="image", help="image to put back, or - for a stream")
    parser.add_argument("target", help="device or file to write; raw if its suffix says nothing")
    parser.add_argument(
        "--delta",
        action="store_true",
        help="read the target, and write only what differs; a file is then changed in place",
    )
    parser.add_argument(
        "--grow",
        action="store_true",
        help="make the last partition and its file system fill a larger target",
    )
    parser.add_argument(
        "--shrink-to-fit",
        dest="shrink",
        action="store_true",
        help="allow a smaller target if no partition reaches behind its end",
    )
    parser.add_argument(
        "--size",
        type=options.size,
        help="of a file that is written, with --grow or --shrink-to-fit",
    )
    parser.add_argument(
        "--sector-size",
        type=options.size,
        choices=(512, 4096),
        metavar="BYTES",
        help="of the target: a GPT is made to count in 512 or 4096; devices are asked for theirs",
    )
    copying.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Restore."""
    from imprint.endpoints.fitting import Fit
    from imprint.endpoints.restoring import plan_restore, restore

    if args.target_format is None:
        args.target_format = _format_of(args.target)
    fit = Fit(args.grow, args.shrink, args.size, args.sector_size)
    outcome = copying.copy(
        args,
        console,
        work=functools.partial(restore, fit=fit, delta=args.delta and _is_there(args.target)),
        intend=functools.partial(plan_restore, fit=fit),
    )
    if outcome is None:
        return 0
    report = outcome.report
    skipped = report.size - report.bytes_written
    copying.describe(console, args, outcome)
    console.print(f"{format_size(report.bytes_written)} written, {format_size(skipped)} skipped")
    if outcome.grown is not None:
        console.print(f"grown: {copying.describe_grown(outcome.grown)}")
    console.result(
        **copying.facts(outcome),
        bytes_written=report.bytes_written,
        bytes_skipped=skipped,
        **copying.grown_facts(outcome.grown),
    )
    return copying.exit_code(console, args, outcome)


def _format_of(target: str) -> str:
    """By suffix; a disk that is put back is plain if nothing says otherwise."""
    from imprint import formats
    from imprint.endpoints.location import Where, parse

    location = parse(target)
    by_suffix = formats.by_suffix(location.base) if location.where is Where.FILE else None
    return by_suffix or "raw"


def _is_there(target: str) -> bool:
    """Whether there is something to compare with."""
    from imprint.endpoints.location import parse

    location = parse(target)
    return target != "-" and (location.is_overwritten or exists(location.path))
