"""repo rebuild-index: make the index again of what packs say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.cli import options, repositories

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint repo rebuild-index /srv/images
"""

_DAMAGED_EXIT: Final = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-rebuild-index.md`` lists them too."""
    repositories.add_place(parser)
    options.add_workers(parser)
    repositories.add_access(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Rebuild; 1 if a pack could not tell what is in it."""
    from imprint.repository.rebuild import rebuild_index

    with repositories.opened(args, console) as repository, console.stopping():
        report = rebuild_index(
            repository, workers=args.workers, on_event=console.on_event, cancel=console.cancel
        )
    console.print(
        f"{args.place}: {report.chunks} blocks in {report.packs} packs; "
        f"{len(report.added)} index objects instead of {report.removed}"
    )
    console.result(
        packs=report.packs,
        chunks=report.chunks,
        added=len(report.added),
        removed=report.removed,
        findings=[
            {"severity": item.severity.value, "where": item.where, "what": item.what}
            for item in report.findings
        ],
    )
    return _DAMAGED_EXIT if report.findings else 0
