"""Options of the verbs that deal with media that cannot be read as a whole."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Final

from imprint.cli import options
from imprint.core.errors import UsageError
from imprint.endpoints.location import Where, parse
from imprint.endpoints.rescue_request import RescueRequest

_FILL_BYTES_MAX: Final = 4096
_TIMEOUT_MAX_S: Final = 24 * 60 * 60
_RETRIES_MAX: Final = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a capture that may meet bad areas."""
    parser.add_argument(
        "--retries",
        metavar="N",
        type=options.number(0, _RETRIES_MAX),
        default=0,
        help="how often bad sectors are tried again in the end (default: 0)",
    )
    parser.add_argument(
        "--reverse", action="store_true", help="after the first error, read from the end"
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=options.number(1, _TIMEOUT_MAX_S),
        help="seconds to wait for a read, which has failed then (default: as long as the system)",
    )
    parser.add_argument(
        "--rescue-order",
        choices=("position", "metadata"),
        default="position",
        help="metadata: tables and what file systems keep of themselves first, then what they "
        "use, then the rest",
    )
    parser.add_argument(
        "--fill",
        metavar="PATTERN",
        type=_pattern,
        default=b"",
        help="text, or bytes as 0x..., that is repeated over bad areas (default: zeros)",
    )
    parser.add_argument(
        "--merge",
        metavar="IMAGE:MAP",
        type=_merge,
        action="append",
        default=[],
        help="take what another partial copy of the same medium has, by its map; repeatable",
    )
    parser.add_argument(
        "--map",
        metavar="FILE",
        type=Path,
        help="map of what was read, as GNU ddrescue keeps it (default: TARGET.map)",
    )


def add_map(parser: argparse.ArgumentParser) -> None:
    """The map of a partial copy that is read."""
    parser.add_argument(
        "--map",
        metavar="FILE",
        type=Path,
        help="the image is a partial copy, and this the map of it, as GNU ddrescue keeps it",
    )


def request(args: argparse.Namespace) -> RescueRequest:
    """What the options say; without any, the usual."""
    if not hasattr(args, "rescue_order"):
        return RescueRequest()
    wish = RescueRequest(
        retries=args.retries,
        reverse=args.reverse,
        timeout_s=args.timeout,
        metadata_first=args.rescue_order == "metadata",
        fill=args.fill,
        merge=tuple(args.merge),
        map_path=args.map,
    )
    has_place = parse(args.target).where is not Where.STREAM or args.map is not None
    if wish != RescueRequest() and not has_place:
        raise UsageError(
            "expected a place for what is rescued, which standard output has not",
            name=args.target,
            advice="--map FILE gives it one: what was read lies beside the map until all is done",
        )
    return wish


def _pattern(text: str) -> bytes:
    if re.fullmatch("0x([0-9a-fA-F]{2})+", text):
        pattern = bytes.fromhex(text[2:])
    elif text.startswith("0x"):
        raise argparse.ArgumentTypeError(f"expected pairs of digits behind 0x, found {text!r}")
    else:
        pattern = text.encode()
    if not 0 < len(pattern) <= _FILL_BYTES_MAX:
        raise argparse.ArgumentTypeError(f"expected 1 to {_FILL_BYTES_MAX} bytes")
    return pattern


def _merge(text: str) -> tuple[str, Path]:
    image, mark, path = text.rpartition(":")
    if not (image and mark and path):
        raise argparse.ArgumentTypeError(f"expected IMAGE:MAP, found {text!r}")
    return image, Path(path)
