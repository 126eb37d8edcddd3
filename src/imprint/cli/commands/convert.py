"""convert: copy a disk into another format, or disks into a package."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING

from imprint.cli import copying, options, rescuing
from imprint.core.errors import UsageError
from imprint.endpoints.appliance import kinds
from imprint.endpoints.target import TargetRequest

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint convert disk.vdi disk.qcow2                     format from the suffix
  imprint convert disk.raw disk.qcow2 -o compression=zstd
  imprint convert disk.qcow2 - -O raw | ssh host 'cat > /srv/disk.raw'
  imprint convert system.qcow2 data.vmdk machine.ova -o memory=4G -o cpus=2
  imprint convert disk.qcow2 disk.tar.gz -O gce           for Google Compute Engine
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/convert.md`` lists them too."""
    parser.add_argument(
        "source",
        nargs="+",
        help="image, device or URL to read, or - for standard input; of several, an OVA is made",
    )
    parser.add_argument("target", help="image or device to write, or - for standard output")
    copying.add_arguments(parser)
    options.add_used(parser, prove=True)
    rescuing.add_map(parser)
    copying.add_snapshot_arguments(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Convert."""
    sources = tuple(args.source)
    kind = None
    if not copying.is_repository(args.target):
        kind = kinds.chosen(TargetRequest(args.target, args.target_format))
    if len(sources) > 1 and (kind is None or not kind.takes_several):
        extra = " ".join((*sources[2:], args.target))
        raise UsageError(
            f"unrecognized arguments: {extra}",
            advice="imprint convert --help shows how it is used",
        )
    args.source = ", ".join(sources)
    if kind is None:
        outcome = copying.copy(args, console)
    else:
        module = importlib.import_module(f"imprint.endpoints.appliance.{kind.module}")
        outcome = copying.copy(
            args,
            console,
            work=partial(module.run, addresses=sources),
            intend=partial(module.plan, addresses=sources),
        )
    if outcome is not None:
        copying.describe(console, args, outcome)
        console.result(**copying.facts(outcome))
        return copying.exit_code(console, args, outcome)
    return 0
