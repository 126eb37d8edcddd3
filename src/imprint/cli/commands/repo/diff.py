"""repo diff: where the disks of two snapshots differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.cli import options, repositories
from imprint.cli.console import exact
from imprint.core.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from imprint.cli.console import Console
    from imprint.endpoints.survey import Survey
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot

EXAMPLES = """\
  imprint repo diff repo:/srv/images::laptop@3f2a91c0 repo:/srv/images::laptop
  imprint repo diff repo:/srv/images::laptop repo:/srv/images::laptop-2 --json
  imprint repo diff repo:/srv/images::laptop@3f2a91c0 repo:/srv/images::laptop --files
"""

_WIDTH: Final = 18  # 0x and the 16 digits of the largest offset


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-diff.md`` lists them too."""
    repositories.add_address(parser, "a", "the older one")
    repositories.add_address(parser, "b", "the newer one, in the same repository")
    repositories.add_access(parser)
    parser.add_argument(
        "--files", action="store_true", help="list the files that differ, instead of ranges"
    )
    options.add_json(parser, lines=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """List what differs. For ranges only the trees are read, for files also what names them."""
    from imprint.repository.snapshots import select

    other = repositories.located(args.b)
    if other.base != repositories.located(args.a).base:
        raise UsageError(
            "expected two snapshots in one repository, found two repositories",
            name=args.b,
            advice="imprint compare reads both",
        )
    repository, older = repositories.selected(args.a, args, console)
    with repository:
        present = repositories.listed(repository, console)
        newer = select(present, other.image, other.snapshot, repository.name)
        names = f"{older.manifest.image}@{older.short} and {newer.manifest.image}@{newer.short}"
        tell = _tell_files if args.files else _tell_ranges
        differences = tell(repository, older, newer, console)
    console.print(f"{names} differ in {differences}")
    return 0


def _tell_ranges(repository: Repository, older: Snapshot, newer: Snapshot, console: Console) -> str:
    from imprint.endpoints.survey import describe
    from imprint.repository.differences import changed_ranges

    survey = describe(repository.source(newer))
    console.print(f"{'offset':>{_WIDTH}}  {'length':>{_WIDTH}}  in")
    count, total = 0, 0
    for offset, length in changed_ranges(repository, older, newer):
        count, total = count + 1, total + length
        where = list(_partitions(survey, offset, length))
        names = ", ".join(f"p{index}" for index in where)
        console.print(f"{offset:>#{_WIDTH}x}  {length:>#{_WIDTH}x}  {names}".rstrip())
        console.result(offset=offset, length=length, partitions=where)
    return f"{exact(total)}, {count} ranges"


def _tell_files(repository: Repository, older: Snapshot, newer: Snapshot, console: Console) -> str:
    from imprint.core.runs import Runs
    from imprint.endpoints.changed_files import changed_files
    from imprint.endpoints.gate import no_passphrase
    from imprint.repository.differences import changed_ranges

    count = 0
    for found in changed_files(
        repository.source(older),
        repository.source(newer),
        Runs.of(changed_ranges(repository, older, newer)),
        no_passphrase,
        on_event=console.on_event,
    ):
        count += 1
        why = f"  ({', '.join(found.why)})" if found.why else ""
        path = found.path or "something; its files cannot be listed"
        console.print(f"{found.change.value:<7}  {found.where}: {path}{why}")
        console.result(**found.to_json())
    return f"{count} files"


def _partitions(survey: Survey, offset: int, length: int) -> Iterable[int]:
    """Numbers of the partitions that a range touches."""
    for volume in survey.volumes:
        part = volume.partition
        if part.start < offset + length and part.end > offset and not part.is_container:
            yield part.index
