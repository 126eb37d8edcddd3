"""``--piecewise``, and how hashes of a disk and of its pieces are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.core.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.transfer.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--piecewise``."""
    parser.add_argument(
        "--piecewise",
        metavar="SIZE",
        type=options.size,
        help="take the hashes of each piece of so many bytes too, whole sectors of 512",
    )


def wanted(args: argparse.Namespace, hashes: tuple[str, ...]) -> int | None:
    """The size of a piece in bytes, if there are to be any.

    Raises:
        UsageError: if it is no number of sectors, or there is nothing to take of them.
    """
    piece: int | None = getattr(args, "piecewise", None)
    if piece is None:
        return None
    from imprint.transfer.hashing import check_pieces  # only for verbs that hash

    check_pieces(piece, 0)
    if not hashes:
        raise UsageError("--piecewise needs --hash, which says what is taken of the pieces")
    return piece


def show(console: Console, report: Report, name: str = "") -> None:
    """Print the hashes of the whole, each with those of its pieces below it, as dc3dd does."""
    from imprint.transfer.hashing import PIECE_UNIT

    for hash_name, digest in report.hashes.items():
        console.print(f"{hash_name}  {digest}  {name}".rstrip())
        for piece in report.pieces:
            if hash_name in piece.hashes:
                first = piece.offset // PIECE_UNIT
                last = (piece.offset + piece.length - 1) // PIECE_UNIT
                console.print(f"    {piece.hashes[hash_name]}, sectors {first} - {last}")


def facts(args: argparse.Namespace, report: Report) -> dict[str, object]:
    """What the JSON has of them."""
    if args.piecewise is None:
        return {}
    return {"pieces": [piece.to_json() for piece in report.pieces]}
