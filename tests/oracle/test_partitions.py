"""Partition tables against sfdisk and sgdisk, and tables that nobody should make."""

from __future__ import annotations

import json
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.contracts import Traits
from imprint.core.events import Severity
from imprint.core.units import KIB, MIB
from imprint.endpoints.survey import describe
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.oracles import run
from imprint.testing.tables import mbr_entry
from imprint.volumes import PartitionTable, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTOR = 512
DISK_BYTES = 64 * MIB


class Row(NamedTuple):
    """A partition, as sfdisk's JSON has it."""

    number: int
    start: int
    length: int
    code: str
    name: str
    uuid: str
    flags: frozenset[str]


def make(device: Path, script: str) -> None:
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device, stdin=script.encode())


def told_by_sfdisk(device: Path) -> tuple[dict[str, Any], list[Row]]:
    table = json.loads(run("sfdisk", "--json", device).stdout)["partitiontable"]
    sector = table["sectorsize"]
    return table, [_row(item, sector, str(device)) for item in table.get("partitions", ())]


def _row(item: dict[str, Any], sector: int, device: str) -> Row:
    digits = item["node"].removeprefix(device).removeprefix("p")
    code = item["type"].lower()
    flags = {"boot"} if item.get("bootable") else set()
    for word in item.get("attrs", "").split():
        names = {
            "RequiredPartition": "required",
            "NoBlockIOProtocol": "no-block-io",
            "LegacyBIOSBootable": "legacy-boot",
        }
        bits = word.removeprefix("GUID:").split(",")
        flags |= {names[word]} if word in names else {f"bit-{bit}" for bit in bits}
    return Row(
        int(digits),
        item["start"] * sector,
        item["size"] * sector,
        code if "-" in code else f"0x{int(code, 16):02x}",
        item.get("name", ""),
        item.get("uuid", "").lower(),
        frozenset(flags),
    )


def rows_of(table: PartitionTable, *, with_uuid: bool) -> list[Row]:
    return [
        Row(
            item.index,
            item.start,
            item.length,
            item.code,
            item.name,
            (item.uuid or "") if with_uuid else "",
            frozenset(item.flags),
        )
        for item in table.partitions
    ]


def same_as_sfdisk(device: Path, table: PartitionTable | None) -> None:
    expected, rows = told_by_sfdisk(device)
    assert table is not None
    assert table.kind == {"gpt": "gpt", "dos": "mbr"}[expected["label"]]
    assert table.uuid == expected["id"].lower().removeprefix("0x")
    assert table.sector_size == expected["sectorsize"]
    found = rows_of(table, with_uuid=table.kind == "gpt")
    assert sorted(found) == sorted(rows)


@contextmanager
def scratch(size: int = DISK_BYTES, script: str = "") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "disk")
        with path.open("wb") as file:
            file.truncate(size)
        if script:
            make(path, script)
        yield path


GUIDS = ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "0FC63DAF-8483-4772-8E79-3D69D8477DE4")
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=18).map(
    lambda name: name.replace('"', "").replace("\\", "").replace(",", "")
)
ATTRIBUTES = st.sampled_from(
    ["", "RequiredPartition", "LegacyBIOSBootable", "GUID:48", "RequiredPartition GUID:60,63"]
)


@st.composite
def gpt_scripts(draw: st.DrawFn) -> str:
    lines, position, step = ["label: gpt"], MIB // SECTOR, 64 * KIB // SECTOR
    for number in draw(st.lists(st.integers(1, 128), unique=True, max_size=9).map(sorted)):
        position += draw(st.integers(0, 20)) * step
        size = draw(st.integers(1, 60)) * step
        fields = f"start={position}, size={size}, type={draw(st.sampled_from(GUIDS))}"
        name, attributes = draw(NAMES), draw(ATTRIBUTES)
        lines.append(f'{number}: {fields}, name="{name}", attrs="{attributes}"')
        position += size
    return "\n".join(lines) + "\n"


