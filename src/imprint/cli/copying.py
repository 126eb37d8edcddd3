"""What the verbs that copy a disk share: ``capture``, ``convert`` and ``restore``."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli import options, pieces, rescuing
from imprint.cli.console import exact, printable
from imprint.core.errors import UsageError
from imprint.core.units import format_size
from imprint.endpoints.copying import CopyRequest, Outcome, Plan, plan, run
from imprint.endpoints.location import Where, parse
from imprint.endpoints.target import TargetRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.cli.console import Console
    from imprint.endpoints.fitting import Grown
    from imprint.endpoints.target import Confirm

UNREADABLE_EXIT: Final = 6
"""Done, but for areas that could not be read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that every copying verb has."""
    options.add_access(parser)
    parser.add_argument("-O", "--target-format", metavar="FORMAT", help="instead of by suffix")
    options.add_target_options(parser)
    options.add_uuid(parser)
    options.add_workers(parser)
    options.add_place_options(parser)
    parser.add_argument(
        "--no-detect-zeros",
        dest="detect_zeros",
        action="store_false",
        help="trust the source's map of holes, and let the system copy or share what is data",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="go on with an interrupted copy (by default, if it was the same one)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a file; write a device unasked"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    options.add_output(parser)


def add_snapshot_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for a target that is a repository."""
    parser.add_argument(
        "--tag",
        metavar="LABEL",
        action="append",
        default=[],
        help="of the new snapshot, if the target is a repository; repeatable",
    )
    parser.add_argument(
        "--sign",
        metavar="FILE",
        type=Path,
        help="Ed25519 key that vouches for the new snapshot; PEM, or of ssh-keygen",
    )
    parser.add_argument(
        "--bitmap",
        metavar="NAME",
        help="of the source, which has noted what was written since the last snapshot: only that "
        "is read",
    )
    parser.add_argument(
        "--reread",
        action="store_true",
        help="read all of the source, even if its files seem not to have changed since the last "
        "snapshot",
    )
    parser.add_argument(
        "--trust-times",
        action="store_true",
        help="do not read files on the source that are as in the last snapshot by all that ext2-4, "
        "XFS or NTFS say of them",
    )


def copy(
    args: argparse.Namespace,
    console: Console,
    *,
    hashes: tuple[str, ...] = (),
    salvage: bool = False,
    work: Callable[[CopyRequest], Outcome] | None = None,
    intend: Callable[[CopyRequest], Plan] = plan,
) -> Outcome | None:
    """Run the copy that the arguments ask for; ``None`` after a dry run.

    Args:
        args: with all that :func:`add_arguments` declares.
        console: shows what happens.
        hashes: to take of the content on the way.
        salvage: go on past what cannot be read.
        work: what does it; ``None``: what the target needs.
        intend: what says for ``--dry-run`` what would be done.
    """
    request = CopyRequest(
        source=args.source,
        target=TargetRequest(
            args.target,
            args.target_format,
            dict(args.option),
            force=args.force,
            confirm=confirm(console) if sys.stdin is not None and sys.stdin.isatty() else None,
            uuid=args.uuid,
            time_s=options.time_s(),
        ),
        access=options.access(args, console),
        workers=args.workers,
        hashes=hashes,
        piece=pieces.wanted(args, hashes),
        detect_zeros=args.detect_zeros,
        salvage=salvage,
        rescue=rescuing.request(args),
        source_map=None if salvage else getattr(args, "map", None),
        prove=getattr(args, "prove", None),
        resume=args.resume,
        on_event=console.on_event,
        cancel=console.cancel,
    )
    if args.target == "-":
        console.to_stderr()
    if work is None:
        work, intend = _work(args, intend, hashes)
    with console.stopping():
        if not args.dry_run:
            return work(request)
        intent = intend(request)
    console.print(
        f"would copy {format_size(intent.data)} of data, {format_size(intent.size)} in all, "
        f"from {args.source} to {args.target} as {intent.format}"
    )
    left_out = {}
    if intent.left_out is not None:
        left_out = {"left_out": intent.left_out}
        console.print(f"would leave out {format_size(intent.left_out)}: no file system uses it")
    if intent.grown is not None:
        console.print(f"would grow {describe_grown(intent.grown)}")
    console.result(
        dry_run=True,
        size=intent.size,
        data=intent.data,
        format=intent.format,
        **left_out,
        **grown_facts(intent.grown),
    )
    return None


