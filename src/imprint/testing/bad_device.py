"""A real block device that fails in chosen sectors, without device-mapper.

``nbdkit`` fails by a map, ``nbdfuse`` makes a file of that, and a loop device with direct I/O a
block device: past the page cache, which would widen an error to 4096 bytes.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, Final

import pytest

from imprint.testing.bad_medium import bad_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TOOLS: Final = ("nbdfuse", "nbdkit", "losetup", "umount")
"""What a test that uses it needs."""


@contextlib.contextmanager
def bad_device(folder: Path, content: bytes, bad: Iterable[tuple[int, int]]) -> Iterator[str]:
    """A block device that the kernel cannot read in some sectors, exact to 512 bytes.

    Args:
        folder: for ``medium``, ``faults`` and ``fuse``.
        content: what it holds.
        bad: ranges that cannot be read, in bytes.
    """
    image, faults, point = folder / "medium", folder / "faults", folder / "fuse"
    image.write_bytes(content)
    faults.write_text(bad_map(len(content), bad))
    point.touch()
    server = subprocess.Popen(  # noqa: S603 - tools of the test
        [
            *("nbdfuse", "-r", point, "--socket-activation", "nbdkit", "-r"),
            *("--filter=ddrescue", "file", image, f"ddrescue-mapfile={faults}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while point.stat().st_size != len(content):
            if time.monotonic() > deadline:
                pytest.skip("FUSE does not work here")
            time.sleep(0.05)
        made = subprocess.run(  # noqa: S603
            ["losetup", "--read-only", "--direct-io=on", "--find", "--show", point],  # noqa: S607
            check=False,
            capture_output=True,
            text=True,
        )
        if made.returncode:
            pytest.skip("no loop device with direct I/O over FUSE here")
        device = made.stdout.strip()
        try:
            yield device
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)  # noqa: S603, S607
    finally:
        # Lazily: a loop device is detached some time after it was asked for.
        command = ["umount", "--lazy", str(point)]
        subprocess.run(command, check=False, capture_output=True)  # noqa: S603
        server.terminate()
        server.wait(timeout=20)
