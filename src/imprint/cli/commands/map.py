"""map: which parts of a disk are data, zeros or holes."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.cli import options
from imprint.endpoints.mapping import Run, runs
from imprint.endpoints.open import open_source

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.core.contracts import Source

EXAMPLES = """\
  imprint map disk.qcow2
  imprint map disk.qcow2#p2 --json      one line of JSON for each run
  imprint map disk.qcow2 --picture
"""

_OFFSET_WIDTH: Final = 18  # 0x and the 16 digits of the largest offset


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/map.md`` lists them too."""
    parser.add_argument("image", help="image, device or URL")
    parser.add_argument(
        "--picture", action="store_true", help="draw the disk: partitions, and where data is"
    )
    options.add_access(parser)
    options.add_used(parser)
    options.add_output(parser, lines=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """Map: each run as soon as it is known."""
    with closing(open_source(args.image, options.access(args, console))) as source:
        if args.picture and not console.is_json:
            _draw(source, console)
        else:
            _list(source, console)
    return 0


def _list(source: Source, console: Console) -> None:
    console.print(f"{'offset':>{_OFFSET_WIDTH}}  {'length':>{_OFFSET_WIDTH}}  kind")
    items = runs(source, 0, source.size)
    if console.is_json:
        console.json_lines(map(_json, items))
        return
    for item in items:
        _show(console, item)


def _show(console: Console, item: Run) -> None:
    console.print(
        f"{item.offset:>#{_OFFSET_WIDTH}x}  {item.length:>#{_OFFSET_WIDTH}x}  {_words(item)}"
    )


def _words(item: Run) -> str:
    words = [item.kind.value]
    if item.is_compressed:
        words.append("compressed")
    if item.is_encrypted:
        words.append("encrypted")
    if item.depth:
        words.append("in the parent" if item.depth == 1 else f"in parent {item.depth}")
    return ", ".join(words)


def _json(item: Run) -> str:
    """A run as JSON, put together by hand: a map has millions of them."""
    offset, length, kind, depth, storage_offset, is_compressed, is_encrypted = item
    text = f'{{"offset": {offset}, "length": {length}, "kind": "{kind.value}"'
    if depth is not None:
        text += f', "depth": {depth}'
    if storage_offset is not None:
        text += f', "storage_offset": {storage_offset}'
    if is_compressed:
        text += ', "compressed": true'
    if is_encrypted:
        text += ', "encrypted": true'
    return f"{text}}}\n"


def _draw(source: Source, console: Console) -> None:
    from imprint.cli.picture import draw_disk  # only for pictures
    from imprint.endpoints.survey import describe

    console.block(
        draw_disk(
            describe(source),
            source.extents(0, source.size),
            width=shutil.get_terminal_size().columns if console.is_terminal else 80,
            encoding=console.encoding,
            colour=console.is_terminal and "NO_COLOR" not in os.environ,
        )
    )
