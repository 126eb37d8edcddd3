"""compare: are the contents of two disks equal?"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.cli import options
from imprint.core.errors import UsageError
from imprint.endpoints.open import open_source
from imprint.transfer.compare import compare

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint compare disk.vdi disk.qcow2
  imprint compare laptop.qcow2 /dev/sdb
  imprint compare a.img b.img -f raw -F raw --strict
"""

_DIFFERS_EXIT: Final = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/compare.md`` lists them too."""
    parser.add_argument("a", help="image, device or URL")
    parser.add_argument("b", help="image, device or URL")
    parser.add_argument("-f", "--format", metavar="FORMAT", help="format of A: skip probing")
    parser.add_argument("-F", "--other-format", metavar="FORMAT", help="format of B: skip probing")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="sizes have to be the same too; otherwise zeros behind the shorter disk do not count",
    )
    parser.add_argument("--snapshot", metavar="NAME", help="internal snapshot of A to read")
    parser.add_argument("--other-snapshot", metavar="NAME", help="internal snapshot of B to read")
    options.add_size_policy(parser, whose="A")
    options.add_size_policy(parser, "--other-size-policy", whose="B")
    options.add_trust(parser)
    options.add_key_file(parser)
    options.add_workers(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Compare; 0 if equal, 1 if not."""
    if args.a == args.b == "-":
        raise UsageError("expected two disks, found standard input twice")
    first = options.access(args, console)
    second = options.access(
        args,
        console,
        format_=args.other_format,
        snapshot=args.other_snapshot,
        is_source=False,
    )
    with (
        console.stopping(),
        closing(open_source(args.a, first)) as a,
        closing(open_source(args.b, second)) as b,
    ):
        found = compare(
            a, b, workers=args.workers, on_event=console.on_event, cancel=console.cancel
        )
    smaller, larger = sorted(found.sizes)
    difference = found.first_difference
    if args.strict and difference is None and smaller != larger:
        difference = smaller
    if difference is None:
        console.print("the contents are equal")
        if smaller != larger:
            console.print(f"but the sizes are {smaller} and {larger}: what is more reads as zeros")
    else:
        console.print(f"the contents differ, first at byte {difference} (0x{difference:x})")
        if smaller != larger:
            console.print(f"the sizes are {found.sizes[0]} and {found.sizes[1]}")
    console.result(equal=difference is None, first_difference=difference, sizes=list(found.sizes))
    return 0 if difference is None else _DIFFERS_EXIT
