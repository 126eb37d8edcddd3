"""capture: image a device, file or stream, hashing what is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.cli import copying, evidence_options, options, pieces, rescuing, several
from imprint.cli.console import exact
from imprint.core.errors import UsageError
from imprint.endpoints.location import parse

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.endpoints.evidence import EvidenceLog

_SPLITTING: Final = ("split", "segment_size")
"""What formats call the size of their files."""

EXAMPLES = """\
  imprint capture /dev/sdb laptop.qcow2 --verify
  imprint capture /dev/sdb laptop.raw --hash md5,sha1,sha256
  imprint capture /dev/sdb old.E01 --rescue-order metadata --retries 3
  imprint capture /dev/sdb case.E01 --also work.raw --also /dev/sdc --piecewise 1G
  imprint capture /dev/sdb case.E01 --also repo:/srv/images::laptop --unlock-hpa
  imprint capture /dev/sdb repo:/srv/images::laptop --used
  ssh host 'cat /dev/sda' | imprint capture - host.qcow2 -o compression=zstd
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/capture.md`` lists them too."""
    parser.add_argument("source", help="device, image or URL to read, or - for standard input")
    parser.add_argument(
        "target", help="image to write, repo:PLACE::IMAGE to add to, or - for standard output"
    )
    options.add_hashes(parser, None)
    pieces.add_arguments(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read the finished target back and compare its hashes with those of the source",
    )
    several.add_arguments(parser)
    parser.add_argument(
        "--split",
        metavar="SIZE",
        type=options.size,
        help="write several files of at most so many bytes: raw (disk.001 …) and E01",
    )
    copying.add_arguments(parser)
    options.add_used(parser, prove=True)
    rescuing.add_arguments(parser)
    copying.add_snapshot_arguments(parser)
    evidence_options.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Capture; areas that cannot be read become zeros, and are listed."""
    if args.split is not None:
        args.option = [*args.option, _split(args)]
    return evidence_options.recorded(args, console, lambda log: _capture(args, console, log))


def _capture(args: argparse.Namespace, console: Console, log: EvidenceLog | None) -> int:
    if args.verify and args.target == "-":
        raise UsageError("--verify needs a target that can be read back", name="standard output")
    if args.format is None and parse(args.source).is_overwritten:
        # A medium is imaged as it is: what its owner wrote on it must not decide how.
        args.format = "raw"
    hashes = _hashes(args)
    work, intend = several.work(args)
    outcome = copying.copy(args, console, hashes=hashes, salvage=True, work=work, intend=intend)
    if outcome is None:
        return 0
    report = outcome.report
    found = {args.target: dict(outcome.wrong)}
    if args.verify and (outcome.targets or outcome.snapshot is None):
        found = several.read_back(args, console, outcome)
    is_wrong = any(found.values())
    targets = several.facts(outcome, found if args.verify else None)
    if log is not None:
        log.completed(outcome, found.get(args.target) if args.verify else None, targets)
    describe = several.describe if outcome.targets else copying.describe
    describe(console, args, outcome)
    pieces.show(console, report)
    for extent in report.bad:
        console.print(f"unreadable: {exact(extent.length)} at {extent.offset}")
    if args.verify:
        several.tell_read_back(console, outcome, found)
    console.result(
        **copying.facts(outcome),
        hashes={**report.hashes, **copying.merkle(outcome)},
        bad=[{"offset": extent.offset, "length": extent.length} for extent in report.bad],
        verified=not is_wrong if args.verify else None,
        **pieces.facts(args, report),
        **several.read_back_facts(args, outcome, found),
        **targets,
    )
    failed = several.exit_code(outcome)
    if failed or is_wrong:
        return failed or several.DIFFERS_EXIT
    return copying.UNREADABLE_EXIT if report.bad else 0


def _split(args: argparse.Namespace) -> tuple[str, str]:
    """``--split`` as the option that the target's format has for it.

    Raises:
        UsageError: if it has none.
    """
    from imprint.endpoints.target import TargetRequest

    if not copying.is_repository(args.target):
        format_ = TargetRequest(args.target, args.target_format).chosen_format()
        for option in format_.options:
            if option.name in _SPLITTING:
                return option.name, str(args.split)
    raise UsageError("--split makes no sense: images of this kind are one file", name=args.target)


def _hashes(args: argparse.Namespace) -> tuple[str, ...]:
    """What is to be taken of the disk."""
    is_repository = several.only_repositories(args)
    # In a repository the snapshot's own name is a hash of everything.
    usual = () if is_repository else options.HASHES
    hashes = usual if args.hash is None else args.hash
    if args.verify and args.hash == () and not is_repository:
        raise UsageError("--verify compares hashes: --hash none takes none", name=args.target)
    if args.piecewise is not None and is_repository:
        raise UsageError("--piecewise makes no sense with a repository", name=args.target)
    return hashes
