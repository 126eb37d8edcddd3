"""Appliances and Compute Engine images, as the command line writes them."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import signal
import tarfile
import time
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from imprint.testing import oracles
from imprint.testing.program import checked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.testing.program import Program

MIB = 1 << 20
GIB = 1 << 30
UUID = "6a1f2f6e-3d0c-4e5b-9a55-0f3f7a8f0c11"
OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
VSSD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData}"


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """``data.raw``: 3 MiB, the last of which is full of 7."""
    path = tmp_path / "data.raw"
    path.write_bytes(bytes(2 * MIB) + b"\x07" * MIB)
    return path


def _descriptor(path: Path) -> tuple[ET.Element, tarfile.TarFile]:
    archive = tarfile.open(path)  # noqa: SIM115 - the caller reads from it
    member = archive.next()
    assert member is not None
    assert member.name.endswith(".ovf")
    file = archive.extractfile(member)
    assert file is not None
    return ET.fromstring(file.read()), archive


def _items(root: ET.Element) -> list[dict[str, str]]:
    items = []
    for item in root.iter(f"{OVF}Item"):
        names = [field.tag.removeprefix(RASD) for field in item]
        assert names == sorted(names), "the schema is a sequence in alphabetical order"
        items.append({name: field.text or "" for name, field in zip(names, item, strict=True)})
    return items


def test_the_descriptor_says_what_the_standard_requires(
    program: Program, disk: Path, second: Path
) -> None:
    """Fails if a required element is missing or out of order (DSP0243 7 to 9, DSP8023)."""
    program.ok("convert", disk.name, second.name, "m.ova", "-o", "cpus=2", "-o", "memory=512M")
    root, archive = _descriptor(program.folder / "m.ova")
    with archive:
        members = archive.getmembers()
    assert [item.name for item in members] == [
        "m.ovf",
        "m.mf",
        "m-disk1.vmdk",
        "m-disk2.vmdk",
    ]
    assert [child.tag.removeprefix(OVF) for child in root] == [
        "References",
        "DiskSection",
        "NetworkSection",
        "VirtualSystem",
    ]
    files = list(root.iter(f"{OVF}File"))
    assert [file.get(f"{OVF}href") for file in files] == ["m-disk1.vmdk", "m-disk2.vmdk"]
    assert [int(file.get(f"{OVF}size", "0")) for file in files] == [
        item.size for item in members[2:]
    ]
    disks = list(root.iter(f"{OVF}Disk"))
    assert [one.get(f"{OVF}fileRef") for one in disks] == [one.get(f"{OVF}id") for one in files]
    assert [int(one.get(f"{OVF}capacity", "0")) for one in disks] == [8 * MIB, 3 * MIB]
    assert {one.get(f"{OVF}capacityAllocationUnits") for one in disks} == {"byte"}
    # Three runs of 70,000 bytes touch 2 + 2 + 2 grains of 64 KiB; the last MiB is 16 of them.
    assert [int(one.get(f"{OVF}populatedSize", "0")) for one in disks] == [6 << 16, MIB]
    assert all(str(one.get(f"{OVF}format")).endswith("vmdk.html#streamOptimized") for one in disks)
    system = root.find(f"{OVF}VirtualSystem")
    assert system is not None
    assert [child.tag.removeprefix(OVF) for child in system] == [
        "Info",
        "Name",
        "OperatingSystemSection",
        "VirtualHardwareSection",
    ]
    assert root.findtext(f".//{VSSD}VirtualSystemType") == "vmx-07"
    items = _items(root)
    assert [item["ResourceType"] for item in items] == ["3", "4", "6", "17", "17", "10"]
    assert len({item["InstanceID"] for item in items}) == len(items)
    assert [items[0]["VirtualQuantity"], items[1]["VirtualQuantity"]] == ["2", "512"]
    assert [item["HostResource"] for item in items[3:5]] == [
        f"ovf:/disk/{one.get(f'{OVF}diskId')}" for one in disks
    ]
    assert {item["Parent"] for item in items[3:5]} == {items[2]["InstanceID"]}
    assert items[5]["ResourceSubType"] == "E1000"
    assert items[5]["Connection"] == root.find(f".//{OVF}Network").get(f"{OVF}name")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "hwversion", "controller"),
    [
        (("controller=sata", "firmware=efi"), "vmx-10", ("20", "vmware.sata.ahci")),
        (("controller=ide", "nic=none"), "vmx-07", ("5", "PIIX4")),
        (("controller=pvscsi", "hwversion=13", "os=debian64"), "vmx-13", ("6", "VirtualSCSI")),
        (("firmware=efi", "nic=vmxnet3", "network=a<b"), "vmx-08", ("6", "lsilogic")),
    ],
)
def test_options_choose_the_machine(
    program: Program,
    disk: Path,
    options: tuple[str, ...],
    hwversion: str,
    controller: tuple[str, str],
) -> None:
    """Fails if an option is taken and does nothing."""
    chosen = [word for option in options for word in ("-o", option)]
    program.ok("convert", disk.name, disk.name, disk.name, "m.ova", *chosen)
    root, archive = _descriptor(program.folder / "m.ova")
    archive.close()
    items = _items(root)
    buses = [item for item in items if item["ResourceType"] == controller[0]]
    assert root.findtext(f".//{VSSD}VirtualSystemType") == hwversion
    assert {item["ResourceSubType"] for item in buses} == {controller[1]}
    assert len(buses) == (2 if "controller=ide" in options else 1)
    places = [
        (item["Parent"], item["AddressOnParent"]) for item in items if item["ResourceType"] == "17"
    ]
    assert len(set(places)) == 3
    nics = [item["ResourceSubType"] for item in items if item["ResourceType"] == "10"]
    expected = {"nic=none": [], "nic=vmxnet3": ["VmxNet3"]}
    assert nics == next((expected[item] for item in options if item in expected), ["E1000"])
    assert ("firmware=efi" in options) == any("Config" in one.tag for one in root.iter())


@pytest.mark.parametrize("digest", ["sha256", "sha1"])
def test_the_manifest_has_the_hashes_of_all_files(
    program: Program, disk: Path, digest: str
) -> None:
    """Fails if a program that checks the manifest finds a difference."""
    program.ok("convert", disk.name, "m.ova", "-o", f"digest={digest}")
    with tarfile.open(program.folder / "m.ova") as archive:
        content = {item.name: archive.extractfile(item).read() for item in archive}  # type: ignore[union-attr]
    lines = content.pop("m.mf").decode().splitlines()
    assert lines == [
        f"{digest.upper()}({name})= {hashlib.new(digest, data).hexdigest()}"
        for name, data in content.items()
    ]


def test_a_pipe_gets_the_same_bytes_as_a_file(program: Program, disk: Path, second: Path) -> None:
    """Fails if the survey's sizes are not exact, or a build cannot be made again."""
    options = ["-O", "ova", "--uuid", UUID, "-o", "name=vm"]
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    for target in ("one.ova", "two.ova"):
        done = program("convert", disk.name, second.name, target, *options, environment=epoch)
        assert done.exit_code == 0, done.err
    piped = program("convert", disk.name, second.name, "-", *options, environment=epoch)
    assert piped.exit_code == 0, piped.err
    first = (program.folder / "one.ova").read_bytes()
    assert first == (program.folder / "two.ova").read_bytes()
    assert first == piped.out
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        assert {item.mtime for item in archive} == {1700000000}


