"""The picture of a disk: to scale, honest, and readable on any terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.cli.pen import columns
from imprint.cli.picture import draw_disk
from imprint.cli.shares import Share, Shares
from imprint.core.extent import Extent, Kind
from imprint.core.units import GIB, MIB
from imprint.endpoints.survey import Survey, Volume
from imprint.filesystems import FileSystem
from imprint.storage.memory import MemoryStorage
from imprint.volumes import Partition, PartitionTable

if TYPE_CHECKING:
    from collections.abc import Iterator

STORAGE = MemoryStorage()
ESCAPES = re.compile(r"\x1b\[\d+m")


def part(index: int, start: int, length: int, **more: object) -> Partition:
    fields: dict[str, object] = {"type": "Linux filesystem", "code": "0x83", **more}
    return Partition(index, start, length, **fields)  # type: ignore[arg-type]


def survey(size: int, *volumes: Volume, whole: FileSystem | None = None) -> Survey:
    partitions = tuple(volume.partition for volume in volumes)
    table = PartitionTable("gpt", 512, None, partitions) if volumes else None
    return Survey(size, table, volumes, whole)


def fill(size: int, *runs: tuple[int, int, Kind]) -> Iterator[Extent]:
    """Extents of a disk that is a hole but for ``runs`` of start, end and kind."""
    position = 0
    for start, end, kind in (*runs, (size, size, Kind.HOLE)):
        if start > position:
            yield Extent(position, start - position, Kind.HOLE)
        if end > start:
            storage = STORAGE if kind in (Kind.DATA, Kind.ENCODED) else None
            yield Extent(start, end - start, kind, storage)
        position = end


def map_line(lines: list[str]) -> str:
    """The line of cells, without the borders of the boxes."""
    last = next(index for index, line in enumerate(lines) if line[0] == "└")
    return lines[last - 1].replace("│", "")


HALVES = survey(
    110 * MIB,
    Volume(part(1, 0, 55 * MIB), FileSystem("ext4", "root", "u")),
    Volume(part(2, 55 * MIB, 55 * MIB, name="Swap space"), None),
)


def test_a_simple_disk_looks_like_this() -> None:
    """Fails if the picture is another one than was meant."""
    extents = fill(
        110 * MIB,
        (0, 27 * MIB, Kind.DATA),
        (55 * MIB, 65 * MIB, Kind.ZERO),
        (100 * MIB, 101 * MIB, Kind.BAD),
    )

    # A cell is 5 MiB: five are full, the sixth has 2 of its 5 MiB; 100 MiB is in the tenth of
    # the second box.
    assert draw_disk(HALVES, extents, width=25) == [
        "┌───────────┬───────────┐",
        "│1          │2          │",
        "│ext4       │Linux file…│",
        "│root       │Swap space │",
        "├───────────┼───────────┤",
        "│█████▒     │··       ! │",
        "└───────────┴───────────┘",
        "0                 110 MiB",
        "█ data  ▓ to 75 %",
        "▒ to 50 %  ░ to 25 %",
        "· zeros  blank: holes",
        "! unreadable",
        "data 27 MiB (24 %)",
        "zeros 10 MiB (9 %)",
        "holes 72 MiB (65 %)",
        "unreadable 1 MiB",
        "",
        "p1   55 MiB, 49 % data, …",
        "     at 0 bytes, Linux f…",
        "p2   55 MiB, 0 % ! data,…",
        "     at 55 MiB, Linux fi…",
    ]


def test_the_table_names_start_size_type_file_system_label_and_data() -> None:
    """Fails if a column is lost at the usual width."""
    extents = fill(110 * MIB, (0, 25 * MIB, Kind.ENCODED), (108 * MIB, 110 * MIB, Kind.DATA))

    table = [line.split("  ") for line in draw_disk(HALVES, extents, width=80)[-3:]]

    assert [[cell.strip() for cell in row if cell.strip()] for row in table] == [
        ["start", "size", "type", "file system", "label", "data"],
        ["p1", "0 bytes", "55 MiB", "Linux filesystem", "ext4", "root", "45 %"],
        ["p2", "55 MiB", "55 MiB", "Linux filesystem", "-", "Swap space", "3 %"],
    ]


LABELS = st.text(max_size=20)
layouts = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 1000), LABELS), max_size=40)


@st.composite
def disks(draw: st.DrawFn) -> tuple[Survey, list[Extent]]:
    volumes, position = [], 0
    for index, (gap, length, label) in enumerate(draw(layouts), start=1):
        found = FileSystem("ext4", label) if index % 2 else None
        volumes.append(Volume(part(index, position + gap, length, name=label), found))
        position += gap + length
    size = position + draw(st.integers(1, 500))
    cuts = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=20))})
    kinds = draw(st.lists(st.sampled_from(Kind), min_size=21, max_size=21))
    extents = [
        Extent(a, b - a, kind, STORAGE if kind in (Kind.DATA, Kind.ENCODED) else None)
        for a, b, kind in zip(cuts, cuts[1:], kinds, strict=False)
    ]
    return survey(size, *volumes), extents


@given(
    disk=disks(),
    width=st.integers(24, 160),
    encoding=st.sampled_from(["utf-8", "ascii", "cp437", "latin-1", "no-such-encoding"]),
)
def test_any_disk_fits_into_any_width_and_encoding(
    disk: tuple[Survey, list[Extent]], width: int, encoding: str
) -> None:
    """Fails if a line is too long, an odd label shifts the boxes, or a stream cannot take it."""
    found, extents = disk
    lines = draw_disk(found, iter(extents), width=width, encoding=encoding)

    assert all(columns(line) <= width for line in lines), lines
    for line in lines:
        assert line.isprintable()
        line.encode("ascii" if encoding == "no-such-encoding" else encoding)
    boxes = [line for line in lines if line and line[0] in "┌│├└|+"]
    assert len(boxes) >= 5
    assert {columns(line) for line in boxes} == {width}


@given(disk=disks(), width=st.sampled_from([40, 80]))
def test_colour_changes_nothing_but_colour(disk: tuple[Survey, list[Extent]], width: int) -> None:
    """Fails if colour takes columns, or if something is only told by colour."""
    found, extents = disk
    plain = draw_disk(found, extents, width=width)
    coloured = draw_disk(found, extents, width=width, colour=True)

    assert [ESCAPES.sub("", line) for line in coloured] == plain
    assert not any("\x1b" in line for line in plain)


@given(disk=disks(), width=st.integers(24, 160))
def test_the_map_covers_the_disk_and_shows_all_that_is_bad(
    disk: tuple[Survey, list[Extent]], width: int
) -> None:
    """Fails if a cell is lost between two boxes, or an unreadable sector in a full cell."""
    found, extents = disk
    cells = map_line(draw_disk(found, extents, width=width))
    kinds = {extent.kind for extent in extents}

    assert ("!" in cells) == (Kind.BAD in kinds)
    if kinds & {Kind.DATA, Kind.ENCODED} and Kind.BAD not in kinds:
        assert set(cells) & set("░▒▓█")
    if kinds == {Kind.HOLE}:
        assert not cells.strip()


def test_boxes_are_to_scale() -> None:
    """Fails if a quarter of the disk does not look like a quarter."""
    found = survey(
        4 * GIB,
        Volume(part(1, 0, GIB), None),
        Volume(part(2, GIB, 3 * GIB), None),
    )
    top = draw_disk(found, fill(4 * GIB), width=83)[0]
    assert [len(box) for box in top.strip("┌┐").split("┬")] == [20, 60]


def test_a_tiny_partition_is_seen_and_room_for_alignment_is_not() -> None:
    """Fails if an EFI partition vanishes on a large disk, or every gap gets a box."""
    found = survey(
        4096 * GIB,
        Volume(part(1, MIB, 16 * MIB), None),
        Volume(part(2, 17 * MIB, 4096 * GIB - 18 * MIB), None),
    )
    top = draw_disk(found, fill(4096 * GIB), width=80)[0]
    assert [len(box) for box in top.strip("┌┐").split("┬")] == [1, 76]


def test_free_room_has_a_box() -> None:
    """Fails if room that no partition has looks as if it belonged to one."""
    found = survey(100 * MIB, Volume(part(1, 20 * MIB, 20 * MIB), None))
    lines = draw_disk(found, fill(100 * MIB), width=80)
    assert re.fullmatch(r"│free +│1 +│free +│|│ +│1 +│ +│", lines[1])
    assert "free" in lines[1] or "free" in lines[2]


def test_too_many_partitions_become_few_boxes_and_a_long_table() -> None:
    """Fails if 2000 entries make lines of 2000 boxes, or if the large ones are not seen."""
    volumes = [Volume(part(n + 1, n * MIB, MIB), None) for n in range(2000)]
    volumes.append(Volume(part(2001, 2000 * MIB, 2000 * MIB), FileSystem("xfs", "big")))
    found = survey(4000 * MIB, *volumes)
    lines = draw_disk(found, fill(4000 * MIB), width=80)
    assert any("more" in line for line in lines[:4])
    assert any("xfs" in line for line in lines[:4])
    assert sum(line.startswith("p") for line in lines) == 2001


def test_a_container_is_a_row_and_not_a_box() -> None:
    """Fails if an extended partition hides the logical ones in it."""
    found = survey(
        100 * MIB,
        Volume(part(1, 0, 100 * MIB, is_container=True, type="Extended"), None),
        Volume(part(5, 0, 100 * MIB), FileSystem("ext4")),
    )
    lines = draw_disk(found, fill(100 * MIB, (0, 50 * MIB, Kind.DATA)), width=80)
    assert lines[1].startswith("│5 ")
    assert [line.split()[0] for line in lines[-2:]] == ["p1", "p5"]


def test_a_disk_without_a_table_is_one_box() -> None:
    """Fails if a file system on the bare disk is not named."""
    whole = survey(10 * MIB, whole=FileSystem("vfat", "FLOPPY"))
    lines = draw_disk(whole, fill(10 * MIB), width=40)
    assert [line.strip("│ ") for line in lines[1:3]] == ["vfat", "FLOPPY"]
    assert "no partitions" in draw_disk(survey(512), fill(512), width=40)[1]
    assert draw_disk(survey(0), fill(0)) == ["the disk is empty"]


def test_a_partition_beyond_the_disks_end_is_drawn_as_far_as_there_is_a_disk() -> None:
    """Fails if the picture of a disk that was cut off fails, or shows what is not there."""
    found = survey(
        10 * MIB,
        Volume(part(1, 5 * MIB, 500 * MIB), None),
        Volume(part(2, 505 * MIB, 5 * MIB), None),
    )
    lines = draw_disk(found, fill(10 * MIB, (0, 10 * MIB, Kind.DATA)), width=41)
    assert map_line(lines) == "█" * 38
    assert [line.split()[0] for line in lines if line.startswith("p")] == ["p1", "p2"]


def test_a_label_cannot_steer_the_terminal() -> None:
    """Fails if an escape sequence or a direction mark of a label reaches the terminal."""
    evil = FileSystem("ext4", "\x1b[2J\u202egnp.exe\n")
    found = survey(10 * MIB, Volume(part(1, 0, 10 * MIB), evil))
    lines = draw_disk(found, fill(10 * MIB), width=80)
    assert all(line.isprintable() for line in lines)


def test_shares_are_sums_of_bytes() -> None:
    """Fails if an extent that spans many segments, or starts in one, is counted wrongly."""
    extents = fill(1000, (100, 400, Kind.DATA), (400, 450, Kind.BAD), (450, 700, Kind.ZERO))
    shares = Shares([0, 150, 300, 425, 1000], extents)

    assert shares.between(0, 1000) == Share(1000, 300, 250, 50)
    assert shares.between(150, 425) == Share(275, 250, 0, 25)
    assert shares.between(425, 1000) == Share(575, 0, 250, 25)


def test_what_no_file_system_uses_has_a_glyph_of_its_own() -> None:
    """Fails if unused room looks like holes, or the legend speaks of it where there is none."""
    found = survey(22 * 1000, Volume(part(1, 0, 22 * 1000), None))
    extents = fill(
        22 * 1000, (0, 6000, Kind.UNUSED), (6000, 6400, Kind.ZERO), (6400, 6800, Kind.UNUSED)
    )
    lines = draw_disk(found, extents, width=24)
    # The seventh cell: two parts of five are zeros, two are unused, one is a hole: a tie.
    assert map_line(lines)[:6] == "//////"
    assert set(map_line(lines)[7:]) == {" "}
    assert "/ unused" in " ".join(lines)
    assert "unused 6.2 KiB (29 %)" in " ".join(lines)
    assert "unused" not in " ".join(draw_disk(found, fill(22 * 1000), width=24))
    ascii_lines = draw_disk(found, fill(22 * 1000, (0, 6000, Kind.UNUSED)), encoding="ascii")
    assert any("/////" in line for line in ascii_lines)


@pytest.mark.parametrize(
    ("data", "glyph"), [(0, " "), (1, "░"), (250, "░"), (251, "▒"), (750, "▓"), (751, "█")]
)
def test_a_cells_glyph_is_its_share_of_data(data: int, glyph: str) -> None:
    """Fails if a cell with a little data looks empty, or one with holes looks full."""
    size = 22 * 1000
    extents = fill(size, *((n * 1000, n * 1000 + data, Kind.DATA) for n in range(22)))
    assert map_line(draw_disk(survey(size), extents, width=24)) == glyph * 22
