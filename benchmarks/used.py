"""imprint --used beside partclone and zstd: the same volumes, in turns, at the same level.

    .venv/bin/python benchmarks/used.py [--size 4G] [--runs 5] [--only NAME] [--dir DIR]
                                        [--markdown | --json]

README.md says what is measured and how. Needs root, to make the volumes. The exit code is 1 if
a bar is missed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

# Started as a program, Python looks for modules in this folder, not in the one around it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.aged import KINDS
from benchmarks.cases import IMPRINT, SAME_SPEED, Case, Tool, imprint
from benchmarks.measuring import must_succeed
from benchmarks.run import Suite, main

if TYPE_CHECKING:
    from collections.abc import Callable

AGED: Final = Path(__file__).resolve().parent / "aged.py"
LEVEL: Final = 3
"""Of zstd, on both sides: the default of both."""

NO_MORE_BYTES: Final = 1.0

_SMALL: Final = ("-o", "cluster_size=64K")
_ZSTD: Final = ("-o", "compression=zstd", "-o", f"level={LEVEL}")


def _piped(command: str) -> tuple[str, ...]:
    """A program's output, compressed by zstd."""
    return ("bash", "-c", f"set -o pipefail; {command} | zstd -q -f -T0 -{LEVEL} -o {{out}}")


def _case(kind: str, name: str, ours: Tool, stored_bar: float | None = NO_MORE_BYTES) -> Case:
    """One way to keep what a volume uses, beside partclone's."""
    peer = _piped(f"partclone.{kind} -c -F -q -L /dev/null -s {{{kind}}} -o -")
    output = "raw" if ours.command[0] == "bash" else "qcow2"
    return Case(
        name, ours, (Tool("partclone", peer),), (kind,), output, SAME_SPEED, stored_bar=stored_bar
    )


def _cases_of(kind: str) -> tuple[Case, ...]:
    place = f"{{{kind}}}"
    quiet = ("--used", "--progress", "none", "-f", "raw")
    image = (*quiet, "-O", "qcow2", *_ZSTD, place, "{out}")
    stream = " ".join((IMPRINT, "capture", *quiet, "-O", "raw", place, "-"))
    return (
        # Pieces of 64 KiB that are compressed by themselves take up more, zeros in a stream a
        # thousandth: both have no bar for bytes.
        _case(kind, f"{kind}-64k", imprint("capture", *_SMALL, *image), None),
        _case(kind, f"{kind}-2m", imprint("capture", *image)),
        _case(kind, f"{kind}-2m-unhashed", imprint("convert", *image)),
        _case(kind, f"{kind}-stream", Tool("imprint", _piped(stream)), None),
    )


CASES: Final = tuple(case for kind in KINDS for case in _cases_of(kind))


class Volumes:
    """The volumes to read, made when a case first needs them."""

    def __init__(self, folder: Path, size: int, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._size = size
        self._tell = tell

    def get(self, name: str) -> Path:
        """The path of a volume; made now if it is not there."""
        path = self._folder / f"{name}-{self._size}"
        if not path.exists():
            self._tell(f"making {name}")
            partial = path.with_suffix(".partial")
            words = [sys.executable, str(AGED), name, str(partial), str(self._size)]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            partial.rename(path)
        return path


def _verify(case: Case, tool: Tool, files: dict[str, Path]) -> None:
    """What imprint wrote is a file system that its own checker is content with."""
    if tool.name != "imprint":
        return
    raw = files["out"].with_suffix(".raw")
    try:
        if case.output == "raw":
            must_succeed("zstd", "-q", "-d", "--sparse", str(files["out"]), "-o", str(raw))
        else:
            formats = ("-f", "qcow2", "-O", "raw")
            must_succeed("qemu-img", "convert", *formats, str(files["out"]), str(raw))
        must_succeed(*KINDS[case.needs[0]].check, str(raw))
    finally:
        raw.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(
        main(
            Suite(
                about=(__doc__ or "").partition("\n")[0],
                cases=CASES,
                supply=Volumes,
                verify=_verify,
                default_size="4G",
                peers=(("partclone.ext4", "-v"), ("zstd", "--version")),
            )
        )
    )
