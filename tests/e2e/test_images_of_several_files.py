"""Images of several files, and streams: what is counted, and what is spared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.testing import oracles

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20
FLAT = (
    '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="custom"\n'
    'RW 2048 FLAT "one.bin" 0\nRW 2048 ZERO\nRW 2048 FLAT "two.bin" 0\n'
)


def _of_several(program: Program, disk: Path, kind: str) -> str:
    """An image of at least two files; its name. The last of them is ``other(name)``."""
    if kind == "pieces":
        program.ok("convert", disk.name, "x.001", "-o", "split=3M")
        return "x.001"
    if kind == "qcow2":
        program.ok("convert", disk.name, "x.qcow2", "-o", "data_file=x.data")
        return "x.qcow2"
    if kind == "e01":
        noise = program.folder / "noise.raw"
        noise.write_bytes((bytes(range(251)) * 13_000)[: 3 * MIB])
        program.ok(
            "convert", noise.name, "x.E01", "-o", "segment_size=1M", "-o", "compression=none"
        )
        return "x.E01"
    content = disk.read_bytes()
    (program.folder / "one.bin").write_bytes(content[:MIB])
    (program.folder / "two.bin").write_bytes(content[-MIB:])
    (program.folder / "x.vmdk").write_text(FLAT)
    return "x.vmdk"


LAST = {"pieces": "x.003", "qcow2": "x.data", "e01": "x.E03", "vmdk": "two.bin"}
PATTERNS = {"pieces": ("x.0*",), "qcow2": ("x.*",), "e01": ("x.E*",), "vmdk": ("x.vmdk", "*.bin")}


@pytest.mark.parametrize("kind", list(LAST))
def test_no_file_of_the_source_is_replaced(program: Program, disk: Path, kind: str) -> None:
    """Fails if an image loses its second file to a copy of itself, which the first does not."""
    name = _of_several(program, disk, kind)
    last = program.folder / LAST[kind]
    before = last.read_bytes()
    for target in (name, last.name):
        said = program("convert", name, target, "-O", "raw", "--force")
        assert said.exit_code == 5
        assert "is the source as well" in said.messages[-1]
    assert last.read_bytes() == before


@pytest.mark.parametrize("kind", list(LAST))
def test_info_counts_all_files_of_an_image(program: Program, disk: Path, kind: str) -> None:
    """Fails if only the file is counted that the user has named: the data is in another one."""
    name = _of_several(program, disk, kind)
    files = [file for each in PATTERNS[kind] for file in program.folder.glob(each)]
    assert len(files) >= 2
    found = program.ok("info", name, "--json").json
    assert found["stored_size"] == sum(file.stat().st_blocks * 512 for file in files)
    assert found["file_size"] == sum(file.stat().st_size for file in files)
    assert f"{len(files)} files of" in program.ok("info", name).text


@pytest.mark.oracle("qemu-img")
def test_info_counts_the_files_of_a_vmdk_as_qemu_does(program: Program, disk: Path) -> None:
    """Fails if the two programs disagree on what an image takes up."""
    for subformat in ("monolithicFlat", "twoGbMaxExtentSparse", "monolithicSparse"):
        program.ok("convert", disk.name, "x.vmdk", "-o", f"subformat={subformat}", "--force")
        found = program.ok("info", "x.vmdk", "--json").json
        assert found["stored_size"] == oracles.info(program.folder / "x.vmdk")["actual-size"]


@pytest.mark.parametrize(
    "options",
    [
        ("-O", "raw"),
        ("-O", "qcow2"),
        ("-O", "qcow2", "-o", "compression=zstd"),
        ("-O", "vmdk"),
        ("-O", "ova"),
        ("-O", "gce"),
    ],
)
def test_what_goes_into_a_stream_is_counted(
    program: Program, disk: Path, options: tuple[str, ...]
) -> None:
    """Fails if the size of the disk is given for that of what was written of it."""
    result = program.ok("convert", disk.name, "-", *options, "--json", "--progress", "none")
    said = result.err.splitlines()[-1]
    assert f'"bytes_stored": {len(result.out)},' in said


@pytest.mark.parametrize("name", ["qcow2", "vmdk", "ova"])
def test_padding_is_told_of_streams_and_packages_too(program: Program, name: str) -> None:
    """Fails if zeros are added to a disk, and nobody says so."""
    (program.folder / "odd.raw").write_bytes(b"\7" * 1_000_003)
    for target in ("-", "out.bin"):
        said = program.ok("convert", "odd.raw", target, "-O", name, "--progress", "none").messages
        told = [line for line in said if "is padded with zeros to 1000448" in line]
        assert len(told) == 1, said


@pytest.mark.parametrize(
    "options",
    [
        ("x.001", "-o", "split=3M"),
        ("x.E01", "-o", "segment_size=1M", "-o", "compression=none"),
        ("x.vmdk", "-o", "subformat=monolithicFlat"),
        ("x.qcow2", "-o", "data_file=at-10:01.data"),
    ],
)
def test_a_time_of_day_may_be_in_the_names_of_all_files(
    program: Program, disk: Path, options: tuple[str, ...]
) -> None:
    """Fails if an image cannot be read again, as its other files look like URLs."""
    name = options[0].replace("x", "disk-2026-11-23T10:00")
    program.ok("convert", disk.name, name, *options[1:])
    assert program.ok("compare", disk.name, name, "--json").json["equal"]


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize("suffix", ["qcow2", "qed", "vmdk", "vhd", "vhdx"])
def test_a_time_of_day_may_be_in_the_name_of_a_parent(
    program: Program, disk: Path, suffix: str
) -> None:
    """Fails if an overlay is made that nobody can read: its parent looks like a URL."""
    parent = f"disk-10:00.{suffix}"
    program.ok("convert", disk.name, parent)
    program.ok("create", f"overlay.{suffix}", "--parent", parent)
    assert program.ok("compare", disk.name, f"overlay.{suffix}", "--json").json["equal"]
    if suffix not in ("vhd", "vhdx"):  # whose parents QEMU does not read
        one, other = disk, program.folder / f"overlay.{suffix}"
        assert oracles.is_equal(one, other, first_format="raw", second_format=suffix)


def test_what_only_looks_like_a_file_is_not_looked_for(program: Program, disk: Path) -> None:
    """Fails if a URL in an image is taken for a path, also where its last part is a file's name."""
    program.ok("create", "overlay.qcow2", "--parent", disk.name)
    image = program.folder / "overlay.qcow2"
    content = image.read_bytes()
    assert content.count(b"disk.raw") == 1
    for name in (b"nbd://d/disk.raw", b"json:{"):
        at, length = content.index(b"disk.raw"), len(name).to_bytes(4, "big")
        changed = content[:16] + length + content[20:at] + name + content[at + len(name) :]
        image.write_bytes(changed)
        said = program.refuses(3, "hash", image.name, "--allow-parent", ".")
        assert "expected the path of a file" in said[0]


