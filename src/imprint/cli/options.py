"""Options that several verbs share, declared once, and what they mean."""

from __future__ import annotations

import argparse
import functools
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli.passphrases import passphrase
from imprint.core.errors import UsageError
from imprint.core.units import parse_size
from imprint.endpoints.open import Access

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.cli.console import Console
    from imprint.core.formats import SizePolicy
    from imprint.endpoints.used import Policy
    from imprint.objects.contract import ObjectStore


_POLICIES: Final[dict[str, SizePolicy | None]] = {
    "auto": None,
    "chs": "chs",
    "current": "current",
}


def size(text: str) -> int:
    """A size, as an argument."""
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def key_value(text: str) -> tuple[str, str]:
    """``KEY=VALUE``, as an argument."""
    key, mark, value = text.partition("=")
    if not mark or not key:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    return key, value


def hashes(text: str, *, may_be_none: bool = False) -> tuple[str, ...]:
    """Names of hashes, as an argument."""
    from imprint.transfer.hashing import parse_names  # only for verbs that hash

    try:
        return parse_names(text, may_be_none=may_be_none)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def duration(text: str) -> timedelta:
    """``12h``, ``30d`` or ``8w``, as an argument."""
    match = _DURATION.match(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a time like 12h, 30d or 8w, found {text!r:.80}")
    return int(match[1]) * _DURATIONS[match[2]]


def number(low: int, high: int) -> Callable[[str], int]:
    """A number in bounds, as an argument."""

    def parse(text: str) -> int:
        # Of more digits than any bound has, int() may refuse to make one.
        if not text.isdecimal() or len(text) > len(str(high)) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"expected a number from {low} to {high}, found {text!r:.80}"
            )
        return int(text)

    return parse


def add_json(parser: argparse.ArgumentParser, *, lines: bool = False) -> None:
    """``--json``. With ``lines``, the result is many objects."""
    what = "one JSON object on each line" if lines else "one JSON object"
    parser.add_argument("--json", action="store_true", help=f"print {what} as result")


def add_output(parser: argparse.ArgumentParser, *, lines: bool = False) -> None:
    """``--json``, ``--progress``."""
    add_json(parser, lines=lines)
    parser.add_argument(
        "--progress", choices=("auto", "plain", "none"), default="auto", help="how to show progress"
    )


_DURATION: Final = re.compile(r"(\d{1,6})([hdw])\Z")
_DURATIONS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

HASHES: Final = ("sha256", "blake3")
"""That are taken if nobody says otherwise."""


def add_hashes(parser: argparse.ArgumentParser, default: tuple[str, ...] | None = HASHES) -> None:
    """``--hash``; where it has no default, no hashes can be taken too."""
    may_be_none = default is None
    none = "; or none" if may_be_none else ""
    parser.add_argument(
        "--hash",
        metavar="LIST",
        type=functools.partial(hashes, may_be_none=may_be_none),
        default=default,
        help=f"hashes to take: md5, sha1, sha256, sha512, blake3{none} (default: sha256,blake3)",
    )


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """``-o``."""
    parser.add_argument(
        "-o",
        "--option",
        metavar="KEY=VALUE",
        type=key_value,
        action="append",
        default=[],
        help="option of the target's format, repeatable; imprint formats NAME lists them",
    )


def add_uuid(parser: argparse.ArgumentParser) -> None:
    """``--uuid``."""
    parser.add_argument(
        "--uuid",
        metavar="UUID",
        help="of the new image, where its format has one; with SOURCE_DATE_EPOCH in the "
        "environment, the same disk gives the same file",
    )


