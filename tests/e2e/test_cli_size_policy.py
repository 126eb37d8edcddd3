"""A VHD says its size twice: the program shows both, takes one, and can be told which."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

CHS_BYTES = 290 * 4 * 17 * 512
FIELD_BYTES = 12 << 20
CONTENT = bytes(range(256)) * (FIELD_BYTES // 256)
WARNING = "--size-policy"


@pytest.fixture
def vhd(tmp_path: Path) -> Path:
    """``disk.vhd``: fixed, by a program that goes by the geometry, which is smaller."""
    footer = bytearray(512)
    struct.pack_into(">8sIIQ", footer, 0, b"conectix", 2, 0x10000, (1 << 64) - 1)
    struct.pack_into(">I4sI4s", footer, 24, 0, b"vpc ", 0x50003, b"Wi2k")
    struct.pack_into(">QQHBBI", footer, 40, FIELD_BYTES, FIELD_BYTES, 290, 4, 17, 2)
    footer[68:84] = bytes(range(16))
    struct.pack_into(">I", footer, 64, ~sum(footer) & 0xFFFFFFFF)
    path = tmp_path / "disk.vhd"
    path.write_bytes(CONTENT + footer)
    return path


SIZES = [("auto", CHS_BYTES), ("chs", CHS_BYTES), ("current", FIELD_BYTES)]


@pytest.mark.parametrize(("policy", "size"), SIZES)
def test_reading_verbs_take_the_size_that_is_asked_for(
    program: Program, vhd: Path, policy: str, size: int
) -> None:
    """Fails if a verb knows the option and reads the other disk."""
    words = (vhd.name, "--size-policy", policy)
    info = program.ok("info", *words, "--json").json
    assert info["size"] == size
    assert info["options"]["size_policy"] == ("current" if size == FIELD_BYTES else "chs")
    assert info["options"]["size_chs"] == CHS_BYTES
    assert info["options"]["size_current"] == FIELD_BYTES
    assert any(str(CHS_BYTES) in note and str(FIELD_BYTES) in note for note in info["notes"])
    assert sum(line["length"] for line in program.ok("map", *words, "--json").json_lines) == size
    digest = hashlib.sha256(CONTENT[:size]).hexdigest()
    assert program.ok("hash", *words, "--json").json["hashes"]["sha256"] == digest
    assert program.ok("verify", *words, "--expect", f"sha256={digest}", "--json").json["ok"]
    for verb in ("convert", "capture", "restore"):
        program.ok(verb, vhd.name, f"{verb}.raw", *words[1:])
        assert (vhd.parent / f"{verb}.raw").read_bytes() == CONTENT[:size]
    program.ok("compare", vhd.name, "convert.raw", "--strict", *words[1:])
    program.ok("compare", "convert.raw", vhd.name, "--strict", "--other-size-policy", policy)
    program.ok("check", *words)


@pytest.mark.parametrize(("policy", "size"), SIZES)
def test_resizing_starts_from_the_size_that_is_asked_for(
    program: Program, vhd: Path, policy: str, size: int
) -> None:
    """Fails if a disk grows from the wrong end: its last bytes would be lost, or zeros added."""
    program.ok("resize", vhd.name, "+1M", "--size-policy", policy)
    expected = CONTENT[:size].ljust(size + (1 << 20), b"\0")
    program.ok("convert", vhd.name, "new.raw")
    assert (vhd.parent / "new.raw").read_bytes() == expected
    assert vhd.stat().st_size == len(expected) + 512


def test_who_has_not_chosen_is_warned(program: Program, vhd: Path) -> None:
    """Fails if a disk is cut off in silence, or somebody who knows is told again."""
    for verb in ("hash", "map"):
        assert WARNING in program(verb, vhd.name).err
        assert WARNING not in program(verb, vhd.name, "--size-policy", "chs").err
    text = program.ok("info", vhd.name).text
    assert "size_reason   its creator 'vpc' goes by the geometry" in text
    assert f"size_current  {FIELD_BYTES}" in text


def test_a_child_and_its_parent_are_read_alike(program: Program, tmp_path: Path) -> None:
    """Fails if the option stops at the image, so that a parent's last bytes read as zeros."""
    (tmp_path / "disk.raw").write_bytes(CONTENT)
    program.ok("convert", "disk.raw", "base.vhd")
    program.ok("create", "top.vhd", "--parent", "base.vhd")
    content = bytearray((tmp_path / "base.vhd").read_bytes())
    for start in (0, len(content) - 512):  # a geometry, and a program that goes by it
        content[start + 28 : start + 32] = b"vpc "
        struct.pack_into(">HBB", content, start + 56, 290, 4, 17)
        struct.pack_into(">I", content, start + 64, 0)
        total = sum(content[start : start + 512])
        struct.pack_into(">I", content, start + 64, ~total & 0xFFFFFFFF)
    (tmp_path / "base.vhd").write_bytes(content)
    for policy, size in (("auto", CHS_BYTES), ("current", FIELD_BYTES)):
        program.ok("convert", "top.vhd", f"{policy}.raw", "--size-policy", policy)
        expected = CONTENT[:size].ljust(FIELD_BYTES, b"\0")
        assert (tmp_path / f"{policy}.raw").read_bytes() == expected


def test_a_policy_that_is_none_is_a_usage_error(program: Program, vhd: Path) -> None:
    """Fails if a mistyped policy is taken for the default."""
    program.refuses(2, "hash", vhd.name, "--size-policy", "largest")
