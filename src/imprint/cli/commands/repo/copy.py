"""repo copy: copy snapshots to another repository, only what is missing there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options, repositories
from imprint.core.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint repo copy /srv/images sftp://backup@vault/srv/images
  imprint repo copy /srv/images /mnt/usb/images --image laptop --newest
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-copy.md`` lists them too."""
    repositories.add_place(parser)
    parser.add_argument("to", help="folder or URL of the repository to copy to")
    repositories.add_choice(parser, "copy")
    repositories.add_second(parser, "to", "the target")
    options.add_workers(parser)
    repositories.add_access(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Copy; what is there already is neither read nor sent."""
    from imprint.repository.copying import CopyOptions, copy_snapshots

    with (
        repositories.opened(args, console) as source,
        repositories.second(args, console, "to", args.to) as target,
        console.stopping(),
    ):
        if source.format.id == target.format.id:
            raise UsageError("expected two repositories, found one twice", name=args.to)
        report = copy_snapshots(
            source,
            target,
            repositories.chosen(source, args, console),
            CopyOptions(args.workers, console.on_event, console.cancel),
        )
    repositories.tell_copied(report, console)
    return 0
