"""repo tag: show and change the labels of a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import repositories
from imprint.cli.options import add_json

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint repo tag repo:/srv/images::laptop
  imprint repo tag repo:/srv/images::laptop@3f2a91c0 --add before-upgrade
  imprint repo tag repo:/srv/images::laptop --add protected      no policy forgets it
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-tag.md`` lists them too."""
    repositories.add_address(parser, "address", "whose tags")
    for name, what in (("add", "give it this tag"), ("remove", "take this tag from it")):
        parser.add_argument(
            f"--{name}",
            metavar="LABEL",
            action="append",
            default=[],
            help=f"{what}; repeatable",
        )
    repositories.add_access(parser)
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Change the tags, and show those that it has then."""
    from imprint.repository.tags import change_tags

    repository, snapshot = repositories.selected(args.address, args, console)
    with repository:
        tags = change_tags(repository, snapshot, add=args.add, remove=args.remove)
    shown = ", ".join(tags) or "no tags"
    console.print(f"{snapshot.manifest.image}@{snapshot.short}: {shown}")
    console.result(image=snapshot.manifest.image, snapshot=snapshot.name, tags=list(tags))
    return 0
