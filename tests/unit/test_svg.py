"""The picture of a disk as SVG: well formed whatever the labels are, to scale, and in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from imprint.cli.shares import Share, Shares
from imprint.cli.svg import ROWS_MAX, draw_svg
from imprint.core.extent import Extent, Kind
from imprint.core.units import GIB, MIB
from imprint.endpoints.survey import Survey, Volume
from imprint.filesystems import FileSystem
from imprint.storage.memory import MemoryStorage
from imprint.volumes import Partition, PartitionTable

if TYPE_CHECKING:
    from collections.abc import Sequence

SVG = "{http://www.w3.org/2000/svg}"
STORAGE = MemoryStorage()
MAP_WIDTH = 912


def part(index: int, start: int, length: int, *, is_container: bool = False) -> Partition:
    return Partition(index, start, length, "Linux", "0x83", is_container=is_container)


def survey(size: int, *volumes: Volume) -> Survey:
    partitions = tuple(volume.partition for volume in volumes)
    table = PartitionTable("gpt", 512, None, partitions) if volumes else None
    return Survey(size, table, volumes)


def runs(*items: tuple[int, int, Kind]) -> list[Extent]:
    """Extents of start, end and kind."""
    return [
        Extent(start, end - start, kind, STORAGE if kind is Kind.DATA else None)
        for start, end, kind in items
    ]


def drawn(found: Survey, extents: Sequence[Extent], name: str = "disk.raw") -> ET.Element:
    return ET.fromstring(draw_svg(found, extents, name=name))


def texts(root: ET.Element) -> list[str]:
    return [item.text or "" for item in root.iter(f"{SVG}text")]


def areas(root: ET.Element, kind: str) -> list[float]:
    """Of each path of this kind, in the order of the document: square pixels."""
    found = []
    for path in root.iter(f"{SVG}path"):
        if path.get("class") == kind:
            sides = re.findall(r"h(\d+)v([\d.]+)", path.get("d", ""))
            found.append(sum(float(across) * float(down) for across, down in sides))
    return found


HALVES = survey(
    128 * MIB,
    Volume(part(1, 0, 64 * MIB), FileSystem("ext4", "root", "u")),
    Volume(part(2, 64 * MIB, 64 * MIB), None),
)


def test_each_kind_has_the_area_that_it_has_on_the_disk() -> None:
    """Fails if a quarter of the disk does not look like a quarter, or a kind is not drawn."""
    root = drawn(
        HALVES,
        runs(
            (0, 32 * MIB, Kind.DATA),
            (32 * MIB, 48 * MIB, Kind.ZERO),
            (48 * MIB, 64 * MIB, Kind.UNUSED),
            (64 * MIB, 128 * MIB, Kind.BAD),
        ),
    )
    whole = MAP_WIDTH * 40
    assert abs(areas(root, "data")[0] / whole - 1 / 4) < 0.01
    assert abs(areas(root, "zero")[0] / whole - 1 / 8) < 0.01
    assert abs(areas(root, "unused")[0] / whole - 1 / 8) < 0.01
    assert abs(areas(root, "bad")[0] / whole - 1 / 2) < 0.01
    # Each partition has a map of its own: half of the first one is data, all of the second bad.
    row = MAP_WIDTH * 18
    assert abs(areas(root, "data")[1] / row - 1 / 2) < 0.01
    assert abs(areas(root, "bad")[1] / row - 1) < 0.01
    shown = " ".join(texts(root))
    assert "data 32 MiB (25 %), zeros 16 MiB (12 %), unused 16 MiB (12 %)" in shown
    assert "unreadable 64 MiB (50 %)" in shown


def test_boxes_are_to_scale() -> None:
    """Fails if a partition's box has another width than its part of the disk."""
    found = survey(4 * GIB, Volume(part(1, 0, GIB), None), Volume(part(2, 2 * GIB, 2 * GIB), None))
    root = drawn(found, [])
    boxes = [item for item in root.iter(f"{SVG}rect") if item.get("class") in ("part", "free")]
    assert [item.get("class") for item in boxes] == ["part", "free", "part"]
    assert [round(float(item.get("width", "0"))) for item in boxes] == [227, 227, 455]


