"""OVA packages: their disks are opened by number."""

from __future__ import annotations

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
