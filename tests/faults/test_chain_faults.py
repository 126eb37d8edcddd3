"""commit and rebase that are killed before any of their writes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20

# Each attempt is a process that ends without a word before its write number N. They are
# forked from one process, since starting Python for each would take most of the time.
SCRIPT = """
import json, os, shutil, sys
from imprint.endpoints import chains
from imprint.endpoints.open import Access, open_image

verb, folder, names = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
os.chdir(folder)

def content():
    with open_image("overlay.qcow2", Access()) as image:
        return image.read_at(0, image.size)

def work():
    if verb == "commit":
        chains.commit("overlay.qcow2", Access(), workers=1)
    else:
        parent = None if verb == "flatten" else "other.qcow2"
        chains.rebase("overlay.qcow2", Access(), parent=parent)

def mortal(call, state):
    def attempt(*arguments, **options):
        state[0] -= 1
        if state[0] < 0:
            os._exit(9)
        return call(*arguments, **options)
    return attempt

expected = content()
for name in names:
    shutil.copy(name, name + ".kept")
deaths, wrong = 0, []
while True:
    for name in names:
        shutil.copy(name + ".kept", name)
    child = os.fork()
    if child == 0:
        state = [deaths]
        for call in ("pwrite", "rename", "replace", "ftruncate", "fdatasync", "fsync"):
            setattr(os, call, mortal(getattr(os, call), state))
        work()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if content() != expected:
        wrong.append([deaths, "killed"])
    if code == 9:
        work()  # the same command again
        if content() != expected:
            wrong.append([deaths, "completed"])
    else:
        break
    deaths += 1
print(json.dumps({"deaths": deaths, "wrong": wrong, "code": code}))
"""


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize("verb", ["commit", "rebase", "flatten"])
def test_an_overlay_reads_as_before_whenever_it_is_killed(tmp_path: Path, verb: str) -> None:
    """Fails if there is a moment at which the overlay's disk is another one, or cannot be read."""
    base, other, overlay = (tmp_path / f"{name}.qcow2" for name in ("base", "other", "overlay"))
    options = {"cluster_size": 4096}
    oracles.create(base, MIB, "qcow2", options=options)
    oracles.qemu_io(base, "qcow2", "write -P 1 0 64k", "write -P 2 512k 64k")
    oracles.create(other, MIB // 2, "qcow2", options=options)
    oracles.qemu_io(other, "qcow2", "write -P 3 32k 64k")
    oracles.create(overlay, None, "qcow2", options=options, backing=base, backing_format="qcow2")
    oracles.qemu_io(overlay, "qcow2", "write -P 4 16k 8k", "write -z 512k 8k", "write -P 5 900k 8k")

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, verb, tmp_path, "base.qcow2,other.qcow2,overlay.qcow2"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["wrong"] == []
    assert result["code"] == 0
    assert result["deaths"] > 5
    oracles.check(overlay, "qcow2")
