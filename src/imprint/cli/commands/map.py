"""map: which parts of a disk are data, zeros or holes."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli import options, rescuing
from imprint.core.errors import ReadError, RefusedError
from imprint.core.system import is_file
from imprint.endpoints.mapping import Run, runs
from imprint.endpoints.maps import open_with_map

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.core.contracts import Source
    from imprint.endpoints.open import Access

EXAMPLES = """\
  imprint map disk.qcow2
  imprint map disk.qcow2#p2 --json      one line of JSON for each run
  imprint map disk.qcow2 --picture
  imprint map disk.qcow2 --used --svg disk.svg
  imprint map old.raw.map --picture       what a rescue has read so far
  imprint map old.raw --map old.raw.map --files
"""

_SVG_HEAD_BYTES: Final = 1024
_OFFSET_WIDTH: Final = 18  # 0x and the 16 digits of the largest offset


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/map.md`` lists them too."""
    parser.add_argument("image", help="image, device or URL, or a map of ddrescue")
    parser.add_argument(
        "--picture", action="store_true", help="draw the disk: partitions, and where data is"
    )
    parser.add_argument(
        "--svg",
        metavar="FILE",
        type=Path,
        help="draw the disk into an SVG file, each partition with a map of its own",
    )
    parser.add_argument(
        "--force", action="store_true", help="with --svg: replace an SVG file that exists"
    )
    parser.add_argument(
        "--files",
        action="store_true",
        help="list what could not be read, by the files that lie there",
    )
    options.add_access(parser)
    options.add_used(parser)
    rescuing.add_map(parser)
    options.add_output(parser, lines=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """Map: each run as soon as it is known."""
    access = options.access(args, console)
    with closing(open_with_map(args.image, access, args.map)) as source:
        if args.files:
            _list_files(source, console, access)
            return 0
        if args.svg is not None:
            _write_svg(source, args.image, args.svg, may_replace=args.force)
        if args.picture and not console.is_json:
            _draw(source, console)
        elif args.svg is None or console.is_json:
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


def _list_files(source: Source, console: Console, access: Access) -> None:
    """What lies on what could not be read, or was not tried."""
    from imprint.endpoints.files_on import files_on  # only for damaged disks
    from imprint.endpoints.maps import lacking

    hits = files_on(source, lacking(source), access.gate().passphrase, on_event=console.on_event)
    for hit in hits:
        console.json_lines([f"{json.dumps(hit.to_json())}\n"])
        for start, length in hit.ranges:
            console.print(f"{start:>#{_OFFSET_WIDTH}x}  {length:>#{_OFFSET_WIDTH}x}  {hit}")


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


def _write_svg(source: Source, name: str, path: Path, *, may_replace: bool) -> None:
    """Draw into a file, which shows when it is whole."""
    from imprint.cli.svg import draw_svg  # only for pictures
    from imprint.endpoints.survey import describe
    from imprint.storage.pending import PendingFile

    if may_replace and not _is_picture(path):
        raise RefusedError(
            "is no SVG file: --force replaces pictures only",
            name=str(path),
            advice="it could be the disk itself; give another name, or remove it first",
        )
    storage = PendingFile.create(path, may_replace=may_replace)
    try:
        text = draw_svg(describe(source), source.extents(0, source.size), name=name)
        storage.write(memoryview(text.encode()), 0)
        storage.commit()
    finally:
        storage.abort()


def _is_picture(path: Path) -> bool:
    """Whether it is an SVG file, or no file at all, which is not for here to judge."""
    if not is_file(path):
        return True
    try:
        with path.open("rb") as file:
            head = file.read(_SVG_HEAD_BYTES)
    except OSError as failure:
        raise ReadError(str(failure.strerror), name=str(path)) from failure
    return b"<svg" in head or not head
