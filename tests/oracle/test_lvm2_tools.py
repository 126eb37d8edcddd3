"""LVM2 against its own tools: groups that they made, and texts of ours that they accept.

The kernel's device mapper is not needed: the tools tell where each volume's extents are, and the
tests write there.
"""

from __future__ import annotations

import contextlib
import json
import random
from typing import TYPE_CHECKING, Final

import pytest

from imprint.storage.file import FileStorage
from imprint.testing.containers import linear, lvm_member, lvm_text, lvm_volume
from imprint.testing.oracles import run
from imprint.testing.volumes import attached
from imprint.volumes.lvm2 import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.volumes.assembly import Assembly

MIB: Final = 1 << 20
SIZE: Final = 32 * MIB
EXTENT: Final = MIB

pytestmark = [pytest.mark.root, pytest.mark.oracle("lvm", "losetup")]


class Tools:
    """The tools of LVM2 on some devices, without the kernel's help."""

    def __init__(self, devices: list[str]) -> None:
        self.devices: Final = devices

    def __call__(self, *args: str) -> str:
        quiet = "backup{backup=0 archive=0} devices{hints=none} log{prefix=''}"
        common = ("--driverloaded", "n", "--devices", ",".join(self.devices), "--config", quiet)
        return run("lvm", args[0], *common, *args[1:]).stdout

    def create(self, name: str, *args: str) -> None:
        self("lvcreate", "-an", "-Zn", "-Wn", "-n", name, *args, "vg0")

    def report(self, command: str, *columns: str) -> list[dict[str, str]]:
        text = self(
            *command.split(), "--reportformat", "json", "--units", "b", "-o", ",".join(columns)
        )
        (report,) = json.loads(text)["report"]
        rows: list[dict[str, str]] = next(iter(report.values()))
        return rows


@contextlib.contextmanager
def tools_on(*paths: Path) -> Iterator[Tools]:
    with contextlib.ExitStack() as stack:
        yield Tools([stack.enter_context(attached(path)) for path in paths])


def empty(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"pv{index}" for index in range(count)]
    for path in paths:
        path.write_bytes(random.Random(path.name).randbytes(SIZE))
    return paths


def assemble(paths: list[Path]) -> Assembly:
    sources = [FileStorage.open(path) for path in paths]
    (found,) = CONTAINER.assemble(sources, lambda _: b"")
    return found


def read_all(found: Assembly) -> dict[str, bytes]:
    contents = {}
    for inner in found.volumes:
        buffer = bytearray(inner.source.size)
        inner.source.readinto(memoryview(buffer), 0)
        contents[inner.name] = bytes(buffer)
    return contents


def columns_of(ranges: str) -> list[tuple[str, int, int]]:
    """Device, first extent and how many, of ``/dev/loop1:0-2,/dev/loop2:4-5``."""
    found = []
    for item in ranges.replace(",", " ").split():
        device, _, numbers = item.rpartition(":")
        first, last = (int(number) for number in numbers.split("-"))
        found.append((device, first, last - first + 1))
    return found


def expected_content(tools: Tools, paths: list[Path]) -> dict[str, bytes]:
    """What the tools say that volumes hold."""
    starts = {
        row["pv_name"]: int(row["pe_start"].rstrip("B"))
        for row in tools.report("pvs", "pv_name", "pe_start")
    }
    bodies = {
        device: path.read_bytes()[starts[device] :]
        for device, path in zip(tools.devices, paths, strict=True)
    }
    contents: dict[str, bytes] = {}
    wanted = ("lv_name", "seg_start_pe", "stripe_size", "seg_le_ranges")
    rows = tools.report("lvs", *wanted)
    for row in sorted(rows, key=lambda row: (row["lv_name"], int(row["seg_start_pe"]))):
        columns = [
            bodies[device][first * EXTENT : (first + count) * EXTENT]
            for device, first, count in columns_of(row["seg_le_ranges"])
        ]
        chunk = int(row["stripe_size"].rstrip("B")) or len(columns[0])
        name = f"lvm/vg0/{row['lv_name']}"
        contents[name] = contents.get(name, b"") + b"".join(
            column[at : at + chunk] for at in range(0, len(columns[0]), chunk) for column in columns
        )
    return contents


