"""snapshot: list, create, apply or delete internal snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.cli.commands.info import snapshot_json, snapshot_rows
from imprint.core.errors import UsageError
from imprint.endpoints import images

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.endpoints.open import Access

EXAMPLES = """\
  imprint snapshot list disk.qcow2
  imprint snapshot create disk.qcow2 before-update
  imprint snapshot apply disk.qcow2 before-update       what was written since is lost
  imprint snapshot delete disk.qcow2 before-update
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/snapshot.md`` lists them too."""
    parser.add_argument("action", choices=("list", "create", "apply", "delete"))
    parser.add_argument("image", help="image file")
    parser.add_argument("name", nargs="?", help="of the snapshot; apply and delete take its id too")
    options.add_access(parser, snapshot=False)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """List the snapshots, or change them in place."""
    if (args.name is None) != (args.action == "list"):
        wish = "no name" if args.action == "list" else "the name of a snapshot"
        raise UsageError(f"snapshot {args.action}: expected {wish}")
    access = options.access(args, console)
    if args.action == "list":
        _list(args.image, access, console)
    elif args.action == "create":
        made = images.create_snapshot(args.image, args.name, access)
        console.print(f"{args.image}: snapshot {made.id}, {made.name}")
        console.result(**snapshot_json(made))
    elif args.action == "apply":
        images.apply_snapshot(args.image, args.name, access)
        console.print(f"{args.image}: is as it was in snapshot {args.name}")
        console.result(applied=args.name)
    else:
        images.delete_snapshot(args.image, args.name, access)
        console.print(f"{args.image}: snapshot {args.name} is deleted")
        console.result(deleted=args.name)
    return 0


def _list(image: str, access: Access, console: Console) -> None:
    found = images.list_snapshots(image, access)
    if found:
        console.table(snapshot_rows(found))
    else:
        console.print(f"{image}: no snapshots")
    console.result(snapshots=[snapshot_json(item) for item in found])
