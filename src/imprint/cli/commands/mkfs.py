"""mkfs: make an empty FAT file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.cli.console import exact
from imprint.endpoints.fat_files import make_fat
from imprint.endpoints.target import TargetRequest

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint mkfs floppy.img --size 1440K           as a drive of 3.5 inches has them
  imprint mkfs card.img --size 4G --label PHOTOS
  imprint mkfs disk.qcow2#p1 --fat 32            in a partition that is empty
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/mkfs.md`` lists them too."""
    parser.add_argument("image", help="a new image, or one that exists, or a partition of that")
    parser.add_argument(
        "--size", type=options.size, help="make the image: 160K to 2880K are those of floppies"
    )
    parser.add_argument(
        "--fat", type=int, choices=(12, 16, 32), help="which kind (default: by the size)"
    )
    parser.add_argument("--label", default="", help="at most 11 characters")
    parser.add_argument(
        "--serial", type=_serial, metavar="HEX", help="of the volume, 8 digits (default: the time)"
    )
    parser.add_argument(
        "-O", "--target-format", metavar="FORMAT", help="of a new image, instead of by suffix"
    )
    options.add_target_options(parser)
    parser.add_argument(
        "--force", action="store_true", help="replace an image, or overwrite what is in it"
    )
    options.add_access(parser, snapshot=False)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Make it."""
    request = TargetRequest(
        args.image,
        args.target_format,
        dict(args.option),
        force=args.force,
        time_s=options.time_s(),
    )
    made = make_fat(
        args.image,
        options.access(args, console),
        request,
        size=args.size,
        bits=args.fat,
        label=args.label,
        serial=args.serial,
    )
    kind = f"FAT{made.bits}"
    console.print(f"{args.image}: {kind}, {exact(made.size)}, clusters of {made.cluster_size}")
    console.result(
        filesystem=kind.lower(),
        size=made.size,
        cluster_size=made.cluster_size,
        serial=f"{made.serial:08x}",
    )
    return 0


def _serial(text: str) -> int:
    value = int(text.replace("-", ""), 16)
    if value >> 32:
        raise ValueError(text)
    return value