def time_s() -> int | None:
    """The time that new images shall carry, from ``SOURCE_DATE_EPOCH``; ``None``: the present.

    Source: reproducible-builds.org, SOURCE_DATE_EPOCH specification 1.1.

    Raises:
        UsageError: if it is no number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, found {text!r}")
    return int(text)


def add_access(parser: argparse.ArgumentParser, *, snapshot: bool = True) -> None:
    """How a source is opened."""
    parser.add_argument("-f", "--format", metavar="FORMAT", help="source format: skip probing")
    parser.add_argument(
        "--incomplete",
        action="store_true",
        help="read an image around what is missing: files of it, the end of its disk: that is bad",
    )
    add_size_policy(parser)
    add_trust(parser)
    if snapshot:
        parser.add_argument(
            "--snapshot", metavar="NAME", help="read an internal snapshot, by name or id"
        )
        add_key_file(parser)


def add_replay(parser: argparse.ArgumentParser) -> None:
    """``--replay-journal``, of verbs that look into file systems."""
    parser.add_argument(
        "--replay-journal",
        action="store_true",
        help="of a file system that was not unmounted: files as its own mount would show them, "
        "with what is only in its journal; the image is not changed",
    )


def add_size_policy(
    parser: argparse.ArgumentParser, name: str = "--size-policy", whose: str = "the source"
) -> None:
    """``--size-policy``; ``whose`` says of which image, where there is more than one."""
    parser.add_argument(
        name,
        choices=tuple(_POLICIES),
        default="auto",
        help=f"what counts if {whose} is a VHD, which says its size twice: the geometry (chs), "
        "or the field for it (current); auto: what its creator goes by",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """``--allow-parent``, ``--passphrase-file``."""
    parser.add_argument(
        "--allow-parent",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="folder where backing files may live, besides the image's own; repeatable",
    )
    parser.add_argument(
        "--passphrase-file",
        metavar="FILE",
        type=Path,
        help="unlocks the image; else IMPRINT_PASSPHRASE, or a prompt",
    )


def add_key_file(parser: argparse.ArgumentParser) -> None:
    """``--key-file``."""
    parser.add_argument(
        "--key-file",
        metavar="FILE",
        type=Path,
        help="unlocks a repository, instead of a passphrase",
    )


def add_signer(parser: argparse.ArgumentParser, what: str) -> None:
    """``--signer``."""
    parser.add_argument(
        "--signer",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help=f"public keys, one of which has to vouch for {what}; repeatable",
    )


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """How repositories are reached that are far away."""
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        type=Path,
        help="where to keep what was read of a repository over a network "
        "(default: imprint in XDG_CACHE_HOME)",
    )
    parser.add_argument(
        "--cache-size",
        metavar="SIZE",
        type=size,
        help="of that folder; 0: keep nothing (default: 4G)",
    )
    for name, what in (("upload", "sent to"), ("download", "received from")):
        parser.add_argument(
            f"--limit-{name}",
            metavar="SIZE",
            type=size,
            help=f"bytes a second that may be {what} a repository",
        )


def place_opener(args: argparse.Namespace) -> Callable[[str], ObjectStore]:
    """Opens places of repositories as :func:`add_place_options` says, or as usual."""

    def open_it(address: str) -> ObjectStore:
        from imprint.endpoints.places import Bandwidth, open_place  # only for repositories
        from imprint.objects.cached import SIZE_MAX, CacheOptions

        folder: Path | None = getattr(args, "cache_dir", None)
        limit: int | None = getattr(args, "cache_size", None)
        return open_place(
            address,
            environment=os.environ,
            bandwidth=Bandwidth(
                getattr(args, "limit_upload", None), getattr(args, "limit_download", None)
            ),
            cache=CacheOptions(
                folder or _own_folder("XDG_CACHE_HOME", ".cache"),
                SIZE_MAX if limit is None else limit,
            ),
        )

    return open_it


def pins() -> Path:
    """Where is kept which repositories were encrypted when this user opened them last."""
    return _own_folder("XDG_STATE_HOME", ".local/state") / "repositories"


def _own_folder(variable: str, usual: str) -> Path:
    """Source: XDG Base Directory Specification 0.8."""
    base = os.environ.get(variable, "")
    return (Path(base) if base.startswith("/") else Path.home() / usual) / "imprint"


def add_used(parser: argparse.ArgumentParser, *, prove: bool = False) -> None:
    """``--used``, ``--drop-swap``; with ``prove``, for verbs that store a disk, ``--prove``."""
    parser.add_argument(
        "--used",
        action="store_true",
        help="read only what file systems use: what is free reads as zeros. Volumes of which "
        "there is any doubt are read whole",
    )
    # Two options for argparse, which would take the next argument for an optional value.
    parser.add_argument(
        "--used=force",
        dest="used_force",
        action="store_true",
        help="the same, and rely on doubtful maps too: of damaged, hibernated or mounted volumes",
    )
    parser.add_argument(
        "--drop-swap",
        action="store_true",
        help="with --used: leave out what is in swap areas; their headers stay",
    )
    if prove:
        parser.add_argument(
            "--prove",
            action=argparse.BooleanOptionalAction,
            default=None,
            help="with --used: walk the file systems in what was stored, and check that nothing "
            "they reach was left out (by default, as long as that takes little time)",
        )


def used(args: argparse.Namespace) -> Policy | None:
    """What may be left out, if only what is used counts.

    Raises:
        UsageError: if an option was given that makes sense only with ``--used``.
    """
    if not hasattr(args, "used"):
        return None
    if args.used or args.used_force:
        from imprint.endpoints.used import Policy  # only where it is asked for

        return Policy(force=args.used_force, drop_swap=args.drop_swap)
    if args.drop_swap or getattr(args, "prove", None):
        name = "--drop-swap" if args.drop_swap else "--prove"
        raise UsageError(f"{name} makes sense only with --used")
    return None


def add_workers(parser: argparse.ArgumentParser) -> None:
    """``-j``."""
    parser.add_argument(
        "-j",
        "--workers",
        metavar="N",
        type=number(1, 64),
        default=min(8, max(2, os.cpu_count() or 2)),
        help="threads that read ahead and compress",
    )


def access(
    args: argparse.Namespace,
    console: Console,
    *,
    format_: str | None = None,
    snapshot: str | None = None,
    is_source: bool = True,
    asks: bool = True,
) -> Access:
    """The :class:`Access` that the options ask for.

    Args:
        args: with what :func:`add_access` or :func:`add_trust` declares.
        console: shows what is noteworthy.
        format_: for another image than the source.
        snapshot: the same.
        is_source: whether ``--format``, ``--snapshot`` and ``--size-policy`` are about the image.
        asks: whether a person may be asked for a passphrase.
    """
    policy: str = getattr(args, "size_policy" if is_source else "other_size_policy", "auto")
    if is_source:
        format_ = getattr(args, "format", None)
        snapshot = getattr(args, "snapshot", None)
    return Access(
        format=format_,
        allowed=tuple(args.allow_parent),
        passphrase=passphrase(args.passphrase_file, console, asks=asks),
        new_passphrase=passphrase(args.passphrase_file, console, asks=asks, is_new=True),
        key_file=getattr(args, "key_file", None),
        open_place=place_opener(args),
        pins=pins(),
        snapshot=snapshot,
        size_policy=_POLICIES[policy],
        used=used(args) if is_source else None,
        incomplete=is_source and getattr(args, "incomplete", False),
        replay_journal=getattr(args, "replay_journal", False),
        on_event=console.on_event,
        cancel=console.cancel,
    )