def test_a_little_that_is_unreadable_is_seen() -> None:
    """Fails if one bad sector of a terabyte looks like none."""
    found = survey(1024 * GIB, Volume(part(1, 0, 1024 * GIB), None))
    root = drawn(found, runs((512 * GIB, 512 * GIB + 512, Kind.BAD)))
    assert all(area > 0 for area in areas(root, "bad"))
    assert len(areas(root, "bad")) == 2


def test_the_picture_is_told_in_words() -> None:
    """Fails if somebody who does not see the picture learns nothing from it."""
    root = drawn(HALVES, runs((0, 32 * MIB, Kind.DATA)))
    assert root.get("role") == "img"
    title, words = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert words is not None
    assert root.get("aria-labelledby") == f"{title.get('id')} {words.get('id')}"
    assert title.text == "disk.raw: 128 MiB, gpt table"
    assert words.text is not None
    assert "p1, Linux, ext4, root, 64 MiB at 0 bytes, data 50 %" in words.text


def test_the_document_needs_nothing_else() -> None:
    """Fails if showing the picture asks another machine, or runs a script."""
    text = draw_svg(HALVES, [], name="disk")
    assert set(re.findall(r"(?:https?|file|data):[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {"#zero", "#unused", "#bad"}
    assert "<script" not in text
    assert "prefers-color-scheme:dark" in text


@given(label=st.text(max_size=40), name=st.text(max_size=40))
def test_any_label_gives_a_well_formed_document(label: str, name: str) -> None:
    """Fails if a label is markup, or holds what XML does not have."""
    evil = f'</text><script>alert(1)</script>{label}"&\0\ud800\ufffe'
    volumes = Volume(part(1, 0, 64 * MIB), FileSystem("ext4", evil))
    root = drawn(survey(64 * MIB, volumes), [], name)
    assert {item.tag.removeprefix(SVG) for item in root.iter()} <= {
        *("svg", "title", "desc", "style", "defs", "pattern", "rect", "circle", "path", "g"),
        "text",
    }
    assert all(line.isprintable() for line in texts(root))


def test_many_partitions_make_a_picture_of_bounded_size() -> None:
    """Fails if a table made to annoy makes a document that no program can show."""
    count = 2048
    volumes = [Volume(part(n + 1, n * MIB, MIB), None) for n in range(count)]
    extents = runs(*((n * MIB, n * MIB + (n % 7 + 1) * 100_000, Kind.DATA) for n in range(count)))
    text = draw_svg(survey(count * MIB, *volumes), extents, name="disk")
    assert len(text) < 4 * MIB
    assert f"and {count - ROWS_MAX} more partitions" in text


def test_odd_disks_are_drawn_too() -> None:
    """Fails if there is no picture of an empty disk, or of one that ends too early."""
    assert "0 bytes" in " ".join(texts(drawn(survey(0), [])))
    assert "no partitions" in " ".join(texts(drawn(survey(MIB), [])))
    beyond = survey(MIB, Volume(part(1, 0, 5 * MIB), None), Volume(part(2, 9 * MIB, MIB), None))
    shown = texts(drawn(beyond, runs((0, MIB, Kind.DATA))))
    assert "p1, Linux, 5 MiB at 0 bytes, data 100 %" in shown
    assert "p2, Linux, 1 MiB at 9 MiB, data 0 %" in shown


def test_unused_is_neither_data_nor_a_hole() -> None:
    """Fails if what no file system uses is summed up as never written."""
    extents = runs((0, 100, Kind.DATA), (100, 400, Kind.UNUSED), (400, 500, Kind.HOLE))
    shares = Shares([0, 200, 500], extents)
    assert shares.between(0, 500) == Share(500, 100, 0, 0, unused=300)
    assert shares.between(200, 500).hole == 100
