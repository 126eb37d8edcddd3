"""restore: put an image back on a device or into a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import copying
from imprint.core.units import format_size

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint restore laptop.qcow2 /dev/sdb
  imprint restore laptop.qcow2 /dev/sdb --delta      write only what differs
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
    copying.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Restore."""
    if args.target_format is None:
        args.target_format = _format_of(args.target)
    if args.delta and _is_there(args.target):
        from imprint.endpoints.delta import restore_delta  # only for --delta

        outcome = copying.copy(args, console, work=restore_delta)
    else:
        outcome = copying.copy(args, console)
    if outcome is None:
        return 0
    report = outcome.report
    skipped = report.size - report.bytes_written
    copying.describe(console, args, outcome)
    console.print(f"{format_size(report.bytes_written)} written, {format_size(skipped)} skipped")
    console.result(
        **copying.facts(outcome), bytes_written=report.bytes_written, bytes_skipped=skipped
    )
    return 0


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

    return target != "-" and parse(target).path.exists()
