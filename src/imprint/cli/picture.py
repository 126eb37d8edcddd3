"""A picture of a disk for the terminal: its partitions to scale, and where its data is.

::

    ┌──┬─────────────────┬─────────────────────────────────────────┬────┐
    │1 │2                │3                                        │free│
    │v…│ext4             │ntfs                                     │    │
    │E…│root             │Windows                                  │    │
    ├──┼─────────────────┼─────────────────────────────────────────┼────┤
    │█░│██▓▒░            │████████████▒▒░░                         │    │
    └──┴─────────────────┴─────────────────────────────────────────┴────┘

The lower line is the map: each cell shows how much of its part of the disk is data. Every
glyph says what it means without colour, and in ASCII where the terminal has no others.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from imprint.cli.pen import Glyphs, Pen, columns
from imprint.cli.shares import Share, Shares
from imprint.cli.strips import Strip, borders, clipped, disk_strips, label_of, limited, percent
from imprint.core.units import div_up, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imprint.core.extent import Extent
    from imprint.endpoints.survey import Survey, Volume

WIDTH_MIN: Final = 24
"""Below this not even the sums fit into a line."""

_COMPACT_WIDTH: Final = 60  # narrower, the table takes two lines for each partition
_STRIP_WIDTH: Final = 4  # columns that there have to be for each partition in the bar
_ELASTIC_MIN: Final = 8  # a type or a label is not cut shorter than this


_RED: Final = 31
_COLOURS: Final = (36, 32, 33, 35, 34)


def draw_disk(
    survey: Survey,
    extents: Iterable[Extent],
    *,
    width: int = 80,
    encoding: str = "utf-8",
    colour: bool = False,
) -> list[str]:
    """Draw a disk: lines of at most ``width`` columns.

    Boxes are to scale, but none is so small that it cannot be seen.

    Args:
        survey: what :func:`imprint.endpoints.survey.describe` found.
        extents: of the whole disk, ascending; read once.
        width: of the terminal; from :data:`WIDTH_MIN` on.
        encoding: of the stream: without box characters in it, the picture is in ASCII.
        colour: whether to use ANSI colours. They take no columns.
    """
    if survey.size == 0:
        return ["the disk is empty"]
    width = max(width, WIDTH_MIN)
    pen = Pen(encoding, colour=colour)
    strips = limited(disk_strips(survey), width // _STRIP_WIDTH)
    counts = _cell_counts(strips, width)
    cells = [borders(strip, count) for strip, count in zip(strips, counts, strict=True)]
    parts = [clipped(volume, survey.size) for volume in survey.volumes]
    places = [*(place for cell in cells for place in cell), *(p for part in parts for p in part)]
    shares = Shares([0, survey.size, *places], extents)
    total = shares.between(0, survey.size)
    rows = [shares.between(*part) for part in parts]
    return [
        *_bar(pen, strips, cells, shares),
        _scale(survey.size, width),
        *_wrapped(_legend(pen.glyphs, total), width),
        *_wrapped(_totals(total), width, between=", "),
        *([""] if survey.volumes else []),
        *_table(pen, survey.volumes, rows, width),
    ]


def _cell_counts(strips: Sequence[Strip], width: int) -> list[int]:
    """Columns inside each box: by size, but one at least; largest remainder first."""
    cells = width - (len(strips) + 1)
    sizes = {index: strip.end - strip.start for index, strip in enumerate(strips)}
    while True:  # each column that is given to a small box makes the scale of the rest smaller
        spare = cells - (len(strips) - len(sizes))
        whole = sum(sizes.values())
        small = [index for index, size in sizes.items() if size * spare < whole]
        if not small:
            break
        for index in small:
            del sizes[index]
    counts = [1] * len(strips)
    remainders = {}
    for index, size in sizes.items():
        counts[index], remainders[index] = divmod(size * spare, whole)
    by_remainder = sorted(remainders, key=lambda index: -remainders[index])
    for index in by_remainder[: cells - sum(counts)]:
        counts[index] += 1
    return counts


def _bar(
    pen: Pen, strips: Sequence[Strip], cells: Sequence[Sequence[int]], shares: Shares
) -> list[str]:
    """The boxes, with texts above and the map below."""
    glyphs = pen.glyphs
    widths = [len(borders) - 1 for borders in cells]
    upper, middle, lower = (
        left + inner.join(glyphs.across * width for width in widths) + right
        for left, inner, right in glyphs.corners
    )
    colours = [_COLOURS[index % len(_COLOURS)] for index in range(len(strips))]
    lines = []
    for row in range(3):
        boxes = [
            pen.paint(pen.fit(pen.clean(_text(strip, row, width)), width), colour)
            for strip, width, colour in zip(strips, widths, colours, strict=True)
        ]
        if any(strip.texts[row] for strip in strips):
            lines.append(glyphs.upright + glyphs.upright.join(boxes) + glyphs.upright)
    maps = [
        "".join(
            _cell(pen, shares.between(start, end), colour)
            for start, end in itertools.pairwise(borders)
        )
        for borders, colour in zip(cells, colours, strict=True)
    ]
    map_line = glyphs.upright + glyphs.upright.join(maps) + glyphs.upright
    return [upper, *lines, middle, map_line, lower]


def _text(strip: Strip, row: int, width: int) -> str:
    """What is written in a box; what is no partition says it whole or not at all."""
    text = strip.texts[row]
    return text if strip.is_part or len(text) <= width else ""


def _cell(pen: Pen, share: Share, colour: int) -> str:
    glyphs = pen.glyphs
    if share.bad:
        return pen.paint(glyphs.bad, _RED)
    if share.data:
        level = div_up((len(glyphs.levels) - 1) * share.data, share.length)
        return pen.paint(glyphs.levels[level], colour)
    most = max(share.zero, share.unused, share.hole)
    if share.hole == most:
        return glyphs.levels[0]
    return pen.paint(glyphs.zero if share.zero == most else glyphs.unused, colour)


def _scale(size: int, width: int) -> str:
    return "0" + format_size(size).rjust(width - 1)


def _legend(glyphs: Glyphs, total: Share) -> list[str]:
    quarter, half, most, full = glyphs.levels[1:]
    unused = [f"{glyphs.unused} unused"] if total.unused else []
    return [
        f"{full} data",
        f"{most} to 75 %",
        f"{half} to 50 %",
        f"{quarter} to 25 %",
        f"{glyphs.zero} zeros",
        *unused,
        "blank: holes",
        f"{glyphs.bad} unreadable",
    ]


def _totals(share: Share) -> list[str]:
    found = [("data", share.data), ("zeros", share.zero), ("holes", share.hole)]
    if share.unused:
        found.append(("unused", share.unused))
    texts = [f"{name} {format_size(size)} ({percent(size, share.length)})" for name, size in found]
    return [*texts, f"unreadable {format_size(share.bad)}"] if share.bad else texts


def _wrapped(items: Sequence[str], width: int, *, between: str = "  ") -> list[str]:
    """Items in as few lines as they need."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(between) + len(item) <= width:
            lines[-1] += between + item
        else:
            lines.append(item)
    return lines


