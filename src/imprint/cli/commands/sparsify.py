"""sparsify: give back the room of what no file system on an image uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import copying, options
from imprint.core.errors import UsageError
from imprint.core.units import format_size

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint sparsify disk.qcow2                in place
  imprint sparsify disk.raw -f raw           raw is changed only if it is said to be raw
  imprint sparsify disk.vmdk small.qcow2     into a copy
  imprint sparsify disk.qcow2 --dry-run      how much would that be?
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/sparsify.md`` lists them too."""
    parser.add_argument("source", metavar="image", help="image file; to be changed, or copied")
    parser.add_argument("target", nargs="?", help="make a copy there, and leave the image alone")
    copying.add_arguments(parser)
    options.add_used(parser, prove=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """Sparsify; ``--used`` goes without saying."""
    args.used = True
    if args.target is not None:
        outcome = copying.copy(args, console)
        if outcome is not None:
            copying.describe(console, args, outcome)
            console.result(**copying.facts(outcome))
            return copying.exit_code(console, args, outcome)
        return 0
    _refuse_copy_options(args)
    from imprint.endpoints.sparsify import sparsify  # not for copies

    access = options.access(args, console)
    assert access.used is not None
    with console.stopping():
        done = sparsify(
            args.source,
            access,
            access.used,
            prove=args.prove is not False,
            dry_run=args.dry_run,
        )
    would = "would be " if args.dry_run else ""
    console.print(
        f"{args.source}: {format_size(done.unused)} of {format_size(done.size)} are unused; "
        f"{format_size(done.freed)} of data {would}dropped; the file takes up "
        f"{format_size(done.stored_size)}, before {format_size(done.stored_before)}"
    )
    console.result(
        size=done.size,
        unused=done.unused,
        freed=done.freed,
        stored_size=done.stored_size,
        stored_before=done.stored_before,
        dry_run=args.dry_run,
    )
    return 0


def _refuse_copy_options(args: argparse.Namespace) -> None:
    for name in ("target_format", "option", "uuid", "snapshot"):
        if getattr(args, name):
            raise UsageError(f"--{name.replace('_', '-')} makes sense only with a target")
