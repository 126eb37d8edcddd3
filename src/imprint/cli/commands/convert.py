"""convert: copy a disk into another format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import copying

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint convert disk.vdi disk.qcow2                     format from the suffix
  imprint convert disk.raw disk.qcow2 -o compression=zstd
  imprint convert disk.qcow2 - -O raw | ssh host 'cat > /srv/disk.raw'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/convert.md`` lists them too."""
    parser.add_argument("source", help="image, device or URL to read, or - for standard input")
    parser.add_argument("target", help="image or device to write, or - for standard output")
    copying.add_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Convert."""
    outcome = copying.copy(args, console)
    if outcome is not None:
        copying.describe(console, args, outcome)
        console.result(**copying.facts(outcome))
    return 0