def test_volumes_and_free_extents_are_those_that_the_tools_tell(tmp_path: Path) -> None:
    """Fails if a byte is looked for elsewhere, or one of a volume is called free."""
    paths = empty(tmp_path, 2)
    with tools_on(*paths) as tools:
        tools("vgcreate", "-s", "1M", "vg0", *tools.devices)
        for name, size in (("a", "3M"), ("b", "2M"), ("c", "4M")):
            tools.create(name, "-L", size)
        tools("lvremove", "-f", "vg0/b")
        tools("lvextend", "-L", "9M", "vg0/a")
        tools.create("s", "-i", "2", "-I", "64k", "-L", "8M")
        expected = expected_content(tools, paths)
        assert set(expected) == {"lvm/vg0/a", "lvm/vg0/c", "lvm/vg0/s"}
        rows = tools.report("pvs", "pv_name", "pe_start", "pv_pe_count", "pv_pe_alloc_count")
        segments = tools.report("pvs", "pv_name", "pvseg_start", "pvseg_size", "lv_name")
    found = assemble(paths)
    assert found.notes == ()
    assert read_all(found) == expected
    for device, free in zip(tools.devices, found.free, strict=True):
        (row,) = [row for row in rows if row["pv_name"] == device]
        start = int(row["pe_start"].rstrip("B"))
        unused = [
            (start + int(item["pvseg_start"]) * EXTENT, int(item["pvseg_size"]) * EXTENT)
            for item in segments
            if item["pv_name"] == device and not item["lv_name"]
        ]
        assert sorted(unused) == list(free)


def test_many_changes_turn_the_ring_of_texts(tmp_path: Path) -> None:
    """Fails if a text is lost that goes on at the start of its area, or an old one is taken."""
    (path,) = empty(tmp_path, 1)
    with tools_on(path) as tools:
        size = ("--metadatasize", "64k", "--pvmetadatacopies", "2")
        tools("vgcreate", "-s", "1M", *size, "vg0", *tools.devices)
        tags = [word for letter in "abcdef" for word in ("--addtag", letter * 1000)]
        for turn in range(5):
            tools.create(f"volume{turn}", "-l", "1", *tags)
            expected = {f"lvm/vg0/{row['lv_name']}" for row in tools.report("lvs", "lv_name")}
            assert {inner.name for inner in assemble([path]).volumes} == expected
    free = assemble([path]).free[0]
    assert free.end <= SIZE - 64 * 1024  # the second area is at the end


def test_the_tools_accept_what_the_tests_make(tmp_path: Path) -> None:
    """Fails if the hand-made physical volumes of other tests are none, or mean another thing."""
    uuids = ("a" * 32, "b" * 32)
    volumes = lvm_volume("l", linear(2, "pv0", 0), linear(3, "pv1", 5))
    mirror = (
        "2 raid1 device_count = 2 region_size = 128 "
        'raids = [ "m_rmeta_0", "m_rimage_0", "m_rmeta_1", "m_rimage_1" ]'
    )
    volumes += lvm_volume("m", mirror)
    for leg in (0, 1):
        volumes += lvm_volume(f"m_rmeta_{leg}", linear(1, f"pv{leg}", 8), visible=False)
        volumes += lvm_volume(f"m_rimage_{leg}", linear(2, f"pv{leg}", 9), visible=False)
    snapshot = '2 snapshot chunk_size = 8 origin = "o" cow_store = "c"'
    volumes += lvm_volume("o", linear(2, "pv0", 12)) + lvm_volume("c", linear(1, "pv0", 14))
    volumes += lvm_volume("snapshot0", snapshot, visible=False)
    paths = [tmp_path / "pv0", tmp_path / "pv1"]
    for path, uuid in zip(paths, uuids, strict=True):
        path.write_bytes(lvm_member(uuid, lvm_text(volumes, uuids=uuids), 4 * MIB))
    with tools_on(*paths) as tools:
        rows = tools.report("lvs -a", "lv_name", "segtype", "seg_le_ranges")
        tools("vgck", "vg")
    kinds = {(row["lv_name"].strip("[]"), row["segtype"]) for row in rows}
    assert {("l", "linear"), ("m", "raid1"), ("o", "linear"), ("c", "linear")} <= kinds
    places = " ".join(row["seg_le_ranges"] for row in rows if row["lv_name"] == "l")
    assert [item[1:] for item in columns_of(places)] == [(0, 2), (5, 3)]
    assert [inner.name for inner in assemble(paths).volumes] == ["lvm/vg/l", "lvm/vg/o"]


