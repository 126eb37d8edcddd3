"""repo check: is a repository sound, and what would be lost if it is not?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from imprint.cli import options, repositories
from imprint.cli.console import exact
from imprint.core.errors import UsageError
from imprint.core.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.cli.console import Console
    from imprint.repository.check_report import CheckReport
    from imprint.repository.damage import SnapshotDamage
    from imprint.repository.repair import RepairReport
    from imprint.repository.repository import Repository
    from imprint.repository.subsets import Subset

EXAMPLES = """\
  imprint repo check /srv/images
  imprint repo check /srv/images --read-data
  imprint repo check /srv/images --read-data-subset 1/7      a seventh each day
  imprint repo check /srv/images --read-data --repair
"""

_DAMAGED_EXIT: Final = 1
_RANGES_SHOWN: Final = 4
_FILES_SHOWN: Final = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-check.md`` lists them too."""
    repositories.add_place(parser)
    parser.add_argument(
        "--read-data", action="store_true", help="read every byte, and name every block anew"
    )
    parser.add_argument(
        "--read-data-subset",
        metavar="PART",
        type=_subset,
        help="read a part of it: 5%%, 500M, or 1/7 for the first of seven",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="mend what parity can mend; make the index again; drop what is lost, so that the "
        "next capture adds it again",
    )
    parser.add_argument(
        "--write-repaired",
        action="store_true",
        help="with --repair: of each snapshot that is damaged, make one in which what is lost "
        "counts as unreadable",
    )
    options.add_signer(parser, "every snapshot")
    options.add_workers(parser)
    repositories.add_access(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Check; 0 if it is sound, 1 if not, and also after a repair if something is lost."""
    from imprint.endpoints.damaged_files import damaged_files
    from imprint.repository.check import check
    from imprint.repository.check_report import CheckOptions
    from imprint.repository.signing import read_trusted
    from imprint.repository.subsets import Subset

    if args.write_repaired and not args.repair:
        raise UsageError("--write-repaired makes sense only with --repair")
    if args.read_data and args.read_data_subset is not None:
        raise UsageError("expected --read-data or --read-data-subset, found both")
    subset = Subset() if args.read_data else args.read_data_subset
    trusted = [key for path in args.signer for key in read_trusted(path)]
    with repositories.opened(args, console) as repository, console.stopping():
        report = check(
            repository,
            CheckOptions(
                read_data=subset,
                trusted=trusted,
                files_of=damaged_files(repository),
                workers=args.workers,
                on_event=console.on_event,
                cancel=console.cancel,
            ),
        )
        repaired = None
        if args.repair and (report.broken_parity or not report.is_sound):
            repaired = _repair(repository, report, args, console)
    _print(report, console)
    if repaired is not None:
        _print_repaired(repaired, console)
    ok = report.is_sound if repaired is None else not (repaired.damage or repaired.unrepaired)
    console.print(f"{args.place}: {_verdict(report, repaired, ok=ok)}")
    console.result(
        ok=ok,
        findings=[
            {"severity": item.severity.value, "where": item.where, "what": item.what}
            for item in report.findings
        ],
        snapshots=report.snapshots,
        packs=report.packs,
        packs_read=report.packs_read,
        bytes_read=report.bytes_read,
        damage=_damage_json(report.damage if repaired is None else repaired.damage),
        repaired=None if repaired is None else _repaired_json(repaired),
    )
    return 0 if ok else _DAMAGED_EXIT


def _repair(
    repository: Repository, report: CheckReport, args: argparse.Namespace, console: Console
) -> RepairReport:
    from imprint.repository.repair import RepairOptions, repair

    return repair(
        repository,
        report,
        RepairOptions(
            write_repaired=args.write_repaired, on_event=console.on_event, cancel=console.cancel
        ),
    )


def _print(report: CheckReport, console: Console) -> None:
    console.print(
        f"{report.snapshots} snapshots, {report.packs} packs, "
        f"{format_size(report.bytes_read)} read of {report.packs_read} packs"
    )
    _print_damage(report.damage, console)


def _print_damage(damage: Sequence[SnapshotDamage], console: Console) -> None:
    for item in damage:
        manifest = item.snapshot.manifest
        size = exact(item.ranges.total)
        console.print(f"{manifest.image}@{item.snapshot.short}: {size} cannot be read")
        ranges = list(item.ranges)
        for start, length in ranges[:_RANGES_SHOWN]:
            console.print(f"  {exact(length)} at {start}")
        if len(ranges) > _RANGES_SHOWN:
            console.print(f"  and {len(ranges) - _RANGES_SHOWN} more; --json lists them")
        for name in item.files[:_FILES_SHOWN]:
            console.print(f"  {name}")
        if len(item.files) > _FILES_SHOWN:
            console.print(f"  and {len(item.files) - _FILES_SHOWN} more; --json lists them")


def _print_repaired(repaired: RepairReport, console: Console) -> None:
    console.print(
        f"repaired: {len(repaired.mended)} packs mended by parity, {len(repaired.removed)} "
        f"dropped, {repaired.rescued} blocks of these kept, {repaired.lost} lost"
    )
    if repaired.index_rebuilt:
        console.print("the index was made again")
    if repaired.damage:
        console.print("what is lost now:")
        _print_damage(repaired.damage, console)
    for old, new in repaired.written:
        image = old.manifest.image
        console.print(f"{image}@{old.short}: the same without what is lost is {image}@{new.short}")


def _verdict(report: CheckReport, repaired: RepairReport | None, *, ok: bool) -> str:
    if repaired is not None:
        return "repaired" if ok else "repaired, but something is lost"
    if not ok:
        return "damaged"
    return "no errors" if report.packs_read else "no errors; its data was not read"


def _damage_json(damage: Sequence[SnapshotDamage]) -> list[dict[str, object]]:
    return [
        {
            **repositories.snapshot_json(item.snapshot),
            "ranges": [{"offset": start, "length": length} for start, length in item.ranges],
            "files": list(item.files),
            "reasons": list(item.reasons),
        }
        for item in damage
    ]


def _repaired_json(repaired: RepairReport) -> dict[str, object]:
    return {
        "mended": len(repaired.mended),
        "removed": len(repaired.removed),
        "rescued": repaired.rescued,
        "lost": repaired.lost,
        "index_rebuilt": repaired.index_rebuilt,
        "written": [{"snapshot": old.name, "as": new.name} for old, new in repaired.written],
    }


def _subset(text: str) -> Subset:
    """A part of the data, as an argument."""
    from imprint.repository.subsets import Subset

    try:
        return Subset.parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