@st.composite
def mbr_scripts(draw: st.DrawFn) -> str:
    """Up to three primary partitions, then an extended one with up to six in it."""
    lines, position, step = ["label: dos"], MIB // SECTOR, 64 * KIB // SECTOR
    count = draw(st.integers(0, 3))
    types = st.sampled_from(["83", "7", "c", "82", "ef", "da"])
    for number in range(1, count + 1):
        position += draw(st.integers(0, 20)) * step
        size = draw(st.integers(1, 60)) * step
        active = ", bootable" if number == 1 and draw(st.booleans()) else ""
        lines.append(f"{number}: start={position}, size={size}, type={draw(types)}{active}")
        position += size
    if draw(st.booleans()):
        logical, inside = [], position
        for number in range(5, 5 + draw(st.integers(0, 6))):
            inside += draw(st.integers(16, 40)) * step  # room for the boot record
            size = draw(st.integers(1, 60)) * step
            logical.append(f"{number}: start={inside}, size={size}, type={draw(types)}")
            inside += size
        kind = draw(st.sampled_from(["5", "f", "85"]))
        extended = f"start={position}, size={inside - position + step}, type={kind}"
        lines += [f"{count + 1}: {extended}", *logical]
    return "\n".join(lines) + "\n"


@pytest.mark.oracle("sfdisk")
@given(script=gpt_scripts())
def test_a_gpt_is_read_as_sfdisk_reads_it(script: str) -> None:
    """Fails if a partition of a GPT lies elsewhere, or has another number, name or flag."""
    with scratch(script=script) as path, closing(FileStorage.open(path)) as storage:
        table = read_table(storage)
        same_as_sfdisk(path, table)
        assert table is not None
        assert table.findings == ()


@pytest.mark.oracle("sfdisk")
@given(script=mbr_scripts())
def test_an_mbr_is_read_as_sfdisk_reads_it(script: str) -> None:
    """Fails if a logical partition is placed from the wrong start, or numbered wrongly."""
    with scratch(script=script) as path, closing(FileStorage.open(path)) as storage:
        table = read_table(storage)
        same_as_sfdisk(path, table)
        assert table is not None
        assert table.findings == ()


@contextmanager
def loop_device(path: Path) -> Iterator[Path]:
    device = Path(run("losetup", "--show", "--find", "-b", "4096", path).stdout.strip())
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


class BigSectors(MemoryStorage):
    """A disk that says that its sectors have 4096 bytes."""

    @property
    def traits(self) -> Traits:
        return Traits(logical_sector=4096)


@pytest.mark.root
@pytest.mark.oracle("sfdisk", "losetup")
@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_tables_in_sectors_of_4096_bytes_are_read_as_sfdisk_reads_them(label: str) -> None:
    """Fails if all numbers are an eighth of what they should be, as of a 4Kn disk's image."""
    lines = ["start=256, size=256", "start=512, size=512", "start=1024, size=8192"]
    types = ["c", "83", "f"] if label == "dos" else ["U", "L", "S"]
    script = f"label: {label}\n"
    script += "".join(f"{line}, type={type_}\n" for line, type_ in zip(lines, types, strict=True))
    if label == "dos":
        script += "5: start=1280, size=256\n6: start=2048, size=1024\n"
    with scratch() as path, loop_device(path) as device:
        run("sfdisk", "--quiet", "--no-reread", device, stdin=script.encode(), accept=(0, 1))
        disk = path.read_bytes()
        same_as_sfdisk(device, read_table(BigSectors(disk)))
        # An image file does not say how large its sectors are: the table itself does.
        same_as_sfdisk(device, read_table(MemoryStorage(disk)))


@pytest.mark.oracle("sfdisk")
@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_a_table_without_partitions_is_a_table(label: str) -> None:
    """Fails if a freshly initialised disk is called one without a table."""
    with scratch(script=f"label: {label}\n") as path, closing(FileStorage.open(path)) as storage:
        table = read_table(storage)
        same_as_sfdisk(path, table)
        assert table is not None
        assert table.partitions == ()


@pytest.mark.oracle("sgdisk", "sfdisk")
def test_a_gpt_of_512_entries_is_read_whole() -> None:
    """Fails if the number of entries is taken for granted."""
    with scratch() as path, closing(FileStorage.open(path)) as storage:
        run("sgdisk", "--clear", "--resize-table=512", path)
        run("sgdisk", "--new=400:4096:8191", "--change-name=400:last", path)
        same_as_sfdisk(path, read_table(storage))


