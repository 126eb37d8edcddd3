"""Extended attributes as users meet them: ``cp``, ``stat`` and mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.core.units import MIB
from imprint.testing.attributed_files import CAPABILITY, by_kernel, dress, many
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program


def empty(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.fixture(scope="module")
def dressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 with attributes of all kinds."""
    path = empty(tmp_path_factory.mktemp("ext4") / "volume", 32 * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-b", "4096", path)
    with mounted(path) as folder:
        dress(folder)
        many(folder, count=20, size=100)
    return path


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
def test_attributes_are_extracted_as_the_kernel_tells_them(program: Program, dressed: Path) -> None:
    """Fails if one is lost that was asked for, or given that was not."""
    pytest.importorskip("pytsk3")
    with mounted(dressed, "ro") as folder:
        expected = by_kernel(folder)
        modes = {path: (folder / path[1:]).lstat().st_mode for path in expected}
    for path in ("/pipe", "/null", "/"):  # are never made; and the folder is the user's own
        del expected[path]
    total = sum(map(len, expected.values()))
    target = empty(program.folder / "target", 32 * MIB)
    run("mke2fs", "-q", "-t", "ext4", "-b", "4096", target)
    users = {
        path: {name: value for name, value in facts.items() if name.startswith("user.")}
        for path, facts in expected.items()
    }
    count = sum(map(len, users.values()))
    with mounted(target) as folder:
        shown = program.ok("cp", "-r", f"{dressed}:/", folder / "usual", "--json").json
        assert (shown["xattrs"], shown["xattrs_left"]) == (count, total - count)
        assert {**by_kernel(folder / "usual"), "/": {}} == {**users, "/": {}}
        every = ("--xattrs", "all", "--owner", "--json")
        shown = program.ok("cp", "-r", f"{dressed}:/", folder / "all", *every).json
        assert (shown["xattrs"], shown["xattrs_left"], shown["xattrs_failed"]) == (total, 0, [])
        found = by_kernel(folder / "all")
        assert {**found, "/": {}} == {**expected, "/": {}}
        for path in expected:
            assert (folder / "all" / path[1:]).lstat().st_mode == modes[path]


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
def test_a_target_that_takes_none_is_told_once(program: Program, dressed: Path) -> None:
    """Fails if an attribute that cannot be set fails the file, or is told for each."""
    pytest.importorskip("pytsk3")
    target = empty(program.folder / "target", 8 * MIB)
    run("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-I", "128", target)
    with mounted(target) as folder:
        result = program.ok("cp", "-r", f"{dressed}:/", folder / "out", "--json")
        shown = result.json
        failed = [item["path"] for item in shown["xattrs_failed"]]
        assert set(failed) == {"/many"}  # 20 are more than a block of 1 KiB has room for
        assert shown["counts"]["xattrs_failed"] == len(failed)
        told = [line for line in result.messages if "could not be set" in line]
        assert len(told) == 1
        assert (folder / "out" / "many").exists()


@pytest.mark.root
@pytest.mark.oracle("mke2fs", "fusermount3")
def test_a_mount_has_the_attributes_that_the_kernel_tells(program: Program, dressed: Path) -> None:
    """Fails if programs that ask for them are told otherwise than by the kernel's own driver."""
    pytest.importorskip("pytsk3")
    with mounted(dressed, "ro") as folder:
        expected = by_kernel(folder)
    point = program.folder / "point"
    point.mkdir()
    program.ok("mount", dressed, point)
    try:
        assert by_kernel(point / "files") == expected
    finally:
        program.ok("unmount", point)


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
def test_stat_shows_them(program: Program, dressed: Path) -> None:
    """Fails if a value is shown as what it is not, or steers a terminal."""
    pytest.importorskip("pytsk3")
    text = program.ok("stat", f"{dressed}:/few").text
    assert "xattr user.comment" in text
    assert "größer" in text
    assert f"0x{CAPABILITY.hex()}" in text
    assert "user::rwx,user:70000:r--" in program.ok("stat", f"{dressed}:/listed").text
    told = {
        item["name"]: item
        for item in program.ok("stat", f"{dressed}:/few", "--json").json["xattrs"]
    }
    assert told["user.comment"]["value"] == "größer"
    assert told["user.empty"] == {"name": "user.empty", "size": 0, "encoding": "text", "value": ""}
    assert bytes.fromhex(told["security.capability"]["value"]) == CAPABILITY
    assert told["security.capability"]["encoding"] == "hex"
