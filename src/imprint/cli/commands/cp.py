"""cp: extract files from an image."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli import files, options
from imprint.cli.console import exact
from imprint.core.errors import UsageError
from imprint.core.events import Progress
from imprint.endpoints.browsing import look_up
from imprint.endpoints.extracted_folders import TargetFolders
from imprint.endpoints.extracting import Extractor
from imprint.endpoints.extraction import Extraction, Wishes
from imprint.endpoints.location import parse
from imprint.endpoints.target import check_not_read
from imprint.filesystems.tree import Type
from imprint.filesystems.walking import walk
from imprint.storage.pending import check_replaceable

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.endpoints.browsing import Browser

EXAMPLES = """\
  imprint cp disk.qcow2#p2:/etc/hostname disk.qcow2#p2:/etc/hosts out
  imprint cp -r disk.qcow2#p2:/home out                   makes out/home
  imprint cp -r disk.iso:/ out                            all of it
  imprint cp -r stick.E01#p1:/ out --deleted              deleted files too
  imprint cp -r disk.qcow2#p2:/home out --resume          after an interruption
  imprint cp -r evidence.E01#p1:/ out --unallocated free.bin --slack
"""

_SHOWN_MAX: Final = 20
_INTERVAL_S: Final = 0.1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/cp.md`` lists them too."""
    parser.add_argument("address", nargs="+", help="file or folder: IMAGE#p1:/PATH")
    parser.add_argument("target", type=Path, help="folder to put them in; it is made")
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="folders too, with all that is in them"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="leave out files that are there and whole: same size, and same time or content",
    )
    parser.add_argument(
        "--owner",
        action="store_true",
        help="give files their owner and group, and set-user-ID bits; needs root",
    )
    parser.add_argument(
        "--streams",
        choices=("files", "xattrs"),
        help="alternate data streams too: as files NAME:STREAM, or as extended attributes",
    )
    parser.add_argument(
        "--xattrs",
        choices=("user", "all", "none"),
        default="user",
        help="extended attributes that files get: user.* (usual), all with access control lists, "
        "labels and capabilities, or none",
    )
    parser.add_argument(
        "--slack",
        action="store_true",
        help="also what lies behind the end of each file, as NAME%%~slack",
    )
    parser.add_argument(
        "--unallocated",
        metavar="FILE",
        type=Path,
        help="also write all free blocks of the file system into a file",
    )
    files.add_arguments(parser, system=True)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Extract."""
    if args.owner and os.geteuid() != 0:
        raise UsageError("--owner needs root: nobody else can give files away")
    wishes = Wishes(
        recursive=args.recursive,
        system=args.all,
        deleted=args.deleted,
        force=args.force,
        resume=args.resume,
        owner=args.owner,
        streams=args.streams,
        xattrs=args.xattrs,
        slack=args.slack,
    )
    started = time.monotonic()
    report = Extraction()
    with ExitStack() as stack, console.stopping():
        browsers: dict[str, Browser] = {}
        for address in args.address:
            base = _base(address)
            if base not in browsers:
                browsers[base] = stack.enter_context(files.browser_of(address, args, console))
        if args.unallocated is not None:
            # Said now, and not when hours later all files are there.
            if len(browsers) > 1:
                raise UsageError("--unallocated makes sense with one file system only")
            check_replaceable(args.unallocated, may_replace=args.force)
            for browser in browsers.values():
                check_not_read(args.unallocated, browser.source)
        watch = _Watch(console, _total(args, browsers))
        folders = stack.enter_context(closing(TargetFolders(args.target)))
        disks = [browser.source for browser in browsers.values()]
        extractor = Extractor(folders, wishes, report, watch, disks)
        for address in args.address:
            browser = browsers[_base(address)]
            extractor.add(browser, browser.volume(), parse(address).inside or "/")
        free = None
        if args.unallocated is not None:
            free = _unallocated(args, browsers, report, watch)
        watch.end()
    _show(console, args, report)
    console.result(**_facts(report, free), duration_s=round(time.monotonic() - started, 3))
    return 0 if report.is_whole else files.NOTED_EXIT


def _base(address: str) -> str:
    location = parse(address)
    return address if location.inside is None else location.base


class _Watch:
    """Shows how far it is, and stops it on Ctrl-C."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0
        self._last = 0.0

    def __call__(self, count: int) -> None:
        self._console.cancel.check()
        self._done += count
        now = time.monotonic()
        if now - self._last >= _INTERVAL_S:
            self._last = now
            self._tell()

    def end(self) -> None:
        """All is done."""
        self._total = self._done
        self._tell()

    def _tell(self) -> None:
        total = max(self._total, self._done)
        self._console.on_event(Progress("extract", self._done, total, self._done))


