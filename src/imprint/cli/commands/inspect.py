"""inspect: may an image that a stranger handed in be passed on?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.cli import options
from imprint.endpoints.inspecting import inspect

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint inspect upload.qcow2 --untrusted
  imprint inspect upload.img --untrusted --json -f qcow2 --size-max 100G
"""

_UNSAFE_EXIT: Final = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/inspect.md`` lists them too."""
    parser.add_argument("image", help="image file or URL")
    parser.add_argument(
        "--untrusted",
        action="store_true",
        help="exit with 1 if anything speaks against it",
    )
    parser.add_argument("-f", "--format", metavar="FORMAT", help="what it is said to be")
    parser.add_argument(
        "--size-max", metavar="SIZE", type=options.size, help="largest acceptable disk"
    )
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Inspect; opens nothing but the file itself."""
    verdict = inspect(args.image, format_name=args.format, size_max=args.size_max)
    for reason in verdict.reasons:
        console.print(f"{reason.code}: {reason.what}")
    said = "nothing speaks against it" if verdict.ok else "not to be trusted"
    console.print(f"{args.image} ({verdict.format}): {said}")
    console.result(
        ok=verdict.ok,
        format=verdict.format,
        size=verdict.size,
        reasons=[{"code": reason.code, "what": reason.what} for reason in verdict.reasons],
    )
    return _UNSAFE_EXIT if args.untrusted and not verdict.ok else 0
