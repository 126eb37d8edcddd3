"""verify: read everything and compare with hashes."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.cli import options
from imprint.cli.console import exact
from imprint.core.errors import UsageError
from imprint.endpoints.hashing import verify_disk
from imprint.endpoints.open import open_source

if TYPE_CHECKING:
    from imprint.cli.console import Console
    from imprint.endpoints.hashing import Verification

EXAMPLES = """\
  imprint verify disk.qcow2
  imprint verify disk.qcow2 --expect md5=d41d8cd98f00b204e9800998ecf8427e
"""

_DAMAGED_EXIT: Final = 1
_DIGITS: Final = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128, "blake3": 64}
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/verify.md`` lists them too."""
    parser.add_argument("image", help="image, device or URL, or - for standard input")
    options.add_hashes(parser)
    parser.add_argument(
        "--expect",
        metavar="HASH=HEX",
        type=_expectation,
        action="append",
        default=[],
        help="what a hash has to be: sha256=…; repeatable",
    )
    options.add_access(parser)
    options.add_workers(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Verify; 0 if all is well, 1 if not."""
    expected: dict[str, str] = {}
    for name, digest in args.expect:
        if expected.setdefault(name, digest) != digest:
            raise UsageError(f"expected one value for {name}, found two")
    access = options.access(args, console)
    with console.stopping(), closing(open_source(args.image, access)) as source:
        found = verify_disk(
            source,
            args.hash,
            expected,
            workers=args.workers,
            on_event=console.on_event,
            cancel=console.cancel,
        )
    for item in found.damage:
        console.print(f"damaged: {exact(item.length)} at {item.offset}: {item.what}")
    for name, digest in found.hashes.items():
        verdict = "as expected" if name in expected else ""
        if name in found.wrong:
            verdict = f"expected {found.wrong[name]}"
        console.print(f"{name}  {digest}  {verdict}".rstrip())
    console.print(f"{args.image}: {_verdict(found)}")
    console.result(
        ok=found.ok,
        size=found.size,
        hashes=found.hashes,
        expected=expected,
        damage=[
            {"offset": item.offset, "length": item.length, "what": item.what}
            for item in found.damage
        ],
    )
    return 0 if found.ok else _DAMAGED_EXIT


def _verdict(found: Verification) -> str:
    if found.damage:
        return "damaged"
    if found.wrong:
        return "not as expected"
    return "all could be read"


def _expectation(text: str) -> tuple[str, str]:
    """``sha256=HEX``, as an argument."""
    name, _, digest = text.partition("=")
    name, digest = name.strip().lower(), digest.strip().lower()
    if name not in _DIGITS:
        raise argparse.ArgumentTypeError(
            f"expected HASH=HEX with a hash out of {', '.join(_DIGITS)}, found {text!r}"
        )
    if len(digest) != _DIGITS[name] or not _HEXADECIMAL.issuperset(digest):
        raise argparse.ArgumentTypeError(
            f"expected {_DIGITS[name]} hexadecimal digits for {name}, found {digest!r}"
        )
    return name, digest
