"""repo prune: remove what no snapshot needs."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from imprint.cli import options, repositories
from imprint.core.units import format_size
from imprint.repository.sessions import EXPIRY_MIN_S, EXPIRY_S

if TYPE_CHECKING:
    from imprint.cli.console import Console
    from imprint.repository.prune import Report
    from imprint.repository.repository import Repository

EXAMPLES = """\
  imprint repo prune /srv/images --dry-run
  imprint repo prune /srv/images --max-waste 10
  imprint repo prune /srv/images --expire-sessions 1h     after a host has died
"""

_PERCENT_ALL: Final = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-prune.md`` lists them too."""
    repositories.add_place(parser)
    parser.add_argument(
        "--max-waste",
        metavar="PERCENT",
        type=options.number(0, _PERCENT_ALL),
        default=30,
        help="packs of which a larger part is not needed are made anew (default: 30)",
    )
    parser.add_argument(
        "--expire-sessions",
        metavar="TIME",
        type=_expiry,
        default=timedelta(seconds=EXPIRY_S),
        help="wait for nobody who has given no sign of life for so long, at least 1h (default: 1d)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed")
    repositories.add_access(parser)
    options.add_output(parser)


def _expiry(text: str) -> timedelta:
    """For how long a session lives without renewal, as an argument."""
    found = options.duration(text)
    if found.total_seconds() < EXPIRY_MIN_S:
        raise argparse.ArgumentTypeError(f"expected 1h or more, found {text!r}")
    return found


def run(args: argparse.Namespace, console: Console) -> int:
    """Prune; what others may still be using is left for a later prune."""
    with repositories.opened(args, console) as repository:
        report = prune(repository, args, console)
    console.result(**facts(report), dry_run=args.dry_run)
    return 0


def prune(repository: Repository, args: argparse.Namespace, console: Console) -> Report:
    """Do it, and say what was done."""
    from imprint.repository.prune import Options, prune

    with console.stopping():
        report = prune(
            repository,
            Options(
                waste_max=args.max_waste / _PERCENT_ALL,
                expiry_s=args.expire_sessions.total_seconds(),
                dry_run=args.dry_run,
                on_event=console.on_event,
                cancel=console.cancel,
            ),
        )
    would = "would be " if args.dry_run else ""
    console.print(f"{format_size(report.bytes)} in {report.packs} packs")
    console.print(
        f"{report.removed_packs} packs {would}removed, {report.repacked_packs} of them after what "
        f"is needed of them was copied: {format_size(max(0, report.freed_bytes))} {would}freed"
    )
    if report.waiting_packs:
        size = format_size(report.waiting_bytes)
        console.print(f"{report.waiting_packs} packs, {size}, are left for a later prune")
    for session in report.waits_for:
        console.print(f"waits for {session.verb or 'somebody'} on {session.host or 'a host'}")
    if report.is_full:
        console.note(f"{repository.name}: there was no room to do all of it")
    return report


def facts(report: Report) -> dict[str, object]:
    """What the JSON has of it."""
    return {
        "packs": report.packs,
        "bytes": report.bytes,
        "removed_packs": report.removed_packs,
        "removed_bytes": report.removed_bytes,
        "repacked_packs": report.repacked_packs,
        "freed_bytes": report.freed_bytes,
        "waiting_packs": report.waiting_packs,
        "waiting_bytes": report.waiting_bytes,
        "waits_for": [{"verb": item.verb, "host": item.host} for item in report.waits_for],
    }