THIN: Final = """
<superblock uuid="" time="1" transaction="2" data_block_size="128" nr_data_blocks="40">
<device dev_id="1" mapped_blocks="7" transaction="0" creation_time="0" snap_time="1">
<range_mapping origin_begin="0" data_begin="3" length="4" time="0"/>
<range_mapping origin_begin="6" data_begin="20" length="2" time="1"/>
<single_mapping origin_block="15" data_block="39" time="1"/>
</device>
<device dev_id="2" mapped_blocks="{count}" transaction="1" creation_time="1" snap_time="1">
{mappings}</device>
</superblock>"""


@pytest.mark.oracle("thin_restore")
def test_thin_volumes_are_read_through_the_metadata_of_their_pool(tmp_path: Path) -> None:
    """Fails if a block is taken from elsewhere, or a hole is not read as zeros."""
    block, (uuid,) = 64 * 1024, ("a" * 32,)
    dice = random.Random(6)
    places = dice.sample(range(40), 33)  # scattered, with holes, over several volumes' worth
    mappings = "".join(
        f'<single_mapping origin_block="{3 * number}" data_block="{data}" time="1"/>\n'
        for number, data in enumerate(places)
    )
    xml, metadata = tmp_path / "thin.xml", tmp_path / "metadata"
    xml.write_text(THIN.lstrip().format(count=len(places), mappings=mappings))
    metadata.write_bytes(bytes(2 * MIB))
    run("thin_restore", "-q", "-i", xml, "-o", metadata)
    pool = 'chunk_size = 128 metadata = "t_tmeta" pool = "t_tdata" transaction_id = 2'
    volumes = lvm_volume("t", f'40 thin-pool {pool} discards = "passdown" zero_new_blocks = 1')
    volumes += lvm_volume("t_tmeta", linear(32, "pv0", 0), visible=False)
    volumes += lvm_volume("t_tdata", linear(40, "pv0", 32), visible=False)
    sizes = {1: 16, 2: 100}
    for device, count in sizes.items():
        thin = f'{count} thin thin_pool = "t" transaction_id = 0 device_id = {device}'
        volumes += lvm_volume(f"v{device}", thin)
    member = lvm_member(uuid, lvm_text(volumes, uuids=(uuid,), extents=80), 6 * MIB)
    data = dice.randbytes(40 * block)
    member[block : block + 2 * MIB] = metadata.read_bytes()
    member[33 * block : 73 * block] = data
    path = tmp_path / "pv"
    path.write_bytes(member)
    with tools_on(path) as tools:
        rows = tools.report("lvs", "lv_name", "segtype", "thin_id")
    assert {row["lv_name"]: row["segtype"] for row in rows} == {
        "t": "thin-pool",
        "v1": "thin",
        "v2": "thin",
    }
    first = {0: 3, 1: 4, 2: 5, 3: 6, 6: 20, 7: 21, 15: 39}
    second = {3 * number: place for number, place in enumerate(places)}
    found = assemble([path])
    assert read_all(found) == {
        f"lvm/vg/v{device}": b"".join(
            data[held[number] * block :][:block] if number in held else bytes(block)
            for number in range(sizes[device])
        )
        for device, held in ((1, first), (2, second))
    }
    assert all(inner.pieces == () for inner in found.volumes)
    (inner,) = [inner for inner in found.volumes if inner.name == "lvm/vg/v1"]
    kinds = {extent.kind.name for extent in inner.source.extents(0, inner.source.size)}
    assert kinds == {"DATA", "HOLE"}
    assert [(start // block, length // block) for start, length in found.free[0]] == [(73, 8)]