def _work(
    args: argparse.Namespace, intend: Callable[[CopyRequest], Plan], hashes: tuple[str, ...]
) -> tuple[Callable[[CopyRequest], Outcome], Callable[[CopyRequest], Plan]]:
    """What copies to the target, and what says beforehand what it would do."""
    if not is_repository(args.target):
        for name in ("tag", "sign", "bitmap", "reread", "trust-times"):
            if getattr(args, name.replace("-", "_"), None):
                raise UsageError(f"--{name} is for snapshots: the target is no repository")
        return run, intend
    if "tag" not in args:  # not declared: the verb adds to no repository, which is refused there
        return run, intend
    for name, is_given in (("reread", args.reread), ("bitmap", args.bitmap), ("hash", hashes)):
        if args.trust_times and is_given:
            raise UsageError(f"--trust-times makes no sense with --{name}")
    from imprint.endpoints import capturing  # only for repositories

    adding = capturing.Adding(
        tuple(args.tag),
        args.sign,
        verify=getattr(args, "verify", False),
        reread=args.reread,
        bitmap=args.bitmap,
        trust_times=args.trust_times,
    )
    return functools.partial(capturing.run, adding=adding), capturing.plan


def is_repository(address: str) -> bool:
    """Whether an address names a disk in a repository."""
    return parse(address).where is Where.REPOSITORY


def describe_grown(grown: Grown) -> str:
    """Which partition got how large, for people."""
    content = "" if grown.grower is None else f" and its {grown.kind}"
    sizes = f"from {format_size(grown.old)} to {format_size(grown.new)}"
    return f"partition {grown.index}{content} {sizes}"


def grown_facts(grown: Grown | None) -> dict[str, object]:
    """What the JSON of a restore has if it enlarges a partition."""
    return {} if grown is None else {"grown": grown.to_json()}


def describe(console: Console, args: argparse.Namespace, outcome: Outcome) -> None:
    """Say what was done, for people."""
    report = outcome.report
    console.print(
        f"{args.source} -> {args.target} ({outcome.format}): "
        f"{format_size(report.size)}, {format_size(report.bytes_read)} read, "
        f"{format_size(outcome.bytes_stored)} stored, {report.duration_s:.1f} s"
    )
    if outcome.snapshot is not None:
        console.print(f"snapshot {outcome.snapshot.short} of {outcome.snapshot.manifest.image}")
    if outcome.left_out is not None:
        proof = ", which was proved" if outcome.proved else ""
        console.print(f"{format_size(outcome.left_out)} left out: no file system uses it{proof}")


def facts(outcome: Outcome) -> dict[str, object]:
    """What the JSON of every copying verb has."""
    report = outcome.report
    left_out = {}
    if outcome.left_out is not None:
        left_out = {"left_out": outcome.left_out, "proved": outcome.proved}
    made = {}
    if outcome.snapshot is not None:
        made = {"image": outcome.snapshot.manifest.image, "snapshot": outcome.snapshot.name}
    return {
        "size": report.size,
        "bytes_read": report.bytes_read,
        "bytes_stored": outcome.bytes_stored,
        "format": outcome.format,
        "resumed_at": report.resumed_at,
        "duration_s": round(report.duration_s, 3),
        **left_out,
        **made,
    }


def exit_code(console: Console, args: argparse.Namespace, outcome: Outcome) -> int:
    """Of a copy that came to its end, which may lack what a medium has lost before."""
    if not outcome.report.bad:
        return 0
    lost = sum(extent.length for extent in outcome.report.bad)
    console.note(f"{args.target}: {exact(lost)} of it could not be read from the medium")
    return UNREADABLE_EXIT


def merkle(outcome: Outcome) -> dict[str, str]:
    """The name of a snapshot's root: a hash of all of the disk."""
    return {} if outcome.snapshot is None else {"merkle": outcome.snapshot.manifest.root}


def confirm(console: Console) -> Confirm:
    """Shows what would be lost, and has the device's name typed back."""

    def ask(name: str, description: str) -> bool:
        with console.asking():
            print(f"This erases {printable(description)}", file=sys.stderr)
            print(f"Type {printable(name)} to go on: ", end="", file=sys.stderr, flush=True)
            return sys.stdin.readline().strip() == name

    return ask
