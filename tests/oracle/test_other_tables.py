"""Apple maps, BSD and Sun labels, and hybrid discs against parted, fdisk, partx and xorriso.

``partx`` shows what libblkid finds, which numbers partitions as Linux does.
"""

from __future__ import annotations

import json
import lzma
import random
import re
import shlex
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from imprint.core.events import Severity
from imprint.core.units import MIB
from imprint.endpoints.survey import describe
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.oracles import run
from imprint.testing.tables import (
    apm_disk,
    apm_entry,
    bsd_label,
    disk_with,
    mbr_entry,
    mbr_record,
    sun_label,
)
from imprint.volumes import PartitionTable, read_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imprint.endpoints.survey import Survey

SECTOR: Final = 512
SCHEMES: Final = {"apm": "mac", "bsd": "bsd", "sun": "sun", "mbr": "dos", "gpt": "gpt"}


class Row(NamedTuple):
    """A partition, in sectors of 512 bytes."""

    number: int
    start: int
    length: int
    code: str


def told_by_partx(disk: Path) -> list[Row]:
    fields = "NR,START,SECTORS,TYPE"
    lines = run("partx", "--pairs", "--output", fields, disk, accept=(0, 1)).stdout.splitlines()
    rows = []
    for line in lines:
        values = dict(word.split("=", 1) for word in shlex.split(line))
        number, start, length = (int(values[name]) for name in ("NR", "START", "SECTORS"))
        rows.append(Row(number, start, length, code_of(values["TYPE"])))
    return rows


def code_of(text: str) -> str:
    return f"0x{int(text, 16):02x}" if text.startswith("0x") else text


