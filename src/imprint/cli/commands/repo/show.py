"""repo show: all that a repository says of a snapshot."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from imprint.cli import repositories
from imprint.cli.console import exact
from imprint.cli.options import add_json
from imprint.core.units import format_size

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint repo show repo:/srv/images::laptop
  imprint repo show repo:/srv/images::laptop@3f2a91c0 --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-show.md`` lists them too."""
    repositories.add_address(parser, "address", "what to show")
    repositories.add_access(parser)
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Show it; the disk is not looked at."""
    from imprint.endpoints.repository import signatures
    from imprint.repository.tags import read_tags

    repository, snapshot = repositories.selected(args.address, args, console)
    with repository:
        tags = read_tags(repository, snapshot.name)
        signed = signatures(repository, snapshot, ())
    manifest = snapshot.manifest
    keys = [public.hex() for public in signed.others]
    wrong = [public.hex() for public in signed.wrong]
    facts = asdict(manifest)
    del facts["version"]
    console.print(f"{manifest.image}@{snapshot.short}")
    console.facts(
        [
            ("snapshot", snapshot.name),
            ("taken", repositories.when(manifest)),
            ("size", exact(manifest.size)),
            ("read", format_size(manifest.read)),
            ("stored", format_size(manifest.stored)),
            ("used only", "yes" if manifest.used else "no"),
            ("root", manifest.root),
            ("parent", manifest.parent or ""),
            ("source", " ".join(filter(None, (manifest.source, manifest.format)))),
            ("host", manifest.host),
            ("made by", manifest.tool),
            ("tags", ", ".join(tags)),
            *[("signed by", key) for key in keys],
            *[("wrong signature", key) for key in wrong],
            *manifest.hashes.items(),
        ]
    )
    for note in manifest.notes:
        console.print(f"  {note}")
    console.result(
        snapshot=snapshot.name, **facts, tags=list(tags), signers=keys, wrong_signatures=wrong
    )
    return 0
