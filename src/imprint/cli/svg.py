"""A picture of a disk as an SVG document that needs nothing else to be shown.

At the top the disk to scale: partitions, and below them the map. Then each partition with a
map of its own, so that small ones are seen, too. What something is, is told by pattern and
text and not by colour alone; a title and a description say it to those who do not see it.

Source: W3C, Scalable Vector Graphics 1.1 and 2; WAI-ARIA Graphics Module, for ``role`` and titles.
"""

from __future__ import annotations

import itertools
from html import escape
from typing import TYPE_CHECKING, Final

from imprint.cli.pen import Pen
from imprint.cli.shares import Share, Shares
from imprint.cli.strips import Strip, borders, clipped, disk_strips, label_of, limited, percent
from imprint.core.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imprint.core.extent import Extent
    from imprint.endpoints.survey import Survey, Volume

ROWS_MAX: Final = 128
"""Partitions that get a row; a table may have 2048."""

_WIDTH: Final = 960
_MARGIN: Final = 24
_INNER: Final = _WIDTH - 2 * _MARGIN
_CELL: Final = 3  # width of a cell of a map, in pixels; divides _INNER
_CELLS: Final = _INNER // _CELL
_STRIPS_MAX: Final = 200
_BOX_HEIGHT: Final = 52
_MAP_HEIGHT: Final = 40
_ROW_HEIGHT: Final = 54
_ROW_MAP_HEIGHT: Final = 18
_CHAR_WIDTH: Final = 8.0  # of the usual text; wide enough for any font without serifs
_SEEN_MIN: Final = 0.25  # of a cell's height: what cannot be read is never less than this

_KINDS: Final = ("data", "zero", "unused", "bad")
_LEGEND: Final = (
    ("data", "data"),
    ("zero", "zeros"),
    ("unused", "unused by file systems"),
    ("hole", "holes"),
    ("bad", "unreadable"),
)

_STYLE: Final = """
.sheet,.paper{fill:#fff}
text{fill:#1b1f24;font:13px system-ui,"Segoe UI","DejaVu Sans",sans-serif}
.head{font-size:18px;font-weight:600}
.small{font-size:12px}
.part{fill:#dbe7f4;stroke:#46525e}
.free{fill:none;stroke:#46525e;stroke-dasharray:4 3}
.frame{fill:none;stroke:#46525e}
.hole{fill:#fff;stroke:#46525e}
.data{fill:#1f5fa8}
.ink{stroke:#46525e;fill:none}
.dot{fill:#46525e}
.alarm{fill:#c81e1e}
.cross{stroke:#fff;fill:none}
@media (prefers-color-scheme:dark){
.sheet,.paper{fill:#15191e}
text{fill:#e6eaee}
.part{fill:#24384d;stroke:#9aa7b4}
.free,.frame{stroke:#9aa7b4}
.hole{fill:#15191e;stroke:#9aa7b4}
.data{fill:#6aa9ec}
.ink{stroke:#9aa7b4}
.dot{fill:#9aa7b4}
.alarm{fill:#ff6b6b}
.cross{stroke:#15191e}
}
"""

_PATTERNS: Final = (
    '<pattern id="zero" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect class="paper" width="6" height="6"/><circle class="dot" cx="2" cy="2" r="1"/></pattern>'
    '<pattern id="unused" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect class="paper" width="6" height="6"/>'
    '<path class="ink" d="M-1,1l2,-2M0,6l6,-6M5,7l2,-2"/></pattern>'
    '<pattern id="bad" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<rect class="alarm" width="6" height="6"/>'
    '<path class="cross" d="M0,0l6,6M0,6l6,-6"/></pattern>'
)
_FILLS: Final = {"zero": "url(#zero)", "unused": "url(#unused)", "bad": "url(#bad)"}


