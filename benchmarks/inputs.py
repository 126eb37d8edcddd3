"""The disks that are read: made once, and kept for the next time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.cases import IMAGES, peer_format

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT: Final = Path(__file__).resolve().parent / "content.py"


class Inputs:
    """The disks to read, made when a case first needs them; qemu-img writes the images.

    Not imprint: that a reader likes its own writer's layout best would prove nothing.
    """

    def __init__(self, folder: Path, size: int, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._size = size
        self._tell = tell

    def get(self, name: str) -> Path:
        """The path of an input; made now if it is not there."""
        path = self._folder / f"{name}-{self._size}"
        if not path.exists():
            partial = path.with_suffix(".partial")
            self._tell(f"making {name}")
            if name in IMAGES:
                self._make_image(name, partial)
            elif name == "fragmented":
                self._make_fragmented(partial)
            else:
                _run([sys.executable, str(CONTENT), "disk", str(partial), str(self._size)])
            partial.rename(path)
        return path

    def _make_fragmented(self, path: Path) -> None:
        """Every second cluster of a disk of twice the size."""
        raw = path.with_suffix(".raw")
        _run([sys.executable, str(CONTENT), "alternating", str(raw), str(2 * self._size)])
        _run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(path)])
        raw.unlink()

    def _make_image(self, name: str, path: Path) -> None:
        image = IMAGES[name]
        options = ("-O", peer_format(image.format), *image.options)
        _run(["qemu-img", "convert", *options, str(self.get("disk")), str(path)])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
