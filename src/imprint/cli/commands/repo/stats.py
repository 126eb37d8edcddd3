"""repo stats: what a repository holds, and what it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options, repositories
from imprint.cli.console import exact
from imprint.core.units import format_size

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.repository.statistics import Statistics

EXAMPLES = """\
  imprint repo stats /srv/images
  imprint repo stats /srv/images --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-stats.md`` lists them too."""
    repositories.add_place(parser)
    repositories.add_access(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Count; trees are read, data is not."""
    from imprint.repository.statistics import statistics

    with repositories.opened(args, console) as repository, console.stopping():
        found = statistics(repository, on_event=console.on_event, cancel=console.cancel)
    _print(found, console)
    console.result(
        size=found.size,
        data=found.data,
        unique=found.unique,
        stored=found.stored,
        chunks=found.chunks,
        nodes=found.nodes,
        packs=found.packs,
        objects=found.objects,
        deduplication=round(found.deduplication, 3),
        compression=round(found.compression, 3),
        index_per_tib=found.index_per_tib,
        images=[
            {
                "image": item.image,
                "snapshots": item.snapshots,
                "size": item.size,
                "data": item.data,
                "unique": item.unique,
            }
            for item in found.images
        ],
        snapshots=[
            {
                "image": item.snapshot.manifest.image,
                "snapshot": item.snapshot.name,
                "size": item.size,
                "data": item.data,
                "unique": item.unique,
            }
            for item in found.snapshots
        ],
    )
    return 0


def _print(found: Statistics, console: Console) -> None:
    rows = [("image", "snapshots", "size", "data", "only here")]
    rows += [
        (
            item.image,
            str(item.snapshots),
            format_size(item.size),
            format_size(item.data),
            format_size(item.unique),
        )
        for item in found.images
    ]
    console.table(rows, right=(1, 2, 3, 4))
    console.facts(
        [
            ("disks of all snapshots", exact(found.size)),
            ("data on them", format_size(found.data)),
            ("different data", f"{format_size(found.unique)} in {found.chunks} blocks"),
            ("deduplication", f"{found.deduplication:.2f}"),
            ("compression", f"{found.compression:.2f}"),
            ("stored", exact(found.stored)),
            *[(f"  {kind}", format_size(size)) for kind, size in sorted(found.objects.items())],
            ("index", f"{format_size(found.index_per_tib)} for each TiB of different data"),
        ]
    )
