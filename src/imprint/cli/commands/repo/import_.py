"""repo import: copy all snapshots of an exported file into a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options, repositories

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint repo import /srv/images laptop.tar
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-import.md`` lists them too."""
    repositories.add_place(parser)
    parser.add_argument("file", help="made by repo export")
    repositories.add_second(parser, "from", "the file")
    options.add_workers(parser)
    repositories.add_access(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Import; what is there already is not stored again."""
    from imprint.repository.bundle import import_snapshots
    from imprint.repository.copying import CopyOptions

    with (
        repositories.opened(args, console) as target,
        repositories.second(args, console, "from", args.file) as source,
        console.stopping(),
    ):
        report = import_snapshots(
            source, target, CopyOptions(args.workers, console.on_event, console.cancel)
        )
    repositories.tell_copied(report, console)
    return 0