def _total(args: argparse.Namespace, browsers: dict[str, Browser]) -> int:
    """How much there is to be written, as far as that is known before; for progress only."""
    if args.progress == "none":
        return 0
    total = 0
    for address in args.address:
        browser = browsers[_base(address)]
        volume = browser.volume()
        tree = browser.tree(volume)
        top = look_up(tree, parse(address).inside or "/", follow=False, deleted=args.deleted)
        told = len(tree.notes)
        found = walk(tree, top) if args.recursive else (top,)
        total += sum(entry.size for entry in found if entry.type is Type.FILE)
        del tree.notes[told:]  # they come again
    return total


def _unallocated(
    args: argparse.Namespace, browsers: dict[str, Browser], report: Extraction, watch: _Watch
) -> int:
    """Write what is free; how many bytes that is."""
    from imprint.endpoints.leftovers import store_unallocated  # only where it is asked for

    (browser,) = browsers.values()
    volume = browser.told(browser.volume())
    size, bad = store_unallocated(volume, args.unallocated, watch, force=args.force)
    for offset, length in bad:
        report.bad.add(path=str(args.unallocated), offset=offset, length=length)
    return size


def _show(console: Console, args: argparse.Namespace, report: Extraction) -> None:
    done = [f"{report.files} files with {exact(report.size)}", f"{report.folders} folders"]
    done += [f"{report.links} links"] if report.links else []
    done += [f"{report.kept} were there"] if report.kept else []
    console.print(f"{args.target}: {', '.join(done)}")
    if report.streams_left:
        console.note(f"{report.streams_left} streams were left out: --streams extracts them")
    if report.xattrs_left:
        what = "extended attributes other than user.* were left out: --xattrs all restores them"
        console.note(f"{report.xattrs_left} {what}")
    for item in report.xattrs_failed.items[:1]:  # the target takes none, and so it is with all
        count, first = report.xattrs_failed.count, "{name} of {path}: {why}".format(**item)
        console.note(f"warning: {count} extended attributes could not be set, first {first}")
    lists = (
        (report.skipped, "left out: {path}: {why}"),
        (report.renamed, "renamed: {path}: {name}"),
        (report.recovered, "recovered: {path} into {folder}"),
        (report.failed, "error: {path}: {why}"),
        (report.bad, "error: {path}: {length} bytes at {offset} could not be read, and are zeros"),
    )
    for found, words in lists:
        for item in found.items[:_SHOWN_MAX]:
            console.note(words.format(**item))
        if found.count > _SHOWN_MAX:
            console.note(f"{found.count - _SHOWN_MAX} more of the kind")
    files.tell_notes(console, args.address[0], report.notes)


def _facts(report: Extraction, free: int | None) -> dict[str, object]:
    return {
        "files": report.files,
        "folders": report.folders,
        "links": report.links,
        "kept": report.kept,
        "bytes_written": report.size,
        "unallocated": free,
        "streams_left": report.streams_left,
        "xattrs": report.xattrs,
        "xattrs_left": report.xattrs_left,
        "xattrs_failed": report.xattrs_failed.items,
        "skipped": report.skipped.items,
        "failed": report.failed.items,
        "bad": report.bad.items,
        "renamed": report.renamed.items,
        "recovered": report.recovered.items,
        "counts": {
            "skipped": report.skipped.count,
            "xattrs_failed": report.xattrs_failed.count,
            "failed": report.failed.count,
            "bad": report.bad.count,
            "renamed": report.renamed.count,
            "recovered": report.recovered.count,
        },
        "notes": report.notes,
    }