def test_the_name_of_a_data_file_is_one(program: Program) -> None:
    """Fails if a name that is none ends in an exception, or the advice is what was done."""
    program.refuses(2, "create", "x.qcow2", "1M", "-o", "data_file=")
    (program.folder / "x.data").touch()
    arguments = ("create", "x.qcow2", "1M", "-o", "data_file=x.data")
    assert "--force replaces it" in program.refuses(5, *arguments)[1]
    assert "remove it" in program.refuses(5, *arguments, "--force")[1]
    said = program.refuses(2, "create", "x.qcow2", "1M", "-o", "cluster_size=64Q")
    assert said[0].startswith("imprint: option cluster_size: expected a size")


@pytest.mark.parametrize(
    "options",
    [
        ("raw", "-o", "preallocation=full"),
        ("raw", "-o", "preallocation=falloc"),
        ("vmdk", "-o", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "-o", "subformat=monolithicFlat"),
        ("qcow2", "-o", "data_file=x.data"),
        ("qcow2", "-o", "data_file=y.data", "-o", "preallocation=full"),
    ],
)
def test_no_more_is_stored_than_was_measured(
    program: Program, disk: Path, options: tuple[str, ...]
) -> None:
    """Fails if the prediction forgets a file of the image, or that all of it is filled."""
    found = program.ok("measure", disk.name, "-O", *options, "--json").json
    made = program.ok("convert", disk.name, "x.bin", "-O", *options, "--json").json
    assert made["bytes_stored"] <= found["required"] + 4096
    assert found["required"] <= found["fully_allocated"]


def test_packages_are_not_measured_and_not_called_unknown(program: Program, disk: Path) -> None:
    """Fails if a name that convert takes is said to be none."""
    for name in ("ova", "gce"):
        assert name in program.refuses(4, "measure", disk.name, "-O", name)[0]
    said = program.refuses(2, "convert", disk.name, "x.nothing")
    assert "ova" in said[1]
    assert "bochs" not in said[1], "is only read"


def test_a_parent_is_a_file(program: Program, disk: Path) -> None:
    """Fails if an overlay is made over a name that nothing can ever open."""
    for name in ("-", "https://host/disk.qcow2", "nbd://host/x", "repo:/srv/x::y"):
        for more in ((), ("-F", "raw")):
            program.refuses(2, "create", "x.qcow2", "1M", "--parent", name, *more)
    program.ok("create", "x.qcow2", "--parent", disk.name)
    program.refuses(2, "rebase", "x.qcow2", "--parent", "-", "-F", "raw", "--unsafe")
