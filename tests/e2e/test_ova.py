"""OVA packages: their disks are opened by number."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

import imprint
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.testing import oracles

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20
OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
          xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References>
    <File ovf:id="file2" ovf:href="two.qcow2"/>
    <File ovf:id="file1" ovf:href="one.qcow2"{extra}/>
  </References>
  <DiskSection>
    <Info>disks</Info>
    <Disk ovf:diskId="d0" ovf:capacity="1"/>
    <Disk ovf:diskId="d1" ovf:fileRef="file1" ovf:capacity="4194304"/>
    <Disk ovf:diskId="d2" ovf:fileRef="file2" ovf:capacity="8388608"/>
  </DiskSection>
</Envelope>
"""


def _package(folder: Path, descriptor: str, names: tuple[str, ...]) -> Path:
    path = folder / "machine.ova"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("machine.ovf")
        info.size = len(descriptor.encode())
        archive.addfile(info, io.BytesIO(descriptor.encode()))
        for name in names:
            archive.add(folder / name, name)
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Two disks: the first is full of 1, the second of 2."""
    for number, name in ((1, "one"), (2, "two")):
        raw = tmp_path / f"{name}.raw"
        raw.write_bytes(bytes([number]) * (4 * MIB * number))
        oracles.convert(raw, tmp_path / f"{name}.qcow2", "qcow2", arguments=["-c"])
    return _package(tmp_path, OVF.format(extra=""), ("two.qcow2", "one.qcow2"))


@pytest.mark.oracle("qemu-img")
def test_disks_are_numbered_as_the_descriptor_lists_them(package: Path) -> None:
    """Fails if the order of the archive decides which disk is the first."""
    for address, number in (("", 1), ("#d1", 1), ("#d2", 2)):
        with imprint.open(f"{package}{address}") as disk:
            assert disk.size == 4 * MIB * number
            assert disk.read_at(MIB, 4096) == bytes([number]) * 4096


@pytest.mark.oracle("qemu-img")
def test_a_disk_of_a_package_is_converted(program: Program, package: Path, tmp_path: Path) -> None:
    """Fails if a package cannot be used where an image can."""
    program.ok("convert", f"{package.name}#d2", "out.raw")
    assert (tmp_path / "out.raw").read_bytes() == b"\x02" * (8 * MIB)
    assert "qcow2" in program.ok("info", f"{package.name}#d1").text
    program.refuses(2, "info", f"{package.name}#d3")
    program.refuses(2, "info", "one.qcow2#d1")


@pytest.mark.oracle("qemu-img")
def test_what_is_said_to_be_an_image_is_no_package(program: Program, package: Path) -> None:
    """Fails if a guest can turn its raw disk into a package, or the name of packages is unknown."""
    content = package.read_bytes()
    whole = hashlib.sha256(content).hexdigest()
    found = program.ok("hash", "-f", "raw", package.name, "--hash", "sha256", "--json").json
    assert (found["size"], found["hashes"]) == (len(content), {"sha256": whole})
    second = hashlib.sha256(b"\x02" * (8 * MIB)).hexdigest()
    for format_name in ("ova", "qcow2"):
        arguments = ("hash", "-f", format_name, f"{package.name}#d2", "--hash", "sha256", "--json")
        assert program.ok(*arguments).json["hashes"] == {"sha256": second}
    assert len(program.ok("info", "-f", "ova", package.name, "--json").json["disks"]) == 2
    program.refuses(3, "info", "-f", "qcow2", package.name)
    program.refuses(3, "info", "-f", "ova", "one.qcow2")
    program.refuses(4, "info", "-f", "gce", package.name)
    program.refuses(5, "resize", "-f", "ova", package.name, "1G")
    assert package.read_bytes() == content


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize(
    ("descriptor", "error"),
    [
        (OVF.format(extra=' ovf:compression="gzip"'), UnsupportedFeatureError),
        (OVF.format(extra=' ovf:chunkSize="100"'), UnsupportedFeatureError),
        (OVF.format(extra="").replace("one.qcow2", "../../etc/passwd"), CorruptImageError),
        (OVF.format(extra="").replace("one.qcow2", "/etc/passwd"), CorruptImageError),
        (OVF.format(extra="")[:300], CorruptImageError),
        ("<a/>", UsageError),
        (
            '<!DOCTYPE a [<!ENTITY b "' + "x" * 1000 + '"><!ENTITY c "' + "&b;" * 1000 + '">'
            '<!ENTITY d "' + "&c;" * 1000 + '">]><a>&d;</a>',
            CorruptImageError,
        ),
    ],
)
def test_a_package_that_contradicts_itself_is_refused(
    package: Path, tmp_path: Path, descriptor: str, error: type[ImagingError]
) -> None:
    """Fails if a descriptor can name files outside the package, or fill the memory."""
    del package
    path = _package(tmp_path, descriptor, ("two.qcow2", "one.qcow2"))
    with pytest.raises(error):
        imprint.open(path)


MANIFEST = "SHA1(one.qcow2)= {one}\nSHA256(two.qcow2)= {two}\n\n"


def _with_manifest(package: Path, manifest: str, descriptor: str = OVF) -> Path:
    folder = package.parent
    path = folder / "signed.ova"
    (folder / "m.ovf").write_text(descriptor.format(extra=""))
    (folder / "m.mf").write_text(manifest)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("m.ovf", "m.mf", "two.qcow2", "one.qcow2"):
            archive.add(folder / name, name)
    return path


def _manifest(package: Path) -> str:
    folder = package.parent
    return MANIFEST.format(
        one=hashlib.sha1((folder / "one.qcow2").read_bytes()).hexdigest(),
        two=hashlib.sha256((folder / "two.qcow2").read_bytes()).hexdigest().upper(),
    )


@pytest.mark.oracle("qemu-img")
def test_hashes_of_the_manifest_are_compared(program: Program, package: Path) -> None:
    """Fails if a changed file of a package is not noticed by whoever asks for it."""
    good = _with_manifest(package, _manifest(package))
    found = program.ok("verify", good.name, "--json").json
    assert [(item["name"], item["algorithm"]) for item in found["members"]] == [
        ("one.qcow2", "sha1"),
        ("two.qcow2", "sha256"),
    ]
    program.ok("inspect", good.name, "--untrusted")
    checked = program("check", good.name, "--json")
    assert checked.exit_code == 1, "the manifest has no hash of the descriptor"
    assert [item["severity"] for item in checked.json["findings"]] == ["warning"]

    content = bytearray(good.read_bytes())
    at = content.rindex(b"QFI\xfb") + (1 << 16) - 1  # in what no table of the image looks at
    content[at] ^= 1
    good.write_bytes(content)
    result = program("verify", good.name, "--json")
    assert result.exit_code == 1
    assert result.json["ok"] is False
    assert [item["ok"] for item in result.json["members"]].count(False) == 1
    assert program("check", good.name).exit_code == 1
    assert program("inspect", good.name, "--untrusted").exit_code == 1


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("SHA256(one.qcow2)= 12\n", "line 1"),
        ("\nCRC32(one.qcow2)= 12345678\n", "line 2"),
        ("hello", "line 1"),
        ("\x00\xff" * 50, "line 1"),
        ("MD5(a)= " + "0" * 32 + "\nMD5(a)= " + "0" * 32, "once"),
    ],
    ids=["short", "unknown", "text", "binary", "twice"],
)
def test_a_damaged_manifest_is_an_error(
    program: Program, package: Path, manifest: str, said: str
) -> None:
    """Fails if a package is called sound whose hashes cannot be read."""
    path = _with_manifest(package, manifest)
    (message, *_) = program.refuses(3, "verify", path.name)
    assert "m.mf" in message
    assert said in message
    assert program("check", path.name).exit_code == 1
    assert program("inspect", path.name, "--untrusted").exit_code == 1
    program.ok("info", path.name)


@pytest.mark.oracle("qemu-img")
def test_a_file_that_the_manifest_names_has_to_be_there(program: Program, package: Path) -> None:
    """Fails if a missing file counts as one that is as expected."""
    path = _with_manifest(package, f"SHA1(gone.nvram)= {'0' * 40}\n")
    result = program("verify", path.name, "--json")
    assert result.exit_code == 1
    assert result.json["members"][0]["found"] is None


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize(
    ("descriptor", "verb", "exit_code"),
    [
        (OVF[:300], "verify", 3),
        (OVF[:300], "info", 3),
        (OVF[:300], "check", 1),
        (OVF[:300], "inspect", 1),
        (OVF.replace("one.qcow2", "../one.qcow2"), "inspect", 1),
        (OVF.replace('id="file2"', 'id="file2" ovf:size="7"'), "check", 1),
        (OVF.replace('id="file2"', 'id="file2" ovf:size="7"'), "inspect", 1),
        (OVF.replace("4194304", "4194305"), "check", 1),
    ],
)
def test_a_damaged_descriptor_is_noticed(
    program: Program, package: Path, descriptor: str, verb: str, exit_code: int
) -> None:
    """Fails if a verb that looks at packages overlooks what is wrong with one."""
    path = _with_manifest(package, _manifest(package), descriptor.replace("{extra}", ""))
    arguments = ("--untrusted",) if verb == "inspect" else ()
    assert program(verb, path.name, *arguments).exit_code == exit_code


@pytest.mark.oracle("qemu-img")
def test_verbs_look_at_the_disk_that_is_named(program: Program, package: Path) -> None:
    """Fails if a verb takes the archive for the disk, or the first disk for the second."""
    assert "nothing is wrong" in program.ok("check", f"{package.name}#d2").text
    found = program.ok("inspect", f"{package.name}#d2", "--untrusted", "--json").json
    assert (found["format"], found["size"]) == ("qcow2", 8 * MIB)
    assert program.ok("verify", f"{package.name}#d2", "--json").json["size"] == 8 * MIB
    assert program.ok("info", f"{package.name}#d2", "--json").json["disks"] == []
    reasons = program("inspect", package.name, "--untrusted", "-f", "qcow2", "--json").json
    assert [item["code"] for item in reasons["reasons"]] == ["several-formats"]
    small = program("inspect", package.name, "--untrusted", "--size-max", "5M", "--json").json
    assert [item["code"] for item in small["reasons"]] == ["size"]
    for verb in (("resize", "1G"), ("snapshot", "create", "x")):
        arguments = (verb[0], *verb[1:-1], f"{package.name}#d1", verb[-1])
        program.refuses(2, *arguments)


@pytest.mark.oracle("qemu-img")
def test_a_disk_that_cannot_be_opened_is_damage(program: Program, package: Path) -> None:
    """Fails if one broken disk hides what can be said of the others."""
    content = bytearray(package.read_bytes())
    at = content.index(b"QFI\xfb")  # of two.qcow2, which is the first in the archive
    content[at + 20 : at + 24] = b"\0\0\0\x63"  # clusters of 2^99 bytes
    package.write_bytes(content)
    result = program("verify", package.name, "--json")
    assert result.exit_code == 1
    assert [disk["ok"] for disk in result.json["disks"]] == [True, False]
    assert len(result.json["damage"]) == 1
    listed = program.ok("info", package.name, "--json").json["disks"]
    assert listed[0]["problem"] is None
    assert "cluster" in listed[1]["problem"]
    assert program("check", package.name).exit_code == 1
    assert program("inspect", package.name, "--untrusted").exit_code == 1