def test_a_written_package_is_read_again(
    program: Program,
    disk: Path,
    second: Path,
    documented: Callable[[str, dict[str, Any]], None],
) -> None:
    """Fails if our own packages are not what the disks were, or verbs do not know them."""
    result = program.ok("convert", disk.name, second.name, "m.ova", "--json").json
    documented("convert", result)
    assert result["format"] == "ova"
    assert result["size"] == 11 * MIB
    assert 0 < result["bytes_stored"] <= (program.folder / "m.ova").stat().st_size
    for address, source in (("m.ova", disk), ("m.ova#d1", disk), ("m.ova#d2", second)):
        assert program.ok("convert", address, "-").out == source.read_bytes()
    found = program.ok("info", "m.ova", "--json").json
    documented("info", found)
    assert [(one["number"], one["format"], one["size"]) for one in found["disks"]] == [
        (1, "vmdk", 8 * MIB),
        (2, "vmdk", 3 * MIB),
    ]
    assert "m-disk2.vmdk" in program.ok("info", "m.ova").text
    verified = program.ok("verify", "m.ova", "--json", "--hash", "sha256").json
    documented("verify", verified)
    assert verified["hashes"] == {"sha256": hashlib.sha256(disk.read_bytes()).hexdigest()}
    assert verified["disks"][1]["hashes"] == {
        "sha256": hashlib.sha256(second.read_bytes()).hexdigest()
    }
    assert [item["ok"] for item in verified["members"]] == [True] * 3
    assert program.ok("check", "m.ova", "--json").json["findings"] == []
    program.ok("check", "m.ova#d2")
    assert program.ok("inspect", "m.ova", "--untrusted", "--json").json["format"] == "ova"