@pytest.mark.oracle("sgdisk")
def test_of_a_hybrid_mbr_the_gpt_counts_and_the_user_is_told() -> None:
    """Fails if a disk that Macs start Windows from shows only some of its partitions."""
    with scratch() as path, closing(FileStorage.open(path)) as storage:
        run("sgdisk", "--new=1:2048:4095", "--new=2:4096:8191", "--hybrid=2", path)
        table = read_table(storage)
    assert table is not None
    assert (table.kind, [item.index for item in table.partitions]) == ("gpt", [1, 2])
    assert [(item.severity, item.where) for item in table.findings] == [
        (Severity.INFO, "MBR at 0x0")
    ]


@pytest.mark.parametrize(
    ("command", "size"),
    [
        pytest.param(words.split(), size, marks=pytest.mark.oracle(words.split()[0]), id=words)
        for words, size in (
            ("mkfs.vfat -F 12", 8 * MIB),
            ("mkfs.vfat -F 16", 64 * MIB),
            ("mkfs.vfat -F 32", 64 * MIB),
            ("mkfs.vfat -S 4096", 64 * MIB),
            ("mkfs.ntfs -F -Q -q", 64 * MIB),
            ("mkfs.exfat", 64 * MIB),
        )
    ],
)
def test_the_boot_sector_of_a_file_system_is_no_mbr(command: list[str], size: int) -> None:
    """Fails if a memory card without a table shows the partitions that its boot code spells."""
    with scratch(size) as path:
        run(*command, path)
        disk = bytearray(path.read_bytes())
    assert disk[510:512] == b"\x55\xaa"
    assert read_table(MemoryStorage(disk)) is None
    # Even if its boot code looks like entries, and if remains of a GPT are behind it.
    disk[446:510] = mbr_entry(0x83, 100, 100) + bytes(48)
    assert read_table(MemoryStorage(disk)) is None


@pytest.mark.oracle("sfdisk", "mkfs.ext4", "mkfs.vfat")
def test_what_a_partition_is_called_and_what_is_in_it_become_the_keys_of_info() -> None:
    """Fails if a script that reads ``info --json`` finds other keys."""
    script = 'label: gpt\nstart=2048, size=8192, type=U, name="EFI"\nstart=10240, size=65536\n'
    with scratch(script=script) as path, closing(FileStorage.open(path)) as storage:
        run("mkfs.vfat", "-n", "ESP", "-i", "12345678", "--offset=2048", path, "4096")
        identity = "0d7e8b1c-95f3-4c1f-8f64-f2f0a5b3c3a1"
        options = ("-E", f"offset={10240 * SECTOR}", "-L", "root", "-U", identity)
        run("mkfs.ext4", "-q", *options, path, "32M")
        found = describe(storage).to_json()
    rows = found["partitions"]
    assert isinstance(rows, list)
    keys = ("index", "start", "length", "type", "name", "filesystem", "filesystem_label")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (1, 2048 * SECTOR, 8192 * SECTOR, "EFI System", "EFI", "vfat", "ESP"),
        (2, 10240 * SECTOR, 65536 * SECTOR, "Linux filesystem", "", "ext4", "root"),
    ]
    assert [row["filesystem_uuid"] for row in rows] == ["1234-5678", identity]
    assert (found["table"], found["filesystem"]) == ("gpt", None)


@pytest.mark.oracle("xorriso")
def test_a_disc_for_usb_sticks_has_a_table_and_is_one_file_system() -> None:
    """Fails if the image of an installer is only one of the two things that it is."""
    with tempfile.TemporaryDirectory() as folder:
        image, tree = Path(folder, "disc.iso"), Path(folder, "tree")
        tree.mkdir()
        Path(tree, "file").write_bytes(b"content" * 1000)
        options = ("-quiet", "-V", "INSTALL", "-partition_offset", "16", "-o", image, tree)
        run("xorriso", "-as", "mkisofs", *options)
        with closing(FileStorage.open(image)) as storage:
            found = describe(storage)
    assert found.table is not None
    assert found.table.kind == "mbr"
    assert found.filesystem is not None
    assert (found.filesystem.kind, found.filesystem.label) == ("iso9660", "INSTALL")
    assert found.volumes[0].filesystem is not None
    assert found.volumes[0].filesystem.kind == "iso9660"