def rows_of(table: PartitionTable, *, with_whole: bool = True) -> list[Row]:
    """Ours; the third slice of a Sun label is not of interest to libblkid."""
    return [
        Row(item.index, item.start // SECTOR, item.length // SECTOR, item.code)
        for item in table.partitions
        if with_whole or not item.is_container
    ]


def table_of(disk: Path) -> PartitionTable:
    with closing(FileStorage.open(disk)) as storage:
        table = read_table(storage)
    assert table is not None
    return table


def survey_of(disk: Path) -> Survey:
    with closing(FileStorage.open(disk)) as storage:
        return describe(storage)


def new_disk(folder: Path, *, size: int = 64 * MIB) -> Path:
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(size)
    return disk


LAYOUTS: Final = {
    "none": (),
    "one": (("hfs+", 1, 63),),
    "some": (("hfs+", 1, 20), ("ext2", 30, 31), ("linux-swap", 31, 50)),
    "many": tuple(("ext2", 2 * number + 1, 2 * number + 2) for number in range(8)),
}


@pytest.mark.oracle("parted", "partx")
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_an_apple_map_of_parted_is_read_as_libblkid_reads_it(tmp_path: Path, layout: str) -> None:
    """Fails if a partition of an Apple map lies elsewhere, or has another number."""
    disk = new_disk(tmp_path)
    parts = [
        f"mkpart part{number} {kind} {start}MiB {end}MiB"
        for number, (kind, start, end) in enumerate(LAYOUTS[layout])
    ]
    run("parted", "-s", disk, *" ".join(["mklabel mac", *parts]).split())

    table = table_of(disk)

    assert (table.kind, table.findings) == ("apm", ())
    assert rows_of(table) == told_by_partx(disk)
    names = {item.name for item in table.partitions}  # of swap, parted chooses it
    kinds = [kind for kind, _, _ in LAYOUTS[layout] if kind != "linux-swap"]
    assert names >= {f"part{number}" for number in range(len(kinds))}
    pattern = r"^ +(\d+)s +\d+s +(\d+)s +Free Space"
    free = re.findall(pattern, told_by_parted(disk), re.MULTILINE)
    assert table.gaps(64 * MIB)[1:] == [(int(a) * SECTOR, int(b) * SECTOR) for a, b in free]


def told_by_parted(disk: Path) -> str:
    return run("parted", "-s", disk, "unit", "s", "print", "free").stdout


@pytest.mark.oracle("parted", "partx")
@pytest.mark.parametrize("layout", ["one", "some", "many"])
def test_a_bsd_label_of_parted_is_read_as_libblkid_reads_it(tmp_path: Path, layout: str) -> None:
    """Fails if the label of a disk without an MBR is not found in its first sector."""
    disk = new_disk(tmp_path)
    parts = [f"mkpart {kind} {start}MiB {end}MiB" for kind, start, end in LAYOUTS[layout]]
    run("parted", "-s", disk, *" ".join(["mklabel bsd", *parts]).split())

    table = table_of(disk)

    assert table.kind == "bsd"
    assert rows_of(table) == told_by_partx(disk)
    # parted leaves the checksum wrong, which Linux does not look at.
    assert {item.where for item in table.findings} <= {"BSD label"}


@pytest.mark.oracle("parted", "sfdisk", "partx")
@pytest.mark.parametrize("layout", ["none", "one", "some"])
def test_a_sun_label_of_parted_is_read_as_sfdisk_reads_it(tmp_path: Path, layout: str) -> None:
    """Fails if cylinders are counted wrongly, or the slice of the whole disk is missing."""
    disk = new_disk(tmp_path)
    kinds = ("ext2", "linux-swap", "ext3")
    parts = [
        f"mkpart {kind} {start}MiB {end}MiB"
        for kind, (_, start, end) in zip(kinds, LAYOUTS[layout], strict=False)
    ]
    run("parted", "-s", disk, *" ".join(["mklabel sun", *parts]).split())

    table = table_of(disk)

    assert (table.kind, table.findings) == ("sun", ())
    assert rows_of(table) == told_by_sfdisk(disk)
    assert rows_of(table, with_whole=False) == told_by_partx(disk)


def told_by_sfdisk(disk: Path) -> list[Row]:
    told = json.loads(run("sfdisk", "--json", disk).stdout)["partitiontable"]
    return [
        Row(
            int(item["node"].removeprefix(str(disk))),
            item["start"],
            item["size"],
            f"0x{int(item['type'], 16):02x}",
        )
        for item in told.get("partitions", ())
    ]


@pytest.mark.oracle("fdisk", "sfdisk")
def test_a_sun_label_of_fdisk_is_read_as_sfdisk_reads_it(tmp_path: Path) -> None:
    """Fails if only parted's labels are understood."""
    disk = new_disk(tmp_path, size=512 * MIB)
    run("fdisk", disk, stdin=b"s\nd\n1\nt\n2\n7\nn\n1\n0\n+100M\nw\n", accept=(0, 1))
    assert rows_of(table_of(disk)) == told_by_sfdisk(disk)


@pytest.mark.oracle("sfdisk", "fdisk", "partx")
@pytest.mark.parametrize("kind", ["a5", "a6", "a9"])
def test_bsd_labels_of_fdisk_in_mbr_partitions_are_read_as_libblkid_reads_them(
    tmp_path: Path, kind: str
) -> None:
    """Fails if nested partitions are numbered or placed otherwise than Linux does it."""
    disk = new_disk(tmp_path)
    table = f"label: dos\nstart=2048,size=63488,type={kind}\nstart=65536,size=32768,type=5\n"
    table += "start=67584,size=8192,type=83\nstart=77824,size=8192,type=83\n"
    run("sfdisk", "-q", disk, stdin=table.encode())
    made = "b\ny\nn\na\n2048\n20000\nn\nb\n30000\n+4096\nt\na\n7\nt\nb\n1\nw\n"
    run("fdisk", disk, stdin=made.encode(), accept=(0, 1))

    found = table_of(disk)

    assert rows_of(found) == told_by_partx(disk)
    assert [item.index for item in found.partitions] == [1, 2, 5, 6, 7, 8]
    assert [item.is_container for item in found.partitions] == [True, True, *[False] * 4]
    assert found.findings == ()


def random_table(dice: random.Random) -> bytearray:
    """A disk of 2 MiB with a table of any kind; its numbers are often odd, its checksums right."""

    def sectors() -> int:
        return dice.choice((dice.randrange(2100), dice.randrange(300), 0, 100, 1100))

    def label(count: int) -> bytearray:
        entries = [(sectors(), sectors(), dice.choice((0, 1, 7, 8))) for _ in range(count)]
        return bsd_label(*entries)

    kind = dice.choice(("apm", "bsd", "nested", "sun"))
    size = 2 * MIB
    if kind == "apm":
        count = dice.randrange(2, 7)
        more = [
            apm_entry(count + dice.randrange(3), sectors() + 1, sectors() + 1, "Apple_HFS")
            for _ in range(count - 1)
        ]
        first = apm_entry(count, 1, 63, "Apple_partition_map")
        return apm_disk(first, *more, block_size=dice.choice((512, 2048)))
    if kind == "bsd":
        return disk_with((SECTOR, label(dice.randrange(12))), size=size)
    if kind == "sun":
        slices = [(dice.randrange(130), sectors(), dice.choice((0, 2, 3, 5))) for _ in range(8)]
        return disk_with((0, sun_label(*slices, has_tags=dice.random() < 0.8)), size=size)
    first, second = (mbr_entry(dice.choice((0xA5, 0xA6, 0xA9)), at, 1000) for at in (100, 1100))
    inner = [((at + 1) * SECTOR, label(dice.randrange(12))) for at in (100, 1100)]
    return disk_with((0, mbr_record(first, second)), *inner, size=size)


@pytest.mark.oracle("partx")
def test_odd_tables_are_read_as_libblkid_reads_them(tmp_path: Path) -> None:
    """Fails if an entry that is empty, or out of place, changes what the others are."""
    dice, disk = random.Random(5), tmp_path / "disk"
    for _ in range(100):
        content = random_table(dice)
        disk.write_bytes(content)
        table = read_table(MemoryStorage(content))
        ours = [] if table is None else rows_of(table, with_whole=table.kind != "sun")
        assert ours == [row for row in told_by_partx(disk) if row.length]


def test_tables_of_other_machines_are_what_libblkid_says(corpus: Path) -> None:
    """Fails if a table is misread, or that of a kind that is not known is taken for another."""
    folder = corpus / "forensics" / "util-linux+util-linux" / "tests"
    images = sorted(folder.glob("ts/blkid/images-pt/*.xz"))
    assert images
    for image in images:
        name = image.name.removesuffix(".img.xz")
        told = (folder / "expected" / "blkid" / f"lowprobe-pt-{name}").read_text()
        scheme = re.search(r"PT: (\w+)", told)
        assert scheme is not None
        table = read_table(MemoryStorage(lzma.decompress(image.read_bytes())))
        if scheme[1] not in SCHEMES.values():
            assert table is None, name
            continue
        assert table is not None, name
        assert SCHEMES[table.kind] == scheme[1]
        expected = re.findall(r"^#(\d+): +(\d+) +(\d+) +0x(\w+)", told, re.MULTILINE)
        nested = [item for item in table.partitions if not item.is_container]
        shown = table.partitions if table.kind == "mbr" else nested
        assert [(item.index, item.start // SECTOR, item.length // SECTOR) for item in shown] == [
            (int(a), int(b), int(c)) for a, b, c, _ in expected
        ], name
        if table.kind != "gpt":
            assert [item.code for item in shown] == [code_of(f"0x{d}") for *_, d in expected]


def make_tree(folder: Path) -> Path:
    tree = folder / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "file").write_bytes(bytes(range(256)) * 1000)
    (tree / "boot" / "loader").write_bytes(bytes(4096))
    efi = tree / "boot" / "efi"
    with efi.open("wb") as file:
        file.truncate(2 * MIB)
    run("mkfs.vfat", "-n", "EFI", efi)
    return tree


def author(folder: Path, *options: str | Path) -> Path:
    disc = folder / "disc.iso"
    tree = make_tree(folder)
    run("xorriso", "-as", "mkisofs", "-quiet", "-V", "DISC", "-o", disc, *options, tree)
    return disc


@pytest.mark.oracle("xorriso", "partx", "mkfs.vfat")
@pytest.mark.parametrize("block_size", [512, 2048])
def test_the_apple_map_of_a_disc_is_read_in_its_blocks(tmp_path: Path, block_size: int) -> None:
    """Fails if a disc's blocks of 2048 bytes are taken for sectors, or it is no disc any more."""
    disc = author(tmp_path, "-hfsplus", "-apm-block-size", str(block_size))
    found = survey_of(disc)
    assert found.table is not None
    assert (found.table.kind, found.table.sector_size) == ("apm", block_size)
    assert rows_of(found.table) == told_by_partx(disc)
    assert found.filesystem is not None
    assert (found.filesystem.kind, found.filesystem.label) == ("iso9660", "DISC")
    kinds = {item.filesystem.kind for item in found.volumes if item.filesystem is not None}
    assert "hfsplus" in kinds


def sequence(*parts: Sequence[str | Path]) -> list[str | Path]:
    return [word for part in parts for word in part]


@pytest.mark.oracle("xorriso", "partx", "mkfs.vfat")
@pytest.mark.parametrize("has_map", [False, True], ids=["mbr+gpt", "mbr+gpt+apm"])
def test_an_isohybrid_disc_has_a_sound_table(tmp_path: Path, *, has_map: bool) -> None:
    """Fails if the image of an installer is called damaged: its partitions overlap on purpose."""
    template = tmp_path / "template"
    # What xorriso wants to see before it puts an Apple map behind the MBR.
    template.write_bytes((b"ER\x08\0\0\0\x90\x90" if has_map else b"").ljust(432, b"\0"))
    boots = ["-b", "boot/loader", "-c", "boot/catalog", "-no-emul-boot", "-boot-load-size", "4"]
    efi = ["-eltorito-alt-boot", "-e", "boot/efi", "-no-emul-boot", "-isohybrid-gpt-basdat"]
    more = ["-isohybrid-apm-hfsplus"] if has_map else []
    disc = author(tmp_path, *sequence(["-isohybrid-mbr", template], boots, efi, more))

    found = survey_of(disc)

    assert found.table is not None
    assert found.table.kind == "mbr"
    assert rows_of(found.table) == told_by_partx(disc)
    assert found.filesystem is not None
    assert found.filesystem.kind == "iso9660"
    assert [item.filesystem.kind for item in found.volumes if item.filesystem] == [
        "iso9660",
        "vfat",
    ]
    assert {item.severity for item in found.findings} == {Severity.INFO}
    told = " ".join(f"{item.where}: {item.what}" for item in found.findings)
    assert "isohybrid" in told
    assert "GPT too" in told
    assert ("Apple partition map" in told) == has_map
