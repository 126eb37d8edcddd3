"""repo export: write snapshots into one tar file, which is a repository to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options, repositories
from imprint.core.units import format_size

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint repo export /srv/images laptop.tar --image laptop --newest
  imprint restore repo:laptop.tar::laptop /dev/sdb           a bundle can be read as it is
  imprint repo export /srv/images - | ssh vault 'cat > images.tar'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-export.md`` lists them too."""
    repositories.add_place(parser)
    parser.add_argument("file", help="to be made, or - for standard output")
    repositories.add_choice(parser, "export")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")
    options.add_workers(parser)
    repositories.add_access(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Export; what is encrypted stays so, under the same keys."""
    from imprint.endpoints.bundles import export_bundle
    from imprint.endpoints.target import TargetRequest
    from imprint.repository.copying import CopyOptions

    target = TargetRequest(args.file, force=args.force, time_s=options.time_s())
    if args.file == "-":
        console.to_stderr()
    with repositories.opened(args, console) as repository, console.stopping():
        chosen = repositories.chosen(repository, args, console)
        report = export_bundle(
            repository,
            chosen,
            target,
            CopyOptions(args.workers, console.on_event, console.cancel),
        )
    console.print(f"{len(chosen)} snapshots in {args.file}, {format_size(report.stored)}")
    console.result(
        exported=[repositories.snapshot_json(old) for old, _ in report.copied],
        bytes_stored=report.stored,
    )
    return 0