def draw_svg(survey: Survey, extents: Iterable[Extent], *, name: str) -> str:
    """Draw a disk: an SVG document as text.

    Args:
        survey: what :func:`imprint.endpoints.survey.describe` found.
        extents: of the whole disk, ascending; read once.
        name: of the disk, for the heading.
    """
    drawing = _Drawing(survey, extents)
    table = "no partition table" if survey.table is None else f"{survey.table.kind} table"
    title = f"{name}: {format_size(survey.size)}, {table}"
    body = [
        _text(_MARGIN, 40, title, "head", _INNER * 0.75),
        _text(_MARGIN, 64, ", ".join(_amounts(drawing.total)), "", _INNER),
        *drawing.boxes(82),
        *drawing.bar(82 + _BOX_HEIGHT + 4, _MAP_HEIGHT, 0, survey.size, title="map of the disk"),
        *_scale(82 + _BOX_HEIGHT + 4 + _MAP_HEIGHT + 16, survey.size),
        *_legend(82 + _BOX_HEIGHT + 4 + _MAP_HEIGHT + 34),
    ]
    top = 82 + _BOX_HEIGHT + 4 + _MAP_HEIGHT + 34 + 44
    for volume in drawing.rows:
        body += drawing.row(top, volume)
        top += _ROW_HEIGHT
    rest = len(survey.volumes) - len(drawing.rows)
    if rest:
        body.append(_text(_MARGIN, top + 4, f"and {rest} more partitions", "", _INNER))
        top += _ROW_HEIGHT // 2
    height = top + 4
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-labelledby="title desc">\n'
        f'<title id="title">{_clean(title)}</title>\n'
        f'<desc id="desc">{_clean(drawing.description(rest))}</desc>\n'
        f"<style>{_STYLE}</style>\n<defs>{_PATTERNS}</defs>\n"
        f'<rect class="sheet" width="{_WIDTH}" height="{height}"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


class _Drawing:
    """The pieces of the picture."""

    def __init__(self, survey: Survey, extents: Iterable[Extent]) -> None:
        self._size = survey.size
        self._strips = limited(disk_strips(survey), _STRIPS_MAX) if survey.size else []
        self.rows = survey.volumes[:ROWS_MAX]
        ranges = [(0, survey.size), *(clipped(volume, survey.size) for volume in self.rows)]
        places = [place for start, end in ranges for place in _cells(start, end)]
        self._shares = Shares(places, extents)
        self.total = self._shares.between(0, survey.size)

    def boxes(self, top: int) -> list[str]:
        """The partitions, to scale; each says what it is to the pointer, and if there is room."""
        drawn = []
        for strip in self._strips:
            left, width = self._place(strip)
            kind = "part" if strip.is_part else "free"
            words = ", ".join(filter(None, strip.texts))
            place = f'x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BOX_HEIGHT}"'
            title = f"{words}: {format_size(strip.end - strip.start)} at {format_size(strip.start)}"
            inside = "".join(
                _text(4, 16 + 15 * line, text, "small", width - 6)
                for line, text in enumerate(filter(None, strip.texts))
            )
            drawn.append(
                f'<g><title>{_clean(title)}</title><rect class="{kind}" {place}/>'
                f"<svg {place}>{inside}</svg></g>"
            )
        return drawn

    def _place(self, strip: Strip) -> tuple[float, float]:
        """Left side and width in pixels."""
        left = _MARGIN + strip.start * _INNER / self._size
        return left, max(1.0, (strip.end - strip.start) * _INNER / self._size - 1)

    def bar(self, top: int, height: int, start: int, end: int, *, title: str) -> list[str]:
        """The map of a stretch of the disk over the whole width."""
        cells = [self._shares.between(*cell) for cell in itertools.pairwise(_cells(start, end))]
        place = f'x="{_MARGIN}" y="{top}" width="{_INNER}" height="{height}"'
        paths = []
        for kind in _KINDS:
            path = _path(cells, kind, top, height)
            if path:
                fill = f' style="fill:{_FILLS[kind]}"' if kind in _FILLS else ""
                paths.append(f'<path class="{kind}"{fill} d="{path}"/>')
        shown = f"<g><title>{_clean(title)}</title>"
        return [
            f'{shown}<rect class="hole" {place}/>',
            *paths,
            f'<rect class="frame" {place}/></g>',
        ]

    def row(self, top: int, volume: Volume) -> list[str]:
        """A line of text and a map for one partition."""
        words = self._words(volume)
        start, end = clipped(volume, self._size)
        line = _text(_MARGIN, top, words, "", _INNER)
        return [line, *self.bar(top + 8, _ROW_MAP_HEIGHT, start, end, title=words)]

    def description(self, rest: int) -> str:
        """The whole picture in words."""
        sentences = [f"All of it: {', '.join(_amounts(self.total))}."]
        sentences += [f"{self._words(volume)}." for volume in self.rows]
        if rest:
            sentences.append(f"And {rest} more partitions.")
        return " ".join(sentences)

    def _words(self, volume: Volume) -> str:
        part = volume.partition
        kind = volume.filesystem.kind if volume.filesystem is not None else ""
        place = f"{format_size(part.length)} at {format_size(part.start)}"
        share = self._shares.between(*clipped(volume, self._size))
        amounts = [f"data {percent(share.data, share.length)}"]
        if share.unused:
            amounts.append(f"unused {percent(share.unused, share.length)}")
        if share.bad:
            amounts.append(f"unreadable {format_size(share.bad)}")
        words = [f"p{part.index}", part.type, kind, label_of(volume), place, *amounts]
        return ", ".join(filter(None, words))


