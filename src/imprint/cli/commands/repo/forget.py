"""repo forget: remove snapshots, by name or by a policy."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from imprint.cli import options, repositories
from imprint.core.errors import UsageError

if TYPE_CHECKING:
    from imprint.cli.console import Console
    from imprint.core.errors import RepositoryError
    from imprint.repository.repository import Repository
    from imprint.repository.retention import Verdict
    from imprint.repository.snapshots import Snapshot

EXAMPLES = """\
  imprint repo forget /srv/images laptop@3f2a91c0
  imprint repo forget /srv/images --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  imprint repo forget /srv/images --image laptop --keep-last 3 --keep-tag release
"""

_PERIODS: Final = ("hourly", "daily", "weekly", "monthly", "yearly")
_COUNT_DIGITS_MAX: Final = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-forget.md`` lists them too."""
    repositories.add_place(parser)
    parser.add_argument(
        "snapshot", nargs="*", help="IMAGE@SNAPSHOT to forget; without any, the policy decides"
    )
    parser.add_argument(
        "--keep-last", metavar="N", type=_count, default=0, help="keep the newest N, or all"
    )
    for period in _PERIODS:
        parser.add_argument(
            f"--keep-{period}",
            metavar="N",
            type=_count,
            default=0,
            help=f"keep the newest of each of N {_plural(period)} that have one, or all",
        )
    parser.add_argument(
        "--keep-within",
        metavar="TIME",
        type=options.duration,
        help="keep what is not older, seen from the newest: 12h, 30d or 8w",
    )
    parser.add_argument(
        "--keep-tag",
        metavar="LABEL",
        action="append",
        default=[],
        help="keep what has this tag; repeatable",
    )
    parser.add_argument(
        "--image",
        metavar="NAME",
        action="append",
        default=[],
        help="apply the policy to this image only; repeatable",
    )
    parser.add_argument("--force", action="store_true", help="forget protected ones by name, too")
    parser.add_argument("--dry-run", action="store_true", help="say what would be forgotten")
    repositories.add_access(parser)
    options.add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Forget; what only these snapshots needed is removed by ``repo prune``."""
    from imprint.repository.forgetting import forget, forget_named

    if args.snapshot and _has_policy(args):
        raise UsageError("expected snapshots or a policy (--keep-…), found both")
    with repositories.opened(args, console) as repository:
        damaged: list[str] = []
        present = repository.snapshots(lambda error: damaged.append(_name_of(error)))
        lost = [name for name in damaged if f"@{name}" in args.snapshot]
        verdicts: list[Verdict] = []
        if args.snapshot:
            wanted = [text for text in args.snapshot if text[1:] not in lost]
            gone = _named(present, wanted, repository.name)
        else:
            verdicts = _judged(repository, present, args)
            gone = [item.snapshot for item in verdicts if not item.is_kept]
        with console.stopping():
            forget(repository, gone, force=args.force, dry_run=args.dry_run, cancel=console.cancel)
            for name in () if args.dry_run else lost:
                forget_named(repository, name)
    for name in damaged:
        if name not in lost:
            console.note(f"snapshot @{name} cannot be read, and stays unless it is named so")
    rows = [
        ("keep" if item.is_kept else "forget", *_cells(item.snapshot), ", ".join(item.reasons))
        for item in verdicts
    ] or [("forget", *_cells(item), "") for item in gone]
    console.table(rows)
    told = "would be forgotten" if args.dry_run else "forgotten"
    console.print(f"{len(gone) + len(lost)} {told}, {sum(item.is_kept for item in verdicts)} kept")
    console.result(
        forgotten=[repositories.snapshot_json(item) for item in gone],
        kept=[
            {**repositories.snapshot_json(item.snapshot), "reasons": list(item.reasons)}
            for item in verdicts
            if item.is_kept
        ],
        damaged=lost,
        dry_run=args.dry_run,
    )
    return 0


def _name_of(error: RepositoryError) -> str:
    """The name of a damaged snapshot, which is the end of its object's."""
    return (error.name or "").rpartition("/")[2]


def _named(present: list[Snapshot], names: list[str], where: str) -> list[Snapshot]:
    from imprint.repository.snapshots import select

    found: dict[str, Snapshot] = {}
    for text in names:
        image, mark, selector = text.partition("@")
        if not mark or not selector:
            raise UsageError(
                f"expected IMAGE@SNAPSHOT, found {text!r:.80}",
                name=where,
                advice="imprint repo list shows both",
            )
        snapshot = select(present, image, selector, where)
        found[snapshot.name] = snapshot
    return list(found.values())


def _judged(
    repository: Repository, present: list[Snapshot], args: argparse.Namespace
) -> list[Verdict]:
    from imprint.repository.retention import Policy, apply
    from imprint.repository.tags import list_tags

    policy = Policy(
        last=args.keep_last,
        hourly=args.keep_hourly,
        daily=args.keep_daily,
        weekly=args.keep_weekly,
        monthly=args.keep_monthly,
        yearly=args.keep_yearly,
        within=args.keep_within,
        tags=frozenset(args.keep_tag),
    )
    policy.check()
    known = {item.manifest.image for item in present}
    for image in args.image:
        if image not in known:
            raise UsageError(f"has no image {image!r:.80}", name=repository.name)
    if args.image:
        present = [item for item in present if item.manifest.image in args.image]
    return apply(present, list_tags(repository), policy, zone=None)


def _has_policy(args: argparse.Namespace) -> bool:
    counts = [args.keep_last, *(getattr(args, f"keep_{period}") for period in _PERIODS)]
    return any(counts) or args.keep_within is not None or bool(args.keep_tag or args.image)


def _cells(snapshot: Snapshot) -> tuple[str, str, str]:
    manifest = snapshot.manifest
    return manifest.image, snapshot.short, repositories.when(manifest)


def _plural(period: str) -> str:
    return "days" if period == "daily" else f"{period.removesuffix('ly')}s"


def _count(text: str) -> int:
    """How many to keep, as an argument."""
    from imprint.repository.retention import ALL

    if text == "all":
        return ALL
    if not text.isdecimal() or len(text) > _COUNT_DIGITS_MAX:
        raise argparse.ArgumentTypeError(f"expected a number or all, found {text!r:.80}")
    return int(text)
