"""repo sign-key: make a key that vouches for snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imprint.cli.options import add_json

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint repo sign-key host1.pem                    and host1.pem.pub, for those who verify
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/repo-sign-key.md`` lists them too."""
    parser.add_argument("file", type=Path, help="to be made; with .pub behind, its public half")
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Make both files; none is replaced."""
    from imprint.repository.signing import generate_key, write_public

    public = args.file.with_name(f"{args.file.name}.pub")
    key = generate_key(args.file)
    try:
        write_public(key, public)
    except BaseException:
        args.file.unlink(missing_ok=True)
        raise
    console.print(f"{args.file}: to be kept secret; {public}: for those who verify")
    console.result(key=str(args.file), public=str(public), public_key=key.public.hex())
    return 0
