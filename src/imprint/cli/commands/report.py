"""report: all that is on a disk, as DFXML, timeline and page."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli import files, options
from imprint.core.errors import UsageError
from imprint.endpoints.location import parse
from imprint.endpoints.report.making import make_report
from imprint.endpoints.report.request import ReportRequest

if TYPE_CHECKING:
    from imprint.cli.console import Console
    from imprint.endpoints.report.request import ReportOutcome

EXAMPLES = """\
  imprint report disk.E01 -o disk.dfxml                       with MD5 and SHA-1 of each file
  imprint report disk.E01 -o disk.dfxml --hash sha256 --deleted
  imprint report disk.qcow2 --timeline disk.body --html disk.html
  imprint report disk.qcow2 --timeline events.csv
  imprint report disk.qcow2#p2 | xmllint --format -
"""

_HASHES: Final = ("md5", "sha1")
_STDOUT: Final = "-"
_CSV: Final = ".csv"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/report.md`` lists them too."""
    parser.add_argument("image", help="image, device or URL, or a volume of it: IMAGE#p1")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where the DFXML goes; -: standard output (the default, if nothing else is named)",
    )
    parser.add_argument(
        "--timeline", metavar="FILE", type=Path, help="also a timeline of all files"
    )
    parser.add_argument(
        "--timeline-format",
        choices=("body", "csv"),
        help="a body file, as mactime reads it, or events in CSV by time (default: by suffix)",
    )
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="also a page to look through, in one file"
    )
    parser.add_argument(
        "--hash",
        metavar="LIST",
        type=_hashes,
        default=_HASHES,
        help="of each file: md5, sha1, sha256, sha512, blake3; or none (default: md5,sha1)",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with a report that was interrupted: what was hashed is not read again",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    files.add_arguments(parser)
    options.add_workers(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Report."""
    if parse(args.image).inside is not None:
        raise UsageError("expected a disk or a volume, found a path in one", name=args.image)
    if args.timeline_format is not None and args.timeline is None:
        raise UsageError("--timeline-format makes sense only with --timeline")
    if Path(_STDOUT) in (args.timeline, args.html):
        raise UsageError("only -o takes - for standard output: expected a file")
    is_only = args.output is None and args.timeline is None and args.html is None
    to_stdout = is_only or args.output == _STDOUT
    output = None if to_stdout or args.output is None else Path(args.output)  # ./- is a file
    if to_stdout and args.json:
        raise UsageError("expected -o FILE with --json: standard output has the summary")
    is_csv = args.timeline_format == "csv" or (
        args.timeline_format is None
        and args.timeline is not None
        and args.timeline.suffix.lower() == _CSV
    )
    request = ReportRequest(
        dfxml=output,
        stream=(lambda data, _: console.write(data)) if to_stdout else None,
        timeline=args.timeline,
        timeline_is_csv=is_csv,
        html=args.html,
        hashes=args.hash,
        deleted=args.deleted,
        force=args.force,
        resume=args.resume,
        workers=args.workers,
        command_line=tuple(sys.argv),
    )
    started = time.monotonic()
    with files.browser_of(args.image, args, console) as browser, console.stopping():
        outcome = make_report(
            browser, args.image, request, on_event=console.on_event, cancel=console.cancel
        )
    if not to_stdout:
        _show(console, outcome)
    console.result(
        image=args.image,
        volumes=[volume.to_json() for volume in outcome.volumes],
        hashed=outcome.hashed,
        resumed=outcome.resumed,
        unreadable=outcome.unreadable,
        bytes_read=outcome.bytes_read,
        outputs=[os.fspath(path) for path in (output, args.timeline, args.html) if path],
        duration_s=round(time.monotonic() - started, 3),
    )
    return 0 if outcome.is_whole else files.NOTED_EXIT


def _hashes(text: str) -> tuple[str, ...]:
    return options.hashes(text, may_be_none=True)


def _show(console: Console, outcome: ReportOutcome) -> None:
    rows = [("volume", "file system", "files", "folders", "deleted")]
    rows += [
        (
            volume.name or "disk",
            volume.filesystem or "-",
            str(volume.files),
            str(volume.folders),
            str(volume.deleted),
        )
        for volume in outcome.volumes
    ]
    console.table(rows, right=(2, 3, 4))
    if outcome.resumed:
        console.note(f"{outcome.resumed} files were hashed before the interruption")
    if outcome.unreadable:
        console.note(f"warning: {outcome.unreadable} files could not be read as a whole")