@pytest.mark.parametrize(
    "name", ["a b'c.ova", "ümlaut.ova", "-x.ova", "ова.OVA", "x" * 200 + ".ova"]
)
def test_odd_names_give_plain_names_inside(program: Program, disk: Path, name: str) -> None:
    """Fails if a name inside is one that a manifest, a header or a program stumbles over."""
    program.ok("convert", disk.name, f"./{name}")
    root, archive = _descriptor(program.folder / name)
    with archive:
        for member in archive:
            assert len(member.name) <= 100
            assert member.name.isascii()
            assert member.name[0].isalnum()
            assert set(" '\"()=").isdisjoint(member.name)
    assert root.findtext(f"{OVF}VirtualSystem/{OVF}Name") == name[:-4]
    program.ok("verify", f"./{name}")


@pytest.mark.parametrize(
    ("exit_code", "arguments"),
    [
        (2, ("convert", "disk.raw", "disk.raw", "x.qcow2")),
        (2, ("convert", "disk.raw", "disk.raw", "x.tar.gz", "-O", "gce")),
        (2, ("convert", "disk.raw", "disk.raw", "x.ova", "-O", "qcow2")),
        (2, ("convert", "x.ova")),
        (2, ("restore", "disk.raw", "disk.raw", "x.ova")),
        (2, ("capture", "disk.raw", "x.ova")),
        (2, ("capture", "disk.raw", "x.tar.gz", "-O", "gce")),
        (2, ("convert", "disk.raw", "x.ova#d1")),
        (2, ("convert", "-", "-", "x.ova")),
        (3, ("convert", "disk.raw", "missing.raw", "x.ova")),
        (5, ("convert", "disk.raw", "old.ova")),
        (5, ("convert", "old.ova", "old.ova", "--force", "-f", "raw")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "colour=red")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "cpus=0")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "memory=1000")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "memory=0")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "hwversion=3")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "hwversion=7", "-o", "controller=sata")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "hwversion=7", "-o", "firmware=efi")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "controller=floppy")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "name=a\x01b")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "name= ")),
        (2, ("convert", "disk.raw", "x.ova", "-o", "level=10")),
        (2, ("convert", "disk.raw", "x.ova", "--uuid", "none")),
        (2, ("convert", *["disk.raw"] * 5, "x.ova", "-o", "controller=ide")),
        (2, ("convert", "disk.raw", "x.tar.gz")),
        (2, ("convert", "disk.raw", "x.tar.gz", "-O", "gce", "-o", "level=-1")),
        (2, ("convert", "disk.raw", "x.tar.gz", "-O", "gce", "-o", "name=x")),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_left(
    program: Program, disk: Path, exit_code: int, arguments: tuple[str, ...]
) -> None:
    """Fails if a wrong argument is found late, or with another code."""
    old = program.folder / "old.ova"
    old.write_bytes(b"old")
    program.refuses(exit_code, *arguments)
    if exit_code != 2:  # those take a look at the files
        program.refuses(exit_code, *arguments, "--dry-run")
    assert old.read_bytes() == b"old"
    assert sorted(path.name for path in program.folder.iterdir()) == [disk.name, "old.ova"]


def test_several_sources_keep_the_error_that_there_was(program: Program, disk: Path) -> None:
    """Fails if scripts that match the message see another one."""
    (said, advice) = program.refuses(2, "convert", disk.name, "x.qcow2", "y.qcow2")
    assert said == "imprint: unrecognized arguments: y.qcow2"
    assert advice == "imprint: imprint convert --help shows how it is used"


