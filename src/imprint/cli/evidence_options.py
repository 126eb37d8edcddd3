"""Options of captures that are evidence: what the examiner says, write blocks, the log."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import Cancelled, ImagingError, UsageError
from imprint.core.events import Finding, Severity
from imprint.endpoints.location import Where, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.cli.console import Console
    from imprint.core.formats import Format
    from imprint.endpoints.evidence import EvidenceLog
    from imprint.endpoints.unlocking import Unlocking

CASE: Final = (
    ("case_number", "number of the case"),
    ("evidence_number", "number of the piece of evidence"),
    ("examiner", "who makes the image"),
    ("description", "what it is an image of"),
    ("notes", "anything else"),
)
_CASE_CHARACTERS_MAX: Final = 3000
_RECORDED: Final = (
    *("hash", "verify", "format", "target_format", "option", "used", "used_force", "drop_swap"),
    *("retries", "reverse", "timeout", "rescue_order", "workers", "resume", "detect_zeros"),
    *("force", "require_read_only", "unlock_hpa"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    for name, doc in CASE:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="TEXT",
            type=_case_text,
            help=f"{doc}; kept in the log, and in the image where its format can",
        )
    parser.add_argument(
        "--require-read-only",
        action="store_true",
        help="refuse a device or file that could be written while it is read",
    )
    parser.add_argument(
        "--unlock-hpa",
        action="store_true",
        help="image sectors too that the drive hides by a host protected area: its limit is raised "
        "by hdparm for the time, never permanently, and set back in the end",
    )
    parser.add_argument(
        "--log",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="ask the drive about itself, and write TARGET.log.txt, TARGET.log.json and "
        "TARGET.dfxml (by default, if the format is one for evidence or an option above is given)",
    )
    parser.add_argument(
        "--log-to",
        metavar="PATH",
        type=Path,
        help="write the log as PATH.log.txt and so on, instead of beside the target",
    )


def recorded(
    args: argparse.Namespace,
    console: Console,
    work: Callable[[EvidenceLog | None], int],
) -> int:
    """Do the work of a capture, with its log written at the end of whatever happens."""
    if args.require_read_only:
        from imprint.endpoints.evidence_source import check_read_only  # only where asked for

        check_read_only(args.source)
    if args.unlock_hpa:
        from imprint.endpoints.unlocking import check_unlockable  # only where asked for

        check_unlockable(args.source)
    case = {name: text for name, _ in CASE if (text := getattr(args, name)) is not None}
    format_ = _format(args.target, args.target_format)
    base = None if args.dry_run else _base(args, case)
    args.evidence_facts = case
    given = {name for name, _ in args.option}
    known = set() if format_ is None else {option.name for option in format_.options}
    for name, text in case.items():
        if name in given:
            raise UsageError(f"--{name.replace('_', '-')} and -o {name} say the same thing")
        if name in known:
            args.option = [*args.option, (name, text)]
    if base is None:
        return work(None)
    from imprint.endpoints.evidence import (  # only where asked for
        DRIVE_FACTS,
        EvidenceLog,
        EvidenceRequest,
    )

    request = EvidenceRequest(
        base=base,
        source=args.source,
        target=args.target,
        arguments=("imprint", *sys.argv[1:]),
        case=case,
        options=_options(args),
        force=args.force,
        unlocks=args.unlock_hpa,
    )
    log = EvidenceLog(request)
    for finding in log.hidden_findings:
        console.finding(finding)
    console.watchers.append(log.on_event)
    args.option = [*args.option, *log.drive_options(known - given)]
    args.evidence_facts = {**case, **dict(log.drive_options(DRIVE_FACTS))}
    try:
        code = _unlocked(args, console, log, work) if args.unlock_hpa else work(log)
    except (ImagingError, KeyboardInterrupt) as error:
        code = error.exit_code if isinstance(error, ImagingError) else Cancelled.exit_code
        try:
            log.ended(code, error)
        except ImagingError as second:
            console.error(second)  # what came first is the exit code
        raise
    log.ended(code)
    return code


def _unlocked(
    args: argparse.Namespace,
    console: Console,
    log: EvidenceLog,
    work: Callable[[EvidenceLog | None], int],
) -> int:
    """Do the work with the limit of the drive raised, and set that back whatever happens."""
    from imprint.endpoints.unlocking import Unlocking
    from imprint.storage.device_facts import System

    assert log.hidden is not None, "the source is a drive"
    drive = Unlocking(parse(args.source).path, log.hidden, System())
    if not drive.is_needed:
        what = "no sectors are hidden by a host protected area"
        console.finding(Finding(Severity.INFO, args.source, what))
        return work(log)
    log.unlocking(drive.to_json())
    try:
        with console.stopping():  # nobody stops half-way
            drive.unlock()
        log.unlocking(drive.to_json())
        what = f"{log.hidden.protected_sectors} hidden sectors are visible while this goes on"
        console.finding(Finding(Severity.INFO, args.source, what))
        if console.cancel.is_cancelled:
            raise Cancelled("interrupted")
        code = work(log)
    except BaseException:
        try:
            _hide(console, drive, log)
        except ImagingError as second:
            console.error(second)  # what came first is the exit code
        raise
    _hide(console, drive, log)
    return code


def _hide(console: Console, drive: Unlocking, log: EvidenceLog) -> None:
    try:
        with console.stopping():
            drive.hide()
    finally:
        log.facts["unlocked"] = drive.to_json()


def _format(address: str, name: str | None = None) -> Format | None:
    """Of a target; ``None`` for a repository, which keeps no case data."""
    if parse(address).where is Where.REPOSITORY:
        return None
    from imprint.endpoints.target import TargetRequest

    return TargetRequest(address, name).chosen_format()


def _keeps_case(format_: Format | None) -> bool:
    return format_ is not None and any(option.name == "case_number" for option in format_.options)


def _base(args: argparse.Namespace, case: dict[str, str]) -> Path | None:
    """What the files of the log are called; ``None``: there is none.

    Raises:
        UsageError: if it is asked for and has no place.
    """
    if args.log is False:
        if args.log_to is not None:
            raise UsageError("--log-to and --no-log contradict each other")
        if args.unlock_hpa:
            raise UsageError("--unlock-hpa changes the drive for a time: that has to be logged")
        return None
    if args.log_to is not None:
        base: Path = args.log_to
        return base
    formats = [_format(args.target, args.target_format), *map(_format, args.also)]
    is_asked_for = args.log or case or args.unlock_hpa
    is_wanted = is_asked_for or args.require_read_only or any(map(_keeps_case, formats))
    if not is_wanted:
        return None
    for address in (args.target, *args.also):
        location = parse(address)
        if location.where is Where.FILE and location.base != "-":
            return location.path
    if is_asked_for:
        raise UsageError(
            "a log has no place beside it", name=args.target, advice="--log-to PATH gives it one"
        )
    return None


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Those of the capture, but for what has no value."""
    facts: dict[str, Any] = {}
    for name in _RECORDED:
        value = getattr(args, name, None)
        if value is None or value is False or value in ((), []):
            continue
        facts[name] = dict(value) if name == "option" else value
    return facts


def _case_text(text: str) -> str:
    if not text or len(text) > _CASE_CHARACTERS_MAX:
        raise argparse.ArgumentTypeError(f"expected 1 to {_CASE_CHARACTERS_MAX} characters")
    return text
