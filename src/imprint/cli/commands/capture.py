"""capture: image a device, file or stream, hashing what is read."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.cli import copying, options, rescuing
from imprint.cli.console import exact
from imprint.core.errors import UsageError
from imprint.endpoints.location import Where, parse

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.endpoints.copying import Outcome

EXAMPLES = """\
  imprint capture /dev/sdb laptop.qcow2 --verify
  imprint capture /dev/sdb laptop.raw --hash md5,sha1,sha256
  imprint capture /dev/sdb old.E01 --rescue-order metadata --retries 3
  imprint capture /dev/sdb repo:/srv/images::laptop --used
  ssh host 'cat /dev/sda' | imprint capture - host.qcow2 -o compression=zstd
"""

_DIFFERS_EXIT: Final = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/capture.md`` lists them too."""
    parser.add_argument("source", help="device, image or URL to read, or - for standard input")
    parser.add_argument(
        "target", help="image to write, repo:PLACE::IMAGE to add to, or - for standard output"
    )
    options.add_hashes(parser, None)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read the finished target back and compare its hashes with those of the source",
    )
    copying.add_arguments(parser)
    options.add_used(parser, prove=True)
    rescuing.add_arguments(parser)
    copying.add_snapshot_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Capture; areas that cannot be read become zeros, and are listed."""
    if args.verify and args.target == "-":
        raise UsageError("--verify needs a target that can be read back", name="standard output")
    if args.format is None and parse(args.source).where is Where.DEVICE:
        # A medium is imaged as it is: what its owner wrote on it must not decide how.
        args.format = "raw"
    # In a repository the snapshot's own name is a hash of everything.
    usual = () if copying.is_repository(args.target) else options.HASHES
    hashes = usual if args.hash is None else args.hash
    outcome = copying.copy(args, console, hashes=hashes, salvage=True)
    if outcome is None:
        return 0
    report = outcome.report
    wrong = outcome.wrong
    if args.verify and outcome.snapshot is None:
        wrong = _read_back(args, console, outcome)
    copying.describe(console, args, outcome)
    for name, digest in report.hashes.items():
        console.print(f"{name}  {digest}")
    for extent in report.bad:
        console.print(f"unreadable: {exact(extent.length)} at {extent.offset}")
    for name, digest in wrong.items():
        console.note(f"{args.target}: expected {name} {report.hashes[name]}, found {digest}")
    if args.verify and not wrong:
        console.print("read back: the target holds the same")
    console.result(
        **copying.facts(outcome),
        hashes={**report.hashes, **copying.merkle(outcome)},
        bad=[{"offset": extent.offset, "length": extent.length} for extent in report.bad],
        verified=not wrong if args.verify else None,
    )
    if wrong:
        return _DIFFERS_EXIT
    return copying.UNREADABLE_EXIT if report.bad else 0


def _read_back(args: argparse.Namespace, console: Console, outcome: Outcome) -> dict[str, str]:
    """Hash the target; what is not as in the source, by name of the hash."""
    from imprint.endpoints.hashing import hash_disk, open_written  # only to read back

    access = options.access(args, console, format_=outcome.format, is_source=False)
    report = outcome.report
    with console.stopping(), closing(open_written(args.target, report.size, access)) as disk:
        found = hash_disk(
            disk,
            tuple(report.hashes),
            workers=args.workers,
            on_event=console.on_event,
            cancel=console.cancel,
            phase="verify",
        ).hashes
    return {name: found[name] for name, digest in report.hashes.items() if found[name] != digest}