def test_a_dry_run_writes_nothing(program: Program, disk: Path, second: Path) -> None:
    """Fails if it does."""
    found = program.ok("convert", disk.name, second.name, "m.ova", "--dry-run", "--json").json
    assert found["format"] == "ova"
    assert found["size"] == 11 * MIB
    program.ok("convert", disk.name, "m.tar.gz", "-O", "gce", "--dry-run")
    assert sorted(path.name for path in program.folder.iterdir()) == [second.name, disk.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("target", ["m.ova", "m.tar.gz"])
def test_a_stopped_copy_leaves_the_old_file(
    program: Program, number: signal.Signals, target: str
) -> None:
    """Fails if a package shows before it is whole, or Ctrl-C leaves something behind."""
    (program.folder / "big.raw").write_bytes(random.Random(1).randbytes(48 * MIB))
    old = program.folder / target
    old.write_bytes(b"old")
    kind = "ova" if target == "m.ova" else "gce"
    command = ("convert", "big.raw", target, "-O", kind, "-o", "level=9", "--force", "-j", "1")
    partial = program.folder / f"{target}.partial"
    with program.start(*command, "--progress", "none") as process:
        for _ in range(3000):
            if partial.exists() and partial.stat().st_size >= MIB:
                break
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert old.read_bytes() == b"old"
    names = sorted(path.name for path in program.folder.iterdir())
    if number == signal.SIGINT:
        assert checked(process.returncode, out, err).exit_code == 130
        assert names == ["big.raw", target]
    program.ok("convert", "big.raw", target, "-O", kind, "--force", "-o", "level=0")
    assert sorted(path.name for path in program.folder.iterdir()) == ["big.raw", target]


def test_options_of_packages_are_listed(program: Program) -> None:
    """Fails if a user cannot find out what an appliance can be told."""
    found = program.ok("formats", "ova", "--json").json
    names = {"name", "cpus", "memory", "hwversion", "os", "controller", "firmware", "nic", "level"}
    assert names <= {option["name"] for option in found["options"]}
    listed = program.ok("formats", "--json").json["formats"]
    assert {one["name"]: one["read"] for one in listed if one["name"] in ("ova", "gce")} == {
        "ova": True,
        "gce": False,
    }
    assert "disk.raw" in program.ok("formats", "gce").text


def test_compute_engine_gets_one_file_of_whole_gib(program: Program, disk: Path) -> None:
    """Fails if the import would refuse the archive, or the disk in it is another one."""
    done = program.ok("convert", disk.name, "x.tar.gz", "-O", "gce", "-j", "2")
    assert "padded with zeros to 1 GiB" in done.err
    assert program.ok("convert", disk.name, "-", "-O", "gce").out[:3] == b"\x1f\x8b\x08"
    with gzip.open(program.folder / "x.tar.gz") as file:
        head = file.read(512)
        assert head[257:265] == b"ustar  \0", "the magic of the old GNU format"
        with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as archive:
            member = archive.next()
        assert member is not None
        assert (member.name, member.size) == ("disk.raw", GIB)
        assert file.read(8 * MIB) == disk.read_bytes()
        rest = 0
        while piece := file.read(MIB):  # which compares the checksum and the length at the end
            assert not any(piece[:: 4096 - 1])
            rest += len(piece)
    assert (512 + 8 * MIB + rest) % 10240 == 0
    assert 512 + 8 * MIB + rest >= GIB + 3 * 512


@pytest.mark.oracle("tar", "gzip", "sha256sum", "qemu-img")
def test_other_tools_read_what_we_write(program: Program, disk: Path, second: Path) -> None:
    """Fails if GNU tar, gzip, sha256sum or qemu-img see anything wrong."""
    folder = program.folder
    program.ok("convert", disk.name, second.name, "m.ova")
    listed = oracles.run("tar", "--list", "--file", folder / "m.ova").stdout.split()
    assert listed == ["m.ovf", "m.mf", "m-disk1.vmdk", "m-disk2.vmdk"]
    oracles.run("tar", "--extract", "--file", folder / "m.ova", "--directory", folder)
    oracles.run("sh", "-c", 'cd "$0" && sha256sum --check --strict m.mf', folder)
    for name, source in (("m-disk1.vmdk", disk), ("m-disk2.vmdk", second)):
        found = oracles.info(folder / name)
        assert found["format-specific"]["data"]["create-type"] == "streamOptimized"
        oracles.qemu_img("check", folder / name)
        assert oracles.is_equal(folder / name, source, first_format="vmdk", second_format="raw")
    program.ok("convert", disk.name, "x.tar.gz", "-O", "gce")
    # tar lets gzip read all of it, which compares the checksum.
    verbose = oracles.run("tar", "--list", "--verbose", "--gzip", "--file", folder / "x.tar.gz")
    assert verbose.stdout.count("\n") == 1
    assert f" {GIB} " in verbose.stdout
    assert verbose.stderr == ""
