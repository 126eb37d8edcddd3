"""inspect: what speaks against an image from a stranger."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from imprint.testing.program import Program

pytestmark = pytest.mark.oracle("qemu-img")
MIB = 1 << 20


def _reasons(program: Program, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = program("inspect", "--untrusted", "--json", *arguments)
    found: dict[str, Any] = json.loads(done.out)
    return done.exit_code, found


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """An honest image."""
    path = tmp_path / "clean.qcow2"
    oracles.create(path, 4 * MIB, "qcow2")
    oracles.qemu_io(path, "qcow2", "write -P 1 0 1M")
    return path


def test_nothing_speaks_against_an_honest_image(
    program: Program, clean: Path, documented: Callable[[str, dict[str, Any]], None]
) -> None:
    """Fails if ordinary uploads are refused."""
    code, found = _reasons(program, clean.name)
    assert (code, found["ok"], found["reasons"], found["size"]) == (0, True, [], 4 * MIB)
    documented("inspect", found)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["-b", "/etc/hostname", "-F", "raw"], "/etc/hostname"),
        (["-o", "data_file={folder}/d.raw"], "{folder}/d.raw"),
    ],
)
def test_an_image_that_names_a_file_is_not_trusted(
    program: Program, tmp_path: Path, options: list[str], name: str
) -> None:
    """Fails if an image can make the next program read a file of the server (CVE-2024-32498)."""
    path = tmp_path / "evil.qcow2"
    options = [option.format(folder=tmp_path) for option in options]
    name = name.format(folder=tmp_path)
    oracles.qemu_img("create", "-q", "-f", "qcow2", *options, path, "1M")
    code, found = _reasons(program, path.name)
    assert code == 1
    assert {"code": "reference", "what": f"names another file: {name!r}"} in found["reasons"]


def test_an_image_that_is_two_things_is_not_trusted(program: Program, clean: Path) -> None:
    """Fails if a QCOW2 that is also a bootable disk passes: who takes it for raw boots it."""
    with clean.open("r+b") as file:
        file.seek(32768)
        file.write(b"\x01CD001\x01")
    code, found = _reasons(program, clean.name)
    assert code == 1
    assert "several-formats" in [reason["code"] for reason in found["reasons"]]


def test_what_it_is_said_to_be_counts(program: Program, clean: Path) -> None:
    """Fails if an image under a false name passes."""
    assert _reasons(program, clean.name, "-f", "raw")[0] == 1
    assert _reasons(program, clean.name, "-f", "qcow2")[0] == 0


def test_sizes_features_and_damage_are_reasons(program: Program, clean: Path) -> None:
    """Fails if a header that promises too much, or the unknown, passes."""
    assert _reasons(program, clean.name, "--size-max", "1M")[1]["reasons"][0]["code"] == "size"
    content = clean.read_bytes()
    for offset, value, reason in ((79, 0x20, "unsupported"), (20, 99, "damaged")):
        changed = bytearray(content)
        changed[offset] = value
        clean.write_bytes(changed)
        code, found = _reasons(program, clean.name)
        assert code == 1
        assert reason in [item["code"] for item in found["reasons"]]
    clean.write_bytes(content[: len(content) - MIB])
    assert _reasons(program, clean.name)[0] == 1


def test_the_first_of_several_files_is_not_called_damaged(program: Program, tmp_path: Path) -> None:
    """Fails if what cannot be judged alone is damaged, or every name that may follow is told."""
    (tmp_path / "disk.raw").write_bytes(random.Random(6).randbytes(4 << 20))
    program.ok("capture", "disk.raw", "set.E01", "--split", "1M")
    assert (tmp_path / "set.E03").exists()
    found = program("inspect", "set.E01", "--untrusted", "--json")
    assert found.exit_code == 1
    (reason,) = found.json["reasons"]
    assert reason["code"] == "reference"
    assert "set.E02" in reason["what"]
    assert "set.E09" not in reason["what"]