def _cells(start: int, end: int) -> list[int]:
    return borders(Strip(start, end, ("", "", ""), is_part=False), _CELLS)


def _path(cells: Sequence[Share], kind: str, top: int, height: int) -> str:
    """Rectangles for one kind: neighbours of the same height are one."""
    pieces = []
    column = 0
    for (low, high), group in itertools.groupby(_level(cell, kind) for cell in cells):
        count = len(list(group))
        if high > low:
            left, upper = _MARGIN + column * _CELL, top + height * (1 - high)
            across, down = count * _CELL, height * (high - low)
            pieces.append(f"M{left},{upper:.1f}h{across}v{down:.1f}h-{across}z")
        column += count
    return "".join(pieces)


def _level(cell: Share, kind: str) -> tuple[float, float]:
    """From where to where, in parts of the height, a kind fills a cell; from below upwards.

    In steps, so that neighbours that hardly differ are one shape.
    """
    if not cell.length:
        return 0.0, 0.0
    if kind == "bad":
        share = max(_SEEN_MIN, cell.bad / cell.length) if cell.bad else 0.0
        return 1 - _step(share), 1.0
    amounts = (cell.data, cell.zero, cell.unused)
    at = _KINDS.index(kind)
    low, high = sum(amounts[:at]) / cell.length, sum(amounts[: at + 1]) / cell.length
    if kind == "data" and cell.data:
        high = max(high, 0.1)  # a little is not nothing
    return _step(low), _step(high)


def _step(share: float) -> float:
    return round(share * 20) / 20


def _amounts(share: Share) -> list[str]:
    named = [
        ("data", share.data),
        ("zeros", share.zero),
        ("unused", share.unused),
        ("holes", share.hole),
        ("unreadable", share.bad),
    ]
    return [
        f"{name} {format_size(size)} ({percent(size, share.length)})"
        for name, size in named
        if size or name == "data"
    ]


def _scale(baseline: int, size: int) -> list[str]:
    """What the ends and the middle of the map are."""
    marks = ((0, "start"), (1, "middle"), (2, "end"))
    return [
        f'<text class="small" x="{_MARGIN + _INNER * at // 2}" y="{baseline}" '
        f'text-anchor="{anchor}">{format_size(size * at // 2) if at else "0"}</text>'
        for at, anchor in marks
    ]


def _legend(top: int) -> list[str]:
    drawn, left = [], _MARGIN
    for kind, text in _LEGEND:
        fill = f' style="fill:{_FILLS[kind]}"' if kind in _FILLS else ""
        place = f'x="{left}" y="{top}" width="18" height="12"'
        drawn.append(f'<rect class="{kind}"{fill} {place}/><rect class="frame" {place}/>')
        drawn.append(_text(left + 24, top + 11, text, "small", _INNER))
        left += 24 + int(len(text) * _CHAR_WIDTH) + 16
    return drawn


def _text(left: float, baseline: float, text: str, style: str, width: float) -> str:
    """One line of text, cut off where it would be wider; nothing if not a letter fits."""
    count = int(width / _CHAR_WIDTH)
    if count < 1:
        return ""
    pen = Pen("utf-8", colour=False)
    shown = escape(pen.fit(pen.clean(text), count).rstrip(), quote=False)
    named = f' class="{style}"' if style else ""
    return f'<text x="{left}" y="{baseline}"{named}>{shown}</text>'


def _clean(text: str) -> str:
    """For XML: no name in it can be markup, or a character that XML does not have."""
    return escape(Pen("utf-8", colour=False).clean(text), quote=False)
