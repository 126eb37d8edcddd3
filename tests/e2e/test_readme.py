"""The examples of the README do what it says, as they stand there."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MIB = 1 << 20


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def card(tmp_path: Path) -> Iterator[str]:
    """A memory card: a real block device."""
    file = tmp_path / "card.raw"
    file.write_bytes(os.urandom(2 * MIB) + bytes(14 * MIB))
    found = subprocess.run(
        ["losetup", "--find", "--show", file], check=True, capture_output=True, text=True
    )
    device = found.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def _typed(command: str, answer: str, folder: Path) -> str:
    """Run a command in a terminal and type ``answer`` when it asks."""
    script = f"cd '{folder}' && {command}"
    output = bytearray()

    def read(fd: int) -> bytes:
        data = os.read(fd, 4096)
        if b"ype " in data:
            os.write(fd, answer.encode() + b"\n")
        output.extend(data)
        return data

    stdout = os.dup(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        status = pty.spawn(["sh", "-c", script], read, lambda fd: os.read(fd, 0))
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    assert os.waitstatus_to_exitcode(status) == 0, output.decode(errors="replace")
    return output.decode(errors="replace")


@pytest.mark.root
@pytest.mark.oracle("losetup", "qemu-img")
def test_the_six_commands_do_what_they_say(tmp_path: Path, card: str) -> None:
    """Fails if the first thing that a newcomer types does not work."""
    oracles.convert(Path(card), tmp_path / "disk.vdi", "vdi")
    # Somebody else's machine is another folder here.
    (tmp_path / "host").mkdir()
    (tmp_path / "ssh").write_text(f'#!/bin/sh\ncd {tmp_path}/host && exec sh -c "$2"\n')
    (tmp_path / "imprint").write_text(f'#!/bin/sh\nexec {sys.executable} -m imprint "$@"\n')
    for tool in ("ssh", "imprint"):
        (tmp_path / tool).chmod(0o755)
    shell = f"export PATH='{tmp_path}':\"$PATH\" PYTHONPATH='{os.pathsep.join(sys.path)}'; "
    lines = [line.split("   #")[0] for line in _block("sh").strip().splitlines()]
    assert len(lines) == 6
    before = Path(card).read_bytes()
    for line in lines:
        command = line.replace("/dev/sdb", card)
        if "restore" in command:
            Path(card).write_bytes(os.urandom(16 * MIB))
            _typed(shell + command, Path(card).name, tmp_path)
        else:
            subprocess.run(["sh", "-c", shell + command], check=True, cwd=tmp_path)
        if "ssh" in command:
            (tmp_path / "disk.qcow2").write_bytes((tmp_path / "host/disk.qcow2").read_bytes())
    oracles.check(tmp_path / "disk.qcow2", "qcow2")
    assert Path(card).read_bytes() == before


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if the API is not what the README shows."""
    import imprint

    monkeypatch.chdir(tmp_path)
    Path("disk.raw").write_bytes(b"\x01" * 65536 + bytes(3 * MIB))
    done = subprocess.run(
        [sys.executable, "-m", "imprint", "convert", "disk.raw", "disk.qcow2"],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    said = io.StringIO()
    names: dict[str, object] = {"imprint": imprint}
    with contextlib.redirect_stdout(said):
        exec(compile(_block("python"), "README.md", "exec"), names)
    assert names["boot_sector"] == b"\x01" * 512
    assert said.getvalue().splitlines() == ["0 65536 data", f"65536 {3 * MIB} hole"]
