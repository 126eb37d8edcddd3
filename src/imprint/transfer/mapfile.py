"""Map files in the syntax of GNU ddrescue: which parts of a medium were read.

Source: the GNU ddrescue manual, chapter "Mapfile structure".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.extent import Extent

_FINISHED = "+"
_BAD_SECTOR = "-"


def render(size: int, bad: Iterable[Extent]) -> str:
    """The map of a finished run over ``size`` bytes, with ``bad`` areas in ascending order."""
    lines = [
        "# Mapfile. Created by imprint",
        "# current_pos  current_status  current_pass",
        f"0x{size:08X}     {_FINISHED}               1",
        "#      pos        size  status",
    ]
    position = 0
    for extent in bad:
        if extent.offset > position:
            lines.append(_line(position, extent.offset - position, _FINISHED))
        lines.append(_line(extent.offset, extent.length, _BAD_SECTOR))
        position = extent.end
    if size > position:
        lines.append(_line(position, size - position, _FINISHED))
    return "\n".join(lines) + "\n"


def _line(offset: int, length: int, status: str) -> str:
    return f"0x{offset:08X}  0x{length:08X}  {status}"
