"""S01 against libewf: what the tests make of it is one, so that the contract holds for real ones.

What libewf writes as SMART is read in ``test_e01.py``, with all other flavours.
"""

from __future__ import annotations

import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint.testing import ewf_image

if TYPE_CHECKING:
    from pathlib import Path

DISK = random.Random(9).randbytes(70_144) + bytes(70_144)


@pytest.mark.oracle("ewfexport")
@pytest.mark.parametrize("kind", ["s01", "e01", "encase1"])
def test_libewf_reads_what_the_tests_make(tmp_path: Path, kind: str) -> None:
    """Fails if the contract's images are none: then the driver may be as wrong."""
    if kind == "s01":
        content = ewf_image.s01(DISK)
    else:
        content = ewf_image.e01(DISK, is_first_version=kind == "encase1")
    path = tmp_path / f"disk.{'s01' if kind == 's01' else 'E01'}"
    path.write_bytes(content)
    back = tmp_path / "back"
    done = subprocess.run(
        ["ewfexport", "-q", "-u", "-f", "raw", "-S", "0", "-t", back, path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "back.raw").read_bytes() == DISK
