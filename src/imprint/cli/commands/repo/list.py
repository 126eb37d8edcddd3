"""repo list: the images and snapshots in a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import repositories
from imprint.cli.options import add_json
from imprint.core.units import format_size

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint repo list /srv/images
  imprint repo list /srv/images laptop --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-list.md`` lists them too."""
    repositories.add_place(parser)
    parser.add_argument("image", nargs="?", help="list only the snapshots of this image")
    repositories.add_access(parser)
    add_json(parser, lines=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """List, the oldest first."""
    from imprint.repository.snapshots import select
    from imprint.repository.tags import list_tags

    rows = [("image", "snapshot", "time", "size", "stored", "tags")]
    with repositories.opened(args, console) as repository:
        found = repositories.listed(repository, console)
        if args.image is not None:
            select(found, args.image, None, repository.name)  # or say that there is none
            found = [item for item in found if item.manifest.image == args.image]
        tags = list_tags(repository)
        for item in found:
            own = tags.get(item.name, ())
            console.result(**repositories.snapshot_json(item), tags=list(own))
            manifest = item.manifest
            size, stored = format_size(manifest.size), format_size(manifest.stored)
            moment = repositories.when(manifest)
            rows.append((manifest.image, item.short, moment, size, stored, ", ".join(own)))
    if found:
        console.table(rows, right=(3, 4))
    else:
        console.print("no snapshots")
    return 0
