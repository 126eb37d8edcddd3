"""tree: draw the folders of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.cli import files, options
from imprint.cli.pen import Pen
from imprint.core.errors import NotFoundError
from imprint.filesystems.tree import Type, shown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from imprint.cli.console import Console
    from imprint.filesystems.tree import Entry

EXAMPLES = """\
  imprint tree disk.iso
  imprint tree disk.qcow2#p2:/etc --depth 2
  imprint tree stick.img#p1 --deleted
"""

_DEPTH_MAX: Final = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/tree.md`` lists them too."""
    parser.add_argument("address", help="folder: IMAGE#p1:/PATH")
    parser.add_argument(
        "--depth",
        metavar="N",
        type=options.number(1, _DEPTH_MAX),
        default=_DEPTH_MAX,
        help="folders in folders that are shown",
    )
    files.add_arguments(parser, system=True)
    options.add_json(parser, lines=True)


def run(args: argparse.Namespace, console: Console) -> int:
    """Draw, as far as memory and the tree go."""
    with files.browser_of(args.address, args, console) as browser:
        place = files.place_in(browser, args.address, follow=True, deleted=args.deleted)
        top = place.entry
        if top.type is not Type.DIRECTORY:
            raise NotFoundError(
                f"expected a folder, found a {top.type.value}", name=shown(top.path)
            )
        console.print(top.path)
        drawing = _Drawing(args, console, place)
        drawing.draw(top)
        console.print()
        console.print(f"{drawing.folders} folders, {drawing.others} files")
        return files.tell_notes(console, args.address, place.tree.notes)


class _Drawing:
    """Lines and branches, without recursion: folders may be nested by the thousand."""

    def __init__(self, args: argparse.Namespace, console: Console, place: files.Place) -> None:
        self._args = args
        self._console = console
        self._tree = place.tree
        self._seen: set[tuple[int, int]] = set()
        glyphs = Pen(console.encoding, colour=False).glyphs
        corners = glyphs.corners
        self._middle = f"{corners[1][0]}{glyphs.across * 2} "
        self._last = f"{corners[2][0]}{glyphs.across * 2} "
        self._through = f"{glyphs.upright}   "
        self.folders = 0
        self.others = 0

    def draw(self, top: Entry) -> None:
        """All below a folder."""
        stack: list[tuple[str, Iterator[tuple[Entry, bool]]]] = [("", self._inside(top))]
        while stack:
            indent, entries = stack[-1]
            found = next(entries, None)
            if found is None:
                stack.pop()
                continue
            entry, is_last = found
            self._show(entry, indent + (self._last if is_last else self._middle))
            if entry.type is Type.DIRECTORY and len(stack) < self._args.depth:
                further = indent + ("    " if is_last else self._through)
                stack.append((further, self._inside(entry)))

    def _inside(self, folder: Entry) -> Iterator[tuple[Entry, bool]]:
        """What is in a folder, each with whether it is the last; nothing for a second time."""
        key = (folder.subvolume, folder.inode)
        if key in self._seen or (folder.is_deleted and folder.is_allocated):
            return
        self._seen.add(key)
        waiting: Entry | None = None
        # A list: other folders are asked for before this one is told to its end.
        for entry in list(files.in_order(self._tree.children(folder, deleted=self._args.deleted))):
            if files.wanted(entry, system=self._args.all):
                if waiting is not None:
                    yield waiting, False
                waiting = entry
        if waiting is not None:
            yield waiting, True

    def _show(self, entry: Entry, branch: str) -> None:
        is_folder = entry.type is Type.DIRECTORY
        self.folders += is_folder
        self.others += not is_folder
        if self._console.is_json:
            self._console.json_lines([files.json_line(entry)])
        else:
            self._console.print(f"{branch}{files.name_of(entry, entry.name)}")
