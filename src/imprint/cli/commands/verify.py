"""verify: read everything and compare with hashes."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from imprint.cli import options
from imprint.cli.console import exact
from imprint.core.errors import RepositoryError, UsageError
from imprint.endpoints.hashing import stored_hashes, verify_disk
from imprint.endpoints.location import Where, parse
from imprint.endpoints.open import open_package, open_part, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.cli.console import Console
    from imprint.core.contracts import Source, Storage
    from imprint.endpoints.hashing import Verification
    from imprint.endpoints.location import Location
    from imprint.endpoints.open import Access

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
    options.add_signer(parser, "the snapshot of a repository")
    options.add_access(parser)
    options.add_workers(parser)
    options.add_place_options(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Verify; 0 if all is well, 1 if not."""
    expected: dict[str, str] = {}
    for name, digest in args.expect:
        if expected.setdefault(name, digest) != digest:
            raise UsageError(f"expected one value for {name}, found two")
    if args.cache_size is None:
        args.cache_size = 0  # what a cache still holds says nothing of the place
    access = replace(options.access(args, console), incomplete=True)
    location = parse(args.image)
    if location.where is Where.REPOSITORY:
        return _run_snapshot(args, console, access, location, expected)
    if args.signer:
        raise UsageError("--signer is for snapshots", name=args.image)
    package = open_package(args.image, access)
    if package is not None:
        with closing(package):
            return _run_package(args, console, access, package, expected)
    with console.stopping(), closing(open_source(args.image, access)) as source:
        found = _verify(args, console, source, stored_hashes(source), expected)
    _print_disk("", found, expected, console)
    console.print(f"{args.image}: {_verdict(found)}")
    console.result(
        ok=found.ok,
        size=found.size,
        hashes=found.hashes,
        expected=expected,
        damage=_damage_json(found),
    )
    return 0 if found.ok else _DAMAGED_EXIT


def _verify(
    args: argparse.Namespace,
    console: Console,
    source: Source,
    stored: Mapping[str, str],
    expected: dict[str, str],
) -> Verification:
    """Read it all; what is stored is expected, too."""
    for name, digest in stored.items():
        expected.setdefault(name, digest)
    return verify_disk(
        source,
        args.hash,
        expected,
        workers=args.workers,
        on_event=console.on_event,
        cancel=console.cancel,
    )


def _run_snapshot(
    args: argparse.Namespace,
    console: Console,
    access: Access,
    location: Location,
    expected: dict[str, str],
) -> int:
    """Verify a disk in a repository: its blocks by their names, and who vouches for it."""
    from imprint.endpoints.repository import open_selected, signatures  # only for repositories
    from imprint.repository.signing import Verdict, read_trusted

    trusted = [key for path in args.signer for key in read_trusted(path)]
    repository, snapshot = open_selected(location, access)
    disk = repository.source(snapshot, on_close=repository.close)
    with console.stopping(), closing(open_part(disk, location, access)) as source:
        try:
            signed = signatures(repository, snapshot, trusted)
            problem = ""
        except RepositoryError as error:
            signed, problem = Verdict(), f"its signature is damaged: {error.args[0]}"
        stored = {} if location.is_part else snapshot.manifest.hashes
        found = _verify(args, console, source, stored, expected)
    if not problem and trusted and not signed.is_trusted:
        problem = "none of the expected keys has signed it"
    ok = found.ok and not signed.wrong and not problem
    hashes = dict(found.hashes)
    if not found.damage and not location.is_part:
        hashes["merkle"] = snapshot.manifest.root
    _print_disk("", found, expected, console)
    for key in signed.trusted:
        console.print(f"signed by {key.public.hex()}, as {key.label} says")
    for public in signed.others:
        console.print(f"signed by {public.hex()}, which nobody has said to trust")
    for public in signed.wrong:
        console.print(f"a signature by {public.hex()} is of something else")
    if problem:
        console.print(problem)
    verdict = _verdict(found) if ok or not found.ok else "not as expected"
    console.print(f"{args.image}: snapshot {snapshot.short}: {verdict}")
    console.result(
        ok=ok,
        size=found.size,
        hashes=hashes,
        expected=expected,
        damage=_damage_json(found),
        snapshot=snapshot.name,
        signers={
            "trusted": [key.public.hex() for key in signed.trusted],
            "others": [public.hex() for public in signed.others],
            "wrong": [public.hex() for public in signed.wrong],
        },
    )
    return 0 if ok else _DAMAGED_EXIT


def _run_package(
    args: argparse.Namespace,
    console: Console,
    access: Access,
    storage: Storage,
    expected: dict[str, str],
) -> int:
    """Verify a package: its files by their hashes, and all of its disks by reading them."""
    from imprint.endpoints.appliance import checking, package  # only for packages

    with console.stopping():
        content = package.read(storage)
        members = checking.digests(
            storage, content, on_event=console.on_event, cancel=console.cancel
        )
        disks = checking.verify_disks(
            args.image,
            content,
            args.hash,
            expected,
            access,
            workers=args.workers,
        )
    for member in members:
        found = member.found or "no such file"
        verdict = "as expected" if member.ok else f"expected {member.expected}"
        console.print(f"{member.name}: {member.algorithm}  {found}  {verdict}")
    if not members:
        console.print("no manifest: there are no hashes of the files")
    for number, disk in enumerate(disks, 1):
        _print_disk(f"#d{number} ", disk, expected if number == 1 else {}, console)
    ok = all(member.ok for member in members) and all(disk.ok for disk in disks)
    console.print(f"{args.image}: {'all is as expected' if ok else 'damaged'}")
    console.result(
        ok=ok,
        size=disks[0].size if disks else 0,
        hashes=disks[0].hashes if disks else {},
        expected=expected,
        damage=[item for disk in disks for item in _damage_json(disk)],
        members=[{**asdict(member), "ok": member.ok} for member in members],
        disks=[
            {"number": number, "size": disk.size, "hashes": disk.hashes, "ok": disk.ok}
            for number, disk in enumerate(disks, 1)
        ],
    )
    return 0 if ok else _DAMAGED_EXIT


def _print_disk(
    prefix: str, found: Verification, expected: dict[str, str], console: Console
) -> None:
    for item in found.damage:
        console.print(f"{prefix}damaged: {exact(item.length)} at {item.offset}: {item.what}")
    for name, digest in found.hashes.items():
        verdict = "as expected" if name in expected else ""
        if name in found.wrong:
            verdict = f"expected {found.wrong[name]}"
        console.print(f"{prefix}{name}  {digest}  {verdict}".rstrip())


def _damage_json(found: Verification) -> list[dict[str, object]]:
    return [
        {"offset": item.offset, "length": item.length, "what": item.what} for item in found.damage
    ]


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