def _table(pen: Pen, volumes: Sequence[Volume], shares: Sequence[Share], width: int) -> list[str]:
    """A row for each partition."""
    if not volumes:
        return []
    rows = [_row(pen, volume, share) for volume, share in zip(volumes, shares, strict=True)]
    if width < _COMPACT_WIDTH:
        return [line for row in rows for line in _compact(pen, row, width)]
    rows = [("", "start", "size", "type", "file system", "label", "data"), *rows]
    widths = [max(columns(row[column]) for row in rows) for column in range(len(rows[0]))]
    excess = sum(widths) + 2 * (len(widths) - 1) - width
    for column in (5, 3, 4):  # label, type and file system give way, in this order
        cut = max(0, min(excess, widths[column] - _ELASTIC_MIN))
        widths[column] -= cut
        excess -= cut
    return [
        "  ".join(
            pen.fit(cell, widths[column], right=column in (1, 2, 6))
            for column, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


def _row(pen: Pen, volume: Volume, share: Share) -> tuple[str, ...]:
    part = volume.partition
    kind = volume.filesystem.kind if volume.filesystem is not None else "-"
    return (
        f"p{part.index}",
        format_size(part.start),
        format_size(part.length),
        pen.clean(part.type if part.type != "unknown" else part.code),
        pen.clean(kind),
        pen.clean(label_of(volume)),
        percent(share.data, share.length) + (f" {pen.glyphs.bad}" if share.bad else ""),
    )


def _compact(pen: Pen, row: Sequence[str], width: int) -> list[str]:
    """A row in two lines."""
    number, start, size, type_, kind, label, data = row
    first = f"{number:<4} {size}, {data} data, {kind} {label}".rstrip()
    second = f"     at {start}, {type_}"
    return [pen.fit(line, width).rstrip() for line in (first, second)]
