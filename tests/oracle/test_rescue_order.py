"""What matters first, as the file system's own tool says what that is."""

from __future__ import annotations

import random
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint.core.runs import Runs
from imprint.endpoints import copying
from imprint.endpoints.copying import CopyRequest
from imprint.endpoints.rescue_request import RescueRequest
from imprint.endpoints.target import TargetRequest
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
BLOCK = 4096


@pytest.mark.oracle("mkfs.ext4", "dumpe2fs", "debugfs")
def test_a_dying_disk_gives_its_files_before_its_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if free space is read while a file is missing, or something is read twice."""
    folder = tmp_path / "tree" / "inner"
    folder.mkdir(parents=True)
    for index in range(8):
        (folder / f"{index}.bin").write_bytes(random.Random(index).randbytes(300_000))
    image = tmp_path / "medium"
    image.write_bytes(random.Random(9).randbytes(24 * MIB))
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-d", folder.parent, image],
        check=True,
        capture_output=True,
    )
    content = image.read_bytes()
    told = subprocess.run(["dumpe2fs", image], check=True, capture_output=True, text=True).stdout
    free = Runs.of(
        (int(first) * BLOCK, (int(last or first) + 1 - int(first)) * BLOCK)
        for line in re.findall(r"^  Free blocks: (.*)$", told, re.MULTILINE)
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", line)
    )
    assert free.total > 8 * MIB
    said = subprocess.run(
        ["debugfs", "-R", "imap /inner/3.bin", image], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"located at block (\d+)", said)
    assert found is not None
    inode = int(found[1]) * BLOCK

    medium = BadMedium(MemoryStorage(content), Faults(bad=((free.starts[0], 512),)))
    monkeypatch.setattr(copying, "open_source", lambda *_: medium)
    wish = RescueRequest(metadata_first=True)
    target = tmp_path / "disk.raw"
    copying.run(CopyRequest(str(image), TargetRequest(str(target)), salvage=True, rescue=wish))

    log = medium.log
    is_free = [free.covers(read.offset, read.length) for read in log]
    # Looking for tables and signatures at the end of the disk costs a sector here and there.
    first = next(index for index, read in enumerate(log) if is_free[index] and read.length > 512)
    assert sum(is_free[:first]) < 8
    assert all(is_free[first:])
    at = next(i for i, read in enumerate(log) if read.offset <= inode < read.offset + read.length)
    assert at < len(log) // 4
    good = [read for read in log if read.is_good]
    assert sum(read.length for read in good) == len(content) - 512
    assert target.read_bytes()[: free.starts[0]] == content[: free.starts[0]]
