"""``capture --also``: several targets of one capture, and what is said of them."""

from __future__ import annotations

import functools
from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.cli import copying, options
from imprint.core.errors import (
    Cancelled,
    FormatError,
    ReadError,
    RepositoryError,
    UsageError,
)
from imprint.core.units import format_size
from imprint.endpoints.copying import plan
from imprint.transfer.hashing import READ_BACK

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from imprint.cli.console import Console
    from imprint.endpoints.capturing import Adding
    from imprint.endpoints.copying import CopyRequest, Outcome, Plan

DIFFERS_EXIT: Final = 1
"""What was read back is not what was read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--also``, ``--strict``."""
    parser.add_argument(
        "--also",
        metavar="TARGET",
        action="append",
        default=[],
        help="write this file or device too, in the format of its suffix, or add to this "
        "repo:PLACE::IMAGE: the source is read once for all; repeatable",
    )
    parser.add_argument(
        "--strict", action="store_true", help="with --also: stop all targets when one fails"
    )


def work(
    args: argparse.Namespace,
) -> tuple[Callable[[CopyRequest], Outcome] | None, Callable[[CopyRequest], Plan]]:
    """What copies to several targets, and what says beforehand what it would do.

    Raises:
        UsageError: for options that make no sense with several targets, or only with them.
    """
    if not args.also:
        if args.strict:
            raise UsageError("--strict makes sense only with --also")
        return None, plan
    for name in ("bitmap", "reread", "trust-times"):
        if getattr(args, name.replace("-", "_")):
            raise UsageError(f"--{name} makes no sense with --also: all of the source is read")
    from imprint.endpoints import several  # only where there are several

    also = several.Also(
        tuple(args.also),
        facts=getattr(args, "evidence_facts", {}),
        adding=_adding(args),
        strict=args.strict,
    )
    return (
        functools.partial(several.run_several, also=also),
        functools.partial(several.plan_several, also=also),
    )


def only_repositories(args: argparse.Namespace) -> bool:
    """Whether all targets are images in repositories."""
    return all(copying.is_repository(address) for address in (args.target, *args.also))


def _adding(args: argparse.Namespace) -> Adding | None:
    if not any(copying.is_repository(address) for address in (args.target, *args.also)):
        for name in ("tag", "sign"):
            if getattr(args, name):
                raise UsageError(f"--{name} is for snapshots: no target is a repository")
        return None
    from imprint.endpoints.capturing import Adding  # only for repositories

    return Adding(tuple(args.tag), args.sign)


def read_back(
    args: argparse.Namespace, console: Console, outcome: Outcome
) -> dict[str, dict[str, str]]:
    """Hash all targets that are whole; what is not as in the source, by address and hash."""
    if not outcome.targets:
        return {args.target: _differing(args, console, args.target, outcome.format, outcome)}
    found = {}
    for item in outcome.targets:
        address, format_ = item.request.address, item.format
        if item.snapshot is not None:
            made = f"{address}@{item.snapshot.name}"
            found[address] = _differing(args, console, made, None, outcome)
        elif item.error is None:
            found[address] = _differing(args, console, address, format_, outcome)
    return found


def tell_read_back(console: Console, outcome: Outcome, found: dict[str, dict[str, str]]) -> None:
    """Say what was found in each target, and what was expected where that is something else."""
    for address, wrong in found.items():
        for name, digest in wrong.items():
            expected = outcome.report.hashes.get(name, "one")
            console.note(f"{address}: expected {name} {expected}, found {digest}")
        if not wrong:
            what = address if outcome.targets else "the target"
            console.print(f"read back: {what} holds the same")


def describe(console: Console, args: argparse.Namespace, outcome: Outcome) -> None:
    """Say of each target what was done, for people."""
    report = outcome.report
    console.print(
        f"{args.source}: {format_size(report.size)}, {format_size(report.bytes_read)} read, "
        f"{report.duration_s:.1f} s"
    )
    for item in outcome.targets:
        done = "failed" if item.error else f"{format_size(item.bytes_stored)} stored"
        if item.snapshot is not None:
            done += f", snapshot {item.snapshot.short}"
        console.print(f"-> {item.request.address} ({item.format}): {done}")


def read_back_facts(
    args: argparse.Namespace, outcome: Outcome, found: dict[str, dict[str, str]]
) -> dict[str, object]:
    """What the JSON has of the main target's hashes as they were read back, if they were."""
    if not args.verify or args.target not in found:
        return {}
    return {"read_back": {**outcome.report.hashes, **found[args.target]}}


def facts(outcome: Outcome, wrong: dict[str, dict[str, str]] | None) -> dict[str, object]:
    """What the JSON has of them; ``wrong``: what was read back, if it was."""
    if not outcome.targets:
        return {}
    found = []
    for item in outcome.targets:
        address = item.request.address
        made = {}
        if item.snapshot is not None:
            made = {"image": item.snapshot.manifest.image, "snapshot": item.snapshot.name}
        entry: dict[str, object] = {
            "target": address,
            "ok": item.error is None and not (wrong or {}).get(address),
            "format": item.format,
            "bytes_stored": item.bytes_stored,
            "error": None if item.error is None else str(item.error),
            **made,
        }
        if wrong is not None and address in wrong:
            entry["read_back"] = {**outcome.report.hashes, **wrong[address]}
        found.append(entry)
    return {"targets": found}


def exit_code(outcome: Outcome) -> int:
    """Of the first target that has failed by itself; 0 if none has."""
    errors = [item.error for item in outcome.targets if item.error is not None]
    errors.sort(key=lambda error: isinstance(error, Cancelled))
    return errors[0].exit_code if errors else 0


def _differing(
    args: argparse.Namespace,
    console: Console,
    address: str,
    format_: str | None,
    outcome: Outcome,
) -> dict[str, str]:
    """Hash a target; what is not as in the source, by name of the hash."""
    from imprint.endpoints.hashing import hash_disk, open_written  # only to read back

    access = options.access(args, console, format_=format_, is_source=False)
    report = outcome.report
    try:
        with console.stopping(), closing(open_written(address, report.size, access)) as disk:
            found = hash_disk(
                disk,
                # Chunks of a repository are checked by their names, whatever is compared.
                tuple(report.hashes) or READ_BACK,
                workers=args.workers,
                on_event=console.on_event,
                cancel=console.cancel,
                phase="verify",
            ).hashes
    except (ReadError, FormatError, RepositoryError) as error:
        # It was written a moment ago: that it cannot be read is how it differs.
        return dict.fromkeys(report.hashes or READ_BACK, f"nothing: {error}")
    return {name: found[name] for name, digest in report.hashes.items() if found[name] != digest}
