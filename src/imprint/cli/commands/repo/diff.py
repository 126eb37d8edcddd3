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

EXAMPLES = """\
  imprint repo diff repo:/srv/images::laptop@3f2a91c0 repo:/srv/images::laptop
  imprint repo diff repo:/srv/images::laptop repo:/srv/images::laptop-2 --json
"""

_WIDTH: Final = 18  # 0x and the 16 digits of the largest offset


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-diff.md`` lists them too."""
    repositories.add_address(parser, "a", "the older one")
    repositories.add_address(parser, "b", "the newer one, in the same repository")
    repositories.add_access(parser)
    options.add_json(parser, lines=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """List the ranges that differ; only what differs is read, and only of the trees."""
    from imprint.endpoints.survey import describe
    from imprint.repository.differences import changed_ranges
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
        survey = describe(repository.source(newer))
        console.print(f"{'offset':>{_WIDTH}}  {'length':>{_WIDTH}}  in")
        count, total = 0, 0
        for offset, length in changed_ranges(repository, older, newer):
            count, total = count + 1, total + length
            where = list(_partitions(survey, offset, length))
            names = ", ".join(f"p{index}" for index in where)
            console.print(f"{offset:>#{_WIDTH}x}  {length:>#{_WIDTH}x}  {names}".rstrip())
            console.result(offset=offset, length=length, partitions=where)
    names = f"{older.manifest.image}@{older.short} and {newer.manifest.image}@{newer.short}"
    console.print(f"{names} differ in {exact(total)}, {count} ranges")
    return 0


def _partitions(survey: Survey, offset: int, length: int) -> Iterable[int]:
    """Numbers of the partitions that a range touches."""
    for volume in survey.volumes:
        part = volume.partition
        if part.start < offset + length and part.end > offset and not part.is_container:
            yield part.index
