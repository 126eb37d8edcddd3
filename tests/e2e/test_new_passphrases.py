"""Passphrases of images that are made: nobody can look up what was mistyped."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from imprint.testing.program import TIMEOUT_S, checked

if TYPE_CHECKING:
    from imprint.testing.program import Program, Result

QUICK = ("-o", "encrypt.format=luks", "-o", "encrypt.iter-time=10")


def _answered(program: Program, answers: tuple[str, ...], *arguments: str) -> Result:
    """Run the program at a terminal of its own, on which somebody answers each question."""
    ours, theirs = pty.openpty()
    command = ("setsid", "--ctty", "--wait", sys.executable, "-m", "imprint", *arguments)
    with subprocess.Popen(
        command,
        cwd=program.folder,
        env={**program.environment, "PYTHONUNBUFFERED": "1"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        said, rest = b"", list(answers)
        while rest:
            said += os.read(ours, 1000)
            if said.rstrip().endswith(b":"):
                said = b""
                os.write(ours, rest.pop(0).encode() + b"\n")
        out, err = process.communicate(timeout=TIMEOUT_S)
        os.close(ours)
    return checked(process.returncode, out, err)


def test_a_new_passphrase_is_typed_twice(program: Program) -> None:
    """Fails if a typing error makes an image that nobody can ever open."""
    made = _answered(program, ("one", "another"), "create", "x.qcow2", "1M", *QUICK)
    assert made.exit_code == 3
    assert "the same passphrase twice" in made.err
    assert not list(program.folder.iterdir())
    made = _answered(program, ("one", "one"), "create", "x.qcow2", "1M", *QUICK)
    assert made.exit_code == 0, made.err
    target = ("convert", "x.qcow2", "y.qcow2", "--progress", "none", *QUICK)
    copied = _answered(program, ("one", "two", "two"), *target)
    assert copied.exit_code == 0, copied.err
    found = program("hash", "y.qcow2", environment={"IMPRINT_PASSPHRASE": "two"})
    assert found.exit_code == 0, found.err


@pytest.mark.parametrize("is_file", [True, False])
def test_an_empty_passphrase_protects_nothing(program: Program, is_file: bool) -> None:
    """Fails if a variable that was never set encrypts an image that everybody can read."""
    (program.folder / "empty").write_bytes(b"\n")
    more = ("--passphrase-file", "empty") if is_file else ()
    environment = {} if is_file else {"IMPRINT_PASSPHRASE": ""}
    made = program("create", "x.qcow2", "1M", *QUICK, *more, environment=environment)
    assert made.exit_code == 3
    assert "found an empty one" in made.messages[0]
    assert not (program.folder / "x.qcow2").exists()
